"""The tree engine beside XGBoost's own: margins to the bit, contributions that are Shapley values."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from switchyard.errors import ReleaseError
from switchyard.learning import Floats
from switchyard.learning.layout import Forest
from switchyard.learning.trees import Ensemble, ensemble_of, read_ensemble

EDGES = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300, 1e-45, 3.4028235e38, -3.4028235e38]
LOSSGUIDE = {"grow_policy": "lossguide", "max_depth": 0, "max_leaves": 40}
KINDS: dict[str, dict[str, Any]] = {
    **{f"depth {depth}": {"max_depth": depth} for depth in range(1, 9)},
    "depth 10": {"max_depth": 10},
    "lopsided": LOSSGUIDE,
    "pruned": {"gamma": 4.0},
    "two parallel trees a round": {"num_parallel_tree": 2, "subsample": 0.5},
    "a base score": {"base_score": 0.03},
    "one leaf each": {"gamma": 1e9},
    "exact method": {"tree_method": "exact", "max_depth": 5},
}


def make_values(n: int, seed: int) -> Floats:
    """Rows of six columns: normal, few values, tiny, huge, rarely there, and the edges of float32."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6))
    X[:, 1] = np.round(X[:, 1] * 2)
    X[:, 2] *= 1e-38
    X[:, 3] *= 1e37
    X[rng.random(n) < 0.7, 4] = np.nan
    X[:, 5] = rng.choice([3.4028235e38, -3.4028235e38, 0.0, -0.0, 1e-45, np.nan, 1.0], n)
    return X


def make_booster(rounds: int = 12, seed: int = 0, **params: Any) -> xgb.Booster:
    X = make_values(400, seed)
    noise = np.random.default_rng(seed).normal(size=400)
    y = np.nan_to_num(X[:, 0]) + X[:, 1] * (X[:, 5] > 0) + noise > 0.5
    fixed = {"objective": "binary:logistic", "tree_method": "hist", "nthread": 1, "eta": 0.4,
             "min_child_weight": 0.0, "reg_lambda": 1e-3, "seed": seed}  # fmt: skip
    return xgb.train(fixed | params, xgb.DMatrix(X, y), rounds)


def ensemble_in(booster: xgb.Booster) -> Ensemble:
    return read_ensemble(bytes(booster.save_raw("ubj")))


def xgboosts(booster: xgb.Booster, X: Floats) -> Floats:
    return booster.inplace_predict(X, predict_type="margin").astype(np.float64)


@pytest.fixture(scope="module", params=list(KINDS))
def booster(request: pytest.FixtureRequest) -> xgb.Booster:
    return make_booster(seed=len(request.param), **KINDS[request.param])


@pytest.fixture(scope="module")
def deep() -> xgb.Booster:
    return make_booster(max_depth=7)


# ---------------------------------------------------------------- margins


def test_margins_are_xgboosts_to_the_bit(booster: xgb.Booster):
    X = np.vstack([make_values(600, seed=s) for s in (0, 99)])

    assert np.array_equal(ensemble_in(booster).margin(X), xgboosts(booster, X))


@settings(deadline=None, max_examples=60)
@given(
    X=arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 20), st.just(6)),
        elements=st.floats() | st.sampled_from(EDGES),
    )
)
def test_any_floats_at_all_have_xgboosts_margin(deep: xgb.Booster, X: Floats):
    assert np.array_equal(ensemble_in(deep).margin(X), xgboosts(deep, X))


def test_a_value_equal_to_a_threshold_goes_where_xgboost_sends_it(deep: xgb.Booster):
    trees = deep.trees_to_dataframe()
    splits = trees[trees["Feature"] != "Leaf"]
    X = np.repeat(make_values(1, seed=4), len(splits), axis=0)
    at = splits["Feature"].str[1:].astype(int).to_numpy()
    X[np.arange(len(X)), at] = splits["Split"].to_numpy().astype(np.float32)

    assert np.array_equal(ensemble_in(deep).margin(X), xgboosts(deep, X))


def test_an_early_stopped_slice_scores_as_xgboosts(deep: xgb.Booster):
    X = make_values(200, seed=5)

    stopped = ensemble_in(deep[:5])

    assert stopped.rounds == 5
    assert np.array_equal(stopped.margin(X), xgboosts(deep[:5], X))
    assert not np.array_equal(stopped.margin(X), ensemble_in(deep).margin(X))


def test_padded_and_linked_trees_give_the_same_bits(booster: xgb.Booster):
    X, ensemble = make_values(300, seed=6), ensemble_in(booster)
    linked = Ensemble(ensemble.columns, ensemble.rounds, ensemble.base, ensemble.mean,
                      ensemble.linked, None, ensemble.cover)  # fmt: skip

    assert np.array_equal(linked.margin(X), ensemble.margin(X))


def test_deep_and_lopsided_trees_are_not_padded():
    assert ensemble_in(make_booster(max_depth=6)).padded is not None
    assert ensemble_in(make_booster(max_depth=10)).padded is None


def test_a_rows_bits_depend_neither_on_rows_beside_it_nor_on_threads(deep: xgb.Booster):
    X, ensemble = make_values(2_100, seed=7), ensemble_in(deep)
    margins, contributions = ensemble.margin(X), ensemble.contributions(X)

    assert np.array_equal(ensemble.margin(X, threads=3), margins)
    assert np.array_equal(ensemble.contributions(X, threads=3), contributions)
    for i in range(0, 2_100, 97):
        assert ensemble.margin(X[i : i + 1])[0] == margins[i]
        assert np.array_equal(ensemble.contributions(X[i : i + 1])[0], contributions[i])
    assert np.array_equal(ensemble.margin(X[::-1])[::-1], margins)


def test_many_threads_may_use_one_ensemble(deep: xgb.Booster):
    X, ensemble = make_values(200, seed=8), ensemble_in(deep)
    margins, contributions = ensemble.margin(X), ensemble.contributions(X)

    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda i: (ensemble.margin(X), ensemble.contributions(X)), range(40)))

    assert all(np.array_equal(m, margins) and np.array_equal(c, contributions) for m, c in again)


def test_rows_that_are_read_only_or_by_column_score_alike(deep: xgb.Booster):
    X, ensemble = make_values(50, seed=9), ensemble_in(deep)
    frozen = X.copy()
    frozen.flags.writeable = False

    assert np.array_equal(ensemble.margin(frozen), ensemble.margin(X))
    assert np.array_equal(ensemble.margin(np.asfortranarray(X)), ensemble.margin(X))
    assert X.flags.writeable


def test_no_row_has_no_margin_and_no_contribution(deep: xgb.Booster):
    assert ensemble_in(deep).margin(np.empty((0, 6))).shape == (0,)
    assert ensemble_in(deep).contributions(np.empty((0, 6))).shape == (0, 7)


# ---------------------------------------------------------------- contributions


def test_contributions_are_xgboosts(booster: xgb.Booster):
    X = make_values(300, seed=10)

    found = ensemble_in(booster).contributions(X)

    expected = booster.predict(xgb.DMatrix(X), pred_contribs=True)
    assert np.abs(found - expected).max() < 1e-4


def test_contributions_sum_to_the_margin_from_one_base(booster: xgb.Booster):
    X, ensemble = make_values(300, seed=11), ensemble_in(booster)

    found = ensemble.contributions(X)

    assert np.abs(found.sum(axis=1) - ensemble.margin(X)).max() < 1e-6
    assert np.unique(found[:, -1]) == ensemble.mean


def shapley(ensemble: Ensemble, forest: Forest, row: Floats) -> Floats:
    """Shapley values from their definition: the mean over subsets of what a column adds."""
    columns = range(ensemble.columns)

    def value(known: frozenset[int], node: int = 0) -> float:
        if forest.left[node] < 0:
            return float(forest.threshold[node])
        column, left, right = forest.feature[node], forest.left[node], forest.right[node]
        if column in known:
            x = row[column]
            goes_left = forest.missing_left[node] if np.isnan(x) else x < forest.threshold[node]
            return value(known, left if goes_left else right)
        a, b = forest.cover[left], forest.cover[right]
        share = b / (a + b) if a + b > 0 else 0.5
        return (1 - share) * value(known, left) + share * value(known, right)

    found = np.zeros(ensemble.columns + 1)
    for i, size in itertools.product(columns, range(ensemble.columns)):
        weight = 1 / (ensemble.columns * math.comb(ensemble.columns - 1, size))
        for others in itertools.combinations([j for j in columns if j != i], size):
            known = frozenset(others)
            found[i] += weight * (value(known | {i}) - value(known))
    found[-1] = value(frozenset())
    return found


def make_forest(columns: int, splits: int, seed: int) -> Forest:
    """One tree of random shape: columns repeat on its paths, some covers are zero."""
    rng = np.random.default_rng(seed)
    left, right, leaves = [-1], [-1], [0]
    for _ in range(splits):
        node = leaves.pop(rng.integers(len(leaves)))
        left[node], right[node] = len(left), len(left) + 1
        leaves += [len(left), len(left) + 1]
        left += [-1, -1]
        right += [-1, -1]
    n = len(left)
    return Forest(
        first=np.array([0, n]),
        left=np.array(left, np.int32),
        right=np.array(right, np.int32),
        feature=rng.integers(0, columns, n).astype(np.int32),
        threshold=rng.normal(size=n).astype(np.float32),
        missing_left=rng.random(n) < 0.5,
        cover=np.where(rng.random(n) < 0.2, 0.0, rng.exponential(size=n)),
    )


@pytest.mark.parametrize("splits", [0, 1, 2, 5, 12, 40])
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_contributions_are_shapley_values_by_definition(columns: int, splits: int):
    rng = np.random.default_rng(splits)
    for seed in range(5):
        forest = make_forest(columns, splits, seed)
        ensemble = ensemble_of(forest, columns=columns, rounds=1, base=np.float32(0))
        row = np.where(
            rng.random(columns) < 0.2, np.nan, rng.normal(size=columns).astype(np.float32)
        )

        found = ensemble.contributions(row[None, :])[0]

        assert np.allclose(found, shapley(ensemble, forest, row), rtol=0, atol=1e-6)


def test_a_path_of_forty_columns_is_still_integrated_exactly():
    depth = 40
    n = 2 * depth + 1
    inner = np.arange(n) % 2 == 0
    inner[-1] = False
    forest = Forest(
        first=np.array([0, n]),
        left=np.where(inner, np.arange(n) + 1, -1).astype(np.int32),
        right=np.where(inner, np.arange(n) + 2, -1).astype(np.int32),
        feature=(np.arange(n) // 2).astype(np.int32) % depth,
        threshold=np.where(inner, 0, np.linspace(-1, 1, n)).astype(np.float32),
        missing_left=np.zeros(n, np.bool_),
        cover=np.linspace(50, 1, n),
    )
    ensemble = ensemble_of(forest, columns=depth, rounds=1, base=np.float32(0))
    X = np.sign(np.random.default_rng(0).normal(size=(20, depth)) + 1)

    linear = ensemble.contributions(X)

    assert ensemble.padded is None
    assert np.abs(linear.sum(axis=1) - ensemble.margin(X)).max() < 1e-9
    assert ensemble.cover.points == 20


# ---------------------------------------------------------------- what is refused


def test_a_categorical_split_is_refused():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 8, (300, 2)).astype(np.float64)
    rows = xgb.DMatrix(X, X[:, 0] % 2, feature_types=["c", "q"], enable_categorical=True)
    booster = xgb.train(
        {"objective": "binary:logistic", "max_cat_to_onehot": 1, "nthread": 1}, rows, 2
    )

    with pytest.raises(ReleaseError, match="tree 0 splits a categorical column"):
        ensemble_in(booster)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"booster": "dart"}, "a booster of kind 'dart'"),
        ({"objective": "reg:squarederror"}, "objective 'reg:squarederror'"),
        ({"objective": "multi:softprob", "num_class": 2}, "objective 'multi:softprob'"),
    ],
)
def test_another_kind_of_model_is_refused_by_name(params: dict[str, Any], message: str):
    booster = make_booster(rounds=2, **params)

    with pytest.raises(ReleaseError, match=message):
        ensemble_in(booster)


def test_a_linear_booster_is_refused():
    X = make_values(100, seed=1)[:, :2]
    params = {"booster": "gblinear", "objective": "binary:logistic", "nthread": 1}
    booster = xgb.train(params, xgb.DMatrix(X, X[:, 0] > 0), 2)

    with pytest.raises(ReleaseError, match="a booster of kind 'gblinear'"):
        ensemble_in(booster)


@pytest.mark.parametrize(
    ("name", "value"),
    [("left", 0), ("left", 99), ("right", -7), ("feature", 3), ("feature", -1)],
)
def test_a_tree_whose_nodes_lead_astray_is_refused(name: str, value: int):
    forest = make_forest(columns=3, splits=4, seed=0)
    getattr(forest, name)[0] = value

    with pytest.raises(ReleaseError, match="tree 0 of 1 is no tree over 3 columns"):
        ensemble_of(forest, columns=3, rounds=1, base=np.float32(0))


def test_two_nodes_with_one_child_are_refused():
    forest = make_forest(columns=3, splits=4, seed=0)
    forest.right[0] = forest.left[0]

    with pytest.raises(ReleaseError, match="is no tree"):
        ensemble_of(forest, columns=3, rounds=1, base=np.float32(0))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.999])
def test_a_model_cut_off_is_refused(deep: xgb.Booster, keep: float):
    content = bytes(deep.save_raw("ubj"))

    with pytest.raises(ReleaseError, match="no UBJSON: byte"):
        read_ensemble(content[: int(len(content) * keep)])


@pytest.mark.parametrize("content", [b"[]", b"{}", b"i\x05", b"{i\x07learner{}}"])
def test_ubjson_that_is_no_model_is_refused(content: bytes):
    with pytest.raises(ReleaseError, match="no model of XGBoost's"):
        read_ensemble(content)


def test_scoring_and_explaining_load_no_xgboost(deep: xgb.Booster, tmp_path: Path):
    path = tmp_path / "model.ubj"
    deep.save_model(path)
    program = f"""
import sys, numpy as np, pathlib
from switchyard.learning.trees import read_ensemble
read_ensemble(pathlib.Path({str(path)!r}).read_bytes()).contributions(np.zeros((1, 6)))
assert "xgboost" not in sys.modules
"""

    subprocess.run([sys.executable, "-c", program], check=True)

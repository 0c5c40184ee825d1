"""What is particular to each model: how it fills, stops early, and is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from switchyard.errors import ReleaseError
from switchyard.learning.models import GradientBoosting, LogisticRegression

Make = Callable[..., tuple[np.ndarray, np.ndarray]]
QUICK = {"nthread": 1, "eta": 0.3}


def test_the_regression_fills_a_column_with_its_default_else_its_median(
    make_rows: Make, columns: list[str]
):
    X, y = make_rows()
    model = LogisticRegression.train(X, y, columns=columns, params={"fill": {"age_hours": 720.0}})

    fill = dict(zip(columns, model.table["fill"], strict=True))

    assert fill["age_hours"] == 720.0
    assert fill["amount"] == np.median(X[:, 0])


def test_the_regression_takes_the_logarithm_of_skewed_columns_only(
    make_rows: Make, columns: list[str]
):
    model = LogisticRegression.train(*make_rows(), columns=columns)

    logarithmic = dict(zip(columns, model.table["log"] > 0, strict=True))

    assert logarithmic["amount"]
    assert not logarithmic["flag"]


def test_the_regression_learns_that_missing_means_something(make_rows: Make, columns: list[str]):
    X, _ = make_rows()
    y = np.isnan(X[:, 3]).astype(np.int64)

    model = LogisticRegression.train(X, y, columns=columns)

    assert roc_auc_score(y, model.margin(X)) > 0.99
    assert model.contributions(X)[y == 1, 3].mean() > 1


def test_columns_missing_together_share_one_weight(make_rows: Make, columns: list[str]):
    X, y = make_rows()
    X[:, 1] = np.where(np.isnan(X[:, 3]), np.nan, X[:, 1])

    model = LogisticRegression.train(X, y, columns=columns)

    assert np.flatnonzero(model.table["missing_weight"]).tolist() == [1]


def test_the_regressions_numbers_read_back_to_the_bit(
    make_rows: Make, columns: list[str], tmp_path: Path
):
    model = LogisticRegression.train(*make_rows(), columns=columns)
    model.save(tmp_path)

    loaded = LogisticRegression.load(tmp_path)

    assert loaded.bias == model.bias
    assert all(np.array_equal(loaded.table[name], model.table[name]) for name in model.table)


def test_trees_stop_when_validation_no_longer_improves(make_rows: Make, columns: list[str]):
    params = QUICK | {"rounds": 200, "early_stopping_rounds": 5}

    model = GradientBoosting.train(
        *make_rows(), columns=columns, params=params, validation=make_rows(1_000, seed=2)
    )

    assert 1 <= model.rounds < 100
    assert model.settled(params) == params | {"rounds": model.rounds}


def test_trees_trained_with_other_threads_have_the_same_bytes(
    make_rows: Make, columns: list[str], tmp_path: Path
):
    for threads in (1, 2):
        (tmp_path / str(threads)).mkdir()
        params = QUICK | {"rounds": 5, "nthread": threads}
        GradientBoosting.train(*make_rows(), columns=columns, params=params).save(
            tmp_path / str(threads)
        )

    assert (tmp_path / "1/model.ubj").read_bytes() == (tmp_path / "2/model.ubj").read_bytes()


def test_another_seed_grows_other_trees(make_rows: Make, columns: list[str]):
    X, y = make_rows()
    one, other = (
        GradientBoosting.train(X, y, columns=columns, params=QUICK | {"rounds": 5}, seed=seed)
        for seed in (1, 2)
    )

    assert not np.array_equal(one.margin(X), other.margin(X))


def test_damaged_trees_are_refused(make_rows: Make, columns: list[str], tmp_path: Path):
    model = GradientBoosting.train(*make_rows(), columns=columns, params=QUICK | {"rounds": 2})
    model.save(tmp_path)
    (tmp_path / "model.ubj").write_bytes(b"not a model")

    with pytest.raises(ReleaseError, match=r"model\.ubj can't be scored with: no UBJSON"):
        GradientBoosting.load(tmp_path)

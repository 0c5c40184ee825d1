"""Metrics: equal to scikit-learn's and to a plain reading of the definition, weights equal to repeats."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from switchyard.errors import TrainingError
from switchyard.learning.metrics import (
    EntityRanking,
    Ranking,
    average_precision,
    entity_codes,
    entity_precision_at_k,
    evaluate,
    interval,
    precision_at,
    recall_at,
    resamples,
    roc_auc,
)
from switchyard.learning.thresholds import Thresholds

PROTOCOL = Path(__file__).parents[3] / "shared" / "peers" / "handbook_protocol.py"

scored = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.3, 0.3, 0.7, 1.0]), st.integers(0, 3)),
    min_size=2,
    max_size=60,
)


def make_scored(
    n: int = 4_000, entities: int = 300, days: int = 7, seed: int = 0
) -> dict[str, np.ndarray]:
    """Rows of cards on days; scores without ties that know something of the verdict."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.03).astype(np.int64)
    logit = -4 + 3 * y + rng.normal(0, 1.5, n)
    return {
        "y": y,
        "score": 1 / (1 + np.exp(-logit)),
        "entity": rng.integers(0, entities, n),
        "day": rng.integers(0, days, n),
    }


def plain_entity_precision(rows: dict[str, np.ndarray], k: int) -> float:
    """The definition, one card after the other."""
    frame, found = pd.DataFrame(rows), set[int]()
    daily = []
    for day in np.unique(rows["day"]):
        today = frame[(frame.day == day) & ~frame.entity.isin(found)]
        cards = today.groupby("entity").agg(score=("score", "max"), y=("y", "max"))
        top = cards.sort_values("score", ascending=False).head(k)
        found |= set(top.index[top.y == 1])
        daily.append(top.y.sum() / k)
    return float(np.mean(daily))


@given(scored)
def test_average_precision_and_auc_equal_scikit_learns(rows: list[tuple[bool, float, int]]):
    y, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    weight = np.array([float(r[2]) for r in rows])
    assume(0 < y @ weight < weight.sum())

    assert average_precision(y, score, weight) == pytest.approx(
        average_precision_score(y, score, sample_weight=weight)
    )
    assert roc_auc(y, score, weight) == pytest.approx(roc_auc_score(y, score, sample_weight=weight))


@given(scored)
def test_a_weight_counts_a_row_as_often(rows: list[tuple[bool, float, int]]):
    y, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    weight = np.array([float(r[2]) for r in rows])
    repeated = np.repeat(np.arange(len(rows)), weight.astype(int))
    assume(len(repeated) > 0)

    for metric in (average_precision, roc_auc):
        assert metric(y, score, weight) == pytest.approx(
            metric(y[repeated], score[repeated]), nan_ok=True
        )


def test_precision_and_recall_equal_scikit_learns():
    rows = make_scored()
    flagged = rows["score"] > 0.2

    assert precision_at(rows["y"], flagged) == pytest.approx(precision_score(rows["y"], flagged))
    assert recall_at(rows["y"], flagged) == pytest.approx(recall_score(rows["y"], flagged))


def test_what_is_not_defined_is_nan():
    none, score = np.zeros(3), np.array([0.1, 0.2, 0.3])

    assert np.isnan(average_precision(none, score))
    assert np.isnan(roc_auc(none, score))
    assert np.isnan(precision_at(none, none > 0))
    assert np.isnan(recall_at(none, score > 0))
    assert np.isnan(average_precision(none[:0], score[:0]))


@pytest.mark.parametrize("k", [1, 10, 100, 1_000])
def test_entity_precision_equals_a_plain_reading_of_its_definition(k: int):
    rows = make_scored()

    assert entity_precision_at_k(**rows, k=k) == pytest.approx(plain_entity_precision(rows, k))


def test_a_card_found_on_one_day_is_not_counted_on_the_next():
    y, score = np.array([1, 1, 0]), np.array([0.9, 0.8, 0.7])
    entity, day = np.array([0, 0, 1]), np.array([0, 1, 1])

    assert entity_precision_at_k(y, score, entity, day, k=1) == 0.5


@pytest.mark.skipif(
    not PROTOCOL.exists(), reason="the Handbook's protocol file is not beside this checkout"
)
def test_card_precision_equals_the_handbook_protocols():
    spec = importlib.util.spec_from_file_location("handbook_protocol", PROTOCOL)
    assert spec is not None
    assert spec.loader is not None
    protocol = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(protocol)
    rows = make_scored()
    frame = pd.DataFrame(rows).rename(columns={"y": "TX_FRAUD", "entity": "CUSTOMER_ID"})

    assert entity_precision_at_k(**rows, k=100) == pytest.approx(protocol.card_precision(frame))


def test_every_copy_of_a_card_is_a_card_of_its_own():
    rows = make_scored(entities=40)
    copies = next(resamples(entity_codes(rows["entity"]), 1, seed=5))
    parts = [
        (np.flatnonzero(rows["entity"] == e), 1000 * e + copy)
        for e in range(40)
        for copy in range(int(copies[e]))
    ]
    index = np.concatenate([at for at, _ in parts])
    names = np.concatenate([np.full(len(at), name) for at, name in parts])
    unfolded = {name: values[index] for name, values in rows.items()} | {"entity": names}

    found = EntityRanking(**rows).precision(copies[None, :], k=5)[0]

    assert found == pytest.approx(plain_entity_precision(unfolded, k=5))


def test_resamples_draw_as_many_entities_as_there_are_and_repeat_with_their_seed():
    code = entity_codes(np.array(["b", "a", "b", "c"]))

    drawn = np.array(list(resamples(code, 50, seed=1)))

    assert code.tolist() == [1, 0, 1, 2]
    assert (drawn.sum(axis=1) == 3).all()
    assert np.array_equal(drawn, np.array(list(resamples(code, 50, seed=1))))
    assert not np.array_equal(drawn, np.array(list(resamples(code, 50, seed=2))))


def test_every_metric_lies_inside_its_interval_and_repeats():
    rows = make_scored()
    thresholds = Thresholds(review=0.1, block=0.5)

    metrics = evaluate(**rows, thresholds=thresholds, k=10, count=60)

    assert next(iter(metrics)) == "average_precision"
    assert "entity_precision_at_10" in metrics
    for name, metric in metrics.items():
        slack = 0.02 if name in ("calibration_error", "entity_precision_at_10") else 0.0
        assert metric.low - slack <= metric.value <= metric.high + slack, name
        assert metric.low < metric.high
    assert metrics["roc_auc"].value == pytest.approx(roc_auc_score(rows["y"], rows["score"]))
    assert metrics == evaluate(**rows, thresholds=thresholds, k=10, count=60)


def test_rows_of_one_customer_are_drawn_together_so_the_interval_is_wider():
    rows = make_scored(n=3_000)
    clustered = rows | {"entity": np.arange(3_000) // 100}
    y = (np.arange(3_000) // 100 % 10 == 0).astype(np.int64)
    thresholds = Thresholds(0.1, 0.5)

    by_row = evaluate(
        **(rows | {"y": y, "entity": np.arange(3_000)}), thresholds=thresholds, count=100
    )
    by_customer = evaluate(**(clustered | {"y": y}), thresholds=thresholds, count=100)

    def width(of: dict) -> float:
        return of["average_precision"].high - of["average_precision"].low

    assert width(by_customer) > 2 * width(by_row)


def test_a_metric_that_is_not_defined_is_null_in_json():
    assert interval(float("nan"), np.array([np.nan])).record() == {
        "value": None,
        "low": None,
        "high": None,
    }


def test_without_rows_there_is_nothing_to_evaluate():
    empty = {name: values[:0] for name, values in make_scored().items()}

    with pytest.raises(TrainingError, match="no row to evaluate"):
        evaluate(**empty, thresholds=Thresholds(0.1, 0.5))


def test_the_curve_ends_at_full_recall_and_at_the_share_of_frauds():
    rows = make_scored()

    recall, precision = Ranking(rows["y"], rows["score"]).curve()

    assert recall[-1] == 1.0
    assert precision[-1] == pytest.approx(rows["y"].mean())

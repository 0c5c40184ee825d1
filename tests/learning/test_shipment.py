"""What is shipped has learned from what was known by now, promises on days it has not seen, and knows nothing of the future."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from switchyard.errors import TrainingError
from switchyard.learning import Bools
from switchyard.learning.fitting import Fitted, Rows, fit
from switchyard.learning.models import LogisticRegression
from switchyard.learning.promise import Promise
from switchyard.learning.shipment import Shipment, shipment_of
from switchyard.learning.splits import Shipping, Split, lifecycle_split, microseconds, shipping_of
from switchyard.learning.thresholds import choose_thresholds

START = datetime(2026, 1, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=40)
SPLIT = lifecycle_split(START, AS_OF, label_delay_days=5, test_days=5)
SHIPPING = shipping_of(START, AS_OF, promise_days=3)
DAY_US = 86_400_000_000
CHOICE = {"review_share": 0.05, "block_precision": 0.8}


@pytest.fixture
def rows(make_rows: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Rows:
    X, y = make_rows(4_000)
    rng = np.random.default_rng(0)
    event = microseconds(START) + np.sort(rng.integers(0, 40 * DAY_US, len(y)))
    delay = (rng.exponential(5, len(y)) * DAY_US).astype(np.int64)
    return Rows(X, y, event, event + delay, rng.integers(0, 200, len(y)))


@pytest.fixture
def assessed(rows: Rows, columns: list[str]) -> Fitted:
    return fit(LogisticRegression, rows, SPLIT, columns=columns, seed=1, **CHOICE)


def ship(
    rows: Rows, assessed: Fitted, columns: list[str], split: Split = SPLIT, to: Shipping = SHIPPING
) -> Shipment:
    models = (assessed, assessed)
    return shipment_of(rows, split, to, models, columns=columns, seed=1, **CHOICE)


def flip(rows: Rows, where: Bools) -> Rows:
    return replace(rows, y=np.where(where, 1 - rows.y, rows.y))


def used(rows: Rows) -> Bools:
    windows = (SHIPPING.learn, SPLIT.test)
    return np.any([w.rows(rows.event_us, rows.label_us) for w in windows], axis=0)


def test_labels_not_known_by_now_change_nothing_of_it(
    rows: Rows, assessed: Fitted, columns: list[str]
):
    unknown = ~used(rows)

    one, other = (ship(each, assessed, columns) for each in (rows, flip(rows, unknown)))

    assert unknown.sum() > 300
    assert one.record() == other.record()
    assert one.model.record == other.model.record
    assert np.array_equal(one.score, other.score)


def test_labels_known_since_the_test_window_began_do_change_it(
    rows: Rows, assessed: Fitted, columns: list[str]
):
    late = used(rows) & ~SPLIT.refit.rows(rows.event_us, rows.label_us)

    one, other = (ship(each, assessed, columns) for each in (rows, flip(rows, late)))

    assert not np.array_equal(one.model.model.margin(rows.X), other.model.model.margin(rows.X))


def test_it_promises_of_every_decision_of_the_newest_days_and_learns_from_none_of_them(
    rows: Rows, assessed: Fitted, columns: list[str]
):
    shipment = ship(rows, assessed, columns)

    newest = rows.event_us >= microseconds(AS_OF - timedelta(days=3))
    promise = Promise.of_record(json.loads(json.dumps(shipment.record()))["promise"])
    score = shipment.model.score(rows.X[newest])
    assert promise.rows == newest.sum()
    assert promise.block.value == np.mean(score >= shipment.model.thresholds.block)
    assert not (SHIPPING.learn.rows(rows.event_us, rows.label_us) & newest).any()


def test_its_thresholds_are_those_of_the_test_window(
    rows: Rows, assessed: Fitted, columns: list[str]
):
    shipment = ship(rows, assessed, columns)

    test = rows.take(SPLIT.test.rows(rows.event_us, rows.label_us))
    score = shipment.model.calibration.score(assessed.model.margin(test.X))
    assert shipment.model.thresholds == choose_thresholds(score, test.y, **CHOICE)
    assert shipment.model.thresholds != assessed.thresholds


def test_without_a_day_to_learn_from_it_is_refused():
    with pytest.raises(TrainingError, match="no day is left to learn from"):
        shipping_of(START, START + timedelta(days=2), promise_days=2)

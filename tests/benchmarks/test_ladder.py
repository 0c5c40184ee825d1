"""What the ladders' benchmark lets each rung see, on small streams."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ladder import RUNGS, activity_seen, worth_by_rung
from switchyard.fraud.activity import build_activity
from switchyard.fraud.backtest import BacktestPlan
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.events import EVENT, KEY, MISSING
from switchyard.fraud.features import Floats, activity_of
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake
from switchyard.learning.thresholds import Thresholds
from tests.streams import Row, land, make_label, make_transaction, windows_of

FIRST = date(2026, 3, 1)
DAYS = 4
AMOUNT = names(FEATURES).index("amount")
WRITTEN = datetime(2030, 1, 1, tzinfo=UTC)
PLAN = BacktestPlan(FIRST + timedelta(days=1), train_days=1, delay_days=1, test_days=1)


def make_rows() -> tuple[list[Row], list[Row]]:
    """Payments minutes apart by few cards at few terminals; every fifth is a fraud, known a day later."""
    rng = np.random.default_rng(7)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [
        make_transaction(
            transaction_id=f"t{i}",
            customer_id=f"c{rng.integers(12)}",
            terminal_id=f"s{rng.integers(4)}",
            amount_minor=int(rng.integers(100, 90_000)),
            event_timestamp=start + timedelta(minutes=4 * i),
        )
        for i in range(DAYS * 360)
    ]
    return rows, [
        make_label(
            row,
            is_fraud=row["customer_id"] == "c1",
            label_available_at=row["event_timestamp"] + timedelta(days=1),
        )
        for row in rows
    ]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = land(tmp_path_factory.mktemp("ladder") / "lake", *make_rows())
    build_profiles(lake, FIRST, PLAN.last_day, created_at=WRITTEN)
    build_activity(lake, FIRST, PLAN.last_day)
    return lake


def test_without_a_lag_the_windows_are_the_lakes(lake: Lake) -> None:
    asked = lake.read("transactions", PLAN.test_start, PLAN.last_day)

    seen = activity_seen(lake, asked, 0)

    for mine, theirs in zip(seen, activity_of(lake, asked), strict=True):
        assert np.array_equal(mine, theirs)


def test_with_a_lag_no_event_is_seen_before_it(lake: Lake) -> None:
    asked = lake.read("transactions", PLAN.test_start, PLAN.last_day)

    customer, _ = activity_seen(lake, asked, 300_000_000)

    now, _ = activity_of(lake, asked)
    last_age = 8
    ages = customer[:, last_age][customer[:, last_age] != MISSING]
    assert ages.min() >= 300_000_000
    assert now[:, last_age][now[:, last_age] != MISSING].min() < 300_000_000


def test_with_no_event_at_all_the_windows_are_those_of_an_empty_activity(lake: Lake) -> None:
    asked = lake.read("transactions", PLAN.test_start, PLAN.last_day)

    seen = activity_seen(lake, asked, None)

    one = np.zeros(1, EVENT)
    one["device"], one["country"] = 1, 1
    for owner, windows in zip(KEY, seen, strict=True):
        assert np.unique(windows, axis=0).tolist() == [
            windows_of(owner, np.empty(0, EVENT), one[0])
        ]


class ByAmount:
    """A model that knows the amount alone, and reviews above 1,000."""

    thresholds = Thresholds(0.001, 0.002)

    def score(self, X: Floats) -> Floats:
        return X[:, AMOUNT] / 1e6


def test_every_rung_is_scored_and_cards_known_for_fraud_are_left_out(
    lake: Lake, tmp_path: Path
) -> None:
    rows, labels = make_rows()
    for row, label in zip(
        rows, labels, strict=True
    ):  # a fraud of the last day by a card unknown till then
        if row["customer_id"] == "c2" and row["event_timestamp"].date() == PLAN.last_day:
            label["is_fraud"] = True
            row["amount_minor"] = 1_000_000
    other = land(tmp_path / "lake", rows, labels)
    build_profiles(other, FIRST, PLAN.last_day, created_at=WRITTEN)
    build_activity(other, FIRST, PLAN.last_day)

    found = worth_by_rung(other, PLAN, lambda _: ByAmount(), lambda _: ByAmount())  # type: ignore[arg-type,return-value]

    assert set(found) == set(RUNGS)
    assert {worth.average_precision for worth in found.values()} == {1.0}
    assert found["fallback_rules"].stopped_share == 0.0
    assert found["everything"].stopped_share == found["default_features"].stopped_share > 0

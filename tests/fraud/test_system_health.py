"""The level 'system': what a day of decisions says of the service, and which limit it broke."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from switchyard.fraud.compaction import SCHEMAS
from switchyard.fraud.system_health import measure_system
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReports
from switchyard.learning.policy import Verdict
from switchyard.settings import Settings, load_settings
from tests.streams import make_transaction

DAY = date(2026, 3, 2)
NUMBER = (DAY - date(1970, 1, 1)).days


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path)


def decision(i: int, **overrides: Any) -> dict[str, Any]:
    at = datetime(2026, 3, 2, 23, tzinfo=UTC) - timedelta(minutes=i)
    return make_transaction(transaction_id=f"t{i}", event_timestamp=at) | {
        "received_at": at, "segment": "s", "decision_id": f"d{i}", "score": 0.1, "decision": "allow",
        "release": "r", "variant": "champion", "degraded": [], "reasons": [], "latency_ms": 2.0,
        "customer_profile_day": NUMBER - 1, "terminal_profile_day": NUMBER - 1,
    } | overrides  # fmt: skip


def verdict_on(settings: Settings, rows: list[dict[str, Any]]) -> Verdict:
    lake = Lake(settings.lake)
    lake.write("decisions", DAY, pa.Table.from_pylist(rows, SCHEMAS["decisions"]))
    report = measure_system(settings, lake, DAY, DAY)[0]
    assert DayReports(settings.monitoring).load("system", DAY) == report
    return report.verdict


def test_a_good_day_is_told_in_figures(settings: Settings) -> None:
    verdict = verdict_on(settings, [decision(i, latency_ms=float(i)) for i in range(101)])

    assert verdict.passed
    assert verdict.reasons == ("101 decisions, p99 99.0 ms, 0.00% degraded",)
    assert verdict.figures["latency_ms"]["p50"] == 50.0
    assert verdict.figures["profile_age_hours"]["customer"]["newest"] == 21.0


def test_each_limit_that_was_broken_is_a_reason(settings: Settings) -> None:
    slow = [decision(i, latency_ms=500.0) for i in range(10)]
    stale = [decision(i, degraded=["stale_profile"]) for i in range(10, 20)]
    fallen = [decision(i, degraded=["fallback_rules"], score=None) for i in range(20, 21)]
    well = [decision(i) for i in range(21, 100)]

    verdict = verdict_on(settings, [*slow, *stale, *fallen, *well])

    assert not verdict.passed
    assert verdict.reasons == (
        "p99 of latency is 500.0 ms, at most 200 ms",
        "degraded share is 11.00%, at most 5.00%",
        "stale share is 10.00%, at most 5.00%",
        "error share is 1.00%, at most 0.10%",
    )
    assert verdict.figures["by_rung"] == {"stale_profile": 0.1, "fallback_rules": 0.01}


def test_profiles_that_stopped_are_named_by_view(settings: Settings) -> None:
    rows = [
        decision(i, customer_profile_day=NUMBER - 3, terminal_profile_day=None) for i in range(9)
    ]

    verdict = verdict_on(settings, rows)

    assert verdict.reasons == (
        "age of the customer profiles served is 69.0 h, at most 30 h",
        "no decision saw a terminal profile",
    )


def test_a_day_without_decisions_is_no_failure(settings: Settings) -> None:
    report = measure_system(settings, Lake(settings.lake), DAY, DAY)[0]

    assert report.verdict.passed
    assert report.verdict.reasons == ("nothing was decided on this day",)

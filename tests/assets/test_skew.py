"""The asset of level 'skew': it saves the day's report, and its check says what failed."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from assets.fraud.monitoring import skew
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReports
from switchyard.serving.journal import journal_of
from switchyard.settings import Settings, load_settings

DAY = date(2026, 3, 1)
DAYS = dg.DailyPartitionsDefinition(start_date=DAY.isoformat())
EVENT_US = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000


def make_decision(settings: Settings, **fields: Any) -> None:
    """A journalled decision of another version's vector."""
    record = {
        "type": "decision",
        "decision_id": "d1",
        "release": "r1",
        "transaction": {
            "transaction_id": "t1",
            "customer_id": "c1",
            "terminal_id": "s1",
            "event_timestamp_us": EVENT_US,
        },
        "received_at": EVENT_US,
        "vector": [1.0],
        "epoch": None,
    }
    with journal_of(settings) as journal:
        journal.append([record | fields])


def checked(settings: Settings) -> dg.AssetCheckEvaluation:
    done = dg.materialize(
        skew.assets(DAYS, "monitoring"),
        partition_key=DAY.isoformat(),
        resources={"lake": Lake(settings.lake), "settings": settings},
    )
    (evaluation,) = done.get_asset_check_evaluations()
    return evaluation


def test_it_saves_the_days_report_and_says_what_was_not_compared(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    make_decision(settings)

    evaluation = checked(settings)

    report = DayReports(settings.monitoring).newest("skew")
    assert report
    assert report.day == DAY
    assert report.verdict.figures["of_another_version"] == 1
    assert evaluation.passed
    assert evaluation.check_name == "served_vectors_equal_recomputed_ones"
    assert "1 decisions were not compared" in (evaluation.description or "")

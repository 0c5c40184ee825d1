"""Decisions of the journal and of the lake are judged by the verdicts known at the end of the day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from switchyard.fraud.columns import LABEL, arrow_schema
from switchyard.fraud.compaction import compact
from switchyard.fraud.performance import measure_model
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReport
from switchyard.learning.drift import score_shares
from switchyard.learning.metrics import Metric
from switchyard.serving.journal import Journal
from switchyard.settings import Settings, load_settings
from tests.releases import make_release

FIRST = date(2026, 3, 1)
DAYS = 66
A_DAY = 120
SERVED_FROM = 35
WORTHLESS_FROM = 50


def micros(day: date, second: int = 0) -> int:
    return int((datetime.combine(day, time(), UTC) + timedelta(seconds=second)).timestamp() * 1e6)


def make_decision(day: date, number: int, score: float, release: str) -> dict[str, Any]:
    when = micros(day, 600 * number)
    decided = "block" if score > 0.8 else "review" if score > 0.5 else "allow"
    return {
        "type": "decision", "decision_id": f"d{day}{number}", "received_at": when, "score": score,
        "decision": decided, "reasons": [], "release": release, "variant": "champion",
        "experiment": None, "plan": 1, "model_us": 1.0, "degraded": [], "latency_ms": 1.0,
        "vector": [1.0], "epoch": None, "customer_profile_day": None, "terminal_profile_day": None,
        "customer_seq_seen": None, "terminal_seq_seen": None,
        "transaction": {
            "transaction_id": f"t{day}{number}", "customer_id": f"c{number % 40}", "terminal_id": "t1",
            "amount_minor": 1_000 * (number + 1), "currency": "EUR", "event_timestamp_us": when,
            "customer_country": "DE", "terminal_country": "DE" if number % 2 else None,
            "device_id": None, "channel": "pos", "merchant_category": "5411",
        },
    }  # fmt: skip


def make_labels(day: date, fraud: np.ndarray[Any, Any], rng: np.random.Generator) -> pa.Table:
    delay_s = rng.integers(86_400, 6 * 86_400, A_DAY)
    when = [micros(day, 600 * i) for i in range(A_DAY)]
    return pa.table(
        {
            "transaction_id": [f"t{day}{i}" for i in range(A_DAY)],
            "customer_id": [f"c{i % 40}" for i in range(A_DAY)],
            "terminal_id": ["t1"] * A_DAY,
            "event_timestamp": pa.array(when).cast(pa.timestamp("us", "UTC")),
            "is_fraud": pa.array(fraud),
            "label_available_at": pa.array(
                [w + int(d) * 1_000_000 for w, d in zip(when, delay_s, strict=True)]
            ).cast(pa.timestamp("us", "UTC")),
        },
        schema=arrow_schema(LABEL),
    )


@pytest.fixture
def served(tmp_path: Path) -> Settings:
    """A home of 66 days with verdicts, decisions on the last 31; from day 50 on the scores say nothing."""
    settings = load_settings(home=tmp_path)
    lake, rng = Lake(settings.lake), np.random.default_rng(3)
    days = [FIRST + timedelta(days=offset) for offset in range(DAYS)]
    frauds = [rng.random(A_DAY) < 0.1 for _ in days]
    good = [np.clip(rng.normal(0.2 + 0.55 * fraud, 0.12), 0.001, 0.999) for fraud in frauds]
    told = Metric(0.95, 0.92, 0.98).record()
    metrics = {
        "scores": score_shares(np.concatenate(good)),
        "candidate": {"average_precision": told},
    }
    release = make_release(settings.releases, metrics=metrics).id
    with Journal(settings.journal, segment_bytes=400_000) as journal:
        for offset, day in enumerate(days):
            lake.write("labels", day, make_labels(day, frauds[offset], rng))
            if offset >= SERVED_FROM:
                scores = good[offset] if offset < WORTHLESS_FROM else rng.permutation(good[offset])
                each = enumerate(scores)
                journal.append([make_decision(day, i, float(s), release) for i, s in each])
    return settings


def measured(settings: Settings, *offsets: int) -> list[DayReport]:
    lake = Lake(settings.lake)
    return [measure_model(settings, lake, FIRST + timedelta(days=offset)) for offset in offsets]


def test_a_release_that_got_worse_is_found_when_its_verdicts_have_matured(served: Settings) -> None:
    reports = measured(served, *range(50, 62))

    passed = [report.verdict.passed for report in reports]
    assert passed[0]
    assert not passed[-1]
    assert passed == sorted(passed, reverse=True)
    assert reports[-1].verdict.reasons[0].startswith("average precision")


def test_a_day_that_is_measured_again_says_the_same(served: Settings) -> None:
    first = measured(served, 59, 60)

    assert measured(served, 60) == first[1:]


def test_what_is_in_the_lake_counts_as_what_is_in_the_journal(served: Settings) -> None:
    from_journal = measured(served, 58)

    compact(served.journal, Lake(served.lake))

    assert measured(served, 58) == from_journal


def test_a_compaction_killed_between_two_days_of_a_segment_neither_loses_nor_doubles_a_decision(
    served: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_journal = measured(served, 58)
    write, written = Lake.write, []

    def killed(self: Lake, table: str, day: date, rows: pa.Table) -> Path:
        if len(written) == 18:  # three of the five days of a segment
            raise KeyboardInterrupt
        written.append(day)
        return write(self, table, day, rows)

    monkeypatch.setattr(Lake, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        compact(served.journal, Lake(served.lake))
    monkeypatch.undo()

    assert measured(served, 58) == from_journal


def test_a_younger_week_is_told_with_an_interval(served: Settings) -> None:
    figures = measured(served, 48)[0].verdict.figures

    young = figures["provisional"]
    metric = young["average_precision"]
    assert young["told"]
    assert metric["low"] <= metric["value"] <= metric["high"]
    assert 0 < young["share_of_frauds_known"] < 1
    assert figures["scores"]["psi"] < 0.1
    assert set(figures["matured"]["slices"]["terminal_country"]) == {"DE", "missing"}


def test_frauds_for_which_nobody_that_was_let_through_stands_tell_nothing(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    lake, rng = Lake(settings.lake), np.random.default_rng(3)
    release = make_release(settings.releases).id
    fraud = np.arange(A_DAY) % 10 == 0
    with Journal(settings.journal) as journal:
        for offset in range(50):
            day = FIRST + timedelta(days=offset)
            lake.write("labels", day, make_labels(day, fraud, rng))
            if offset >= 40:
                decided = (
                    make_decision(day, i, 0.9 if f else 0.1, release) for i, f in enumerate(fraud)
                )
                journal.append(
                    [d | {"propensity": 0.8 if d["score"] > 0.8 else None} for d in decided]
                )

    young = measured(settings, 49)[0].verdict.figures["provisional"]

    assert young == {"told": False, "because": "no fraud of the week is known yet"}


def test_where_nothing_was_decided_or_nothing_matured_the_report_says_so(served: Settings) -> None:
    before, at_first = measured(served, 20, SERVED_FROM + 2)

    assert before.verdict.reasons[0].startswith("nothing to judge")
    assert at_first.verdict.passed
    assert at_first.verdict.reasons[0].startswith("nothing has matured")

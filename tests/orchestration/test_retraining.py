"""Sensors and schedule of retraining: one start at a time whoever asks, and words when nothing starts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from orchestration import retraining
from orchestration.retraining_claim import CLAIM_TAG
from switchyard.fraud.columns import LABEL, arrow_schema
from switchyard.lake import write_parquet
from switchyard.learning.day_reports import DayReport, DayReports, Level
from switchyard.learning.policy import Verdict
from tests.homes import Home, in_home

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = (TODAY - timedelta(days=1)).date()


@pytest.fixture
def home(new_home: Callable[..., Home]) -> Home:
    return new_home(retrain_least_frauds=5, retrain_least_labels=20)


def says(home: Home, level: Level, day: date = YESTERDAY, passed: bool = False) -> None:
    verdict = Verdict(passed, ("all is well" if passed else "something moved",), {})
    DayReports(home.settings.monitoring).save(DayReport(level, day, verdict))


def land_verdicts(home: Home, count: int, day: date = YESTERDAY) -> None:
    """Every second one is 'fraud'; known an hour ago."""
    row = {"customer_id": "c", "terminal_id": "s", "event_timestamp": TODAY - timedelta(days=1),
           "label_available_at": datetime.now(UTC) - timedelta(hours=1)}  # fmt: skip
    rows = [row | {"transaction_id": f"t{n}", "is_fraud": n % 2 == 0} for n in range(count)]
    home.lake.write("labels", day, pa.Table.from_pylist(rows, arrow_schema(LABEL)))


def tick(home: Home, name: str, cursor: str | None = None) -> Any:
    """What one tick decided."""
    context = dg.build_sensor_context(
        home.instance, cursor, repository_def=home.defs.get_repository_def(),
        resources={"settings": home.settings},
    )  # fmt: skip
    with in_home(home.settings), context:
        return home.defs.resolve_sensor_def(name).evaluate_tick(context)


def test_two_sensors_of_one_tick_start_one(home: Home) -> None:
    says(home, "data")
    says(home, "model")
    land_verdicts(home, 12)

    first = tick(home, "on_feature_drift")
    second = tick(home, "on_performance")

    assert len(first.run_requests) == 1
    assert first.run_requests[0].tags["switchyard/because"].endswith("something moved")
    assert second.run_requests == []
    assert second.skip_message.endswith("but the trigger 'drift' has just asked for one")


def test_while_a_run_has_not_ended_nobody_starts_another(home: Home) -> None:
    says(home, "model")
    job = home.defs.resolve_job_def("retrain")
    run = home.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)

    found = tick(home, "on_performance")

    assert found.run_requests == []
    assert f"run {run.run_id} of 'retrain' has not ended" in found.skip_message


def test_what_goes_on_failing_asks_only_once_and_anew_when_it_was_well_between(home: Home) -> None:
    says(home, "model")
    first = tick(home, "on_performance")
    job = home.defs.resolve_job_def("retrain")
    home.instance.create_run_for_job(
        job, tags=first.run_requests[0].tags, status=dg.DagsterRunStatus.SUCCESS
    )

    again = tick(home, "on_performance", first.cursor)
    says(home, "model", YESTERDAY + timedelta(days=1))
    next_day = tick(home, "on_performance", first.cursor)
    says(home, "model", YESTERDAY + timedelta(days=2), passed=True)
    says(home, "model", YESTERDAY + timedelta(days=3))
    anew = tick(home, "on_performance", first.cursor)

    assert first.cursor == str(YESTERDAY)
    assert first.run_requests[0].tags[CLAIM_TAG] == f"performance {YESTERDAY}"
    assert again.run_requests == []
    assert "a training was started for it" in again.skip_message
    assert next_day.run_requests == []
    assert len(anew.run_requests) == 1


@pytest.mark.parametrize(
    ("sensor", "reason"),
    [
        ("on_feature_drift", "there is no report yet"),
        ("on_performance", "there is no report yet"),
        ("on_new_labels", "0 verdicts became known since the newest training, of 20"),
    ],
)
def test_a_sensor_that_does_nothing_says_why(home: Home, sensor: str, reason: str) -> None:
    found = tick(home, sensor)

    assert (found.run_requests, found.skip_message) == ([], reason)


def test_drift_waits_for_frauds_of_the_new_days(home: Home) -> None:
    says(home, "data")
    land_verdicts(home, 8)
    few = tick(home, "on_feature_drift")
    land_verdicts(home, 10)
    enough = tick(home, "on_feature_drift")

    assert "4 of 5 frauds are known" in few.skip_message
    assert len(enough.run_requests) == 1


def test_new_labels_are_those_since_the_newest_training(home: Home) -> None:
    home.settings.training.mkdir(parents=True, exist_ok=True)
    save_training_set(home, TODAY - timedelta(days=10))
    land_verdicts(home, 20)
    enough = tick(home, "on_new_labels")
    save_training_set(home, datetime.now(UTC))
    none = tick(home, "on_new_labels")

    assert len(enough.run_requests) == 1
    assert none.skip_message == "0 verdicts became known since the newest training, of 20"


def save_training_set(home: Home, as_of: datetime) -> None:
    """One of no row, as of a moment."""
    schema = pa.schema([], metadata={"as_of": f'"{as_of.isoformat()}"'})
    write_parquet(schema.empty_table(), home.settings.training / "training_set.parquet")


def test_the_schedule_starts_one_and_waits_after_another(home: Home) -> None:
    with in_home(home.settings):
        judged, claim = retraining.ask(home.settings, "schedule", TODAY, home.instance)
        again, none = retraining.ask(home.settings, "schedule", TODAY, home.instance)

    assert judged.start
    assert claim is not None
    assert none is None
    assert "has just asked" in again.because

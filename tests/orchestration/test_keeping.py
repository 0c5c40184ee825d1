"""Retention and forgetting as jobs and commands: what stays named, and what the record of a run holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import redis
from click.testing import CliRunner, Result

from orchestration.cli import main
from orchestration.keeping import releases_named
from switchyard.fraud.forget_requests import audit, waiting
from switchyard.fraud.online import traffic_of
from switchyard.lake import write_text
from switchyard.serving import valkey
from switchyard.serving.plan import Change
from switchyard.serving.traffic import change_plan
from switchyard.settings import Settings
from tests.homes import close, in_home, open_small, own_environment
from tests.streams import NOON, land, make_label, make_transaction

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
GONE = "card-4711-0815"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Settings]:
    settings = open_small(tmp_path_factory.mktemp("keeping") / "home", mlflow_database)
    yield settings
    close(settings)


@pytest.fixture
def switchyard(settings: Settings) -> Callable[..., Result]:
    def call(*arguments: str) -> Result:
        with own_environment(SWITCHYARD_HOME=str(settings.home)):
            return CliRunner().invoke(main, [*arguments])

    return call


def test_a_customer_is_forgotten_by_the_command_and_no_record_holds_the_id(
    settings: Settings, switchyard: Callable[..., Result], tmp_path: Path
) -> None:
    row = make_transaction(customer_id=GONE)
    lake = land(settings.lake, [row, make_transaction(transaction_id="t2")], [make_label(row)])

    expected = switchyard("forget", GONE, "--dry-run")
    done = switchyard("forget", GONE, "--why", "request 17", "--json", str(tmp_path / "out.json"))

    assert (expected.exit_code, done.exit_code) == (0, 0), done.output
    assert "Would be removed" in expected.output
    assert "lake/transactions" in done.output
    assert "models and releases" in done.output
    figures = json.loads((tmp_path / "out.json").read_text())
    assert {"place": "lake/labels", "what": "rows kept under stand-ins", "count": 1} in figures[
        "removed"
    ]
    ids = lake.read("transactions", NOON.date())["customer_id"].to_pylist()
    assert GONE not in ids
    assert "c1" in ids
    assert waiting(settings) == []
    (record,) = audit(settings)
    assert (record.why, record.tombstone) == ("request 17", figures["tombstone"])
    with in_home(settings), dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="forget_customer"))
        assert record.tombstone in str(run.run_config)
    assert [
        f for f in settings.home.rglob("*") if f.is_file() and GONE.encode() in f.read_bytes()
    ] == []


def test_a_run_that_failed_names_the_place_without_the_id_and_can_be_run_again(
    settings: Settings, switchyard: Callable[..., Result]
) -> None:
    with redis.Redis.from_url(valkey.address_of(settings).url) as client:
        client.set(f"somebody:{GONE}", "x")
        failed = switchyard("forget", GONE, "--why", "request 18")
        client.delete(f"somebody:{GONE}")
    assert failed.exit_code == 1
    assert "somebody:***" in "".join(failed.output.split())
    assert len(waiting(settings)) == 1

    done = switchyard("forget", GONE, "--why", "request 18")

    assert done.exit_code == 0, done.output
    assert waiting(settings) == []


def test_without_a_reason_nobody_is_forgotten(switchyard: Callable[..., Result]) -> None:
    result = switchyard("forget", GONE)

    assert result.exit_code == 2
    assert "--why" in result.output


def test_retention_is_a_command_with_a_dry_run(
    settings: Settings, switchyard: Callable[..., Result]
) -> None:
    report = settings.monitoring / "data" / "2020-01-01.json"
    for path in (report, report.with_name("2026-01-01.json")):
        write_text("{}", path)

    dry = switchyard("retention", "--dry-run")
    assert report.exists()
    wet = switchyard("retention")

    assert (dry.exit_code, wet.exit_code) == (0, 0), wet.output
    assert "keep_monitoring_days" in dry.output
    assert not report.exists()


def test_releases_that_served_within_a_week_or_are_on_trial_are_named(settings: Settings) -> None:
    names = [digit * 32 for digit in "abcdef"]
    traffic = traffic_of(settings.home, valkey.address_of(settings).url)
    for days, action, release in (
        (30, "promote", names[1]),
        (20, "promote", names[2]),
        (9, "promote", names[3]),
        (2, "shadow", names[4]),
        (1, "promote", names[5]),
    ):
        change = Change(action=action, who="w", why="y", release=release)  # type: ignore[arg-type]
        change_plan(traffic, names[0], change, now=NOW - timedelta(days=days))
    traffic.close()

    with own_environment(SWITCHYARD_HOME=str(settings.home)):
        named = releases_named(settings, NOW)

    assert named == {names[0], names[2], names[3], names[4], names[5]}

"""Whatever fails in a run becomes one incident, and passes again: real runs, the real sensor, a real webhook."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from orchestration.cli import main
from orchestration.definitions import build_definitions
from orchestration.incidents import look
from orchestration.runs import GateClosedError, RunFailedError, run_job
from switchyard.settings import Settings, load_settings
from tests.channels import Hook, hook
from tests.homes import own_environment


class World:
    """A code location of its own, whose parts fail as told, and a home whose webhook listens."""

    def __init__(self, folder: Path, hook: Hook) -> None:
        self.broken: set[str] = set()
        self.hook = hook
        self.settings = load_settings(
            home=folder / "home", alert_webhook_url=hook.url, ui_url="https://ui.bank.test/"
        )
        (folder / "dagster").mkdir()
        self.instance = dg.DagsterInstance.ephemeral(str(folder / "dagster"))
        self.defs = self._defs()
        self.look()

    def run(self, job: str = "monitor") -> None:
        with contextlib.suppress(GateClosedError, RunFailedError):
            run_job(self.defs, job, self.instance)

    def look(self) -> list[str]:
        return look(self.settings, self.instance, datetime.now(UTC))

    def titles(self) -> list[str]:
        return sorted(one["title"].removeprefix("[switchyard] ") for one in self.hook.got)

    def _defs(self) -> dg.Definitions:
        @dg.asset
        def landed() -> None:
            if "landed" in self.broken:
                raise ValueError("row 7 of 2026-03-01.csv is torn")
            if "name" in self.broken:
                raise ValueError("r\udce9sum\udce9.csv is torn")

        @dg.asset_check(asset=landed, blocking=True, description="Values are plausible.")
        def values_are_plausible() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(
                passed="gate" not in self.broken, description="3 of 5 amounts are negative"
            )

        @dg.asset(deps=[landed])
        def drift() -> None:
            pass

        @dg.asset_check(asset=drift)
        def features_stay_where_they_were() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(
                passed="drift" not in self.broken,
                severity=dg.AssetCheckSeverity.WARN,
                description="PSI of amount is 0.4",
            )

        job = dg.define_asset_job("monitor")
        return dg.Definitions(
            assets=[landed, drift],
            asset_checks=[values_are_plausible, features_stay_where_they_were],
            jobs=[job, dg.define_asset_job("ingest", dg.AssetSelection.assets(landed))],
            executor=dg.in_process_executor,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with own_environment(), hook() as listening:
        yield World(tmp_path, listening)


def test_a_reason_that_is_no_text_anywhere_else_is_told_as_far_as_it_is_one(world: World) -> None:
    """A file's name may be bytes that are no UTF-8."""
    world.broken = {"name"}
    world.run()
    world.look()
    world.look()

    assert world.titles() == ["monitor, landed: failed"]
    assert "ValueError: r?sum?.csv is torn" in world.hook.texts()[0]


def test_a_failed_step_is_told_once_with_its_reason_and_a_link_and_so_is_its_end(
    world: World,
) -> None:
    world.broken = {"landed"}
    world.run()
    world.look()
    world.run()
    world.look()
    world.broken = set()
    world.run("ingest")
    world.look()
    assert world.titles() == ["monitor, landed: failed"]
    world.run()
    world.look()

    assert world.titles() == ["monitor, landed: failed", "monitor, landed: resolved"]
    text = world.hook.texts()[0]
    run = world.instance.get_runs()[-1].run_id
    assert "ValueError: row 7 of 2026-03-01.csv is torn" in text
    assert f"run     https://ui.bank.test/runs/{run}" in text
    assert "run the job again" in text


def test_a_blocking_check_is_one_incident_and_not_a_failed_run_besides(world: World) -> None:
    world.broken = {"gate"}
    world.run()
    world.look()

    assert world.titles() == ["landed: values_are_plausible: failed"]
    assert "3 of 5 amounts are negative" in world.hook.texts()[0]
    assert "nothing was built on it" in world.hook.texts()[0]


def test_a_check_that_stops_nothing_is_told_of_too_and_resolved_by_any_job(world: World) -> None:
    world.broken = {"drift"}
    world.run()
    world.look()
    world.broken = {"gate"}
    world.run("ingest")
    world.look()
    world.broken = set()
    world.run()
    world.look()

    assert world.titles() == [
        "drift: features_stay_where_they_were: failed",
        "drift: features_stay_where_they_were: resolved",
        "landed: values_are_plausible: failed",
        "landed: values_are_plausible: resolved",
    ]  # fmt: skip
    assert "PSI of amount is 0.4" in world.hook.texts()[0]


def test_a_run_whose_process_was_killed_is_an_incident_of_its_job(world: World) -> None:
    run = world.instance.create_run_for_job(world.defs.resolve_job_def("monitor"))
    world.instance.report_run_failed(run, "The process of this run was killed; run it again.")
    world.look()
    world.run()
    world.look()

    assert world.titles() == ["monitor, its process: failed", "monitor, its process: resolved"]


def test_a_webhook_that_was_down_is_told_at_the_next_look_and_no_run_minds(world: World) -> None:
    world.broken = {"drift"}
    world.hook.status = 503
    world.run()

    down = world.look()
    world.hook.status = 200
    up = world.look()

    assert down == ["webhook at 127.0.0.1 answered 503; tried again at the next look"]
    assert up == [
        "webhook at 127.0.0.1 was told: drift: features_stay_where_they_were: failed",
    ]  # fmt: skip
    assert world.instance.get_runs()[0].is_success


def test_each_run_is_taken_in_once_however_many_end_at_a_time(world: World) -> None:
    world.broken = {"drift"}
    for _ in range(3):
        world.run()
        world.look()
        world.look()

    with own_environment(SWITCHYARD_HOME=str(world.settings.home), COLUMNS="300"):
        shown = CliRunner().invoke(
            main, ["alerts", "show", "--json", str(world.settings.home / "x")]
        )

    (incident,) = json.loads((world.settings.home / "x").read_text())
    assert incident["times"] == 3
    assert "1 open" in shown.output
    assert world.titles() == ["drift: features_stay_where_they_were: failed"]


def test_what_failed_before_the_first_look_of_a_home_is_not_told(world: World) -> None:
    world.broken = {"landed"}
    world.run()
    world.settings.incidents.unlink()

    look(world.settings, world.instance, datetime.now(UTC) + timedelta(minutes=5))

    assert world.titles() == []


def test_two_looks_at_a_time_tell_once(world: World) -> None:
    world.broken = {"landed"}
    world.run()
    looks = [threading.Thread(target=world.look) for _ in range(4)]
    for one in looks:
        one.start()
    for one in looks:
        one.join()

    assert world.titles() == ["monitor, landed: failed"]


def test_the_sensor_of_the_platform_tells_of_a_failed_run(
    world: World,
) -> None:
    own: Settings = world.settings
    defs = build_definitions(own)
    context = dg.build_sensor_context(
        world.instance, repository_def=defs.get_repository_def(), resources={"settings": own}
    )
    world.broken = {"landed"}
    world.run()

    with context:
        decided = defs.resolve_sensor_def("on_incident").evaluate_tick(context)
        again = defs.resolve_sensor_def("on_incident").evaluate_tick(context)

    assert decided.skip_message == "webhook at 127.0.0.1 was told: monitor, landed: failed"
    assert again.skip_message == "Nobody has to be told of anything."


def test_a_trial_reaches_each_channel_that_is_set(world: World) -> None:
    variables = {"SWITCHYARD_HOME": str(world.settings.home), "COLUMNS": "300"}
    with own_environment(**variables):
        none = CliRunner().invoke(main, ["alerts", "test"])
    with own_environment(**variables, SWITCHYARD_ALERT_WEBHOOK_URL=world.hook.url):
        well = CliRunner().invoke(main, ["alerts", "test"])
        world.hook.status = 500
        ill = CliRunner().invoke(main, ["alerts", "test"])

    assert (none.exit_code, well.exit_code, ill.exit_code) == (1, 0, 1)
    assert "no channel is set" in none.output
    assert "webhook at 127.0.0.1" in well.output
    assert "answered 500" in ill.output
    assert "very-secret-path" not in none.output + well.output + ill.output
    assert world.titles() == ["a trial of the alerts"]

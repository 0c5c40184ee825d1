"""The doors to the traffic plan beside HTTP: command line and Dagster's job. No service runs here; with one,
``tests/e2e/test_operation.py``."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestration.cli import main
from orchestration.runs import RunFailedError
from orchestration.traffic import asked, change_traffic, history_of
from switchyard.errors import PlanError, ReleaseError, ServiceError
from switchyard.fraud.online import traffic_of
from switchyard.learning.thresholds import Thresholds
from switchyard.serving import valkey
from switchyard.serving.traffic import mirrored
from switchyard.settings import Settings
from tests.homes import Home, own_environment
from tests.releases import make_release

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TOLD = {"who": "ann", "why": "a test"}


@pytest.fixture
def home(new_home: Callable[..., Home]) -> Home:
    """A home whose plan says that its one deployed Bento decides."""
    home = new_home()
    bento = make_release(home.settings.releases).id
    traffic = traffic_of(home.settings.home, valkey.address_of(home.settings).url)
    traffic.change(bento, lambda plan: plan, who="deployment", why="new", now=NOW)
    traffic.close()
    return home


@pytest.fixture
def challenger(home: Home) -> str:
    return make_release(home.settings.releases, thresholds=Thresholds(0.2, 0.5)).id


def run(settings: Settings, *arguments: str) -> Result:
    with own_environment(SWITCHYARD_HOME=str(settings.home), COLUMNS="300"):
        return CliRunner().invoke(main, list(arguments))


def test_the_command_line_walks_a_challenger_to_the_champion_and_back(
    home: Home, challenger: str, tmp_path: Path
) -> None:
    own, file = home.settings, str(tmp_path / "plans.json")
    told = ("--why", "better last week", "--who", "ann")
    steps = [
        ("shadow", challenger, *told),
        ("canary", "--share", "0.05", *told),
        ("canary", "--share", "0.2", *told),
        ("promote", *told),
        ("rollback", challenger, *told),
    ]

    results = [run(own, "traffic", *step) for step in steps]
    shown = run(own, "traffic", "show", "--json", file)

    assert [result.exit_code for result in (*results, shown)] == [0] * 6, results[0].output
    plans = json.loads(Path(file).read_text())
    modes = [plan["mode"] for plan in plans[-5:]]
    assert modes == [
        "shadow", "canary, 0.05 of the customers", "canary, 0.2 of the customers", "off", "off",
    ]  # fmt: skip
    assert [plan["decides"] == challenger for plan in plans[-2:]] == [True, False]
    assert {(plan["by"], plan["why"]) for plan in plans[-5:]} == {("ann", "better last week")}
    assert "better last week" in shown.output


def test_a_change_without_a_reason_is_a_usage_error(home: Home, challenger: str) -> None:
    result = run(home.settings, "traffic", "shadow", challenger)

    assert result.exit_code == 2
    assert "--why" in result.output


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"action": "canary", "share": 0.7}, PlanError, "no such change.*share"),
        ({"action": "canary", "share": 0.2}, PlanError, "name its release"),
        ({"action": "shadow", "release": "0" * 32}, ReleaseError, "holds no release"),
        ({"action": "reload"}, ServiceError, "no service is running"),
    ],
)
def test_what_can_not_be_done_is_said_and_leaves_the_plan_alone(
    home: Home, fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    before = history_of(home.settings)

    with pytest.raises(error, match=words):
        change_traffic(home.settings, asked(fields | TOLD))

    assert history_of(home.settings) == before


def test_the_job_changes_the_plan_with_who_and_why(home: Home, challenger: str) -> None:
    wanted = {"action": "canary", "release": challenger, "share": 0.1, **TOLD}
    config = {"ops": {"change_of_traffic": {"config": wanted}}}

    home.run("change_traffic", config=config)

    plan = mirrored(home.settings.home)
    assert plan is not None
    assert (plan.challenger, plan.share, plan.who) == (challenger, 0.1, "ann")


def test_the_job_fails_with_the_words_of_what_can_not_be_done(home: Home) -> None:
    config = {"ops": {"change_of_traffic": {"config": {"action": "promote", **TOLD}}}}

    with pytest.raises(RunFailedError, match="no challenger to promote"):
        home.run("change_traffic", config=config)

"""The rollout goes its whole way by itself, with a real service, gateway and Bentos; a bad release is withdrawn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from assets.fraud import registry
from orchestration import deployment, promotion, retraining, rollout
from orchestration.cli import main
from orchestration.definitions import build_definitions
from orchestration.home import exports
from orchestration.traffic import asked, change_traffic, current_plan
from switchyard.fraud.columns import LABEL, TRANSACTION, arrow_schema
from switchyard.fraud.experiment import Phase
from switchyard.fraud.features import code_hash
from switchyard.fraud.replay import ReplayPlan, Sender, Sending
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReport, DayReports
from switchyard.learning.policy import Verdict
from switchyard.learning.slices import CHALLENGER
from switchyard.learning.thresholds import Thresholds
from switchyard.serving.plan import Mode, Plan
from switchyard.serving.segments import body_of, segments
from switchyard.settings import Settings, load_settings
from tests import promoting
from tests.homes import close, in_home, open_small
from tests.packing import enter, pack
from tests.releases import SUSPICIOUS_AMOUNT

PROJECT = Path(__file__).resolve().parents[2]
DAY = date(2026, 3, 1)
MORNING = datetime(2026, 3, 1, 6, tzinfo=UTC)
SMALL_POLICY: dict[str, Any] = {
    "rollout_steps": (0.0, 0.1, 0.5),
    "rollout_min_hours": 0,
    "rollout_min_decisions": 50,
    "rollout_min_matured": 500,
    "rollout_outcome_limit": 0.9,
}


@dataclass
class Rolled:
    """A home whose first release decides, and customers who pay once a second of event time."""

    settings: Settings
    first: str
    second: str
    sent: int = 0

    def pay(self, count: int, rate: float | None = None) -> None:
        """Half of the amounts are such that the releases block them."""
        rng = np.random.default_rng(self.sent)
        amounts = rng.choice([SUSPICIOUS_AMOUNT // 3, SUSPICIOUS_AMOUNT * 3 // 2], count)
        stream = [
            Sending(0, n, "/v1/predict", self._body(self.sent + n, int(amount)))
            for n, amount in enumerate(amounts)
        ]
        self.sent += count
        running = deployment.current(self.settings)
        assert running is not None
        plan = ReplayPlan(DAY, DAY, rate=rate)
        Sender((running.url, True), plan, lambda _day: 0, lambda *_: None).send(stream, [])

    def _body(self, number: int, amount: int) -> dict[str, Any]:
        return {
            "transaction_id": f"t{number}",
            "customer_id": f"c{number * 7919 % 400}",
            "terminal_id": f"s{number % 20}",
            "amount": str(amount),
            "event_timestamp": (MORNING + timedelta(seconds=number)).isoformat(),
        }

    def land_labels(self) -> None:
        """Every tenth was a fraud, which was known the day after."""
        rows = [
            {"transaction_id": f"t{n}", "customer_id": "c", "terminal_id": "s",
             "event_timestamp": MORNING, "is_fraud": n % 10 == 0,
             "label_available_at": MORNING + timedelta(days=1)}
            for n in range(self.sent)
        ]  # fmt: skip
        labels = pa.Table.from_pylist(rows, arrow_schema(LABEL))
        lake = Lake(self.settings.lake)
        lake.write("labels", DAY, labels)
        lake.write("transactions", DAY, arrow_schema(TRANSACTION).empty_table())

    def step(self, after: timedelta = timedelta(hours=6)) -> rollout.Look:
        return rollout.step(self.settings, MORNING + after)

    def challenge(self, release: str) -> None:
        registry.set_alias(self.settings.mlflow_tracking_uri, "challenger", release)

    def sensed(self) -> dg.SensorDefinition:
        """What one tick of the sensor decided."""
        defs = build_definitions(self.settings)
        context = dg.build_sensor_context(
            dg.DagsterInstance.ephemeral(),
            repository_def=defs.get_repository_def(),
            resources={"settings": self.settings},
        )
        with context:
            return defs.resolve_sensor_def("on_rollout").evaluate_tick(context)


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Any) -> Iterator[Rolled]:
    small = open_small(tmp_path_factory.mktemp("rolled") / "home", mlflow_database, **SMALL_POLICY)
    with in_home(small):
        ids = [pack(small, Thresholds(0.3, block)) for block in (0.6, 0.7)]
        promotion.promote(small, ids[0], who="a test", why="the first")
        yield Rolled(small, *ids)
    close(small)


def test_a_home_without_a_release_has_nothing_to_roll_out(new_home: Any) -> None:
    home = new_home()

    with in_home(home.settings):
        seen = rollout.look(home.settings, MORNING)

    assert (seen.action, seen.reasons) == ("nothing", ("no release has the alias 'challenger'",))


def test_a_new_release_goes_all_the_way_by_itself(rolled: Rolled) -> None:
    rolled.challenge(rolled.second)
    sensed = rolled.sensed()
    done = [rolled.step(), rolled.step()]
    rolled.pay(200, rate=400)
    done += [rolled.step(), rolled.step()]
    rolled.pay(1_000)
    done.append(rolled.step())
    shown = CliRunner().invoke(main, ["rollout", "status"], env={"COLUMNS": "200"})
    rolled.pay(3_000)
    rolled.land_labels()
    done.append(rolled.step())
    late = timedelta(days=9)
    assert (
        killed(rolled, before="commit", after=late) == promoting.KILLED
    )  # it is undone, and made again
    done += [rolled.step(late), rolled.step(late)]

    assert sensed.run_requests[0].run_key.startswith("shadow of plan ")
    assert [look.action for look in done] == [
        "shadow", "hold", "canary", "hold", "canary", "hold", "promote", "nothing",
    ], [look.reasons for look in done]  # fmt: skip
    assert "customers blocked per decision" in shown.output
    assert "0 of 5000 decisions at this step" in shown.output
    assert [look.share for look in done if look.action == "canary"] == [0.1, 0.5]
    assert "0 of 50 decisions" in done[3].reasons[-1]
    assert "matured label" in done[5].reasons[0]
    assert all("no worse than" in reason for reason in done[6].reasons)
    agreed = set(promotion.agreement(rolled.settings).values())
    assert agreed == {rolled.second}


def test_a_release_that_blocks_too_much_is_withdrawn_with_a_reason_and_not_tried_again(
    rolled: Rolled,
) -> None:
    bad = pack(rolled.settings, Thresholds(0.0, 0.0))
    rolled.challenge(bad)
    before = current_plan(rolled.settings)
    assert before is not None

    done = [rolled.step()]
    rolled.pay(600, rate=400)
    done += [rolled.step(), rolled.step()]
    rolled.challenge(bad)
    done.append(rolled.step())

    assert [look.action for look in done] == ["shadow", "rollback", "nothing", "nothing"], done[1]
    assert any("block" in reason and "is above" in reason for reason in done[1].reasons)
    assert "has been on trial" in done[3].reasons[0]
    after = current_plan(rolled.settings)
    assert after is not None
    assert (after.champion, after.challenger, after.who) == (before.champion, None, "rollout")
    assert done[1].reasons[0][:60] in after.why
    skipped = rolled.sensed()
    assert "has been on trial" in (skipped.skip_message or "")


def test_a_step_killed_before_each_of_its_effects_in_turn_has_the_same_result(
    rolled: Rolled,
) -> None:
    champion = plan_of(rolled).champion
    trial = enter(rolled.settings, Thresholds(0.3, 0.75))
    rolled.challenge(trial)
    assert killed(rolled, before="end") == promoting.KILLED  # it is in shadow by now
    rolled.pay(100, rate=400)

    for effect in ("put away", "read on", "mature", "change"):
        assert killed(rolled, before=effect) == promoting.KILLED
        assert plan_of(rolled).mode == "shadow"
    assert killed(rolled, before="end") == promoting.KILLED
    done = rolled.step()

    after = plan_of(rolled)
    assert (after.champion, after.challenger, after.mode, after.share) == (
        champion, trial, "canary", 0.1,
    )  # fmt: skip
    assert done.action == "hold"
    assert counted(rolled, after.salt, "shadow") == 100
    withdraw(rolled, trial)


def test_a_withdrawal_killed_before_each_of_its_effects_in_turn_leaves_neither_plan_nor_alias(
    rolled: Rolled,
) -> None:
    bad = enter(rolled.settings, Thresholds(0.0, 0.001))
    rolled.challenge(bad)
    rolled.step()
    rolled.pay(600, rate=400)

    for effect in ("alias", "change", "end"):
        assert plan_of(rolled).challenger == bad
        assert killed(rolled, before=effect) == promoting.KILLED
    rolled.step()

    after = plan_of(rolled)
    assert (after.challenger, after.who) == (None, "rollout")
    assert registry.release_of(rolled.settings.mlflow_tracking_uri, "challenger") is None


def test_of_a_trial_that_has_ended_sums_and_verdict_stay_and_no_single_decision(
    rolled: Rolled,
) -> None:
    trial = enter(rolled.settings, Thresholds(0.3, 0.65))
    rolled.challenge(trial)
    rolled.step()
    rolled.pay(100, rate=400)
    rolled.step()
    rolled.step()
    salt = plan_of(rolled).salt
    folder = rolled.settings.rollouts / f"{salt}-shadow"
    waited = list(folder.glob("????-??-??/*.parquet"))
    withdraw(rolled, trial, why="it was a mistake")

    assert killed(rolled, before="never") == 0
    kept = json.loads((folder / "ended.json").read_text())

    assert waited
    assert sorted(file.name for file in folder.iterdir()) == ["ended.json", "state.json"]
    assert (kept["release"], kept["mode"]) == (trial, "shadow")
    assert kept["ended"]["who"] == "rollout"
    assert kept["judged"]["figures"]["decisions"]["challenger"] == 100
    canary = json.loads((rolled.settings.rollouts / f"{salt}-canary" / "ended.json").read_text())
    assert (canary["ended"]["who"], canary["ended"]["why"]) == ("ann", "it was a mistake")
    assert counted(rolled, salt, "shadow") == 100


def test_a_challenger_of_other_code_is_carried_in_by_its_own_bento_and_then_tried(
    rolled: Rolled, tmp_path: Path
) -> None:
    champion = plan_of(rolled).champion
    foreign = packed_by_other_code(rolled.settings, tmp_path)
    rolled.challenge(foreign)

    carried = rolled.step()
    rolled.pay(20)
    done = [rolled.step()]
    rolled.pay(200, rate=400)
    done += [rolled.step()]
    rolled.pay(1_000)
    done += [rolled.step()]

    assert (carried.action, carried.release) == ("carry", foreign)
    named = promotion.agreement(rolled.settings)
    assert named == {
        "alias": champion, "plan": champion, "bento_of_plan": foreign, "bento": foreign,
    }  # fmt: skip
    assert [look.action for look in done] == ["shadow", "canary", "canary"], [
        look.reasons for look in done
    ]
    deciding = decided_by(rolled)
    assert set(deciding[-1_220:-1_000]) == {champion}
    assert {champion, foreign} == set(deciding[-1_000:])
    withdraw(rolled, foreign)


OTHER_CODE = """
from pathlib import Path
import sys, mlflow
from switchyard.learning.thresholds import Thresholds
from switchyard.settings import load_settings
from tests.packing import pack
print(pack(load_settings(home=sys.argv[1]), Thresholds(0.3, 0.79)))
"""


def plan_of(rolled: Rolled) -> Plan:
    plan = current_plan(rolled.settings)
    assert plan is not None
    return plan


def killed(rolled: Rolled, *, before: str, after: timedelta = timedelta(hours=6)) -> int | None:
    """A step in a process of its own, which is killed before an effect; how it ended."""
    at = MORNING + after
    return promoting.run(rolled.settings, "step the rollout", killed_before=before, at=at)


def withdraw(rolled: Rolled, release: str, why: str = "the test is over") -> None:
    change = asked({"action": "rollback", "release": release, "who": "ann", "why": why})
    change_traffic(rolled.settings, change)
    registry.remove_alias(rolled.settings.mlflow_tracking_uri, "challenger")


def counted(rolled: Rolled, salt: str, mode: Mode) -> int:
    """Decisions of the challenger that its phase has counted."""
    known = rollout.experiments_of(rolled.settings).load(Phase(salt, mode, 0, 0))
    assert known is not None
    return known.canary.count(CHALLENGER)


def decided_by(rolled: Rolled) -> list[str]:
    """The release of each journalled decision, in order of the transactions."""
    records = [
        json.loads(body_of(line))
        for segment in segments(rolled.settings.journal)
        for line in segment.read_bytes().splitlines()
        if b'"type":"decision"' in line
    ]
    records.sort(key=lambda r: int(r["transaction"]["transaction_id"].removeprefix("t")))
    return [record["release"] for record in records]


def packed_by_other_code(settings: Settings, folder: Path) -> str:
    """A release and its Bento, made by a copy of the package whose code differs and which computes this one's columns,
    too."""
    for package in ("switchyard", "bentos"):
        no_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / package, folder / package, ignore=no_caches)
    with (folder / "switchyard" / "fraud" / "requests.py").open("a") as file:
        file.write("\n# reads a field more\n")
    told = folder / "switchyard" / "fraud" / "compatible.py"
    none = "EARLIER: frozenset[str] = frozenset()"
    assert none in told.read_text()
    told.write_text(told.read_text().replace(none, f"EARLIER = frozenset({{{code_hash()!r}}})"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OTHER_CODE, str(settings.home)],
        env=os.environ | exports(settings) | {"PYTHONPATH": f"{folder}:{PROJECT}"},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_a_release_on_trial_that_knows_nothing_of_a_change_makes_room_for_one_that_does(
    rolled: Rolled,
) -> None:
    old, new = (pack(rolled.settings, Thresholds(0.3, block)) for block in (0.62, 0.64))
    instance, settings = dg.DagsterInstance.ephemeral(), rolled.settings
    rolled.challenge(old)
    entered = [rolled.step(), rolled.step()]
    moved = DayReport("model", DAY, Verdict(False, ("it fell",), {}))
    DayReports(settings.monitoring).save(moved)

    waits, none = retraining.ask(settings, "schedule", MORNING, instance)
    starts, _ = retraining.ask(settings, "performance", MORNING, instance)
    rolled.challenge(new)
    done = [rolled.step(), rolled.step()]

    assert ("shadow", old) in [(look.action, look.release) for look in entered], entered
    assert none is None
    assert f"release {old}, trained as of 2026-02-27, is on trial" in waits.because
    assert starts.instead_of == old
    assert [(look.action, look.release) for look in done] == [("rollback", old), ("shadow", new)]
    assert f"release {new} has learned what release {old} could not" in done[0].reasons[0]


def test_the_policy_is_what_the_settings_say() -> None:
    settings = load_settings(rollout_steps=(0.0, 0.2), rollout_min_hours=2.0)

    policy = rollout.policy_of(settings)

    assert (policy.steps, policy.min_hours, policy.min_matured) == ((0.0, 0.2), 2.0, 20_000)

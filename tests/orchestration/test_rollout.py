"""The rollout goes its whole way by itself, with a real service, gateway and Bentos; a bad release is withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from assets.fraud import registry
from orchestration import deployment, promotion, rollout
from orchestration.cli import main
from orchestration.definitions import build_definitions
from orchestration.traffic import current_plan
from switchyard.fraud.columns import LABEL, arrow_schema
from switchyard.fraud.replay import ReplayPlan, Sender, Sending
from switchyard.lake import Lake
from switchyard.learning.thresholds import Thresholds
from switchyard.settings import Settings, load_settings
from tests.homes import close, in_home, open_small
from tests.packing import pack
from tests.releases import SUSPICIOUS_AMOUNT

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
        Lake(self.settings.lake).write("labels", DAY, labels)

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
    done += [rolled.step(), rolled.step(timedelta(days=9)), rolled.step(timedelta(days=9))]

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


def test_the_policy_is_what_the_settings_say() -> None:
    settings = load_settings(rollout_steps=(0.0, 0.2), rollout_min_hours=2.0)

    policy = rollout.policy_of(settings)

    assert (policy.steps, policy.min_hours, policy.min_matured) == ((0.0, 0.2), 2.0, 20_000)

"""Changing the traffic plan of a home and waiting until every worker of its service follows it.

Command line and jobs come through here. Here: whose plan it is, waiting, taking back what a worker refuses. Not here: what a
change does (``switchyard.serving.plan``), where plans are kept (``switchyard.serving.traffic``).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from orchestration import deployment
from switchyard.errors import PlanError, ReleaseError, ServiceError
from switchyard.fraud.online import traffic_of
from switchyard.learning.release import check_release
from switchyard.serving import valkey
from switchyard.serving.approval import approver
from switchyard.serving.plan import Change, Plan, Step
from switchyard.serving.traffic import Traffic, change_plan, mirrored
from switchyard.serving.workers import Service, Worker, run_folder, services, workers
from switchyard.settings import Settings

FOLLOW_TIMEOUT_S = 60.0
"""How long workers may take to load what a plan names."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The plans before and after, and which workers follow the latter since how many seconds after the call."""

    before: Plan
    after: Plan
    workers: list[int]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            **described(self.after),
            "before": self.before.champion,
            "workers": ", ".join(map(str, self.workers)) or "no service runs",
            "seconds": round(self.seconds, 3),
        }


def asked(fields: Mapping[str, Any]) -> Change:
    """A change from its fields. Raises PlanError naming the field that is wrong."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return msgspec.convert(given, Change)
    except msgspec.ValidationError as error:
        raise PlanError(f"there is no such change: {error}") from None


def change_traffic(settings: Settings, change: Change) -> Changed:
    """Change the plan; returns when all workers of the running service follow it.

    Where no service runs, the plan that there is is changed. Raises PlanError if the change can't be made;
    ReleaseError if a release is unknown or damaged, or a worker refuses it: the plan is then as before;
    ServiceError if there is neither service nor plan, or the workers say nothing in time.
    """
    started = time.monotonic()
    bento, running = _answering(settings)
    if change.action == "reload" and not running:
        raise ServiceError(_NOTHING_RUNS.format(home=settings.home))
    traffic = traffic_of(settings.home, valkey.address_of(settings).url)
    try:
        before, after = change_plan(
            traffic,
            bento,
            change,
            now=datetime.now(UTC),
            check=lambda release: check_release(settings.releases / release),
            may_decide=partial(approver, settings),
        )
        told = _followed(settings, traffic, running, before, after)
    finally:
        traffic.close()
    return Changed(before, after, told, time.monotonic() - started)


def follow_step(settings: Settings, bento: str, step: Step, *, who: str, why: str) -> Plan:
    """Make ``step`` from the plan of ``bento``; returns the plan before it when all workers of the Bento that it
    is for then follow it. Raises as ``change_traffic`` does."""
    with contextlib.closing(traffic_of(settings.home, valkey.address_of(settings).url)) as traffic:
        before, after = traffic.change(bento, step, who=who, why=why, now=datetime.now(UTC))
        running = [service for service in services(settings.home) if service.bento == after.bento]
        _followed(settings, traffic, running, before, after)
    return before


def _followed(
    settings: Settings, traffic: Traffic, running: list[Service], before: Plan, after: Plan
) -> list[int]:
    """Wait until the workers follow the plan, their ids; it is taken back where one refuses."""
    told = _wait(settings, running, after.number)
    refusals = [worker.refused for worker in told if worker.refused]
    if refusals:
        _take_back(traffic, before, after, refusals[0])
        raise ReleaseError(f"not done, what served before goes on: {refusals[0]}")
    return [worker.pid for worker in told]


def current_plan(settings: Settings) -> Plan | None:
    """The plan that holds, None before the first one."""
    with contextlib.closing(traffic_of(settings.home, valkey.address_of(settings).url)) as traffic:
        return traffic.current()


def history_of(settings: Settings) -> list[Plan]:
    """The plans that are kept, the oldest first."""
    traffic = traffic_of(settings.home, valkey.address_of(settings).url)
    try:
        return traffic.history()
    finally:
        traffic.close()


def described(plan: Plan) -> dict[str, Any]:
    """A plan in the words of the command line."""
    return {
        "number": plan.number,
        "decides": plan.champion,
        "previous": plan.previous,
        "challenger": plan.challenger,
        "mode": f"canary, {plan.share:g} of the customers" if plan.mode == "canary" else plan.mode,
        "by": plan.who,
        "when": f"{plan.when:%Y-%m-%d %H:%M:%S} UTC" if plan.when else "",
        "why": plan.why,
    }


def _answering(settings: Settings) -> tuple[str, list[Service]]:
    """The Bento that answers, the deployed one or else the one served by hand, and its services; without any,
    the Bento of the plan."""
    living = services(settings.home)
    deployed = deployment.current(settings)
    if deployed or living:
        bento = deployed.release if deployed else living[0].bento
        return bento, [service for service in living if service.bento == bento]
    if plan := mirrored(settings.home):
        return plan.bento, []
    raise ServiceError(_NOTHING_RUNS.format(home=settings.home))


_NOTHING_RUNS = (
    "no service is running in {home}: start one with `switchyard serve`, or deploy one with "
    "`switchyard demo`"
)


def _wait(settings: Settings, running: list[Service], number: int) -> list[Worker]:
    if not running:
        return []
    deadline = time.monotonic() + FOLLOW_TIMEOUT_S
    while time.monotonic() < deadline:
        told = [w for s in running for w in workers(run_folder(settings.home, s.pid))]
        if told and all(worker.plan >= number for worker in told):
            return told
        time.sleep(0.02)
    raise ServiceError(
        f"not every worker has followed the plan within {FOLLOW_TIMEOUT_S:.0f} s; the service's log says why"
    )


def _take_back(traffic: Traffic, before: Plan, refused: Plan, reason: str) -> None:
    """The plan as it was, unless somebody has changed it since."""

    def step(plan: Plan) -> Plan:
        return before if plan.number == refused.number else plan

    traffic.change(
        refused.bento,
        step,
        who=refused.who,
        why=f"taken back, a worker refused it: {reason}",
        now=datetime.now(UTC),
    )

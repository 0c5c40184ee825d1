"""Changing the traffic plan of a home and waiting until every worker of its service follows it.

Command line and jobs come through here. Here: whose plan it is, waiting, taking back what a worker refuses. Not here: what a
change does (``switchyard.serving.plan``), where plans are kept (``switchyard.serving.traffic``).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
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
from switchyard.serving.traffic import Traffic, between_moves, change_plan, mirrored
from switchyard.serving.workers import Worker, run_folder, services, workers
from switchyard.settings import Settings

FOLLOW_TIMEOUT_S = 60.0
"""How long workers may take to load what a plan names."""

TURN_S = 90.0
"""How long a change waits for a promotion that is under way; one takes some ten seconds."""


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

    Where no service runs, the plan that there is is changed. A promotion or rollback that is under way is waited for.
    Raises PlanError if the change can't be made, or the move does not end, ReleaseError if a release is unknown or
    damaged, and what ``follow`` raises.
    """
    with between_moves(settings.home, wait_s=TURN_S):
        return _change(settings, change)


def _change(settings: Settings, change: Change) -> Changed:
    bento = _answering(settings, change)

    def made(traffic: Traffic) -> tuple[Plan, Plan]:
        return change_plan(
            traffic,
            bento,
            change,
            now=datetime.now(UTC),
            check=lambda release: check_release(settings.releases / release),
            may_decide=partial(approver, settings),
        )

    return follow(settings, made)


def step_traffic(settings: Settings, bento: str, step: Step, *, who: str, why: str) -> Changed:
    """The same for a step of the plan of ``bento``, the Bento that has answered so far; the workers of the
    one that the plan is for afterwards are waited for. For promotions, whose turn it is already."""
    return follow(
        settings,
        lambda traffic: traffic.change(bento, step, who=who, why=why, now=datetime.now(UTC)),
    )


def follow(settings: Settings, made: Callable[[Traffic], tuple[Plan, Plan]]) -> Changed:
    """Have the plan changed and wait until all workers of its Bento follow it.

    Raises ReleaseError if a worker refuses a release that the plan names anew: it is then as before (what
    takes a release out is never taken back); ServiceError if the workers say nothing in time.
    """
    started = time.monotonic()
    traffic = traffic_of(settings.home, valkey.address_of(settings).url)
    try:
        before, after = made(traffic)
        told = _wait(settings, after)
        refusals = [worker.refused for worker in told if worker.refused]
        if refusals and _names_anew(before, after):
            _take_back(traffic, before, after, refusals[0])
            raise ReleaseError(f"not done, what served before goes on: {refusals[0]}")
        if refusals:
            raise ReleaseError(f"done, but a worker can't follow all of the plan: {refusals[0]}")
    finally:
        traffic.close()
    return Changed(before, after, [w.pid for w in told], time.monotonic() - started)


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


def _answering(settings: Settings, change: Change) -> str:
    """The Bento that answers, the deployed one or else the one served by hand; without any, that of the plan,
    which can be changed then, but not be read again."""
    if running := deployment.current(settings):
        return running.release
    for service in services(settings.home):
        return service.bento
    plan = mirrored(settings.home)
    if plan is None or change.action == "reload":
        raise ServiceError(
            f"no service is running in {settings.home}: start one with `switchyard serve`, or deploy one "
            "with `switchyard demo`"
        )
    return plan.bento


def _wait(settings: Settings, plan: Plan) -> list[Worker]:
    """What all workers of the services of the plan's Bento say once they follow it."""
    running = [service for service in services(settings.home) if service.bento == plan.bento]
    deadline = time.monotonic() + FOLLOW_TIMEOUT_S
    while running and time.monotonic() < deadline:
        told = [w for s in running for w in workers(run_folder(settings.home, s.pid))]
        if told and all(worker.plan >= plan.number for worker in told):
            return told
        time.sleep(0.02)
    if not running:
        return []
    raise ServiceError(
        f"not every worker has followed the plan within {FOLLOW_TIMEOUT_S:.0f} s; the service's log says why"
    )


def _names_anew(before: Plan, after: Plan) -> bool:
    """Whether a release decides, or is on trial, that did not before."""
    return after.champion != before.champion or after.challenger not in (None, before.challenger)


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

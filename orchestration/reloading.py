"""Naming a release in the plan and waiting until every worker has said that it serves it; `switchyard reload`.

Here: writing the plan, waiting, taking it back if a worker refuses. Not here: how a worker loads a release
(``switchyard.serving.reload``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from orchestration import deployment
from switchyard.errors import ReleaseError, ServiceError
from switchyard.learning.release import check_release
from switchyard.serving.plan import Plan, plan_file, read_plan, write_plan
from switchyard.serving.workers import Service, Worker, run_folder, services, workers
from switchyard.settings import Settings

RELOAD_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What decides now, what did before, which workers said so, and after how many seconds."""

    champion: str
    previous: str | None
    workers: list[int]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "decides": self.champion,
            "before": self.previous,
            "workers": ", ".join(map(str, self.workers)),
            "seconds": round(self.seconds, 3),
        }


def reload_release(settings: Settings, release_id: str | None, reason: str) -> Reloaded:
    """Let ``release_id`` decide (None: read again what the plan names); returns when all workers do.

    Raises ReleaseError if it is unknown or damaged, or a worker refuses it: the plan is then as before.
    Raises ServiceError if no service runs here or its workers say nothing in time.
    """
    started = time.monotonic()
    bento = _bento(settings)
    before = read_plan(settings.home) if release_id is None else _readable(settings)
    plan = _plan(settings, bento, release_id, reason, before)
    pids = let_decide(settings, plan, before)
    return Reloaded(plan.champion, plan.previous, pids, time.monotonic() - started)


def let_decide(settings: Settings, plan: Plan, before: Plan | None) -> list[int]:
    """Write the plan and wait until all workers of its Bento have said that they follow it; their ids.

    If one refuses, the plan is ``before`` again, and ReleaseError says why. Raises ServiceError if none says
    anything.
    """
    running = _running(settings, plan.bento)
    stamp = write_plan(settings.home, plan)
    told = _wait(settings, running, stamp)
    refusals = [worker.refused for worker in told if worker.refused]
    if refusals:
        _take_back(settings, before)
        raise ReleaseError(
            f"{plan.champion} is not served, what served before goes on: {refusals[0]}"
        )
    return [worker.pid for worker in told]


def _bento(settings: Settings) -> str:
    """The Bento that answers: the deployed one, else the one served by hand."""
    if deployed := deployment.current(settings):
        return deployed.release
    for service in services(settings.home):
        return service.bento
    raise _none_runs(settings)


def _running(settings: Settings, bento: str) -> list[Service]:
    found = [service for service in services(settings.home) if service.bento == bento]
    if not found:
        raise _none_runs(settings)
    return found


def _none_runs(settings: Settings) -> ServiceError:
    return ServiceError(
        f"no service is running in {settings.home}: start one with `switchyard serve`, "
        "or deploy one with `switchyard demo`"
    )


def _plan(
    settings: Settings, bento: str, release_id: str | None, reason: str, before: Plan | None
) -> Plan:
    same = before if before and before.bento == bento else Plan(bento, bento)
    if release_id is None:
        return same
    if release_id != bento:  # the Bento carries its own
        check_release(settings.releases / release_id)
    return Plan(bento, release_id, same.succeeded_by(release_id), reason)


def _readable(settings: Settings) -> Plan | None:
    """The plan so far; one that can't be read is about to be replaced."""
    try:
        return read_plan(settings.home)
    except ReleaseError:
        return None


def _wait(settings: Settings, running: list[Service], stamp: int) -> list[Worker]:
    deadline = time.monotonic() + RELOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        told = [w for s in running for w in workers(run_folder(settings.home, s.pid))]
        if told and all(worker.plan == stamp for worker in told):
            return told
        time.sleep(0.05)
    raise ServiceError(
        f"not every worker has read the plan within {RELOAD_TIMEOUT_S:.0f} s; the service's log says why"
    )


def _take_back(settings: Settings, before: Plan | None) -> None:
    if before is None:
        plan_file(settings.home).unlink(missing_ok=True)
    else:
        write_plan(settings.home, before)

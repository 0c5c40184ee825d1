"""`switchyard reload`: name a release in the plan and wait until every worker has said what it serves.

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
    running = _running(settings)
    bento = running[0].bento
    before = read_plan(settings.home) if release_id is None else _readable(settings)
    plan = _plan(settings, bento, release_id, reason, before)
    stamp = write_plan(settings.home, plan)
    told = _wait(settings, running, stamp)
    refusals = [worker.refused for worker in told if worker.refused]
    if refusals:
        _take_back(settings, before)
        raise ReleaseError(
            f"{plan.champion} is not served, what served before goes on: {refusals[0]}"
        )
    pids = [worker.pid for worker in told]
    return Reloaded(plan.champion, plan.previous, pids, time.monotonic() - started)


def _running(settings: Settings) -> list[Service]:
    """The services of the Bento that answers: the deployed one, else the one served by hand."""
    living = services(settings.home)
    deployed = deployment.current(settings)
    bento = deployed.release if deployed else living[0].bento if living else None
    found = [service for service in living if service.bento == bento]
    if not found:
        raise ServiceError(
            f"no service is running in {settings.home}: start one with `switchyard serve`, "
            "or deploy one with `switchyard demo`"
        )
    return found


def _plan(
    settings: Settings, bento: str, release_id: str | None, reason: str, before: Plan | None
) -> Plan:
    same = before if before and before.bento == bento else Plan(bento, bento)
    if release_id is None:
        return same
    if release_id != bento:  # the Bento carries its own
        check_release(settings.releases / release_id)
    previous = same.previous if same.champion == release_id else same.champion
    return Plan(bento, release_id, previous, reason)


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

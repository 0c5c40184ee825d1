"""Who decides changes as one: service, gateway, traffic plan, MLflow's aliases and the record, or none of them.

The traffic plan says who decides; aliases and record follow it. A move to another Bento is written down first
(``promotion.json``), made ready, committed, carried out and crossed out, and each step may be taken twice: what a
killed process left is undone by ``recover`` if it was not committed, and completed if it was. Not here: how a service
starts (``deployment``), what a change of the plan is (``switchyard.serving.plan``), whether a release deserves it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from assets.fraud import registry
from assets.ports import Moved
from bentos.fraud.build import build_bento, built_from
from orchestration import deployment
from orchestration.deployment import Service
from orchestration.traffic import current_plan, step_traffic
from switchyard.errors import PlanError, ReleaseError, ServiceError, SwitchyardError
from switchyard.lake import write_text
from switchyard.learning.release import check_release
from switchyard.lock import alone
from switchyard.serving.approval import approver
from switchyard.serving.plan import Plan, carried, deployed, first, rolled_back
from switchyard.serving.plan import Step as PlanStep
from switchyard.serving.traffic import move_of, turn_of
from switchyard.settings import Settings

STEPS = ("note", "start", "plan", "commit", "switch", "aliases", "record", "end", "forget")
"""In their order. Where the running service stays, there is no 'start', 'commit', 'switch' and 'end'."""
GRACE_S = 0.5
"""Between the switch and the end of the service before: what the gateway had already sent its way arrives."""

Kind = Literal["promotion", "rollback", "carry"]
Step = Callable[[str], None]
"""Told the name of each of STEPS just before it is taken."""


def _silently(_step: str) -> None:
    """Told of steps where nobody wants to know."""


class Move(msgspec.Struct, frozen=True):
    """From one plan and service to the next; by whom, why, with whose approval.

    ``verdict`` holds the reasons of the policies that passed the release; ``at`` is UTC. ``before`` and ``service``
    are the same where only the plan changes.
    """

    kind: Kind
    plan_before: Plan
    plan: Plan
    before: Service | None
    service: Service
    who: str
    why: str
    verdict: tuple[str, ...] = ()
    approved_by: str | None = None
    at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    committed: bool = False

    @property
    def champion(self) -> str:
        return self.plan.champion

    @property
    def in_place(self) -> bool:
        return self.before == self.service

    def __str__(self) -> str:
        return f"the {self.kind} of release {self.champion} by {self.who}"


class Record(msgspec.Struct, frozen=True):
    """That a release decides from a plan on; ``promotions/<number>.json`` of the home."""

    champion: str
    previous: str | None
    bento: str
    number: int
    who: str
    why: str
    when: datetime | None
    verdict: tuple[str, ...] = ()
    approved_by: str | None = None


class LocalServing:
    """Implements ``assets.ports.Serving`` with processes of this host."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def build(self, release_folder: Path) -> tuple[str, float]:
        started = time.perf_counter()
        tag = build_bento(release_folder, self._settings.home / "bentoml")
        return tag, time.perf_counter() - started

    def promote(self, release_id: str, *, who: str, why: str, verdict: Sequence[str] = ()) -> Moved:
        return promote(self._settings, release_id, who=who, why=why, verdict=verdict)

    def roll_back(self, *, who: str, why: str) -> Moved:
        return roll_back(self._settings, who=who, why=why)

    def recover(self) -> str | None:
        return recover(self._settings)


# ---------------------------------------------------------------- moves


def promote(
    settings: Settings,
    release_id: str,
    *,
    who: str,
    why: str,
    verdict: Sequence[str] = (),
    step: Step = _silently,
) -> Moved:
    """Let ``release_id`` decide, in the service of its own Bento, which must have been built.

    Raises ReleaseError if it is not whole or not registered, PlanError if it lacks the approval that the
    setting 'four_eyes' asks for, ServiceError if its service does not become ready: nothing has changed then.
    """
    check_release(settings.releases / release_id)
    _refuse_unregistered(settings, release_id)
    approved_by = approver(settings, release_id, who)

    def plan(now: Plan) -> Plan:
        return deployed(now, release_id)

    told = {"who": who, "why": why, "verdict": tuple(verdict), "approved_by": approved_by}
    return _move(settings, "promotion", release_id, plan, told, step)


def roll_back(settings: Settings, *, who: str, why: str, step: Step = _silently) -> Moved:
    """Let the champion before decide again: in the running service where its code can, else in that one's own.

    Raises PlanError if there is none, ReleaseError or ServiceError if it can't be served: nothing has
    changed then.
    """
    service, plan = deployment.named(settings), current_plan(settings)
    if service is None or plan is None or plan.bento != service.release or plan.previous is None:
        raise PlanError("there is no champion before this one to go back to")
    stays = _computes(settings, service, plan.previous)
    bento = service.release if stays else plan.previous

    def back(now: Plan) -> Plan:
        return msgspec.structs.replace(rolled_back(now, now.champion), bento=bento)

    return _move(settings, "rollback", bento, back, {"who": who, "why": why}, step)


def carry(
    settings: Settings, release_id: str, *, who: str, why: str, step: Step = _silently
) -> Moved:
    """Let the Bento of ``release_id`` answer, who decides and who is on trial staying as they are: for a
    challenger whose columns only its own code computes. Raises as ``promote`` does."""
    check_release(settings.releases / release_id)

    def plan(now: Plan) -> Plan:
        return carried(now, release_id)

    return _move(settings, "carry", release_id, plan, {"who": who, "why": why}, step)


def recover(settings: Settings, step: Step = _silently) -> str | None:
    """Complete or undo what a killed process left half-way, and let aliases and record follow the plan; in words
    what was done, None if all was in order.

    What a living process is doing is left to it. Raises ServiceError if the service can't be started.
    """
    with alone(turn_of(settings.home), wait_s=0) as free:
        return _recover(settings, step) if free else None


def down(settings: Settings) -> bool:
    """End the gateway and every service of the home once no move is under way; whether one answered."""
    with alone(turn_of(settings.home)):
        answered = deployment.down(settings)
        move = noted(settings)
        for service in (move.service, move.before) if move else ():
            if service is not None:
                deployment.end(service)
        return answered


def noted(settings: Settings) -> Move | None:
    """The move that is under way, or was when its process died."""
    try:
        return msgspec.json.decode(move_of(settings.home).read_bytes(), type=Move)
    except FileNotFoundError:
        return None


def out_of_step(settings: Settings) -> str | None:
    """What there is to recover, as a name of its own for each case; None also while a living process is at it."""
    with alone(turn_of(settings.home), wait_s=0) as free:
        if not free:
            return None
        if move := noted(settings):
            return f"{move.kind} {move.champion} {move.at.isoformat()}"
        plan = current_plan(settings)
        return f"plan {plan.number}" if plan and not _is_followed(settings, plan) else None


def agreement(settings: Settings) -> dict[str, str | None]:
    """Who decides by MLflow's alias, by the plan, and which Bento the gateway leads to and the plan is for."""
    service, plan = deployment.named(settings), current_plan(settings)
    return {
        "alias": registry.release_of(settings.mlflow_tracking_uri, "champion"),
        "plan": plan.champion if plan else None,
        "bento_of_plan": plan.bento if plan else None,
        "bento": service.release if service and service.process() else None,
    }


# ---------------------------------------------------------------- step by step


def _move(
    settings: Settings,
    kind: Kind,
    bento: str,
    step_of_plan: PlanStep,
    told: dict[str, Any],
    step: Step,
) -> Moved:
    started = time.perf_counter()
    with alone(turn_of(settings.home)):
        _recover(settings, step)
        before = deployment.named(settings)
        plan = _plan_of(current_plan(settings), before.release if before else bento)
        service = _service_for(settings, bento, before)
        move = Move(kind, plan, step_of_plan(plan), before, service, **told)
        _make(settings, move, step)
        running = deployment.current(settings)
    if running is None:
        raise ServiceError(f"the service of release {service.release} has ended")
    replaced = plan.champion if before else None
    return Moved(running, move.champion, replaced, time.perf_counter() - started)


def _make(settings: Settings, move: Move, step: Step) -> None:
    step("note")
    _write(move, move_of(settings.home))
    try:
        if not move.in_place:
            step("start")
            deployment.ensure_ready(settings, move.service)
        step("plan")
        step_traffic(settings, move.plan_before.bento, _to(move.plan), who=move.who, why=move.why)
    except SwitchyardError:
        _undo(settings, move)
        raise
    if not move.in_place:
        step("commit")
        move = msgspec.structs.replace(move, committed=True)
        _write(move, move_of(settings.home))
    _complete(settings, move, step)


def _complete(settings: Settings, move: Move, step: Step) -> None:
    """From the commitment to the end; each step leaves what is as it should be alone."""
    if not move.in_place:
        step("switch")
        deployment.ensure_ready(settings, move.service)
        deployment.name(settings, move.service)
    _follow_plan(settings, step, move)
    if move.before is not None and not move.in_place:
        step("end")
        time.sleep(GRACE_S)
        deployment.end(move.before)
    step("forget")
    move_of(settings.home).unlink()


def _undo(settings: Settings, move: Move) -> None:
    """Plan and services as before, but for the plan's number and for what others have changed of it."""
    now = current_plan(settings)
    if now is not None and _same(now, move.plan):
        step_traffic(
            settings, now.bento, _to(move.plan_before), who=move.who, why=f"undone: {move.why}"
        )
    if not move.in_place:
        deployment.end(move.service)
    move_of(settings.home).unlink()


def _recover(settings: Settings, step: Step) -> str | None:
    move = noted(settings)
    if move is None:
        return _follow_plan(settings, step)
    now = current_plan(settings)
    in_place = move.in_place and now is not None and _same(now, move.plan)
    if move.committed or in_place:
        _complete(settings, move, step)
        return f"{move} had been under way when its process died, and was completed"
    _undo(settings, move)
    return f"{move} had not been ready when its process died, and was undone"


def _follow_plan(settings: Settings, step: Step, move: Move | None = None) -> str | None:
    """Let aliases and record say what the plan says, whoever has changed it; in words, if they did not."""
    plan = current_plan(settings)
    if plan is None or _is_followed(settings, plan):
        return None
    step("aliases")
    uri = settings.mlflow_tracking_uri
    registry.set_alias(uri, "champion", plan.champion)
    if plan.previous is None:
        registry.remove_alias(uri, "previous")
    elif registry.version_of(uri, plan.previous):
        registry.set_alias(uri, "previous", plan.previous)
    if registry.release_of(uri, "challenger") == plan.champion:
        registry.remove_alias(uri, "challenger")
    step("record")
    record = Record(plan.champion, plan.previous, plan.bento, plan.number, plan.who, plan.why, plan.when,
                    move.verdict if move else (), move.approved_by if move else None)  # fmt: skip
    _write(record, _records(settings) / f"{plan.number:08d}.json")
    return f"aliases and record follow the plan's champion {plan.champion}"


def _is_followed(settings: Settings, plan: Plan) -> bool:
    """Whether the newest record and the alias are of the plan's champion; so where it has no version at all."""
    uri = settings.mlflow_tracking_uri
    tracked = settings.mlflow_uri or (settings.home / "mlflow" / "mlflow.db").exists()
    if not tracked or registry.version_of(uri, plan.champion) is None:
        return True
    newest = max(_records(settings).glob("*.json"), default=None)
    if newest is None or registry.release_of(uri, "champion") != plan.champion:
        return False
    record = msgspec.json.decode(newest.read_bytes(), type=Record)
    return (record.champion, record.previous, record.bento) == (
        plan.champion,
        plan.previous,
        plan.bento,
    )


# ---------------------------------------------------------------- what a move needs to know


def _plan_of(plan: Plan | None, bento: str) -> Plan:
    """The plan that holds for a Bento: one that was made for another does not."""
    return plan if plan and plan.bento == bento else first(bento)


def _same(one: Plan, other: Plan) -> bool:
    """Whether they say the same, whoever made them."""
    return _to(one)(other) == other


def _to(plan: Plan) -> PlanStep:
    """The step to what ``plan`` says."""

    def step(now: Plan) -> Plan:
        return msgspec.structs.replace(
            plan, number=now.number, who=now.who, when=now.when, why=now.why
        )

    return step


def _service_for(settings: Settings, release_id: str, before: Service | None) -> Service:
    """The running service if it is of that Bento, else one to be started on a free port."""
    code = built_from(settings.home / "bentoml", release_id)
    if code is None:
        raise ReleaseError(f"release {release_id} has no Bento; build it with the job 'publish'")
    same = before is not None and (before.release, before.code) == (release_id, code)
    if before is not None and same and before.process() is not None:
        return before
    return Service(release_id, code, deployment.some_port())


def _computes(settings: Settings, service: Service, release_id: str) -> bool:
    """Whether the service's code computes the release's columns."""
    folders = (settings.releases / one for one in (service.release, release_id))
    own, other = (check_release(folder)["code_hash"] for folder in folders)
    return service.process() is not None and bool(own == other)


def _refuse_unregistered(settings: Settings, release_id: str) -> None:
    if registry.version_of(settings.mlflow_tracking_uri, release_id) is None:
        raise ReleaseError(
            f"release {release_id} is no version of the registered model; register it with the job 'publish'"
        )


# ---------------------------------------------------------------- files


def _records(settings: Settings) -> Path:
    return settings.home / "promotions"


def _write(content: msgspec.Struct, file: Path) -> None:
    write_text(msgspec.json.format(msgspec.json.encode(content)).decode() + "\n", file)

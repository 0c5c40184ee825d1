"""Who decides changes as one: service, gateway, traffic plan, MLflow's aliases and the record, or none of them.

A move is first written down (``promotion.json``), then made ready, committed, carried out step by step, and crossed
out. Each step may be taken twice. What a killed process left is undone if it was not committed, completed if it
was, by ``recover``, with which every move begins. Not here: how a service starts (``deployment``), whether a
release deserves it (the policies).
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from assets.fraud import registry
from assets.ports import Moved
from bentos.fraud.build import build_bento, built_from
from orchestration import deployment
from orchestration.deployment import Service
from orchestration.reloading import let_decide
from switchyard.errors import PromotionError, ReleaseError, ServiceError
from switchyard.lake import write_text
from switchyard.learning.release import check_release
from switchyard.serving.plan import Plan, read_plan
from switchyard.settings import Settings

STEPS = ("note", "start", "commit", "switch", "plan", "aliases", "record", "end", "forget")
"""In their order; from 'switch' on a move is completed, before it is undone."""
GRACE_S = 0.5
"""Between the switch and the end of the service before: what the gateway had already sent its way arrives."""

Step = Callable[[str], None]
"""Told the name of each of STEPS just before it is taken."""


class Move(msgspec.Struct, frozen=True):
    """One promotion or rollback: who is to decide, in which service, instead of which; and by whom and why.

    ``verdict`` holds the reasons of the policies that passed the release; ``at`` is UTC.
    """

    kind: Literal["promotion", "rollback"]
    champion: str
    previous: str | None
    service: Service
    before: Service | None
    plan_before: Plan | None
    who: str
    why: str
    verdict: tuple[str, ...]
    approved_by: str | None
    at: datetime
    committed: bool = False

    @property
    def replaces_service(self) -> bool:
        return self.before is not None and self.before != self.service


class Approval(msgspec.Struct, frozen=True):
    """A person's word that a release may be promoted."""

    release: str
    by: str
    why: str
    at: datetime


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
    step: Step = lambda _name: None,
) -> Moved:
    """Let ``release_id`` decide, in the service of its own Bento, which must have been built.

    Raises ReleaseError if it is not whole or not registered, PromotionError if it lacks the approval that the
    setting 'four_eyes' asks for, ServiceError if its service does not become ready: nothing has changed then.
    """
    started = time.perf_counter()
    check_release(settings.releases / release_id)
    _refuse_unregistered(settings, release_id)
    approved_by = _approver(settings, release_id, who)
    with _alone(settings):
        _recover(settings, step)
        before, plan = deployment.named(settings), read_plan(settings.home)
        move = Move(
            kind="promotion",
            champion=release_id,
            previous=_succeeded(plan, before, release_id),
            service=_service_for(settings, release_id, before),
            before=before,
            plan_before=plan,
            who=who,
            why=why,
            verdict=tuple(verdict),
            approved_by=approved_by,
            at=datetime.now(UTC),
        )
        return _make(settings, move, _decides(plan, before), started, step)


def roll_back(settings: Settings, *, who: str, why: str, step: Step = lambda _name: None) -> Moved:
    """Let the champion before decide again, in the running service where its code can, else in that one's own.

    Raises PromotionError if there is none, ReleaseError or ServiceError if it can't be served: nothing has
    changed then.
    """
    started = time.perf_counter()
    with _alone(settings):
        _recover(settings, step)
        before, plan = deployment.named(settings), read_plan(settings.home)
        if before is None or plan is None or plan.previous is None:
            raise PromotionError("there is no champion before this one to go back to")
        back = plan.previous
        move = Move(
            kind="rollback",
            champion=back,
            previous=_succeeded(plan, before, back),
            service=before if _computes(settings, before, back)
            else _service_for(settings, back, before),
            before=before,
            plan_before=plan,
            who=who,
            why=why,
            verdict=(),
            approved_by=None,
            at=datetime.now(UTC),
        )  # fmt: skip
        return _make(settings, move, _decides(plan, before), started, step)


def down(settings: Settings) -> bool:
    """End the gateway and every service of the home once no move is under way; whether one answered."""
    with _alone(settings):
        answered = deployment.down(settings)
        move = pending(settings)
        for service in (move.service, move.before) if move else ():
            if service is not None:
                deployment.end(service)
        return answered


def recover(settings: Settings, step: Step = lambda _name: None) -> str | None:
    """Complete or undo what a killed process left half-way; in words what was done, None if there was nothing.

    What a living process is doing is left to it. Raises ServiceError if the service can't be started.
    """
    if not _intent(settings).exists():
        return None
    with _alone(settings, patient=False) as alone:
        return _recover(settings, step) if alone else None


def pending(settings: Settings) -> Move | None:
    """The move that is under way, or was when its process died."""
    try:
        return msgspec.json.decode(_intent(settings).read_bytes(), type=Move)
    except FileNotFoundError:
        return None


def unfinished(settings: Settings) -> Move | None:
    """The move that a killed process left half-way; None also while a living one is at it."""
    if not _intent(settings).exists():
        return None
    with _alone(settings, patient=False) as alone:
        return pending(settings) if alone else None


def _make(
    settings: Settings, move: Move, replaced: str | None, started: float, step: Step
) -> Moved:
    step("note")
    _write(move, _intent(settings))
    try:
        step("start")
        deployment.ensure_ready(settings, move.service)
    except ServiceError:
        _undo(settings, move)
        raise
    step("commit")
    _write(msgspec.structs.replace(move, committed=True), _intent(settings))
    _complete(settings, move, step)
    deployed = deployment.current(settings)
    if deployed is None:
        raise ServiceError(f"the service of release {move.service.release} has ended")
    return Moved(deployed, move.champion, replaced, time.perf_counter() - started)


def _complete(settings: Settings, move: Move, step: Step) -> None:
    """From the commitment to the end; each step leaves what is as it should be alone."""
    step("switch")
    deployment.ensure_ready(settings, move.service)
    deployment.name(settings, move.service)
    step("plan")
    reason = f"{move.kind} by {move.who}: {move.why}"
    plan = Plan(move.service.release, move.champion, move.previous, reason)
    try:
        let_decide(settings, plan, move.plan_before)
    except ReleaseError:  # its workers can't: only the plan had changed, and it is as before
        _intent(settings).unlink()
        raise
    step("aliases")
    _set_aliases(settings, move)
    step("record")
    _write(move, settings.home / "promotions" / f"{move.at:%Y%m%dT%H%M%S%f}-{move.champion}.json")
    step("end")
    if move.before is not None and move.replaces_service:
        time.sleep(GRACE_S)
        deployment.end(move.before)
    step("forget")
    _intent(settings).unlink()


def _undo(settings: Settings, move: Move) -> None:
    if move.service != move.before:
        deployment.end(move.service)
    _intent(settings).unlink()


def _recover(settings: Settings, step: Step) -> str | None:
    move = pending(settings)
    if move is None:
        return None
    what = f"the {move.kind} of release {move.champion} by {move.who}"
    if not move.committed:
        _undo(settings, move)
        return f"{what} had not been ready when its process died, and was undone"
    _complete(settings, move, step)
    return f"{what} had been under way when its process died, and was completed"


# ---------------------------------------------------------------- what a move needs to know


def _service_for(settings: Settings, release_id: str, before: Service | None) -> Service:
    """The running service if it is of that Bento, else one to be started on a free port."""
    code = built_from(settings.home / "bentoml", release_id)
    if code is None:
        raise ReleaseError(f"release {release_id} has no Bento; build it with the job 'publish'")
    same = before is not None and (before.release, before.code) == (release_id, code)
    if before is not None and same and before.process() is not None:
        return before
    return Service(release_id, code, deployment.some_port())


def _decides(plan: Plan | None, service: Service | None) -> str | None:
    if service is None:
        return None
    return plan.champion if plan and plan.bento == service.release else service.release


def _succeeded(plan: Plan | None, service: Service | None, release_id: str) -> str | None:
    """Who will have decided before ``release_id``."""
    if service is None:
        return None
    own = Plan(service.release, service.release)
    return (plan if plan and plan.bento == service.release else own).succeeded_by(release_id)


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


def _set_aliases(settings: Settings, move: Move) -> None:
    uri = settings.mlflow_tracking_uri
    registry.set_alias(uri, "champion", move.champion)
    if move.previous is not None:
        registry.set_alias(uri, "previous", move.previous)
    if registry.release_of(uri, "challenger") == move.champion:
        registry.remove_alias(uri, "challenger")


# ---------------------------------------------------------------- four eyes


def approve(settings: Settings, release_id: str, *, by: str, why: str) -> Approval:
    """Write down that ``by`` approves of the release. Raises ReleaseError if it is not whole."""
    check_release(settings.releases / release_id)
    approval = Approval(release_id, by, why, datetime.now(UTC))
    _write(approval, _approvals(settings) / f"{release_id}.json")
    return approval


def _approver(settings: Settings, release_id: str, who: str) -> str | None:
    """Who approved of it. Raises PromotionError where approval is asked for and nobody else gave it."""
    try:
        file = _approvals(settings) / f"{release_id}.json"
        by = msgspec.json.decode(file.read_bytes(), type=Approval).by
    except FileNotFoundError:
        by = None
    if settings.four_eyes and by in (None, who):
        lacks = "nobody has approved of it" if by is None else f"{who} alone has approved of it"
        raise PromotionError(
            f"release {release_id} is not promoted by {who}: {lacks}; somebody else has to: "
            f"`switchyard approve {release_id} --by NAME --why WORDS`"
        )
    return by


# ---------------------------------------------------------------- files


def agreement(settings: Settings) -> dict[str, str | None]:
    """Who decides by MLflow's alias, by the plan, and which Bento the gateway leads to and the plan is for."""
    service, plan = deployment.named(settings), read_plan(settings.home)
    return {
        "alias": registry.release_of(settings.mlflow_tracking_uri, "champion"),
        "plan": plan.champion if plan else None,
        "bento_of_plan": plan.bento if plan else None,
        "bento": service.release if service and service.process() else None,
    }


def _intent(settings: Settings) -> Path:
    return settings.home / "promotion.json"


def _approvals(settings: Settings) -> Path:
    return settings.home / "approvals"


def _write(content: msgspec.Struct, file: Path) -> None:
    write_text(msgspec.json.format(msgspec.json.encode(content)).decode() + "\n", file)


@contextlib.contextmanager
def _alone(settings: Settings, *, patient: bool = True) -> Iterator[bool]:
    """One move at a time; the lock goes with the process that holds it. Whether this process has it."""
    with (settings.home / "promotion.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True

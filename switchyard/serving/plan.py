"""The traffic plan: who decides, who is on trial and for which customers, and the steps from one plan to the next.

A plan never changes; a step makes the next one of it, or refuses with words. Here: what a plan is and which steps
there are, nothing but values. Not here: where plans are kept (``traffic``), whose turn it is (``assignment``),
when a step should be made (the judge of ``learning``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from switchyard.errors import PlanError

Mode = Literal["off", "shadow", "canary"]
Action = Literal["shadow", "canary", "promote", "rollback", "reload"]

MOST_SHARE = 0.5
"""Largest share of a challenger: the control is as large, and nobody is in both."""

ReleaseId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Share = Annotated[float, msgspec.Meta(ge=0, le=MOST_SHARE)]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Releases by id. It holds for the Bento ``bento``; another one serves its own release.

    ``champion`` decides, ``previous`` did before and is the next rung of the ladder. ``challenger`` is on
    trial: in ``shadow`` it scores beside the champion, as a ``canary`` it decides for ``share`` of the
    customers, whom ``salt`` picks anew for each experiment. ``number`` grows with every change, made by
    ``who`` at ``when`` and ``why``.
    """

    bento: ReleaseId
    champion: ReleaseId
    previous: ReleaseId | None = None
    challenger: ReleaseId | None = None
    mode: Mode = "off"
    share: Share = 0.0
    salt: str = ""
    number: int = 0
    who: str = ""
    when: datetime | None = None
    why: str = ""

    def __post_init__(self) -> None:
        wrong = None
        if (self.mode == "off") != (self.challenger is None):
            wrong = "a challenger is in shadow or a canary, and without one the mode is off"
        elif (self.mode == "canary") != (self.share > 0):
            wrong = "a canary has a share above 0, and nothing else has one"
        elif self.challenger is not None and (self.challenger == self.champion or not self.salt):
            wrong = "a challenger is not the champion, and its experiment has a salt"
        if wrong:
            raise ValueError(wrong)


Step = Callable[[Plan], Plan]
"""From a plan to the next one; who, when, why and the number are not its concern. Raises PlanError."""


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change as people, judges and jobs ask for it.

    'shadow' and 'canary' put ``release`` on trial (None: the present challenger goes on), 'promote' lets it
    decide (None: the challenger), 'rollback' withdraws it (None: the challenger, without one the champion),
    'reload' changes nothing and has every worker read the plan again. ``number``: only if the plan has still
    this number.
    """

    action: Action
    who: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    why: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
    release: ReleaseId | None = None
    share: Share | None = None
    number: int | None = None

    def step(self, plan: Plan) -> Plan:
        """The next plan; ``plan`` itself where all is so already. Raises PlanError."""
        if self.number is not None and self.number != plan.number:
            raise PlanError(
                f"the plan has changed: it is number {plan.number} by now, the change was meant for "
                f"{self.number}; look at it again with `switchyard traffic show`"
            )
        if self.share is not None and self.action != "canary":
            raise PlanError(f"a share is of a canary; {self.action!r} takes none")
        if self.action == "canary":
            if not self.share:
                raise PlanError(f"a canary needs a share above 0 and up to {MOST_SHARE}")
            return on_trial(plan, self.release, "canary", self.share)
        if self.action == "shadow":
            return on_trial(plan, self.release, "shadow", 0.0)
        if self.action == "promote":
            return promoted(plan, self.release)
        return rolled_back(plan, self.release) if self.action == "rollback" else read_again(plan)


def on_trial(plan: Plan, release: str | None, mode: Mode, share: float) -> Plan:
    """``release`` (None: the present challenger) in shadow or as a canary; a new one begins an experiment."""
    challenger = release or plan.challenger
    if challenger is None:
        raise PlanError("there is no challenger to go on with: name its release")
    if challenger == plan.champion:
        raise PlanError(f"release {challenger} is the champion; only another one can be on trial")
    same = challenger == plan.challenger
    salt = plan.salt if same else _salt(plan, challenger)
    return _changed(plan, challenger=challenger, mode=mode, share=share, salt=salt)


def promoted(plan: Plan, release: str | None) -> Plan:
    """``release`` (None: the challenger) decides for all; the champion so far is the rung below it."""
    new = release or plan.challenger
    if new is None:
        raise PlanError("there is no challenger to promote: name the release that is to decide")
    return _without_trial(plan, champion=new, previous=_succeeded_by(plan, new))


def rolled_back(plan: Plan, release: str | None) -> Plan:
    """``release`` is withdrawn: the trial of a challenger ends, a champion gives way to the one before it and
    is no rung any more. What is named and is neither is refused, so that a repeated rollback does no harm."""
    withdrawn = release or plan.challenger or plan.champion
    if withdrawn == plan.challenger:
        return _without_trial(plan)
    if withdrawn != plan.champion:
        raise PlanError(
            f"release {withdrawn} neither decides nor is on trial; nothing to roll back"
        )
    if plan.previous is None:
        raise PlanError(
            f"champion {plan.champion} has no predecessor to go back to; promote another"
        )
    return _without_trial(plan, champion=plan.previous, previous=None)


def deployed(plan: Plan, release: str) -> Plan:
    """The Bento of ``release`` replaces the one before, and its own release decides in it."""
    return _changed(promoted(plan, release), bento=release)


def carried(plan: Plan, release: str) -> Plan:
    """The Bento of ``release`` replaces the one before, and who decides and who is on trial stays: for a
    challenger whose columns only its own code can compute."""
    return _changed(plan, bento=release)


def read_again(plan: Plan) -> Plan:
    """The same with a number of its own: every worker follows it anew."""
    return _changed(plan, number=plan.number + 1)


def first(bento: str) -> Plan:
    """What holds where nobody said anything: the Bento's own release decides."""
    return Plan(bento=bento, champion=bento)


def _without_trial(plan: Plan, **changed: str | None) -> Plan:
    return _changed(plan, challenger=None, mode="off", share=0.0, salt="", **changed)


def _succeeded_by(plan: Plan, release: str) -> str | None:
    return plan.previous if plan.champion == release else plan.champion


def _salt(plan: Plan, challenger: str) -> str:
    """Differs for each experiment of a home, and is the same for the same changes."""
    told = f"{plan.champion} {challenger} {plan.number + 1}"
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def _changed(plan: Plan, **changed: object) -> Plan:
    try:
        return msgspec.structs.replace(plan, **changed)
    except ValueError as error:
        raise PlanError(str(error)) from None

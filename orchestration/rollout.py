"""The rollout that runs by itself: from a new release to the champion's place, or out again, a step at a time.

A registered release that was never on trial goes into shadow, then decides for growing shares beside an equal control,
and takes the champion's place once matured labels show it to be no worse; it is withdrawn as soon as a guardrail falls. The
traffic plan is the truth: what is known of an experiment follows it, so people may change the plan at any
time. Not here: the judge (``switchyard.learning.rollout``), how plan and service change (``traffic``, ``promotion``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from assets.fraud import registry
from orchestration import deployment, promotion
from orchestration.retraining_claim import last_claim
from orchestration.traffic import change_traffic, current_plan, history_of
from switchyard.errors import PlanError, ReleaseError
from switchyard.fraud.experiment import LOCK, Experiment, Experiments, Phase, last_matured
from switchyard.lake import Lake
from switchyard.learning.outcomes import OutcomeLimits
from switchyard.learning.promise import Promise, read_beside
from switchyard.learning.release import read_manifest
from switchyard.learning.rollout import Judgement, RolloutPolicy
from switchyard.lock import alone
from switchyard.serving.plan import Change, Plan
from switchyard.serving.replies import bounded
from switchyard.serving.traffic import move_of, turn_of
from switchyard.settings import Settings

WHO = "rollout"
"""Who changes the plan, as its history says."""

Action = Literal["nothing", "hold", "carry", "shadow", "canary", "promote", "rollback"]


@dataclass(frozen=True, slots=True)
class Look:
    """What is to be done with ``release``, why in sentences, and the judge's figures where it was asked.

    'nothing': nobody is on trial; 'hold': the trial goes on; 'carry': the challenger's own Bento comes first. ``share``
    is a canary's next one; ``number`` that of the plan that was looked at.
    """

    action: Action
    reasons: tuple[str, ...]
    release: str | None = None
    share: float | None = None
    number: int | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        """Whether the plan is to change."""
        return self.action not in ("nothing", "hold")

    def as_dict(self) -> dict[str, Any]:
        told = {"does": self.action, "release": self.release, "share": self.share}
        return told | {"why": "; ".join(self.reasons)}


def policy_of(settings: Settings) -> RolloutPolicy:
    """The policy as the home's settings say."""
    limit = settings.rollout_outcome_limit
    return RolloutPolicy(
        steps=settings.rollout_steps,
        min_hours=settings.rollout_min_hours,
        min_decisions=settings.rollout_min_decisions,
        min_matured=settings.rollout_min_matured,
        alpha_proof=settings.rollout_alpha_proof,
        block_ratio=settings.rollout_block_ratio,
        reviews_per_day=settings.rollout_reviews_per_day,
        outcome_limits=OutcomeLimits(limit, limit, limit),
    )


def step(settings: Settings, now: datetime, *, told: promotion.Step = lambda _effect: None) -> Look:
    """Look at the rollout at ``now`` (event time) and do what is to be done; what that was, and why.

    Meant to be called again and again; one process at a time. What a killed one left is completed or undone first, so
    each of its effects, of which ``told`` hears just before, may be missing. Raises what a change of the plan raises if a release can't
    be served: nothing has changed then.
    """
    with alone(settings.home / LOCK, wait_s=0) as free:
        if not free:
            return _BUSY
        if promotion.noted(settings):
            promotion.recover(settings)
        return _act(settings, _look(settings, now, told), told)


def look(settings: Settings, now: datetime) -> Look:
    """The same, without doing it: what the journal and the labels have got since is read and remembered."""
    with alone(settings.home / LOCK, wait_s=0) as free:
        return _look(settings, now, lambda _effect: None) if free else _BUSY


_BUSY = Look("nothing", ("another process is looking at the rollout",))


# ---------------------------------------------------------------- looking


def _look(settings: Settings, now: datetime, told: promotion.Step) -> Look:
    told("put away")
    _put_away_what_ended(settings)
    plan = current_plan(settings)
    if plan is None or plan.challenger is None:
        return _candidate(settings, plan)
    if (newer := _replacement(settings, plan)) is not None:
        why = f"release {newer} has learned what release {plan.challenger} could not, and takes its place on trial"
        return _on(plan, "rollback", (why,))
    if plan.mode == "shadow" and settings.rollout_steps[0] > 0:
        reasons = (f"release {plan.challenger} was put in shadow, which the steps leave out",)
        return _on(plan, "canary", reasons, settings.rollout_steps[0])
    known = _known(settings, plan, now, told)
    return _judged(settings, plan, known)


def on_trial(settings: Settings) -> str | None:
    """The release on trial, or the new one that is about to be."""
    plan = current_plan(settings)
    if plan is not None and plan.challenger is not None:
        return plan.challenger
    return _awaiting(settings, plan) if plan is not None else None


def _awaiting(settings: Settings, plan: Plan) -> str | None:
    """The release with the alias 'challenger', if it was never on trial."""
    release = registry.release_of(settings.mlflow_tracking_uri, "challenger")
    if release is None or release == plan.champion or _tried(settings, release):
        return None
    return release


def _tried(settings: Settings, release: str) -> bool:
    return any(release in (old.challenger, old.champion) for old in history_of(settings))


def _replacement(settings: Settings, plan: Plan) -> str | None:
    """A new release whose training was asked for to replace the one on trial."""
    claim = last_claim(settings)
    wanted = claim is not None and claim.instead_of == plan.challenger
    return _awaiting(settings, plan) if wanted else None


def _candidate(settings: Settings, plan: Plan | None) -> Look:
    """What to do while nobody is on trial."""
    release = registry.release_of(settings.mlflow_tracking_uri, "challenger")
    if release is None:
        return Look("nothing", ("no release has the alias 'challenger'",))
    if plan is None:
        return Look("promote", ("it is the first release of this home",), release)
    if release == plan.champion:
        return Look("nothing", (f"release {release} decides already",), release)
    if _tried(settings, release):
        told = f"release {release} has been on trial; only a person puts it there again"
        return Look("nothing", (told,), release)
    if not _computed(settings, release):
        told = f"only the code of release {release} computes its columns"
        return _on(plan, "carry", (told,), release=release)
    first = settings.rollout_steps[0]
    told = f"release {release} is new"
    return _on(plan, "canary" if first else "shadow", (told,), first or None, release)


def _computed(settings: Settings, release: str) -> bool:
    """Whether the Bento that answers computes the release's columns."""
    service = deployment.named(settings)
    if service is None:
        return True  # whoever serves it by hand is asked by the change itself
    own, other = (read_manifest(settings.releases / r) for r in (service.release, release))
    return bool(own["code_hash"] == other["code_hash"])


def _known(settings: Settings, plan: Plan, now: datetime, told: promotion.Step) -> Experiment:
    """All that the journal and the labels say of the trial by ``now``, saved. The step is the plan's."""
    experiments = experiments_of(settings)
    phase = _phase(settings, plan)
    known = experiments.load(phase) or experiments.begin(
        phase, _promise(settings, plan), plan.share
    )
    if known.canary.step.share != plan.share:
        known = known.stepped(plan.share)
    told("read on")
    known = experiments.read_on(phase, known)
    told("mature")
    until = last_matured(now, settings.label_delay_days)
    return experiments.mature(phase, known, until, now)


def experiments_of(settings: Settings) -> Experiments:
    """The experiments of a home."""
    return Experiments(settings.rollouts, settings.journal, Lake(settings.lake))


def _phase(settings: Settings, plan: Plan) -> Phase:
    """The shadow or the canary that ``plan`` belongs to, since its first plan that is still kept."""
    plans = [p for p in history_of(settings) if (p.salt, p.mode) == (plan.salt, plan.mode)]
    began = min(plans or [plan], key=lambda p: p.number)
    began_us = int(began.when.timestamp() * 1e6) if began.when else 0
    return Phase(plan.salt, plan.mode, began.number, began_us)


def _promise(settings: Settings, plan: Plan) -> Promise:
    assert plan.challenger is not None, "a promise is a challenger's"
    promise = Promise.of_manifest(read_manifest(settings.releases / plan.challenger))
    return replace(promise, beside=read_beside(settings.rollouts, plan.challenger, plan.champion))


def _judged(settings: Settings, plan: Plan, known: Experiment) -> Look:
    """The judge's word as a step of the plan."""
    judgement = policy_of(settings).judge(known.canary, _promise(settings, plan))
    if judgement.action == "promote":
        last = judgement.share == 1.0
        share = None if last else judgement.share
        action: Action = "promote" if last else "canary"
        return _on(plan, action, judgement.reasons, share, figures=_figures(judgement, known))
    return _on(plan, judgement.action, judgement.reasons, figures=_figures(judgement, known))


def _figures(judgement: Judgement, known: Experiment) -> dict[str, Any]:
    told = {"labels_until": str(known.matured) if known.matured else None, "late": known.late}
    return judgement.figures | told


def _on(
    plan: Plan,
    action: Action,
    reasons: Sequence[str],
    share: float | None = None,
    release: str | None = None,
    figures: dict[str, Any] | None = None,
) -> Look:
    return Look(
        action, tuple(reasons), release or plan.challenger, share, plan.number, figures or {}
    )


# ---------------------------------------------------------------- what has ended


def _put_away_what_ended(settings: Settings) -> None:
    """Of a trial that is over, keep sums, verdict and end. Not while a move is under way, or was left half-way: it may
    be undone, and the trial goes on then."""
    experiments = experiments_of(settings)
    with alone(turn_of(settings.home), wait_s=0) as free:
        if not free or move_of(settings.home).exists():
            return
        plan = current_plan(settings)
        for phase in experiments.left(plan.salt if plan else ""):
            experiments.put_away(phase, _ended(settings, phase, experiments.load(phase)))


def _ended(settings: Settings, phase: Phase, known: Experiment | None) -> dict[str, Any]:
    """How a phase ended, as far as the plans that are kept say, and the judge's last word on its sums."""
    plans = history_of(settings)
    own = [plan for plan in plans if (plan.salt, plan.mode) == (phase.salt, phase.mode)]
    if not own:
        return {"release": None, "mode": phase.mode, "ended": None, "judged": None}
    first, last = own[0], own[-1]
    after = next((plan for plan in plans if plan.number > last.number), None)
    return {
        "release": last.challenger,
        "champion": last.champion,
        "mode": last.mode,
        "share": last.share,
        "began": _said(first),
        "ended": _said(after) if after else None,
        "judged": _last_word(settings, last, known) if known else None,
    }


def _said(plan: Plan) -> dict[str, Any]:
    return {"number": plan.number, "who": plan.who, "when": plan.when, "why": plan.why}


def _last_word(settings: Settings, plan: Plan, known: Experiment) -> dict[str, Any] | None:
    try:
        promise = _promise(settings, plan)
    except ReleaseError:  # the release is not in the store any more
        return None
    judgement = policy_of(settings).judge(known.canary, promise)
    figures = _figures(judgement, known)
    return {"action": judgement.action, "reasons": judgement.reasons, "figures": figures}


# ---------------------------------------------------------------- doing


def _act(settings: Settings, seen: Look, told: promotion.Step) -> Look:
    """Do it; a promotion that lacks somebody's approval waits for it."""
    if not seen.changes:
        return seen
    assert seen.release is not None, "a change is of a release"
    by = {"who": WHO, "why": bounded("; ".join(seen.reasons))}
    if seen.action == "carry":
        promotion.carry(settings, seen.release, **by, step=told)
    elif seen.action == "promote":
        return _promote(settings, seen, by, told)
    else:
        _change(settings, seen, by, told)
    told("end")
    return seen


def _change(settings: Settings, seen: Look, by: dict[str, str], told: promotion.Step) -> None:
    """A trial that ends loses its alias first: killed in between, it is judged again, and ends again."""
    assert seen.release is not None, "a change is of a release"
    if seen.action == "rollback":
        told("alias")
        _forget_challenger(settings, seen.release)
    change = Change(
        action=seen.action,  # type: ignore[arg-type]  # 'shadow', 'canary', 'rollback'
        release=seen.release,
        share=seen.share,
        number=seen.number,
        **by,
    )
    told("change")
    change_traffic(settings, change)


def _promote(settings: Settings, seen: Look, by: dict[str, str], told: promotion.Step) -> Look:
    assert seen.release is not None, "a promotion is of a release"
    now = current_plan(settings)
    if now is not None and now.number != seen.number:
        told_of = f"the plan has changed: it is number {now.number} by now, not {seen.number}"
        return Look("hold", (told_of,), seen.release, None, now.number, seen.figures)
    try:
        promotion.promote(settings, seen.release, verdict=seen.reasons, **by, step=told)
    except PlanError as error:  # it lacks an approval
        return Look(
            "hold", (*seen.reasons, str(error)), seen.release, None, seen.number, seen.figures
        )
    return seen


def _forget_challenger(settings: Settings, release: str) -> None:
    uri = settings.mlflow_tracking_uri
    if registry.release_of(uri, "challenger") == release:
        registry.remove_alias(uri, "challenger")


def wall_clock() -> datetime:
    """What ``now`` is where transactions are decided as they happen."""
    return datetime.now(UTC)

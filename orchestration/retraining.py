"""Retraining by itself: what the policy is told, and one start at a time whoever asks.

A start is claimed (``retraining_claim``) before its run is asked for, under a lock, so that two sensors of one tick start
one. Not here: when to train (``switchyard.learning.retraining``), what a training is (the job
``retrain``), or what becomes of its release (``rollout``).
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

import dagster as dg
import pyarrow.compute as pc

from assets.fraud.training import trained_as_of
from orchestration import rollout
from orchestration.retraining_claim import CLAIM_TAG, Claim, fresh_claim, last_claim
from switchyard.fraud.labels import labels_as_of
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReport, DayReports, Level
from switchyard.learning.release import read_manifest
from switchyard.learning.retraining import (
    Retraining,
    RetrainingPolicy,
    Situation,
    Trial,
    Trigger,
    asked_on,
)
from switchyard.learning.shipment import known_as_of
from switchyard.lock import alone
from switchyard.settings import Settings

JOB = "retrain"
TRAINING_JOBS = (JOB, "train", "run_lifecycle")
"""Jobs that write the home's training folder."""
LEVELS: dict[Trigger, Level] = {"drift": "data", "performance": "model"}
LONGEST_DELAY = timedelta(days=45)
"""Verdicts later than this after their transaction are not counted as new."""


def policy_of(settings: Settings) -> RetrainingPolicy:
    """The policy as the home's settings say."""
    return RetrainingPolicy(
        rest_days=settings.retrain_rest_days,
        least_labels=settings.retrain_least_labels,
        least_frauds=settings.retrain_least_frauds,
    )


def ask(
    settings: Settings,
    trigger: Trigger,
    now: datetime,
    instance: dg.DagsterInstance,
    answered: str | None = None,
) -> tuple[Retraining, Claim | None]:
    """What the policy says at ``now`` (event time), and the claim if a training is to start: whoever asks starts its run, with
    the claim's tags. ``answered`` is the ask that this trigger has started a training for."""
    with alone(settings.home / "retraining.lock"):
        seen = situation(settings, trigger, now, instance, answered)
        judged = policy_of(settings).judge(trigger, seen)
        if not judged.start:
            return judged, None
        claim = Claim(trigger, judged.ask, judged.because, judged.instead_of)
        claim.save(settings)
        return judged, claim


def situation(
    settings: Settings,
    trigger: Trigger,
    now: datetime,
    instance: dg.DagsterInstance,
    answered: str | None = None,
) -> Situation:
    """What the policy is told of the home."""
    level = LEVELS.get(trigger)
    report = DayReports(settings.monitoring).newest(level) if level else None
    trained = trained_as_of(settings)
    lake = Lake(settings.lake)
    began = _began(settings, report)
    return Situation(
        now=now,
        trained=trained,
        under_way=_under_way(settings, instance),
        trial=_trial(settings),
        report=report,
        began=began,
        answered=answered,
        new_labels=_known_since(lake, trained, now) if trigger == "labels" else 0,
        new_frauds=_frauds_since(lake, asked_on(report, began), now) if report and began else 0,
    )


def _under_way(settings: Settings, instance: dg.DagsterInstance) -> str | None:
    """A training that runs, or one that was claimed and has not begun."""
    open_statuses = [s for s in dg.DagsterRunStatus if s not in _ENDED]
    for job in TRAINING_JOBS:
        runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=open_statuses), limit=1)
        if runs:
            return f"run {runs[0].run_id} of '{job}' has not ended"
    claim = fresh_claim(settings)
    if claim is None:
        return None
    begun = instance.get_runs(dg.RunsFilter(tags={CLAIM_TAG: claim.tags[CLAIM_TAG]}), limit=1)
    return None if begun else f"the trigger '{claim.trigger}' has just asked for one"


_ENDED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)


def _trial(settings: Settings) -> Trial | None:
    release = rollout.on_trial(settings)
    if release is None:
        return None
    claim = last_claim(settings)
    answers = claim is not None and claim.trigger in LEVELS
    return Trial(release, known_as_of(read_manifest(settings.releases / release)), answers)


def _began(settings: Settings, report: DayReport | None) -> date | None:
    """The first day of the unbroken run of reports that have not passed, which ``report`` ends; None if it has passed."""
    if report is None or report.verdict.passed:
        return None
    reports = DayReports(settings.monitoring)
    began = report
    while (before := reports.before(report.level, began.day)) and not before.verdict.passed:
        began = before
    return began.day


def _known_since(lake: Lake, since: datetime | None, now: datetime) -> int:
    """Verdicts that became known between the two moments."""
    if since is None:
        return 0
    labels = labels_as_of(lake, (since - LONGEST_DELAY).date(), now.date(), now)
    newer = pc.greater(labels["label_available_at"], since)
    return int(pc.sum(newer.cast("int64")).as_py() or 0)


def _frauds_since(lake: Lake, day: date, now: datetime) -> int:
    """'Fraud' verdicts that are known on the transactions from ``day`` on."""
    labels = labels_as_of(lake, day, now.date(), now)
    return int(pc.sum(labels["is_fraud"].cast("int64")).as_py() or 0)

"""When to train anew: a pure policy over what monitoring found, what is known of labels, and what is under way.

Four things ask: drift of the data, matured performance below its band, new labels past a count, and the calendar. Each
gets 'start' or not, with the reason in words. Not here: how drift or performance is measured (``day_reports`` brings
their verdicts), who counts and who starts (``orchestration.retraining``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from switchyard.learning.day_reports import DayReport

Trigger = Literal["drift", "performance", "labels", "schedule"]


@dataclass(frozen=True, slots=True)
class Trial:
    """The release on trial, or about to be; it has learned what was known at ``as_of`` (None: it does not say).
    ``answers``: drift or performance had asked for it, so no later such ask takes its trial from it."""

    release: str
    as_of: datetime | None
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the policy is told, at ``now`` (event time).

    ``trained``: as of when the newest training was, whatever became of it. ``under_way``: in words, why no training can
    start beside it. ``report``: the newest of the trigger's level; ``began``: the first day of the unbroken run of reports
    that have not passed, which it ends. ``answered``: the ask that the trigger has started a
    training for. ``new_labels``: verdicts that became known since ``trained``; ``new_frauds``: 'fraud' verdicts known on
    transactions since the day of the ask.
    """

    now: datetime
    trained: datetime | None = None
    under_way: str | None = None
    trial: Trial | None = None
    report: DayReport | None = None
    began: date | None = None
    answered: str | None = None
    new_labels: int = 0
    new_frauds: int = 0


@dataclass(frozen=True, slots=True)
class Retraining:
    """Whether a training is to start, and why, or why not. ``ask`` names what it answers; ``instead_of``: the release
    on trial that has learned nothing of what is asked about, so the new one is to take its place."""

    start: bool
    because: str
    ask: str = ""
    instead_of: str | None = None


@dataclass(frozen=True, slots=True)
class RetrainingPolicy:
    """``rest_days`` at least lie between two trainings, ``schedule_days`` before one by schedule. ``least_labels`` new verdicts are a reason of their own. After
    drift of the data ``least_frauds`` of the new days must be known before there is anything to learn from them; a report on
    matured performance has labels by its nature. While a release is on trial only these two start another, and only if
    that release was trained before what they ask about began."""

    rest_days: float = 3.0
    schedule_days: float = 7.0
    least_labels: int = 50_000
    least_frauds: int = 150

    def judge(self, trigger: Trigger, seen: Situation) -> Retraining:
        """Whether ``trigger`` starts a training in the situation as it is."""
        ask, because = self._asks(trigger, seen)
        if ask is None:
            return Retraining(False, because)
        if ask == seen.answered:
            return Retraining(False, f"{because}; a training was started for it ({ask})", ask)
        if seen.under_way:
            return Retraining(False, f"{because}; but {seen.under_way}", ask)
        rest = self.schedule_days if trigger == "schedule" else self.rest_days
        if seen.trained and seen.now - seen.trained < timedelta(days=rest):
            told = (
                f"the newest training is as of {seen.trained:%Y-%m-%d}, less than {rest:g} days ago"
            )
            return Retraining(False, f"{because}; but {told}", ask)
        if seen.trial is None:
            return Retraining(True, because, ask)
        return self._beside(trigger, seen, seen.trial, Retraining(True, because, ask))

    def _asks(self, trigger: Trigger, seen: Situation) -> tuple[str | None, str]:
        """What the trigger asks about (None: nothing), and the reason in words."""
        if trigger == "schedule":
            return f"{seen.now:%Y-%m-%d}", "it is the day of the schedule"
        if trigger == "labels":
            told = f"{seen.new_labels:,} verdicts became known since the newest training"
            enough = seen.new_labels >= self.least_labels
            return (f"{seen.trained}" if enough else None), f"{told}, of {self.least_labels:,}"
        return self._reported(trigger, seen)

    def _reported(self, trigger: Trigger, seen: Situation) -> tuple[str | None, str]:
        report = seen.report
        if report is None:
            return None, "there is no report yet"
        told = f"report of {report.day}: {'; '.join(report.verdict.reasons)}"
        if report.verdict.passed:
            return None, told
        ask = asked_on(report, seen.began).isoformat()
        if trigger == "drift" and seen.new_frauds < self.least_frauds:
            few = (
                f"{seen.new_frauds} of {self.least_frauds} frauds are known of the days since {ask}"
            )
            return None, f"{told}; but {few}, too few to learn from"
        return ask, told

    def _beside(
        self, trigger: Trigger, seen: Situation, trial: Trial, wanted: Retraining
    ) -> Retraining:
        """While a release is on trial."""
        told = f"release {trial.release} is on trial"
        old = False
        if trial.as_of:
            told = f"release {trial.release}, trained as of {trial.as_of:%Y-%m-%d}, is on trial"
            old = seen.began is not None and trial.as_of.date() <= seen.began
        if trigger in ("drift", "performance") and old and not trial.answers:
            because = f"{wanted.because}; {told} and knows nothing of it"
            return Retraining(True, because, wanted.ask, instead_of=trial.release)
        return Retraining(False, f"{wanted.because}; but {told}", wanted.ask)


ASK_AGAIN = timedelta(days=14)
"""What goes on failing asks again after so long."""


def asked_on(report: DayReport, began: date | None) -> date:
    """The day on which what stands in the report was asked last: as it says itself, else when the run of failing reports
    began, and every two weeks since."""
    if said := report.verdict.figures.get("asked_on"):
        return date.fromisoformat(said)
    began = began or report.day
    return began + (report.day - began) // ASK_AGAIN * ASK_AGAIN

"""The loop closes by itself, on simulated traffic at accelerated event time: `demo --scenario drift`.

A champion serves; one day the fraudsters change their tactics. Nobody interferes: each day is watched, what watching finds
starts a retraining, the new release goes through its gates, into shadow, canary and the champion's place. Here: the order of things, and
what they came to. Not here: what any of them does (``retraining``, ``rollout``, the assets), the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dagster as dg

from assets.fraud.monitoring.data import champion_of
from assets.fraud.release import candidate_of
from orchestration import retraining, rollout
from orchestration.definitions import build_definitions
from orchestration.demo import Report, Stage, Stages, as_of_config
from orchestration.rollout_demo import SHADOW_RATE, Traffic
from orchestration.runs import GateClosedError, fail_orphaned_runs, run_job
from orchestration.worker import Worker
from switchyard.fraud.compaction import compact
from switchyard.fraud.data_drift import baseline_of, rows_of
from switchyard.fraud.data_drift import judged as data_report
from switchyard.fraud.performance import measure_model
from switchyard.fraud.regime import Regime, Spans, regime_of, scores_of
from switchyard.lake import Lake, days_between, whole_file
from switchyard.learning.day_reports import DayReports, Level
from switchyard.learning.pictures import regime_timeline
from switchyard.learning.release import load_release
from switchyard.learning.retraining import Trigger
from switchyard.settings import Settings

DAYS = 120
CHANGE = 75
"""Day of the simulated world from which on the fraudsters' tactics are others."""
SERVED_FROM = 70
"""The champion is trained as of this day, and decides from it on."""
PART_HOURS = 12
"""Event time between two looks at the rollout."""
POLICY: dict[str, Any] = {
    "simulated_days": DAYS,
    "customers": 3_800,
    "terminals": 1_500,
    "transactions_per_day": 3_800,
    "rollout_steps": (0.0, 0.05, 0.2, 0.5),
    "rollout_min_hours": 20,
    "rollout_min_decisions": 200,
    "rollout_min_matured": 5_000,
    "rollout_outcome_limit": 0.9,
    "rollout_alpha_proof": 0.3,
}
"""Settings of the demonstration that are not the defaults: a simulated day has 3,800 decisions and some 33 frauds, so a trial
takes larger shares, asks for a smaller sample, and shows less with it."""
PICTURE = "drift.png"
FOUND = " found"
LEVELS: tuple[tuple[Level, str], ...] = (("data", "drift"), ("model", "poor performance"))
RETRAINING = "retraining by "
TRAINED = "trained"
TRIGGERS: tuple[Trigger, ...] = ("drift", "performance", "labels", "schedule")


@dataclass(frozen=True, slots=True)
class Event:
    """What happened by itself, when (event time), and why."""

    when: datetime
    what: str
    why: str
    release: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"when": self.when.isoformat()}


@dataclass(slots=True)
class Story:
    """All that happened, in order."""

    told: Callable[[str], None]
    events: list[Event] = field(default_factory=list)

    def add(self, when: datetime, what: str, why: str, release: str | None = None) -> None:
        self.events.append(Event(when, what, why, release))
        self.told(f"{when:%Y-%m-%d %H:%M}: {what}")

    def detected(self, since: datetime) -> Event | None:
        """When watching first found something wrong at or after a moment."""
        return next((e for e in self.events if e.what.endswith(FOUND) and e.when >= since), None)

    def renewed(self, since: datetime) -> Event | None:
        """When a release that was trained after a moment took the champion's place."""
        trained = {e.release for e in self.events if e.what == TRAINED and e.when > since}
        promoted = (e for e in self.events if e.what == "promote" and e.release in trained)
        return next(promoted, None)


def settings_of(change: bool) -> dict[str, Any]:
    """The demonstration's settings."""
    return POLICY | ({"simulated_change_day": CHANGE} if change else {})


def run_drift(
    settings: Settings, worker: Worker, begun: Report, done: Report
) -> tuple[list[Stage], list[Event], dict[str, Any]]:
    """Go all the way; stages, events, and what they came to, which is drawn into the home. Raises what a stage raises."""
    stages, lake = Stages(begun, done), Lake(settings.lake)
    first = settings.start_day
    last, start = first + timedelta(days=DAYS - 1), first + timedelta(days=SERVED_FROM)
    with stages.stage("start and prepare"):
        instance = dg.DagsterInstance.get()
        fail_orphaned_runs(instance, no_daemon_runs=False)
        defs = build_definitions(settings)
    with stages.stage("transactions and features") as now:
        run_job(defs, "ingest", instance, days=(first, last))
        moment = {"config": {"as_of": start.isoformat()}}
        config = {"ops": {"online_activity": moment, "online_profiles": moment}}
        worker.run_job("build_features", days=(first, last), config=config)
        now.figures = {"days": DAYS}
    with stages.stage("champion: train, release, deploy") as now:
        worker.run_job("train", config=as_of_config(start))
        worker.run_job("publish")
        champion = candidate_of(settings)
        now.figures = {"champion": champion}
    with stages.stage(f"{DAYS - SERVED_FROM} days, unattended") as now:
        story = Story(lambda says: begun(Stage(says)))
        loop = Loop(settings, worker, lake, story, instance)
        for day in days_between(start, last):
            begun(Stage(f"{day} ({len(story.events)} events)"))
            loop.day(day)
        now.figures = {"decisions": loop.decisions, "events": len(story.events)}
    with stages.stage("what it came to") as now:
        regime = _regime(settings, lake, story, champion)
        _draw(settings, story, regime)
        figures = regime.as_dict() | delays_of(settings, story)
        now.figures = {n: figures[n] for n in ("fell_by", "share_of_oracle")}
    return stages.done, story.events, figures


class Loop:
    """What goes on day by day: customers pay, the rollout is looked at, the day is watched, and the triggers are asked."""

    def __init__(
        self,
        settings: Settings,
        worker: Worker,
        lake: Lake,
        story: Story,
        instance: dg.DagsterInstance,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._lake = lake
        self._story = story
        self._instance = instance
        self._traffic = Traffic(settings, lake, PART_HOURS)
        self._answered: dict[Trigger, str] = {}
        self._reports = DayReports(settings.monitoring)
        self._failing: set[Level] = set()
        self.decisions = 0

    def day(self, day: date) -> None:
        """A day from its first payment to its end."""
        for when, sent in self._traffic.of_day(day):
            self.decisions += sum(each.path == "/v1/predict" for each in sent)
            self._look(when)
        after = _midnight(day + timedelta(days=1))
        self._watch(day, after)
        for trigger in TRIGGERS:
            if trigger != "schedule" or after.weekday() == 0:
                self._ask(trigger, after)

    def _look(self, when: datetime) -> None:
        look = rollout.step(self._settings, when)
        if look.changes:
            share = f" {look.share:.0%}" if look.action == "canary" else ""
            self._story.add(when, look.action + share, "; ".join(look.reasons), look.release)
        shadow = look.action == "shadow" or look.figures.get("share") == 0.0
        self._traffic.rate = SHADOW_RATE if shadow and look.action != "canary" else None

    def _watch(self, day: date, now: datetime) -> None:
        """What monitoring makes of the day; its reports are what the triggers read."""
        self._measure(day)
        for level, what in LEVELS:
            report = self._reports.newest(level)
            failed = report is not None and not report.verdict.passed
            if failed and level not in self._failing:
                assert report is not None
                self._story.add(now, what + FOUND, "; ".join(report.verdict.reasons))
                self._failing.add(level)
            elif not failed:
                self._failing.discard(level)

    def _measure(self, day: date) -> None:
        """The levels 'data' and 'model' of the day, without pages."""
        settings, lake = self._settings, self._lake
        baseline = baseline_of(settings, lake, champion_of(settings))
        if day > baseline.last:
            before = self._reports.before("data", day)
            rows = rows_of(lake, day)
            self._reports.save(data_report(settings, baseline, rows, day, before, None))
        compact(settings.journal, lake)
        measure_model(settings, lake, day)

    def _ask(self, trigger: Trigger, now: datetime) -> None:
        answered = self._answered.get(trigger)
        judged, claim = retraining.ask(self._settings, trigger, now, self._instance, answered)
        if claim is None:
            return
        self._answered[trigger] = claim.ask
        self._story.add(now, RETRAINING + trigger, judged.because)
        try:
            self._worker.run_job("retrain", config=as_of_config(now.date()), tags=claim.tags)
        except GateClosedError as error:
            self._story.add(now, "gate closed", str(error))
            return
        release = candidate_of(self._settings)
        self._story.add(now, TRAINED, f"release {release} passed its gates", release)
        self._look(now)


def _regime(settings: Settings, lake: Lake, story: Story, champion: str) -> Regime:
    change = settings.start_day + timedelta(days=CHANGE)
    changed = settings.simulated_change_day is not None
    renewed = story.renewed(_midnight(change)) if changed else None
    spans = Spans(
        served=settings.start_day + timedelta(days=SERVED_FROM),
        change=change,
        renewed=_next_midnight(renewed.when).date() if renewed else None,
        last=settings.start_day + timedelta(days=DAYS - 1),
    )
    first = load_release(settings.releases / champion)
    return regime_of(lake, spans, scores_of(settings.journal), first, seed=settings.seed)


def delays_of(settings: Settings, story: Story) -> dict[str, Any]:
    """Days from the change until it was found, and until a model that had learned from it decided."""
    if settings.simulated_change_day is None:
        promoted = [e.release for e in story.events if e.what == "promote"]
        return {"promoted": len(promoted), "retrained_because": _causes(story)}
    change = _midnight(settings.start_day + timedelta(days=settings.simulated_change_day))
    found, renewed = story.detected(change), story.renewed(change)
    return {
        "days_to_detect": (found.when - change) / timedelta(days=1) if found else None,
        "days_to_recover": (renewed.when - change) / timedelta(days=1) if renewed else None,
        "retrained_because": _causes(story),
    }


def _causes(story: Story) -> str:
    causes = [e.what.removeprefix(RETRAINING) for e in story.events if RETRAINING in e.what]
    return ", ".join(causes)


def _draw(settings: Settings, story: Story, regime: Regime) -> None:
    """The whole as one picture in the home."""
    change = settings.start_day + timedelta(days=CHANGE)
    marks = {_midnight(change): ["tactics change"]} if settings.simulated_change_day else {}
    for event in story.events:
        if event.what in ("shadow", "promote", "rollback") or event.what.endswith(FOUND):
            marks.setdefault(event.when, []).append(event.what)
    levels = {}
    renewed = story.renewed(_midnight(change))
    if renewed and regime.oracle:
        last = settings.start_day + timedelta(days=DAYS - 1)
        levels["trained on the new days with every label"] = (
            _next_midnight(renewed.when).date(),
            last,
            regime.oracle,
        )
    named = {when: ", ".join(what) for when, what in sorted(marks.items())}
    png = regime_timeline(regime.as_served, regime.left_alone, levels=levels, changes=named)
    with whole_file(settings.home / PICTURE) as out:
        out.write(png)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _next_midnight(when: datetime) -> datetime:
    """It, or the next one."""
    return when if when == _midnight(when.date()) else _midnight(when.date() + timedelta(days=1))

"""The rollout from end to end by itself, on simulated traffic at accelerated event time: `demo --scenario rollout`.

A champion serves, a model is trained on newer days, and from there nobody interferes: customers pay, the rollout is looked
at every few hours of event time, and it does what it has come to. Here: the order of things and the timeline. Not here: what the
rollout does (``rollout``), the traffic (``switchyard.fraud.replay``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from assets.fraud import registry
from assets.fraud.release import candidate_of
from orchestration import deployment, rollout
from orchestration.definitions import build_definitions
from orchestration.demo import Report, Stage, Stages, as_of_config, demo_days, store_of
from orchestration.gateway import Gateway
from orchestration.home import EXPERIMENT
from orchestration.promotion import LocalServing, agreement
from orchestration.runs import fail_orphaned_runs, run_job
from orchestration.worker import Worker
from switchyard.errors import ServiceError
from switchyard.fraud.online import cold_store_of
from switchyard.fraud.replay import ReplayPlan, Sender, Sending, stream_of, sync_times
from switchyard.fraud.sync import sync_profiles
from switchyard.lake import Lake, whole_file
from switchyard.learning.calibration import Calibration
from switchyard.learning.pictures import rollout_timeline
from switchyard.learning.release import load_release, write_release
from switchyard.settings import Settings

POLICY: dict[str, Any] = {
    "rollout_min_hours": 20,
    "rollout_min_decisions": 200,
    "rollout_min_matured": 8_000,
    "rollout_outcome_limit": 0.5,
    "rollout_alpha_proof": 0.2,
}
"""Settings of the demonstration: a simulated day has some thousand decisions, so it asks for a smaller sample and shows
less with it than the defaults do."""
TRAINED_DAYS = 35
"""The champion is trained on so many days."""
NEWER_DAYS = 14
"""The challenger on so many more."""
LOOK_HOURS = 6
"""Event time between two looks at the rollout; where customers pay in real time, a minute."""
SHADOW_RATE = 600.0
"""Transactions per second while the shadow judges: it does so when nobody waits, and a sender without pauses leaves no such
moment."""
TOO_HIGH = 2.0
"""How far the scores of the bad challenger lie above those that its manifest promises, in log-odds."""
PICTURE = "rollout.png"


def what_it_shows(settings: Settings, timeline: list[Moment]) -> str:
    """What the figures of a run prove, and what its size leaves open."""
    if timeline[-1].look.action != "promote":
        return (
            "What this shows: a challenger that does not keep its promise is withdrawn by itself, with a reason. It does not "
            "show how soon a subtler fault is found: `switchyard bench canary` does."
        )
    ordinary = {name: Settings.model_fields[name].default for name in POLICY}
    return (
        "What this shows: a challenger reaches the champion's place without a person, and no guardrail (their level is the "
        "ordinary 0.5 %) fell on the way. What it does not: that the challenger is as good. The proof before the last step "
        f"asks for outcomes worse than the control's by less than {settings.rollout_outcome_limit:g}, at level "
        f"{settings.rollout_alpha_proof:g}, on {settings.rollout_min_matured:,} matured decisions of each arm; the defaults ask "
        f"for {ordinary['rollout_outcome_limit']:g}, {ordinary['rollout_alpha_proof']:g} and "
        f"{ordinary['rollout_min_matured']:,}. With the hundred frauds or so of this world a limit can come out at what anything "
        "meets ('no worse than 0'); it is a proof only where customers are as many as a bank's."
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """A look at the rollout in event time: what was done and why, and the figures behind it."""

    when: datetime
    look: rollout.Look

    @property
    def share(self) -> float:
        """Of the challenger, after the look."""
        ended = {"promote": 1.0, "rollback": 0.0}
        held = ended.get(self.look.action, self.look.figures.get("share", 0.0))
        return float(self.look.share or held)

    @property
    def decisions(self) -> int:
        return int(self.look.figures.get("decisions", {}).get("challenger", 0))

    @property
    def matured(self) -> int:
        return int(self.look.figures.get("labelled", 0))

    @property
    def evidence(self) -> float:
        """Of the strongest guardrail, as a share of what lets it fall."""
        rails = self.look.figures.get("guardrails", [])
        strongest = max((rail["log_e"] for rail in rails), default=0.0)
        return max(0.0, strongest / self.look.figures.get("log_e_needed", 1.0))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self.look) | {"when": self.when.isoformat()}


@dataclass(frozen=True, slots=True)
class Days:
    """Of the demonstration, all from midnight UTC: the home's first, whose model is trained when, how long the trial may
    last."""

    first: date
    champion: date
    challenger: date
    last: date

    @classmethod
    def of(cls, settings: Settings) -> Days:
        first, _ = demo_days(settings)
        champion = first + timedelta(days=TRAINED_DAYS)
        last = first + timedelta(days=settings.simulated_days - 1)
        return cls(first, champion, champion + timedelta(days=NEWER_DAYS), last)


def run_rollout(
    settings: Settings, worker: Worker, begun: Report, done: Report, *, bad: bool
) -> tuple[list[Stage], list[Moment]]:
    """Go all the way, with a challenger that is as good as trained or a ``bad`` one; stages and timeline, which is
    drawn into the home. Raises what a stage raises, ServiceError if the rollout has not come to an end by the last day."""
    stages, lake, days = Stages(begun, done), Lake(settings.lake), Days.of(settings)
    with stages.stage("start and prepare"):
        instance = dg.DagsterInstance.get()
        fail_orphaned_runs(instance, no_daemon_runs=False)
        defs = build_definitions(settings)
    served = days.challenger - timedelta(days=1)
    with stages.stage("transactions and features") as now:
        run_job(defs, "ingest", instance, days=(days.first, days.last))
        moment = {"config": {"as_of": served.isoformat()}}
        config = {"ops": {"online_activity": moment, "online_profiles": moment}}
        worker.run_job("build_features", days=(days.first, days.last), config=config)
        now.figures = {"days": (days.last - days.first).days + 1}
    with stages.stage("champion: train, release, deploy") as now:
        worker.run_job("train", config=as_of_config(days.champion))
        worker.run_job("publish")
        now.figures = {"champion": candidate_of(settings)}
    traffic = Traffic(settings, lake)
    with stages.stage("champion serves") as now:
        now.figures = {"decisions": sum(len(part) for _, part in traffic.of_day(served))}
    with stages.stage("challenger: train on newer days, release") as now:
        worker.run_job("retrain", config=as_of_config(days.challenger))
        if bad:
            _spoil(settings)
        now.figures = {"challenger": _challenger(settings)}
    with stages.stage("rollout") as now:
        timeline = _roll_out(settings, traffic, days, lambda name: begun(Stage(name)))
        now.figures = {"ended": timeline[-1].look.action, "by": f"{timeline[-1].when:%Y-%m-%d}"}
        _draw(settings, timeline)
    traffic.rate = None
    with stages.stage("the day after") as now:
        after = timeline[-1].when.date() + timedelta(days=1)
        count = sum(len(part) for _, part in traffic.of_day(min(after, days.last)))
        now.figures = {"requests": count, **agreement(settings)}
    return stages.done, timeline


class Traffic:
    """The customers: each day of the lake is sent to whatever answers at the gateway."""

    def __init__(self, settings: Settings, lake: Lake, part_hours: int = LOOK_HOURS) -> None:
        self._part_hours = part_hours
        self._settings = settings
        self._lake = lake
        self._store = store_of(settings)
        self._cold = cold_store_of(settings.cold_store_url, settings.cold_store)
        self.rate: float | None = None

    def of_day(self, day: date) -> Iterator[tuple[datetime, list[Sending]]]:
        """Send a day in parts of ``part_hours``; the end of each and what was sent."""
        plan = ReplayPlan(start=day, end=day)
        stream, _ = stream_of(self._lake, self._settings, plan)
        syncs = sync_times(self._lake, plan)
        for hour in range(0, 24, self._part_hours):
            start = datetime.combine(day, time(hour), UTC)
            end = start + timedelta(hours=self._part_hours)
            first_us, past_us = (int(moment.timestamp() * 1e6) for moment in (start, end))
            part = [each for each in stream if first_us <= each.leaves_us < past_us]
            self._send(plan, part, [sync for sync in syncs if first_us <= sync[0] < past_us])
            yield end, part

    def _send(self, plan: ReplayPlan, part: list[Sending], syncs: list[tuple[int, date]]) -> None:
        running = deployment.current(self._settings)
        if running is None:
            raise ServiceError("the service that was deployed has ended; its log says why")
        where = (running.url, Gateway(self._settings).trust)
        paced = replace(plan, rate=self.rate)
        Sender(where, paced, self._sync, _silently).send(part, syncs)

    def _sync(self, day: date) -> int:
        return sync_profiles(self._lake, self._store, day, self._cold)


def _silently(_what: str, _position: int, _total: int) -> None:
    """Told of single requests, where looks are what is shown."""


def _roll_out(
    settings: Settings, traffic: Traffic, days: Days, told: Callable[[str], None]
) -> list[Moment]:
    """Customers pay and the rollout is looked at, in turns, until it has ended; ``told`` of each look."""
    timeline = [_look(settings, datetime.combine(days.challenger, time(), UTC))]
    day, traffic.rate = days.challenger, SHADOW_RATE
    while day < days.last:
        for when, _ in traffic.of_day(day):
            timeline.append(_look(settings, when))
            told(f"rollout, {when:%Y-%m-%d %H:%M}: {timeline[-1].look.reasons[0]}")
            traffic.rate = SHADOW_RATE if timeline[-1].share == 0 else None
            if timeline[-1].look.action in ("promote", "rollback", "nothing"):
                return timeline
        day += timedelta(days=1)
    raise ServiceError(
        f"the rollout has not ended by {days.last}: {'; '.join(timeline[-1].look.reasons)}"
    )


def _look(settings: Settings, when: datetime) -> Moment:
    return Moment(when, rollout.step(settings, when))


def _challenger(settings: Settings) -> str | None:
    return registry.release_of(settings.mlflow_tracking_uri, "challenger")


def _spoil(settings: Settings) -> None:
    """A release like the challenger but for its calibration, which is not the one that its promise was measured with;
    registered and packed as any other, it takes the challenger's place."""
    import mlflow

    good = load_release(settings.releases / candidate_of(settings))
    shifted = Calibration(good.calibration.slope, good.calibration.offset + TOO_HIGH)
    said = ("feature_service", "columns", "code_hash", "training", "metrics")
    bad = write_release(
        settings.releases,
        model=good.model,
        calibration=shifted,
        baseline=good.baseline,
        baseline_calibration=good.baseline_calibration,
        thresholds=good.thresholds,
        **{name: good.manifest[name] for name in said},
    )
    LocalServing(settings).build(bad.folder)
    uri = settings.mlflow_tracking_uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run():
        registry.register(mlflow, uri, bad.id, bad.folder)
    registry.set_alias(uri, "challenger", bad.id)


def _draw(settings: Settings, timeline: list[Moment]) -> Path:
    """The timeline as one picture in the home."""
    png = rollout_timeline(
        [moment.when for moment in timeline],
        share=[moment.share for moment in timeline],
        evidence=[moment.evidence for moment in timeline],
        matured=[moment.matured for moment in timeline],
        matured_needed=settings.rollout_min_matured,
        changes={m.when: _in_short(m.look) for m in timeline if m.look.changes},
    )
    file = settings.home / PICTURE
    with whole_file(file) as out:
        out.write(png)
    return file


def _in_short(seen: rollout.Look) -> str:
    return f"canary {seen.share:.0%}" if seen.action == "canary" else seen.action

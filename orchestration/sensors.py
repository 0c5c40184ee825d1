"""Sensors: what happens when something lands. Each says in words why it does nothing."""

from collections.abc import Iterator
from datetime import date, timedelta

import dagster as dg

from orchestration import incidents, retraining, rollout
from orchestration.promotion import out_of_step
from switchyard.fraud.raw import Source
from switchyard.lake import Lake, days_between
from switchyard.learning.retraining import Trigger
from switchyard.settings import Settings

MOST_PER_TICK = 10
"""Days asked for at one tick; the rest follows at the next."""


def sensors(by_name: dict[str, object], days: dg.PartitionsDefinition) -> list[dg.SensorDefinition]:
    """The platform's watchers of ``days``; jobs come by name from ``orchestration.jobs``."""

    @dg.sensor(
        name="on_new_day",
        job=by_name["sync_profiles"],
        minimum_interval_seconds=60,
        description="Watches the source for days that have landed since the last one ingested.",
    )
    def on_new_day(
        context: dg.SensorEvaluationContext,
        lake: dg.ResourceParam[Lake],
        source: dg.ResourceParam[Source],
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        first, last = source.days() or (date.min, date.min)
        after = date.fromisoformat(context.cursor) if context.cursor else _last(lake)
        start = after + timedelta(days=1) if after else first
        landed = days_between(start, last)
        new = [day for day in landed if days.has_partition_key(day.isoformat())][:MOST_PER_TICK]
        if not new:
            yield dg.SkipReason(_why_nothing(landed, after, last))
            return
        for day in new:
            yield dg.RunRequest(run_key=day.isoformat(), partition_key=day.isoformat())
        context.update_cursor(new[-1].isoformat())

    @dg.sensor(
        name="on_unfinished_promotion",
        job=by_name["finish_promotion"],
        minimum_interval_seconds=60,
        description="Watches for a promotion or rollback that was left half-way, and for aliases that do not "
        "follow the plan.",
    )
    def on_unfinished_promotion(
        settings: dg.ResourceParam[Settings],
    ) -> dg.RunRequest | dg.SkipReason:
        left = out_of_step(settings)
        if left is None:
            return dg.SkipReason("Plan, aliases and running Bento agree.")
        return dg.RunRequest(run_key=left)

    @dg.sensor(
        name="on_rollout",
        job=by_name["step_rollout"],
        minimum_interval_seconds=60,
        description="Watches for a new release, and what journal and labels say of the one on trial.",
    )
    def on_rollout(
        settings: dg.ResourceParam[Settings],
    ) -> dg.RunRequest | dg.SkipReason:
        now = rollout.wall_clock()
        seen = rollout.look(settings, now)
        if not seen.changes:
            return dg.SkipReason("; ".join(seen.reasons))
        return dg.RunRequest(run_key=f"{seen.action} of plan {seen.number} {now:%Y-%m-%d %H:%M}")

    @dg.sensor(
        name="on_incident",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Watches every run that ends for failed steps and failed checks, and for what is well again; "
        "tells the channels that are set once of each incident and once of its end.",
    )
    def on_incident(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> dg.SkipReason:
        said = incidents.look(settings, context.instance, rollout.wall_clock())
        return dg.SkipReason("; ".join(said) or "Nobody has to be told of anything.")

    retrainers = [
        _on_retraining(name, trigger, by_name["retrain"], says)
        for name, trigger, says in RETRAINERS
    ]
    return [on_new_day, on_unfinished_promotion, on_rollout, on_incident, *retrainers]


RETRAINERS: tuple[tuple[str, Trigger, str], ...] = (
    (
        "on_feature_drift",
        "drift",
        "Watches the data level's reports: trains anew when they ask for it.",
    ),
    ("on_performance", "performance", "Watches the model level's reports of matured performance."),
    (
        "on_new_labels",
        "labels",
        "Watches how many verdicts became known since the newest training.",
    ),
)


def _on_retraining(name: str, trigger: Trigger, job: object, says: str) -> dg.SensorDefinition:
    """A sensor that starts ``retrain`` for one trigger. Its cursor is the ask that it has started one for."""

    @dg.sensor(name=name, job=job, minimum_interval_seconds=60, description=says)
    def on_retraining(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> dg.RunRequest | dg.SkipReason:
        now = rollout.wall_clock()
        judged, claim = retraining.ask(settings, trigger, now, context.instance, context.cursor)
        if claim is None:
            return dg.SkipReason(judged.because)
        context.update_cursor(claim.ask)
        return dg.RunRequest(run_key=claim.name, tags=claim.tags)

    return on_retraining


def _why_nothing(landed: list[date], after: date | None, last: date) -> str:
    if landed:
        return (
            f"{landed[0]} to {last} have landed but are no partitions: a day is one when it is over "
            "(UTC), and a source that had stopped growing is looked at again when definitions are reloaded."
        )
    return f"No day has landed after {after}; the source ends with {last}."


def _last(lake: Lake) -> date | None:
    return max(lake.days("transactions"), default=None)

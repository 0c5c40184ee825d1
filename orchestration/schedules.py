"""Schedules: compaction, retention, nightly profiles, monitoring, daily batch scores, weekly retraining (all UTC)."""

from __future__ import annotations

import dagster as dg

from orchestration import retraining
from switchyard.fraud.columns import PROFILE_AVAILABLE_HOUR
from switchyard.settings import Settings


def schedules(by_name: dict[str, object]) -> list[dg.ScheduleDefinition]:
    """The platform's clock; jobs come by name from ``orchestration.jobs``."""
    nightly = dg.build_schedule_from_partitioned_job(
        by_name["sync_profiles"],
        name="nightly_profiles",
        hour_of_day=PROFILE_AVAILABLE_HOUR,
        minute_of_hour=0,
        description="At 02:00, when yesterday's profiles begin to count, offline as online.",
    )
    batch = dg.build_schedule_from_partitioned_job(
        by_name["score_batch"],
        name="daily_batch_scores",
        hour_of_day=3,
        minute_of_hour=0,
        description="At 03:00: score yesterday's transactions into the lake.",
    )

    @dg.schedule(
        name="weekly_retrain",
        job=by_name["retrain"],
        cron_schedule="0 4 * * 1",
        description="Mondays at 04:00, with the labels the investigators added, unless a release is on trial.",
    )
    def retrain(
        context: dg.ScheduleEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> dg.RunRequest | dg.SkipReason:
        now = context.scheduled_execution_time
        judged, claim = retraining.ask(settings, "schedule", now, context.instance)
        if claim is None:
            return dg.SkipReason(judged.because)
        return dg.RunRequest(run_key=claim.name, tags=claim.tags)

    compaction = dg.ScheduleDefinition(
        name="daily_compaction",
        job=by_name["compact_journal"],
        cron_schedule="0 1 * * *",
        description="At 01:00: what was journalled until then goes into the lake, and what is old there goes.",
    )
    retention = dg.ScheduleDefinition(
        name="daily_retention",
        job=by_name["apply_retention"],
        cron_schedule="30 1 * * *",
        description="At 01:30: what is older than the settings keep_*_days say goes.",
    )
    monitoring = dg.build_schedule_from_partitioned_job(
        by_name["monitor"],
        name="daily_monitoring",
        hour_of_day=PROFILE_AVAILABLE_HOUR,
        minute_of_hour=30,
        description="At 02:30: what yesterday says of the levels of monitoring.",
    )
    watch = dg.ScheduleDefinition(
        name="frequent_watch",
        job=by_name["watch_service"],
        cron_schedule="*/15 * * * *",
        description="Every 15 minutes, where it is started: how the service does today.",
    )
    return [compaction, retention, nightly, monitoring, watch, batch, retrain]

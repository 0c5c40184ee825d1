"""The code location: wiring only. Tests, demo and production assemble the same graph."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from assets.fraud import fraud_assets
from orchestration.jobs import jobs
from orchestration.partitions import days_of
from orchestration.resources import resources
from orchestration.schedules import schedules
from orchestration.sensors import sensors
from switchyard.fraud.sources import source_of
from switchyard.settings import Settings, load_settings


def build_definitions(settings: Settings, **overrides: object) -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors of a home; ``overrides`` replace resources."""
    now = datetime.now(UTC)
    source = source_of(settings, now=now)
    days = days_of(settings, source, now.date())
    executor = (
        dg.multiprocess_executor if settings.executor == "multiprocess" else dg.in_process_executor
    )
    all_jobs = jobs(executor)
    by_name = {job.name: job for job in all_jobs}
    return dg.Definitions(
        assets=fraud_assets(days),
        jobs=all_jobs,
        schedules=schedules(by_name),
        sensors=sensors(by_name, days),
        resources=resources(settings, source, **overrides),
        executor=executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What ``dagster dev -w workspace.yaml`` loads: the home that the environment names."""
    return build_definitions(load_settings())

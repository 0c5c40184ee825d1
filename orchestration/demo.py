"""The whole lifecycle once, stage by stage, with what each stage produced and how long it took.

Here: the order of the stages and their figures. Not here: any stage's work (jobs, ``switchyard``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any

import dagster as dg
import psutil

from orchestration import deployment
from orchestration.definitions import build_definitions
from orchestration.gateway import Gateway
from orchestration.home import exports
from orchestration.runs import Finding, fail_orphaned_runs, run_job
from orchestration.worker import Worker
from switchyard.errors import SkewError, SourceError
from switchyard.fraud.bodies import transaction_body
from switchyard.fraud.online import online_store_of
from switchyard.fraud.replay import ReplayPlan, Trust, replay
from switchyard.fraud.sources import source_of
from switchyard.fraud.sync import sync_activity
from switchyard.lake import Lake
from switchyard.learning.release import load_release
from switchyard.serving.online_store import OnlineStore
from switchyard.settings import Settings

REPLAYED = 2_000
"""Transactions of the day after the demo's that are sent through the service and recomputed."""

Report = Callable[["Stage"], None]


@dataclass(slots=True)
class Stage:
    """One line of the demo's table."""

    name: str
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Stages:
    """The stages of a demonstration as they are gone through; the first one counts from the start of this process."""

    def __init__(self, begun: Report, told: Report) -> None:
        self.done: list[Stage] = []
        self._begun = begun
        self._told = told

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """A stage while it runs; who watches is told when it begins and when it is done."""
        now = Stage(name)
        self._begun(now)
        started = time.time() if self.done else psutil.Process().create_time()
        yield now
        now.seconds = round(time.time() - started, 2)
        self.done.append(now)
        self._told(now)


def run_demo(settings: Settings, worker: Worker, begun: Report, done: Report) -> list[Stage]:
    """Run every stage; ``begun`` and ``done`` are told of each. Raises what a stage raises.

    Days are ingested here; other jobs run in ``worker``, which has loaded the frameworks by then.
    """
    stages = Stages(begun, done)
    stage = stages.stage
    lake = Lake(settings.lake)
    first, last = demo_days(settings)
    after = last + timedelta(days=1)
    with stage("start and prepare"):
        instance = dg.DagsterInstance.get()
        fail_orphaned_runs(instance, no_daemon_runs=False)
        defs = build_definitions(settings)
    with stage("ingest transactions") as now:
        now.findings = run_job(defs, "ingest", instance, days=(first, last))
        now.figures = _rows(lake, first, last, "transactions", "quarantine")
    with stage("build features") as now:
        moment = {"config": {"as_of": after.isoformat()}}
        config = {"ops": {"online_activity": moment, "online_profiles": moment}}
        now.findings = worker.run_job("build_features", days=(first, last), config=config)
        now.figures = _rows(lake, first, last, "customer_profiles", "terminal_profiles")
    with stage("train and evaluate") as now:
        now.findings = worker.run_job("train", config=as_of_config(after))
        now.figures = _latest_metadata(instance, "evaluation")
    with stage("release and deploy") as now:
        now.findings = worker.run_job("publish")
        running = deployment.current(settings)
        assert running is not None, "the release job succeeded, so the service runs"
        trust = Gateway(settings).trust
        release = load_release(settings.releases / running.release)
        now.figures = {"release": release.id, "url": running.url}
    with stage("one decision over HTTP") as now:
        now.findings = worker.run_job("land", days=(after, after))
        now.figures = _one_decision(lake, after, running.url, trust)
    with stage("replay and recompute") as now:
        plan = ReplayPlan(start=after, end=after, limit=REPLAYED, repeat=0.01, late=0.01)
        replayed = replay(settings, running.url, plan, store_of(settings), trust=trust)
        now.figures = replayed.as_dict()
        if replayed.differences:
            raise SkewError(
                f"{replayed.differences} journalled values differ when recomputed: "
                f"{replayed.examples}"
            )
    with stage("score batch") as now:
        scored = (last - timedelta(days=settings.test_days - 1), last)
        now.findings = worker.run_job("score_batch", days=scored)
        now.figures = _rows(lake, *scored, "batch_scores")
    return stages.done


def demo_days(settings: Settings) -> tuple[date, date]:
    """First and last day of the demo; at least one more day that is over is kept for the replay."""
    source = source_of(settings)
    bounds = source.days()
    if bounds is None:
        raise SourceError(
            f"source '{source.name}' has no end; give one with a first and a last day"
        )
    first = bounds[0]
    over = min(bounds[1], datetime.now(UTC).date() - timedelta(days=1))
    last = min(first + timedelta(days=settings.days - 1), over - timedelta(days=1))
    if last < first:
        raise SourceError(
            f"source '{source.name}' holds {first} to {bounds[1]}; the demo needs at least two days "
            "that are over, one of them to serve on"
        )
    return first, last


def _rows(lake: Lake, first: date, last: date, *tables: str) -> dict[str, int]:
    import pyarrow.parquet as pq

    return {
        table: sum(pq.read_metadata(p).num_rows for p in lake.paths(table, first, last))
        for table in tables
    }


def _latest_metadata(instance: dg.DagsterInstance, asset: str) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    materialization = event.asset_materialization if event else None
    if materialization is None:
        return {}
    plain = (dg.FloatMetadataValue, dg.IntMetadataValue, dg.TextMetadataValue)
    return {k: v.value for k, v in materialization.metadata.items() if isinstance(v, plain)}


def as_of_config(day: date) -> dict[str, Any]:
    """Run config that trains as if ``day`` had just begun, whatever has landed since."""
    return {"ops": {"build_training_set": {"config": {"as_of": day.isoformat()}}}}


def land_days(settings: Settings, start: date, end: date) -> None:
    """Land the days and build their profiles; activity online catches up to the first of them."""
    with dg.DagsterInstance.get() as instance:
        run_job(build_definitions(settings), "land", instance, days=(start, end))
    cutoff = datetime.combine(start, time_of_day(), UTC)
    sync_activity(Lake(settings.lake), store_of(settings), settings, cutoff)


def store_of(settings: Settings) -> OnlineStore:
    return online_store_of(exports(settings)["SWITCHYARD_REDIS_URL"])


def _one_decision(lake: Lake, day: date, url: str, trust: Trust) -> dict[str, Any]:
    import httpx

    body = transaction_body(lake.read("transactions", day).slice(0, 1).to_pylist()[0])
    reply = httpx.post(f"{url}/v1/predict", json=body, timeout=10, verify=trust)
    reply.raise_for_status()
    answer: dict[str, Any] = reply.json()
    return answer

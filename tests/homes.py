"""Small homes that the lifecycle runs through for real. Factories only, no tests.

A home needs its variables in the environment while something runs in it (``in_home``), and its store and
service stopped at the end (``close``).
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow

from orchestration import promotion
from orchestration.definitions import build_definitions
from orchestration.demo import as_of_config, demo_days
from orchestration.home import exports, open_home, prepare_mlflow
from orchestration.runs import Finding, run_job
from switchyard.fraud.raw import Source
from switchyard.fraud.sources import source_of
from switchyard.lake import Lake
from switchyard.serving import valkey
from switchyard.settings import Settings

SMALL: dict[str, Any] = {
    "seed": 17,
    "customers": 400,
    "terminals": 150,
    "transactions_per_day": 600,
    "simulated_days": 36,
    "days": 34,
    "label_delay_days": 5,
    "test_days": 7,
}
"""The smallest world in which the trees beat the regression on enough frauds to pass every gate."""


@dataclass
class Home:
    """A prepared home, its definitions, and a Dagster instance that forgets."""

    settings: Settings
    defs: dg.Definitions
    instance: dg.DagsterInstance
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def of(cls, settings: Settings, instance: dg.DagsterInstance) -> Home:
        return cls(settings, build_definitions(settings), instance)

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake)

    @property
    def days(self) -> tuple[date, date]:
        """First and last day that the lifecycle trains on."""
        return demo_days(self.settings)

    @property
    def after(self) -> date:
        """The day after, on which the model serves."""
        return self.days[1] + timedelta(days=1)

    @property
    def source(self) -> Source:
        return source_of(self.settings)

    def run(
        self,
        job: str,
        days: Sequence[date] | None = None,
        config: dict[str, Any] | None = None,
    ) -> list[Finding]:
        """Run a job over the days from the first to the last given; its failed, unblocking checks."""
        span = (days[0], days[-1]) if days else None
        with in_home(self.settings):
            return run_job(self.defs, job, self.instance, days=span, config=config)

    def materialize(
        self,
        *assets: str,
        days: Sequence[date] | None = None,
        config: dict[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize single assets with their checks, as somebody would from the UI."""
        whole = self.defs.resolve_implicit_global_asset_job_def()
        chosen = whole.get_subset(asset_selection={dg.AssetKey(name) for name in assets})
        with in_home(self.settings):
            try:
                return chosen.execute_in_process(
                    run_config=config or {},
                    instance=self.instance,
                    tags=range_tags(days),
                    raise_on_error=False,
                )
            finally:
                mlflow.end_run()  # the jobs' hook does it elsewhere


def range_tags(days: Sequence[date] | None) -> dict[str, str]:
    """How Dagster is told that one run covers the days from the first to the last."""
    if not days:
        return {}
    ends = {"start": days[0], "end": days[-1]}
    return {f"dagster/asset_partition_range_{end}": str(day) for end, day in ends.items()}


def make_home(folder: Path, mlflow_database: Path, **overrides: Any) -> Home:
    """A home in ``folder``, by default of the small world; ``mlflow_database`` is copied into it."""
    settings = open_small(folder, mlflow_database, **overrides)
    return Home.of(settings, dg.DagsterInstance.ephemeral(str(folder / "dagster")))


def open_small(folder: Path, mlflow_database: Path, **overrides: Any) -> Settings:
    """A home made ready without definitions."""
    with own_environment():
        settings = open_home(home=folder, **(SMALL | {"port": free_port()} | overrides))
        if not (folder / "mlflow" / "mlflow.db").exists():
            shutil.copy(mlflow_database, folder / "mlflow" / "mlflow.db")
            prepare_mlflow(settings)
    return settings


def run_through_training(home: Home) -> None:
    """Ingest, build features, train, evaluate: as the demo does it."""
    moment = {"config": {"as_of": home.after.isoformat()}}
    online = {"ops": {"online_activity": moment, "online_profiles": moment}}
    home.findings += home.run("ingest", home.days)
    home.findings += home.run("build_features", home.days, online)
    home.findings += home.run("train", config=as_of_config(home.after))


@contextmanager
def own_environment(**variables: str) -> Iterator[None]:
    """The environment without any home's variables but these; afterwards as it was."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("SWITCHYARD_"):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def in_home(settings: Settings) -> Iterator[None]:
    """The environment of a shell after ``eval "$(switchyard env)"``."""
    with own_environment(**exports(settings)):
        yield


def close(settings: Settings) -> None:
    """Stop the service and the store that were started for a home."""
    promotion.down(settings)
    valkey.stop(settings.home)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)

"""The home: the one folder of everything written at run time, made ready before anything runs.

Here: its layout, Dagster's and MLflow's own set-up inside it, the exports a shell needs, and what to do
about runs whose process was killed. Not here: what is written into it later.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from switchyard.errors import SettingsError
from switchyard.lake import write_text
from switchyard.serving import valkey
from switchyard.settings import Settings, load_settings

EXPERIMENT = "fraud"
PROCESS_TAG = "switchyard/process"
_DAGSTER_YAML = """\
telemetry:
  enabled: false
# a day's profiles and activity need the days before it, so runs come one after another
concurrency:
  runs:
    max_concurrent_runs: 1
"""
_FIXED = ("source", "data", "column_map", "first_day", "seed", "customers", "terminals",
          "transactions_per_day", "simulated_days", "currency")  # fmt: skip
"""Settings that say what a home holds: fixed by its first use."""


def open_home(**overrides: Any) -> Settings:
    """Settings of the home, made ready: folders, Dagster's file, what it holds written down.

    Raises SettingsError if the home already holds transactions of another source or seed.
    """
    _forget_stores_of_other_homes()
    settings = load_settings(**overrides)
    home = settings.home
    _refuse_other_contents(settings)
    for folder in ("lake", "releases", "journal", "dagster", "mlflow", "bentoml", "feast", "training",
                   "cache/numba", "logs"):  # fmt: skip
        (home / folder).mkdir(parents=True, exist_ok=True)
    _write_once(home / "dagster" / "dagster.yaml", _DAGSTER_YAML)
    _write_once(home / "switchyard.toml", _toml({n: getattr(settings, n) for n in _FIXED}))
    _remove_half_written(home)
    spare_the_disk()
    os.environ.update(exports(settings))
    return settings


def exports(settings: Settings) -> dict[str, str]:
    """What ``feast``, ``bentoml``, ``dagster`` and ``mlflow`` need from a shell; starts the store."""
    address = valkey.address_of(settings)
    return {
        "SWITCHYARD_HOME": str(settings.home),
        "SWITCHYARD_REDIS_URL": address.url,
        "SWITCHYARD_FEAST_REDIS": address.feast,
        "DAGSTER_HOME": str(settings.home / "dagster"),
        "BENTOML_HOME": str(settings.home / "bentoml"),
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
        "NUMBA_CACHE_DIR": str(settings.home / "cache" / "numba"),
        "GX_ANALYTICS_ENABLED": "false",
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
        "FEAST_USAGE": "False",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_WAIT_POLICY": "passive",  # XGBoost's threads would spin: five times slower on a busy machine
    }


def prepare_mlflow(settings: Settings) -> None:
    """Create MLflow's database and the experiment with an artifact folder inside the home."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=settings.mlflow_tracking_uri)
    if client.get_experiment_by_name(EXPERIMENT) is None:
        artifacts = settings.home / "mlflow" / "artifacts"
        client.create_experiment(EXPERIMENT, artifact_location=artifacts.as_uri())


def process_tag() -> dict[str, str]:
    """A run tag that names the process the run lives in, so that its death can be seen later."""
    me = psutil.Process()
    name = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time()}
    return {PROCESS_TAG: json.dumps(name)}


def fail_orphaned_runs(instance: DagsterInstance, *, no_daemon_runs: bool) -> list[str]:
    """Mark runs 'failed' whose process is gone; returns their ids.

    A run without the process tag belongs to ``dagster dev``; it is an orphan only if the caller knows
    that none is running (``no_daemon_runs``).
    """
    open_runs = instance.get_runs(
        RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING])
    )
    orphans = []
    for run in open_runs:
        tag = run.tags.get(PROCESS_TAG)
        if (tag is None and no_daemon_runs) or (tag is not None and not _lives(json.loads(tag))):
            instance.report_run_failed(run, "The process of this run was killed; run it again.")
            orphans.append(run.run_id)
    return orphans


def _lives(process: dict[str, Any]) -> bool:
    if process["host"] != socket.gethostname():
        return True
    with contextlib.suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(process["pid"]).create_time() - process["started"]) < 1
    return False


def _refuse_other_contents(settings: Settings) -> None:
    """Arguments and environment win over the home's file, but must not contradict what it holds."""
    file = settings.home / "switchyard.toml"
    if not file.exists():
        return
    held = tomllib.loads(file.read_text(encoding="utf-8"))
    for name in _FIXED:
        wanted = getattr(settings, name)
        if wanted is not None and str(wanted) != str(held.get(name)):
            raise SettingsError(
                f"{settings.home} holds transactions with {name}={held.get(name)}, not {wanted}; "
                f"use another home (SWITCHYARD_HOME=...) or delete this one"
            )


def _forget_stores_of_other_homes() -> None:
    """After ``eval "$(switchyard env)"`` in one home, another one still has its own embedded store."""
    url = os.environ.get("SWITCHYARD_REDIS_URL")
    if url and valkey.is_embedded(url):
        del os.environ["SWITCHYARD_REDIS_URL"]


def spare_the_disk() -> None:
    """Let SQLite leave the timing of writes to the system in this process: Dagster commits for every event
    of every partition. What is committed survives the death of the process, which is what has to hold;
    after that of the machine, the event log may lack its last moments."""
    from sqlalchemy import Engine, event

    if not event.contains(Engine, "connect", _without_sync):
        event.listen(Engine, "connect", _without_sync)


def _without_sync(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


def _remove_half_written(home: Path) -> None:
    """Files that a killed process was writing; those of a living one stay."""
    for part in home.rglob(".*.part"):
        process = part.name.split(".")[-2]
        if not process.isdigit() or psutil.pid_exists(int(process)):
            continue
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _write_once(path: Path, text: str) -> None:
    if not path.exists():
        write_text(text, path)


def _toml(values: dict[str, object]) -> str:
    lines = ["# What this home holds. Written at its first use; to change it, start another home."]
    for name, value in values.items():
        if value is None:
            continue
        plain = isinstance(value, int | float | date)
        lines.append(f"{name} = {value if plain else json.dumps(str(value))}")
    return "\n".join(lines) + "\n"

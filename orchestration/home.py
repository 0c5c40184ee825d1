"""The home: the one folder of everything written at run time, made ready before anything runs.

Here: its layout, Dagster's and MLflow's own set-up inside it, and the exports a shell needs. Not here: what
is written into it later.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from switchyard.errors import SettingsError
from switchyard.lake import write_text
from switchyard.serving import valkey
from switchyard.settings import Settings, load_settings

EXPERIMENT = "fraud"
_DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:  # no invitation to a newsletter over the first page
  enabled: false
event_log_storage:
  module: orchestration.event_log
  class: SqliteEventLog
  config:
    base_dir: {history}
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
                   "logs"):  # fmt: skip
        (home / folder).mkdir(parents=True, exist_ok=True)
    history = json.dumps(str(home / "dagster" / "history" / "runs"))
    _write_once(home / "dagster" / "dagster.yaml", _DAGSTER_YAML.format(history=history))
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

    logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)  # it tells of making its tables
    client = MlflowClient(tracking_uri=settings.mlflow_tracking_uri)
    if client.get_experiment_by_name(EXPERIMENT) is None:
        artifacts = settings.home / "mlflow" / "artifacts"
        client.create_experiment(EXPERIMENT, artifact_location=artifacts.as_uri())


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

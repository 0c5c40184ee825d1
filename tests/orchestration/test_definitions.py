"""The code location: it loads, quickly enough to reload, and everything in it fits together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from orchestration.definitions import build_definitions
from switchyard.settings import load_settings
from tests.homes import Home

PROJECT = Path(__file__).resolve().parents[2]
NOT_TO_LOAD = {"feast", "great_expectations", "evidently", "shap", "torch", "xgboost", "sklearn"}
LOADING = f"""
import sys
from orchestration.definitions import defs
loaded = defs()
print(sorted({NOT_TO_LOAD!r} & set(sys.modules)))
"""


def test_the_definitions_of_every_kind_of_home_load(
    tmp_path: Path, home: Home, new_home: Callable[..., Home]
) -> None:
    dg.Definitions.validate_loadable(home.defs)
    settings = load_settings(home=tmp_path, executor="multiprocess", simulated_days=3)
    dg.Definitions.validate_loadable(build_definitions(settings))


def test_loading_them_imports_nothing_heavy_and_touches_no_home(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SWITCHYARD_")}

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADING],
        env=environment | {"SWITCHYARD_HOME": str(tmp_path / "home")},
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout == "[]\n"
    assert not (tmp_path / "home").exists()


def test_each_schedule_ticks_at_its_hour_and_starts_its_job(home: Home) -> None:
    schedules = home.defs.get_repository_def().schedule_defs

    assert {s.name: (s.cron_schedule, s.job_name) for s in schedules} == {
        "daily_compaction": ("0 1 * * *", "compact_journal"),
        "daily_retention": ("30 1 * * *", "apply_retention"),
        "nightly_profiles": ("0 2 * * *", "sync_profiles"),
        "daily_monitoring": ("30 2 * * *", "monitor"),
        "daily_batch_scores": ("0 3 * * *", "score_batch"),
        "weekly_retrain": ("0 4 * * 1", "retrain"),
        "frequent_watch": ("*/15 * * * *", "watch_service"),
    }


def test_every_asset_tells_its_grain_its_owner_and_its_stage(home: Home) -> None:
    specs = list(home.defs.resolve_all_asset_specs())

    assert len(specs) > 15
    for spec in specs:
        assert spec.description, spec.key
        assert spec.owners == ["team:fraud-ml"], spec.key
        assert spec.group_name in {
            "transactions", "features", "training", "evaluation", "release", "batch",
            "journal", "monitoring",
        }  # fmt: skip
        assert spec.kinds, spec.key

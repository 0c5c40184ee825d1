"""Golden files: the asset graph, the OpenAPI document and twenty scored transactions, as text whose diff a
review reads.

``python -m tests.golden.regenerate`` writes them anew; ``test_golden.py`` compares. Not here: judgement.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from orchestration.definitions import build_definitions
from switchyard.fraud import activity, windows
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.dataset import Dataset, dataset_of
from switchyard.fraud.features import vectors_of
from switchyard.fraud.landing import land_raw, validate_days
from switchyard.fraud.online import FraudDomain
from switchyard.fraud.openapi import document
from switchyard.fraud.sources import source_of
from switchyard.lake import Lake, days_between, write_text
from switchyard.learning.models import GradientBoosting
from switchyard.learning.thresholds import Thresholds
from switchyard.settings import Settings, load_settings
from tests.releases import make_release

FOLDER = Path(__file__).parent
COMMAND = "python -m tests.golden.regenerate"
LAST = date(2026, 1, 18)
SCORED_DAYS = 6
WORLD = {"seed": 7, "customers": 200, "terminals": 60, "transactions_per_day": 300,
         "simulated_days": 18}  # fmt: skip
SHALLOW = {"rounds": 20, "max_depth": 3, "eta": 0.3, "nthread": 1}


# ---------------------------------------------------------------- the asset graph


def asset_graph(home: Path) -> str:
    """Assets with their checks, jobs, schedules and sensors of an ordinary home."""
    defs = build_definitions(load_settings(home=home, simulated_days=90))
    repository = defs.get_repository_def()
    graph = {
        "assets": {s.key.to_user_string(): _asset(s, repository) for s in _by_key(defs)},
        "jobs": {job.name: _job(job) for job in sorted(repository.get_all_jobs(), key=_name)
                 if not job.name.startswith("__")},
        "schedules": {s.name: {"cron": s.cron_schedule, "job": s.job_name, "says": s.description}
                      for s in sorted(repository.schedule_defs, key=_name)},
        "sensors": {s.name: {"every_s": s.minimum_interval_seconds, "job": s.job_name if s.has_jobs else None,
                             "says": s.description}
                    for s in sorted(repository.sensor_defs, key=_name)},
    }  # fmt: skip
    return json.dumps(graph, indent=1, ensure_ascii=False) + "\n"


def _by_key(defs: dg.Definitions) -> list[dg.AssetSpec]:
    return sorted(defs.resolve_all_asset_specs(), key=lambda spec: spec.key.to_user_string())


def _asset(spec: dg.AssetSpec, repository: dg.RepositoryDefinition) -> dict[str, Any]:
    schema = spec.metadata.get("dagster/column_schema")
    checks = repository.asset_graph.get_check_keys_for_assets({spec.key})
    return {
        "group": spec.group_name,
        "says": spec.description,
        "depends_on": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        "owners": list(spec.owners),
        "kinds": sorted(spec.kinds),
        "partitions": str(spec.partitions_def) if spec.partitions_def else None,
        "columns": {c.name: f"{c.type}: {c.description}" for c in schema.columns} if schema else {},
        "checks": {key.name: _check(repository, key) for key in sorted(checks, key=_name)},
    }


def _check(repository: dg.RepositoryDefinition, key: dg.AssetCheckKey) -> dict[str, Any]:
    spec = repository.asset_graph.get_check_spec(key)
    return {"blocking": spec.blocking, "says": spec.description}


def _job(job: dg.JobDefinition) -> dict[str, Any]:
    return {
        "says": job.description,
        "partitions": str(job.partitions_def) if job.partitions_def else None,
        "assets": sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys),
    }


def _name(definition: Any) -> str:
    return str(definition.name)


# ---------------------------------------------------------------- scored transactions


def scored_transactions(home: Path) -> list[dict[str, Any]]:
    """Ten frauds and ten others of a small world: vectors, scores, decisions and reasons."""
    settings = load_settings(home=home, **WORLD)
    data = _dataset(settings)
    start = datetime(LAST.year, LAST.month, LAST.day, tzinfo=UTC) - timedelta(days=SCORED_DAYS - 1)
    past, scored = data.between(data.start, start), data.between(start, data.as_of)
    trees = GradientBoosting.train(
        past.X, past.is_fraud == 1, columns=names(FEATURES), params=SHALLOW, seed=settings.seed
    )
    release = make_release(home / "releases", model=trees, thresholds=Thresholds(0.01, 0.3))
    chosen = scored.take(_twenty(scored))
    pushes = release.explain(chosen.X)
    domain = FraudDomain(100)
    return [
        {
            "transaction_id": chosen.transaction_id[row].as_py(),
            "is_fraud": bool(chosen.is_fraud[row] == 1),
            "score": float(score),
            "decision": release.thresholds.decide(float(score)),
            "reasons": [r.code for r in domain.reasons(chosen.X[row], pushes[row])],
            "vector": _vector(chosen.X[row]),
        }
        for row, score in enumerate(release.score(chosen.X))
    ]


def _dataset(settings: Settings) -> Dataset:
    """Every verdict known, however late it came: nothing here is judged in time."""
    lake, days = Lake(settings.lake), days_between(settings.start_day, LAST)
    now = datetime(2026, 6, 1, tzinfo=UTC)
    land_raw(source_of(settings), lake, days)
    validate_days(lake, days, now=now, currency=settings.currency)
    windows.build_profiles(lake, days[0], LAST, created_at=now)
    activity.build_activity(lake, days[0], LAST)
    rows = lake.read("transactions", days[0], LAST)
    return dataset_of(rows, lake.read("labels", days[0], LAST), vectors_of(lake, rows), now)


def _twenty(data: Dataset) -> Any:
    fraud = np.flatnonzero(data.is_fraud == 1)[:10]
    others = np.flatnonzero(data.is_fraud == 0)
    spread = others[np.linspace(0, len(others) - 1, 20 - len(fraud)).astype(int)]
    mask = np.zeros(len(data), bool)
    mask[fraud], mask[spread] = True, True
    return mask


def _vector(values: Iterable[float]) -> dict[str, float]:
    """Features by name; what is missing is left out."""
    pairs = zip(names(FEATURES), map(float, values), strict=True)
    return {name: value for name, value in pairs if not math.isnan(value)}


def openapi() -> str:
    """The decision service's OpenAPI document."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        write_text(asset_graph(Path(folder) / "graph"), FOLDER / "asset_graph.json")
        scored = json.dumps(scored_transactions(Path(folder) / "world"), indent=1) + "\n"
        write_text(scored, FOLDER / "scored_transactions.json")
    write_text(openapi(), FOLDER / "openapi.json")
    print(f"written to {FOLDER}; read the diff")


if __name__ == "__main__":
    main()

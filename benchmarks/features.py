"""Profiles and training windows of a source's days: seconds from landed to written Parquet, and memory.

The same once more with ten times the cards and terminals (copies with a prefix before each id). Each size
is measured in a process of its own, after everything is compiled. Beside it Feast's point-in-time join
and the project's own on the same rows, with the values that differ.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import SourceError
from switchyard.fraud.activity import build_activity
from switchyard.fraud.backtest import land
from switchyard.fraud.features import profile_matrices
from switchyard.fraud.sources import source_of
from switchyard.fraud.windows import build_profiles, profiles_as_of
from switchyard.lake import Lake
from switchyard.settings import Settings, load_settings

BAR_SECONDS = 30
BAR_RATIO = 12
JOINED_DAYS = 30
WRITTEN = datetime(2000, 1, 1, tzinfo=UTC)
_IDS = ("transaction_id", "customer_id", "terminal_id")


def run(
    source: str | None = None,
    data: Path | None = None,
    column_map: Path | None = None,
    *,
    scale: int = 10,
    seed: int | None = None,
    console: Any = None,
) -> dict[str, Any]:
    """Figures by name; ``scale`` is how many times the customers of the second size (1: leave it out)."""
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder:
        home = Path(folder) / "home"
        settings = load_settings(
            home=home, source=source or "handbook", data=data, column_map=column_map, seed=seed
        )
        days = source_of(settings)
        bounds = days.days()
        if bounds is None:
            raise SourceError(f"source '{settings.source}' holds no day; give its folder by --data")
        start, end = bounds
        lake = Lake(settings.lake)
        told("landing the source's days")
        land(days, lake, start, end, settings.currency, lambda *_: None)
        told("profiles and training windows")
        once = _measured(lake, start, end)
        figures = dict(once)
        if scale > 1:
            told(f"the same with {scale} times the customers")
            many = _measured(_copied(lake, Path(folder) / "many", scale), start, end)
            figures |= {f"{name}_at_{scale}_times": value for name, value in many.items()}
            figures["ratio_of_seconds"] = round(many["seconds"] / once["seconds"], 2)
        told("Feast's point-in-time join of the last days, and our own")
        figures |= _joins(settings, lake, end)
    fast = once["seconds"] < BAR_SECONDS and figures.get("ratio_of_seconds", 0) <= BAR_RATIO
    return figures | {"reached": fast}


def _measured(lake: Lake, start: date, end: date) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, str(lake.root), str(start), str(end)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(lake: Lake, start: date, end: date) -> dict[str, Any]:
    """What one process measures: the first day to compile everything, then all of them."""
    build_activity(lake, start, start)
    begun = time.perf_counter()
    profiles = build_profiles(lake, start, end, created_at=WRITTEN)
    half = time.perf_counter()
    transactions = build_activity(lake, start, end)
    ended = time.perf_counter()
    return {
        "transactions": transactions,
        "profile_rows": profiles.customer + profiles.terminal,
        "profiles_seconds": round(half - begun, 2),
        "activity_seconds": round(ended - half, 2),
        "seconds": round(ended - begun, 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _copied(lake: Lake, root: Path, times: int) -> Lake:
    """A lake with ``times`` copies of every transaction and verdict, ids prefixed by the copy's number."""
    many = Lake(root)
    for table in ("transactions", "labels"):
        for day in lake.days(table):
            rows = lake.read(table, day)
            copies = pa.concat_tables(_prefixed(rows, f"{i}-") for i in range(times))
            order = [("event_timestamp", "ascending"), ("transaction_id", "ascending")]
            many.write(table, day, copies.sort_by(order))
    return many


def _prefixed(rows: pa.Table, prefix: str) -> pa.Table:
    for name in _IDS:
        i = rows.schema.get_field_index(name)
        text = pc.binary_join_element_wise(pa.scalar(prefix), rows[name], "")
        rows = rows.set_column(i, rows.schema.field(i), text)
    return rows


def _joins(settings: Settings, lake: Lake, end: date) -> dict[str, Any]:
    """Both point-in-time joins of the last days' transactions with their profiles."""
    from orchestration import feast
    from switchyard.serving import valkey

    rows = lake.read("transactions", end - timedelta(days=JOINED_DAYS - 1), end)
    begun = time.perf_counter()
    own = profiles_as_of(lake, rows)
    half = time.perf_counter()
    try:
        feast.apply(settings)
        ready = time.perf_counter()
        theirs = profile_matrices(feast.historical(settings, rows))
        ended = time.perf_counter()
    finally:
        valkey.stop(settings.home)
    differs = sum(int(np.sum(a != b)) for a, b in zip(own, theirs, strict=True))
    return {
        "joined_rows": len(rows),
        "own_join_seconds": round(half - begun, 2),
        "feast_join_seconds": round(ended - ready, 2),
        "join_differences": differs,
    }


if __name__ == "__main__":
    where, first, last = sys.argv[1:]
    print(json.dumps(measure(Lake(Path(where)), *map(date.fromisoformat, (first, last)))))

"""Batch scoring, from Parquet to Parquet, beside XGBoost's own prediction of the same rows in memory.

500 trees of depth 6 on the FEATURES columns. Beside it: transactions, whose vectors are computed first, and a
run that is killed half way and started again. Not here: jobs over HTTP (tests do them).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.world import COLUMNS, World, close_world, make_world
from switchyard.errors import SettingsError
from switchyard.fraud.activity import build_activity
from switchyard.fraud.batch import score_file
from switchyard.lake import Lake
from switchyard.learning import Floats
from switchyard.learning.release import Release, load_release
from switchyard.settings import Settings

ROWS = 1_000_000
QUICK_ROWS = 100_000
ROUNDS = 5
SEED = 7


def run(
    console: Any = None, *, quick: bool = False, folder: Path | None = None, **source: Any
) -> dict[str, Any]:
    """Rows/s of both, medians over rounds, and the ratio within a round; 0.6 is wanted.

    Raises SettingsError for options of a ``source``: the rows are noise, the transactions a world's own.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures a world of its own; leave out {', '.join(given)}")
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    with tempfile.TemporaryDirectory(prefix="switchyard-batch-") as temporary:
        scratch = Path(temporary)
        world = make_world(folder or scratch / "home")
        try:
            return _measured(world, scratch, QUICK_ROWS if quick else ROWS, told)
        finally:
            close_world(world)


def _measured(
    world: World, scratch: Path, rows: int, told: Callable[[str], None]
) -> dict[str, Any]:
    threads = os.cpu_count() or 1
    release = load_release(world.release.folder, threads=threads)
    X = _vectors(rows)
    source, output = scratch / "vectors.parquet", scratch / "scores.parquet"
    columns = {name: X[:, i] for i, name in enumerate(COLUMNS)}
    pq.write_table(pa.table({"transaction_id": np.arange(rows).astype(str), **columns}), source)
    lake = Lake(world.settings.lake)
    bare = _bare(release, threads)
    ours, theirs = [], []
    for number in range(ROUNDS):
        told(f"round {number + 1} of {ROUNDS}")
        theirs.append(rows / _seconds(lambda: bare(X)))
        ours.append(rows / _seconds(lambda: score_file(lake, release, source, output)))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    told("transactions, and a killed run")
    return {
        "rows": rows,
        "rows_per_second": round(statistics.median(ours)),
        "inplace_predict_rows_per_second": round(statistics.median(theirs)),
        "ratio": round(ratio, 2),
        "from_transactions": _from_transactions(world.settings, release, scratch),
        "killed_and_started_again": _killed(world.settings, release, source, output),
        "failed": [] if ratio >= 0.6 else [f"{ratio:.2f} of a bare prediction; 0.6 is wanted"],
    }


def _vectors(rows: int) -> Floats:
    """Noise, a fifth of it missing."""
    rng = np.random.default_rng(SEED)
    X = rng.uniform(0, 500, (rows, len(COLUMNS)))
    X[rng.random(X.shape) < 0.2] = np.nan
    return X


def _bare(release: Release, threads: int) -> Callable[[Floats], Any]:
    """XGBoost on rows that are in memory already."""
    booster = release.model.booster  # type: ignore[attr-defined]
    booster.set_param({"nthread": threads})
    return lambda X: booster.inplace_predict(X, validate_features=False)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _from_transactions(settings: Settings, release: Release, scratch: Path) -> dict[str, Any]:
    """The same for the world's transactions, in their order."""
    lake = Lake(settings.lake)
    days = lake.days("transactions")
    build_activity(lake, days[0], days[-1])
    table = lake.read("transactions", days[0], days[-1])
    pq.write_table(table, scratch / "transactions.parquet")
    seconds = _seconds(
        lambda: score_file(
            lake, release, scratch / "transactions.parquet", scratch / "decided.parquet"
        )
    )
    return {"rows": len(table), "rows_per_second": round(len(table) / seconds)}


def _killed(settings: Settings, release: Release, source: Path, output: Path) -> dict[str, Any]:
    """Killed with SIGKILL when half is done, started again: rows that were kept, and the output."""
    whole = pq.read_table(output)
    output.unlink()
    arguments = (settings.lake, release.folder, source, output)
    process = multiprocessing.get_context("spawn").Process(target=_score_half, args=arguments)
    process.start()
    process.join()
    pieces = output.with_name(f".{output.name}.pieces").glob("[0-9]*.parquet")
    kept = sum(pq.read_metadata(piece).num_rows for piece in pieces)
    score_file(Lake(settings.lake), release, source, output)
    return {
        "killed": process.exitcode == -signal.SIGKILL,
        "rows_kept": kept,
        "equal": pq.read_table(output).equals(whole),
    }


def _score_half(lake: Path, folder: Path, source: Path, output: Path) -> None:
    def advance(_what: str, done: int, rows: int) -> None:
        if done >= rows / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    score_file(Lake(lake), load_release(folder), source, output, advance)

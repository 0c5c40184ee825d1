"""Batch scoring, from Parquet to Parquet, beside XGBoost's own prediction of the same rows in memory.

500 trees of depth 6 on the FEATURES columns. A folder of files is scored undisturbed, timed and its memory
watched, then once more by processes that are killed with SIGKILL three times on the way; each row must be there
once, with the score it had. Beside it: transactions, whose vectors are computed first. Not here: jobs over HTTP
and object stores (tests do them).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.world import COLUMNS, World, close_world, make_world
from switchyard.errors import SettingsError
from switchyard.fraud.activity import build_activity
from switchyard.fraud.batch import score_rows
from switchyard.lake import Lake
from switchyard.learning import Floats
from switchyard.learning.release import Release, load_release
from switchyard.piecewise import PIECE_ROWS

ROWS = 1_000_000
QUICK_ROWS = 300_000
FILE_ROWS = 250_000
"""Rows of a file of the input."""
BARE_ROWS = 1_000_000
"""Rows that XGBoost predicts in a round, the first of the input's: it takes their matrix, in memory."""
ROUNDS = 5
"""Of fewer rows than MANY; of many one says enough."""
MANY = 5_000_000
KILLS = 3
"""One between two pieces at most: of few rows there are fewer."""
SEED = 7
LEAST_RATIO = 0.6
MOST_BYTES = 4 * 10**9
_LOOK_S = 0.02


def run(
    console: Any = None,
    *,
    quick: bool = False,
    rows: int | None = None,
    folder: Path | None = None,
    **source: Any,
) -> dict[str, Any]:
    """Rows/s of both, medians over rounds, and the ratio within a round; peak memory; what kills did.

    Raises SettingsError for options of a ``source``: the rows are noise, the transactions a world's own.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures a world of its own; leave out {', '.join(given)}")
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    with tempfile.TemporaryDirectory(prefix="switchyard-batch-") as temporary:
        scratch = Path(temporary)
        world = make_world(folder or scratch / "home")
        try:
            return _measured(world, scratch, rows or (QUICK_ROWS if quick else ROWS), told)
        finally:
            close_world(world)


@dataclass(frozen=True)
class _Scoring:
    """What a process of its own is to score."""

    lake: Path
    release: Path
    source: Path
    output: Path

    @property
    def pieces(self) -> Path:
        return self.output.with_name(f".{self.output.name}.pieces")

    def finished_pieces(self) -> int:
        return len(list(self.pieces.glob("*/[0-9]*.parquet")))


def _measured(
    world: World, scratch: Path, rows: int, told: Callable[[str], None]
) -> dict[str, Any]:
    told(f"{rows:,} rows are written")
    X = _write_rows(scratch / "in", rows)
    bare = _bare(load_release(world.release.folder))
    places = (world.settings.lake, world.release.folder, scratch / "in")
    calm = _Scoring(*places, scratch / "calm.parquet")
    ours, theirs, peaks = [], [], []
    rounds = ROUNDS if rows < MANY else 1
    for number in range(rounds):
        told(f"round {number + 1} of {rounds}")
        theirs.append(len(X) / _seconds(lambda: bare(X)))
        calm_run = _watched(calm)
        ours.append(rows / calm_run.seconds)
        peaks.append(calm_run.peak_bytes)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    told(f"killed {KILLS} times")
    killed = _killed(_Scoring(*places, scratch / "killed.parquet"), KILLS)
    peaks.append(killed.pop("peak_bytes"))
    checked = _compared(calm.output, scratch / "killed.parquet", rows)
    told("transactions")
    figures = {
        "rows": rows,
        "rows_per_second": round(statistics.median(ours)),
        "inplace_predict_rows_per_second": round(statistics.median(theirs)),
        "inplace_predict_rows": len(X),
        "ratio": round(ratio, 2),
        "peak_memory_bytes": max(peaks),
        "killed_and_started_again": killed | checked,
        "from_transactions": _from_transactions(world, scratch),
    }
    return figures | {"failed": _failures(figures)}


def _failures(figures: dict[str, Any]) -> list[str]:
    killed, beside = figures["killed_and_started_again"], figures["from_transactions"]
    ratio, peak = figures["ratio"], figures["peak_memory_bytes"]
    equal = killed["equal"] and beside["killed_and_started_again"]["equal"]
    found = {
        f"{ratio:.2f} of a bare prediction; {LEAST_RATIO} is wanted": ratio < LEAST_RATIO,
        f"{peak:,} bytes at the peak; {MOST_BYTES:,} are allowed": peak > MOST_BYTES,
        f"killed {killed['kills']} times, not {killed['kills_wanted']}": killed["kills"]
        != killed["kills_wanted"],
        "after the kills a row is missing, or twice there": not killed["each_row_once"],
        "after the kills a row is scored otherwise": not equal,
    }
    return [said for said, so in found.items() if so]


# ---------------------------------------------------------------- the rows, and XGBoost on them


def _write_rows(folder: Path, rows: int) -> Floats:
    """A folder of files of noise, a fifth of it missing; the vectors of the first BARE_ROWS."""
    folder.mkdir()
    first: list[Floats] = []
    for number, begin in enumerate(range(0, rows, FILE_ROWS)):
        X = _vectors(number, min(FILE_ROWS, rows - begin))
        columns = {name: X[:, i] for i, name in enumerate(COLUMNS)}
        ids = np.arange(begin, begin + len(X)).astype(str)
        pq.write_table(
            pa.table({"transaction_id": ids, **columns}),
            folder / f"{number:04}.parquet",
            use_dictionary=False,
        )
        if begin < BARE_ROWS:
            first.append(X)
    return np.concatenate(first)


def _vectors(number: int, rows: int) -> Floats:
    rng = np.random.default_rng([SEED, number])
    X = rng.uniform(0, 500, (rows, len(COLUMNS)))
    X[rng.random(X.shape) < 0.2] = np.nan
    return X


def _bare(release: Release) -> Callable[[Floats], Any]:
    """XGBoost on rows that are in memory already."""
    booster = release.model.booster  # type: ignore[attr-defined]
    booster.set_param({"nthread": os.cpu_count() or 1})
    return lambda X: booster.inplace_predict(X, validate_features=False)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# ---------------------------------------------------------------- scoring, watched and killed


@dataclass(frozen=True)
class _Run:
    """Seconds (NaN if it did not come to its end), and the most memory that a process and its children held."""

    seconds: float
    peak_bytes: int
    was_killed: bool


def _score(scoring: _Scoring, told: Any) -> None:
    """In a process of its own: the seconds that it took, without starting and loading."""
    release = load_release(scoring.release, threads=os.cpu_count() or 1)
    release.score(np.zeros((1, len(COLUMNS))))
    lake = Lake(scoring.lake)
    told.send(_seconds(lambda: score_rows(lake, release, scoring.source, scoring.output)))


def _watched(scoring: _Scoring, kill_at: int | None = None) -> _Run:
    """Scored by a process that is watched, and killed a moment after ``kill_at`` pieces are finished."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_score, args=(scoring, sender))
    process.start()
    sender.close()
    peak = 0
    while process.is_alive():
        process.join(_LOOK_S)
        peak = max(peak, _resident_bytes(process.pid))
        if kill_at is not None and scoring.finished_pieces() >= kill_at:
            process.join(_LOOK_S * kill_at % 0.3)  # somewhere in the next piece
            process.kill()
            process.join()
    seconds = float(receiver.recv()) if process.exitcode == 0 else float("nan")
    return _Run(seconds, peak, process.exitcode == -signal.SIGKILL)


def _resident_bytes(process_id: int | None) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        own = psutil.Process(process_id)
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total


def _killed(scoring: _Scoring, kills: int) -> dict[str, Any]:
    """Killed so many times at even distances, and started again after each."""
    pieces = sum(
        -(-pq.read_metadata(file).num_rows // PIECE_ROWS)
        for file in ([scoring.source] if scoring.source.is_file() else scoring.source.iterdir())
    )
    kills = min(kills, pieces - 1)
    runs, kept = [], []
    for number in range(1, kills + 1):
        runs.append(_watched(scoring, kill_at=number * pieces // (kills + 1)))
        kept.append(scoring.finished_pieces())
    written = scoring.output.exists()
    runs.append(_watched(scoring))
    return {
        "kills_wanted": kills,
        "kills": sum(run.was_killed for run in runs),
        "pieces": pieces,
        "pieces_kept": kept,
        "output_there_before_the_end": written,
        "last_start_seconds": round(runs[-1].seconds, 1),
        "peak_bytes": max(run.peak_bytes for run in runs),
    }


def _compared(calm: Path, killed: Path, rows: int) -> dict[str, Any]:
    """Whether each id is there once, and both outputs are the same, row by row."""
    times, equal = np.zeros(rows, np.int64), True
    count = 0
    for ours, theirs in zip(_batches(killed), _batches(calm), strict=True):
        equal &= ours.equals(theirs)
        times += np.bincount(ours["transaction_id"].cast(pa.int64()).to_numpy(), minlength=rows)
        count += len(ours)
    return {"rows": count, "each_row_once": bool((times == 1).all()), "equal": equal}


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file) as opened:
        yield from opened.iter_batches(100_000)


# ---------------------------------------------------------------- from transactions


def _from_transactions(world: World, scratch: Path) -> dict[str, Any]:
    """The same for the world's transactions, in their order; killed once."""
    lake = Lake(world.settings.lake)
    days = lake.days("transactions")
    build_activity(lake, days[0], days[-1])
    table = lake.read("transactions", days[0], days[-1])
    pq.write_table(table, scratch / "transactions.parquet")
    places = (lake.root, world.release.folder, scratch / "transactions.parquet")
    calm = _Scoring(*places, scratch / "decided.parquet")
    calm_run = _watched(calm)
    again = _Scoring(*places, scratch / "decided_again.parquet")
    killed = _killed(again, 1)
    killed["equal"] = pq.read_table(again.output).equals(pq.read_table(calm.output))
    return {
        "rows": len(table),
        "rows_per_second": round(len(table) / calm_run.seconds),
        "peak_memory_bytes": max(calm_run.peak_bytes, killed.pop("peak_bytes")),
        "killed_and_started_again": killed,
    }

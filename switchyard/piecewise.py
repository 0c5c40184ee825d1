"""A table too large for memory, worked through piece by piece into one file that appears whole.

Killed and started again, the work goes on behind the last finished piece, and each row is written once:
finished pieces lie in a hidden folder beside the output until the output is there. Not here: what is done to
the rows.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from switchyard.errors import InputError
from switchyard.lake import whole_file, write_text

BATCH_ROWS = 65_536
"""Rows in memory at a time."""
PIECE_ROWS = 2 * BATCH_ROWS
"""Rows of a piece: what a kill loses at most."""
_PLAN = "plan.json"

Advance = Callable[[str, int, int], None]
"""Told of progress: what is being done, how many rows of it, of how many."""
Work = Callable[[pa.Table], pa.Table]
Count = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive row groups of one file, at least a piece of work."""

    file: Path
    groups: tuple[int, ...]
    rows: int

    def pieces(self) -> list[int]:
        """Rows of each piece of it, in order."""
        whole, rest = divmod(self.rows, PIECE_ROWS)
        return [PIECE_ROWS] * whole + ([rest] if rest else [])


@dataclass(frozen=True, slots=True)
class Parquet:
    """A Parquet file, or all of a folder in the order of their names."""

    source: Path
    stretches: tuple[Stretch, ...]
    schema: pa.Schema

    @classmethod
    def at(cls, source: Path) -> Parquet:
        """Raises InputError if there is none, or files of one folder have other columns."""
        files = _files(source)
        opened = [(file, _open(file)) for file in files]
        schema = opened[0][1].schema_arrow.remove_metadata()
        for file, parquet in opened:
            if parquet.schema_arrow.names != schema.names:
                raise InputError(
                    f"{file} has other columns than {files[0].name}; one input has one set"
                )
        stretches = (s for file, parquet in opened for s in _stretches(file, parquet.metadata))
        return cls(source, tuple(stretches), schema)

    @property
    def rows(self) -> int:
        return sum(stretch.rows for stretch in self.stretches)


def work_through(
    source: Parquet,
    output: Path,
    work: Work,
    *,
    columns: Sequence[str],
    schema: pa.Schema,
    identity: str,
    advance: Advance = lambda _what, _done, _of: None,
) -> int:
    """Write ``work`` of every row of ``source`` to ``output``, in their order; returns the rows.

    ``work`` gets tables of ``columns`` with at most BATCH_ROWS rows and returns one row of ``schema`` for
    each. ``identity`` names the work: pieces of other work, or of an input that has changed since, are
    not taken over. Raises InputError if another process writes this output, or the input changes.
    """
    plan = _plan(source, identity)
    with _scratch(output, plan) as scratch:
        parts: list[Path] = []
        done = 0
        for stretch in source.stretches:
            with closing(_Reading(stretch, columns)) as reading:
                for rows in stretch.pieces():
                    parts.append(scratch / f"{len(parts):06}.parquet")
                    if parts[-1].exists():
                        reading.skip(rows)
                    else:
                        told = _from(done, source, advance)
                        _write(map(work, reading.take(rows)), parts[-1], schema, told)
                    done += rows
                    advance(source.source.name, done, source.rows)
        if _plan(Parquet.at(source.source), identity) != plan:
            raise InputError(f"{source.source} changed while it was read; start again")
        _join(parts, output, schema)
        shutil.rmtree(scratch)
    return done


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    found = sorted(p for p in source.glob("*.parquet") if not p.name.startswith("."))
    if not found:
        what = "a folder without .parquet files" if source.is_dir() else "not there"
        raise InputError(f"{source} is {what}; a Parquet file, or a folder of them, is needed")
    return found


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} can't be read as Parquet: {error}") from None


def _stretches(file: Path, metadata: pq.FileMetaData) -> Iterator[Stretch]:
    groups: list[int] = []
    rows = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= PIECE_ROWS:
            yield Stretch(file, tuple(groups), rows)
            groups, rows = [], 0
    if rows:
        yield Stretch(file, tuple(groups), rows)


def _plan(source: Parquet, identity: str) -> str:
    """What has to be the same for finished pieces to be taken over."""
    stats = {stretch.file: stretch.file.stat() for stretch in source.stretches}
    files = [[str(file), s.st_size, s.st_mtime_ns] for file, s in stats.items()]
    rows = [stretch.pieces() for stretch in source.stretches]
    return json.dumps({"work": identity, "files": files, "rows": rows})


@contextmanager
def _scratch(output: Path, plan: str) -> Iterator[Path]:
    """The folder of finished pieces, this process's alone; emptied if they are of another plan."""
    folder = output.with_name(f".{output.name}.pieces")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = _is_at(lock, folder)
        except BlockingIOError:
            alone = False
        if not alone:
            raise InputError(
                f"another process is writing {output}; wait for it, or write elsewhere"
            )
        for left in output.parent.glob(f".{output.name}.*.part"):  # by one that was killed
            left.unlink(missing_ok=True)
        known = folder / _PLAN
        if not known.exists() or known.read_text(encoding="utf-8") != plan:
            for stale in folder.glob("*.parquet"):
                stale.unlink()
            write_text(plan, known)
        yield folder


def _is_at(lock: TextIO, folder: Path) -> bool:
    """Whether the file that was locked is still the one in the folder: whoever held it may have ended."""
    there = folder / "lock"
    return there.exists() and os.path.samestat(os.fstat(lock.fileno()), there.stat())


class _Reading:
    """The rows of a stretch in order, read when they are taken."""

    def __init__(self, stretch: Stretch, columns: Sequence[str]) -> None:
        self._stretch, self._columns = stretch, list(columns)
        self._skipped = 0
        self._batches: Iterator[pa.Table] | None = None
        self._rest: pa.Table | None = None

    def skip(self, rows: int) -> None:
        self._skipped += rows

    def take(self, rows: int) -> Iterator[pa.Table]:
        """The next ``rows``, at most BATCH_ROWS at a time. Raises InputError if they can't be read."""
        while self._skipped:
            self._skipped -= len(self._next(self._skipped))
        while rows:
            batch = self._next(rows)
            rows -= len(batch)
            if len(batch):
                yield batch

    def close(self) -> None:
        self._batches = self._rest = None

    def _next(self, most: int) -> pa.Table:
        if self._batches is None:
            self._batches = _batches(self._stretch, self._columns)
        batch = self._rest if self._rest is not None else next(self._batches)
        self._rest = batch.slice(most) if len(batch) > most else None
        return batch.slice(0, most)


def _batches(stretch: Stretch, columns: list[str]) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(stretch.file) as file:
            for batch in file.iter_batches(
                BATCH_ROWS, row_groups=list(stretch.groups), columns=columns
            ):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{stretch.file} can't be read to its end: {error}") from None


def _write(tables: Iterator[pa.Table], part: Path, schema: pa.Schema, advance: Count) -> None:
    done = 0
    with whole_file(part) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            done += len(table)
            advance(done)


def _from(done: int, source: Parquet, advance: Advance) -> Count:
    return lambda more: advance(source.source.name, done + more, source.rows)


def _join(parts: Sequence[Path], output: Path, schema: pa.Schema) -> None:
    """One file of the finished pieces, batch by batch."""
    with whole_file(output) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in parts:
            with pq.ParquetFile(part) as finished:
                for batch in finished.iter_batches(PIECE_ROWS):
                    writer.write_batch(batch)

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from switchyard.errors import InputError
from switchyard.lake import whole_file, write_text

PIECE_ROWS = 100_000
"""A piece ends with the row group that brings it to so many rows."""
BATCH_ROWS = 65_536
"""Rows in memory at a time."""
_PLAN = "plan.json"

Advance = Callable[[str, int, int], None]
"""Told of progress: what is being done, how many rows of it, of how many."""
Work = Callable[[pa.Table], pa.Table]
Count = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive row groups of one file."""

    file: Path
    groups: tuple[int, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Parquet:
    """A Parquet file, or all of a folder in the order of their names, as pieces of known size."""

    source: Path
    pieces: tuple[Piece, ...]
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
        pieces = tuple(p for file, parquet in opened for p in _pieces(file, parquet.metadata))
        return cls(source, pieces, schema)

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)


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
        parts, done = [], 0
        for number, piece in enumerate(source.pieces):
            part = scratch / f"{number:06}.parquet"
            if not part.exists():
                _work(piece, part, work, schema, columns, _from(done, source, advance))
            parts.append(part)
            done += piece.rows
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


def _pieces(file: Path, metadata: pq.FileMetaData) -> Iterator[Piece]:
    groups: list[int] = []
    rows = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= PIECE_ROWS:
            yield Piece(file, tuple(groups), rows)
            groups, rows = [], 0
    if rows:
        yield Piece(file, tuple(groups), rows)


def _plan(source: Parquet, identity: str) -> str:
    """What has to be the same for finished pieces to be taken over."""
    stats = {piece.file: piece.file.stat() for piece in source.pieces}
    files = [[str(file), s.st_size, s.st_mtime_ns] for file, s in stats.items()]
    pieces = [[str(piece.file), piece.rows] for piece in source.pieces]
    return json.dumps({"work": identity, "files": files, "pieces": pieces})


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


def _work(
    piece: Piece, part: Path, work: Work, schema: pa.Schema, columns: Sequence[str], advance: Count
) -> None:
    done = 0
    with whole_file(part) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(piece, columns):
            writer.write_table(work(batch))
            done += len(batch)
            advance(done)


def _batches(piece: Piece, columns: Sequence[str]) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(piece.file) as file:
            for batch in file.iter_batches(
                BATCH_ROWS, row_groups=list(piece.groups), columns=list(columns)
            ):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{piece.file} can't be read to its end: {error}") from None


def _from(done: int, source: Parquet, advance: Advance) -> Count:
    return lambda more: advance(source.source.name, done + more, source.rows)


def _join(parts: Sequence[Path], output: Path, schema: pa.Schema) -> None:
    """One file of the finished pieces, batch by batch."""
    with whole_file(output) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in parts:
            with pq.ParquetFile(part) as finished:
                for batch in finished.iter_batches(PIECE_ROWS):
                    writer.write_batch(batch)

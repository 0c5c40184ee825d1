"""A table too large for memory, worked through piece by piece into files that appear whole.

Killed and started again, the work goes on behind the last finished piece, and each row is written once:
finished pieces lie beside the output, in a hidden folder named by what they are pieces of, until the output is
there. So nothing has to be renamed, and an object store does as well as a disk: a piece is there or not, and
two who do the same work write the same pieces. Not here: what is done to the rows; places (``storage``).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TextIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from switchyard import storage
from switchyard.errors import InputError
from switchyard.lake import whole_file, write_text
from switchyard.storage import Found, Place, within

T = TypeVar("T")
BATCH_ROWS = 65_536
"""Rows in memory at a time."""
PIECE_ROWS = 2 * BATCH_ROWS
"""Rows of a piece: what a kill loses at most."""
MANIFEST = "_manifest.json"
"""Written last into an output folder: the files that belong to it, and their rows."""
_LOOKING = 8
"""Files looked into at a time, before any work."""

Advance = Callable[[str, int, int], None]
"""Told of progress: what is being done, how many rows of it, of how many."""
Work = Callable[[pa.Table], pa.Table]
Count = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive row groups of one file, at least a piece of work."""

    file: Place
    groups: tuple[int, ...]
    rows: int

    def pieces(self) -> list[int]:
        """Rows of each piece of it, in order."""
        whole, rest = divmod(self.rows, PIECE_ROWS)
        return [PIECE_ROWS] * whole + ([rest] if rest else [])


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the input."""

    found: Found
    stretches: tuple[Stretch, ...]

    @property
    def rows(self) -> int:
        return sum(stretch.rows for stretch in self.stretches)


@dataclass(frozen=True, slots=True)
class Parquet:
    """A Parquet file, or all of a folder and of the folders in it, in the order of their names."""

    source: Place
    files: tuple[SourceFile, ...]
    schema: pa.Schema

    @classmethod
    def at(cls, source: Place) -> Parquet:
        """Raises InputError if there is none, or files of one folder have other columns."""
        found = storage.files_in(source)
        if not found:
            what = "a folder without .parquet files" if storage.there(source) else "not there"
            raise InputError(f"{source} is {what}; a Parquet file, or a folder of them, is needed")
        with ThreadPoolExecutor(_LOOKING) as pool:
            looked = list(pool.map(_look, found))
        schema = looked[0][1]
        for file, columns in looked:
            if columns.names != schema.names:
                raise InputError(
                    f"{file.found.place} has other columns than {found[0].name}; one input has one set"
                )
        return cls(source, tuple(file for file, _ in looked), schema)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of a stretch, and where what came of them lies."""

    place: Place
    rows: int


@dataclass(frozen=True, slots=True)
class _Target:
    """A file of the output, by its name in it, and what it is made from."""

    place: Place
    name: str
    parts: tuple[tuple[Stretch, tuple[_Piece, ...]], ...]

    @property
    def pieces(self) -> list[_Piece]:
        return [piece for _, pieces in self.parts for piece in pieces]


def is_file(output: Place) -> bool:
    """Whether an output is one file: its name ends in ``.parquet``. Any other is a folder of files named as
    the input's, with a manifest."""
    return output.name.endswith(".parquet")


def check_apart(source: Place, output: Place) -> None:
    """Raises InputError if one lies within the other, or something else is where the output should be."""
    if within(output, source) or within(source, output):
        raise InputError(f"{output} and the input lie within one another; write elsewhere")
    if output.parent == output or not output.name:
        raise InputError(f"{output} has nothing beside it; name an output below it")
    if isinstance(output, Path) and output.exists() and output.is_file() != is_file(output):
        there = "file" if output.is_file() else "folder"
        raise InputError(
            f"{output} is a {there}; an output named *.parquet is a file, any other a folder"
        )


def work_through(
    source: Parquet,
    output: Place,
    work: Work,
    *,
    columns: Sequence[str],
    schema: pa.Schema,
    identity: str,
    advance: Advance = lambda _what, _done, _of: None,
) -> int:
    """Write ``work`` of every row of ``source`` to ``output``, in their order; returns the rows.

    The output is a file or a folder (``is_file``). ``work`` gets tables of ``columns`` with at most
    BATCH_ROWS rows and returns one row of ``schema`` for each. ``identity`` names the work: pieces of other
    work, or of an input that has changed since, are not taken over. Raises InputError if another process
    writes this output, or the input changes; StorageError if an object store fails.
    """
    check_apart(source.source, output)
    with _scratch(output) as scratch:
        plan = _digest(identity, [file.found for file in source.files])
        targets = _targets(source, output, scratch / plan)
        _refuse_strangers(output, targets)
        _make_pieces(
            source, targets, work, columns, schema, storage.files_in(scratch / plan), advance
        )
        if _digest(identity, storage.files_in(source.source)) != plan:
            raise InputError(f"{source.source} changed while it was read; start again")
        _put_together(output, targets, schema)
        storage.remove_folder(scratch)
    return source.rows


def _look(found: Found) -> tuple[SourceFile, pa.Schema]:
    try:
        with storage.reading(found.place) as given, pq.ParquetFile(**given) as file:
            stretches = tuple(_stretches(found.place, file.metadata))
            return SourceFile(found, stretches), file.schema_arrow.remove_metadata()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{found.place} can't be read as Parquet: {error}") from None


def _stretches(file: Place, metadata: pq.FileMetaData) -> Iterator[Stretch]:
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


# ---------------------------------------------------------------- the plan


def _digest(identity: str, files: Sequence[Found]) -> str:
    """Names what has to be the same for finished pieces to be taken over."""
    states = [[str(file.place), file.state] for file in files]
    content = json.dumps({"work": identity, "piece_rows": PIECE_ROWS, "files": states})
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _targets(source: Parquet, output: Place, folder: Place) -> list[_Target]:
    numbers = count()
    made = [
        (
            file.found.name,
            tuple(
                (stretch, tuple(_Piece(folder / f"{next(numbers):06}.parquet", rows)
                                for rows in stretch.pieces()))
                for stretch in file.stretches
            ),
        )
        for file in source.files
    ]  # fmt: skip
    if is_file(output):
        return [_Target(output, output.name, tuple(part for _, parts in made for part in parts))]
    return [_Target(output / name, name, parts) for name, parts in made]


def _refuse_strangers(output: Place, targets: Sequence[_Target]) -> None:
    """In an output folder nothing may lie that a reader would take for a part of it."""
    if is_file(output):
        return
    known = {target.name for target in targets}
    strangers = [each.name for each in storage.files_in(output) if each.name not in known]
    if strangers:
        raise InputError(
            f"{output} holds files that the input has none of ({', '.join(strangers[:3])}); delete them, "
            "or write elsewhere"
        )


@contextmanager
def _scratch(output: Place) -> Iterator[Place]:
    """The folder of pieces. On this machine it is one process's alone; in a store two may work beside each
    other, who finishes last finds the pieces gone."""
    folder = output.with_name(f".{output.name}.pieces")
    if not isinstance(folder, Path):
        yield folder
        return
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
        yield folder


def _is_at(lock: TextIO, folder: Path) -> bool:
    """Whether the file that was locked is still the one in the folder: whoever held it may have ended."""
    there = folder / "lock"
    return there.exists() and os.path.samestat(os.fstat(lock.fileno()), there.stat())


# ---------------------------------------------------------------- pieces


def _make_pieces(
    source: Parquet,
    targets: Sequence[_Target],
    work: Work,
    columns: Sequence[str],
    schema: pa.Schema,
    made: Sequence[Found],
    advance: Advance,
) -> None:
    """Write the pieces that are not ``made``."""
    kept = {found.name for found in made}
    done = sum(p.rows for target in targets for p in target.pieces if p.place.name in kept)

    def told(more: int) -> None:
        advance(source.source.name, done + more, source.rows)

    told(0)
    for stretch, pieces in (part for target in targets for part in target.parts):
        with closing(_Reading(stretch, columns)) as reading:
            for piece in pieces:
                if piece.place.name in kept:
                    reading.skip(piece.rows)
                else:
                    _write(map(work, reading.take(piece.rows)), piece.place, schema, told)
                    done += piece.rows


class _Reading:
    """The rows of a stretch in order, read when the first of them are taken."""

    def __init__(self, stretch: Stretch, columns: Sequence[str]) -> None:
        self._stretch, self._columns = stretch, list(columns)
        self._skipped = 0
        self._batches: Generator[pa.Table] | None = None
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
        if self._batches is not None:
            self._batches.close()
        self._rest = None

    def _next(self, most: int) -> pa.Table:
        if self._batches is None:
            self._batches = _ahead(_batches(self._stretch, self._columns))
        batch = self._rest if self._rest is not None else next(self._batches)
        self._rest = batch.slice(most) if len(batch) > most else None
        return batch.slice(0, most)


def _ahead(items: Generator[T]) -> Generator[T]:
    """The same, each made while the one before it is used."""
    with closing(items), ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _batches(stretch: Stretch, columns: list[str]) -> Generator[pa.Table]:
    groups = list(stretch.groups)
    try:
        with storage.reading(stretch.file) as given, pq.ParquetFile(**given) as file:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{stretch.file} can't be read to its end: {error}") from None


def _write(tables: Iterator[pa.Table], piece: Place, schema: pa.Schema, advance: Count) -> None:
    done = 0
    with whole_file(piece) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            done += len(table)
            advance(done)


# ---------------------------------------------------------------- the output


def _put_together(output: Place, targets: Sequence[_Target], schema: pa.Schema) -> None:
    """Each file of the output from its pieces; of a folder the manifest last, and gone until then."""
    manifest = output / MANIFEST
    if not is_file(output):
        storage.remove(manifest)
    _drop_leftovers(targets)
    for target in targets:
        _join(target, schema)
    if not is_file(output):
        rows = {target.name: sum(piece.rows for piece in target.pieces) for target in targets}
        write_text(json.dumps({"rows": sum(rows.values()), "files": rows}, indent=1), manifest)


def _drop_leftovers(targets: Sequence[_Target]) -> None:
    """Files begun by a process that was killed."""
    for folder in {target.place.parent for target in targets if isinstance(target.place, Path)}:
        for left in folder.glob(".*.part"):
            begun = re.fullmatch(r"\.(.+)\.\d+\.part", left.name)
            if begun and folder / begun[1] in {target.place for target in targets}:
                left.unlink(missing_ok=True)


def _join(target: _Target, schema: pa.Schema) -> None:
    """One file of its finished pieces, batch by batch."""
    with (
        whole_file(target.place) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for piece in target.pieces:
            for batch in _finished(piece, target):
                writer.write_batch(batch)


def _finished(piece: _Piece, target: _Target) -> Iterator[pa.RecordBatch]:
    try:
        with storage.reading(piece.place) as given, pq.ParquetFile(**given) as file:
            yield from file.iter_batches(PIECE_ROWS)
    except FileNotFoundError:
        raise InputError(
            f"another process has finished {target.place} meanwhile, and taken the pieces away"
        ) from None

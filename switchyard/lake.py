"""The lake: one folder per table, one Parquet file per day. Files appear whole or not at all.

Here: naming, atomic writing and range reading of daily tables. Not here: what the tables hold
(``switchyard.fraud.columns``) or how they are computed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from switchyard.errors import LakeError
from switchyard.storage import Place, whole_object


@contextmanager
def whole_file(path: Place) -> Iterator[BinaryIO]:
    """A file to write: synced and renamed at the end, so that a reader sees the old one or the new one,
    never a part of one; nothing is left of it if the writing fails. In an object store likewise."""
    if not isinstance(path, Path):
        with whole_object(path) as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_parquet(table: pa.Table, path: Place) -> None:
    """Write a table as a :func:`whole_file`."""
    with whole_file(path) as file:
        pq.write_table(table, file, compression="zstd")


def write_text(text: str, path: Place) -> None:
    """The same for a small text file."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


def days_between(start: date, end: date) -> list[date]:
    """Every day from ``start`` to ``end``, both included.

    >>> [d.day for d in days_between(date(2026, 1, 30), date(2026, 2, 1))]
    [30, 31, 1]
    """
    return [start + timedelta(days=i) for i in range((end - start).days + 1)]


@dataclass(frozen=True, slots=True)
class Lake:
    """Daily tables below ``root``: ``root/<table>/<YYYY-MM-DD>.parquet``."""

    root: Path

    def path(self, table: str, day: date) -> Path:
        return self.root / table / f"{day.isoformat()}.parquet"

    def has(self, table: str, day: date) -> bool:
        return self.path(table, day).exists()

    def days(self, table: str) -> list[date]:
        """Days that are there, oldest first."""
        return sorted(
            date.fromisoformat(p.stem) for p in (self.root / table).glob("[0-9]*.parquet")
        )

    def paths(self, table: str, start: date, end: date) -> list[Path]:
        """Files of the days from ``start`` to ``end`` (both included) that are there, oldest first."""
        return [p for day in days_between(start, end) if (p := self.path(table, day)).exists()]

    def write(self, table: str, day: date, rows: pa.Table) -> Path:
        path = self.path(table, day)
        write_parquet(rows, path)
        return path

    def drop(self, table: str, day: date) -> None:
        """Forget a day, if it is there."""
        self.path(table, day).unlink(missing_ok=True)

    def read(
        self, table: str, start: date, end: date | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Rows of the days from ``start`` to ``end`` (default: ``start`` alone).

        Raises LakeError if none of these days is there.
        """
        paths = self.paths(table, start, end or start)
        if not paths:
            raise LakeError(
                f"the lake has no '{table}' from {start} to {end or start} below {self.root}; "
                f"materialize '{table}' for these days first"
            )
        wanted = list(columns) if columns is not None else None
        return pa.concat_tables([pq.read_table(p, columns=wanted) for p in paths])

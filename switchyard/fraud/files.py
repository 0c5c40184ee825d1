"""Anybody's Parquet or CSV files, by a column map: one file or a folder of them, days in any order.

Each file is read once, row by row as it streams, into a scratch folder by day (text and nothing lost), and
again only when it changes. What is wrong with one row goes on to quarantine; what is wrong with a file
fails the days it held when it was last readable, else the one in its name, else the source's first. Rows
whose time can't be read, or lies after ``until``, go with the first day of their file.
"""

from __future__ import annotations

import glob
import hashlib
import re
import shutil
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow as pa

from switchyard.errors import SourceError
from switchyard.fraud.column_map import ColumnMap
from switchyard.fraud.conversion import SUFFIXES, WITH_VERDICTS, Converted, convert, converted_at
from switchyard.fraud.raw import KEYS, PLACE, RAW, RawDay, label_table

_FORMAT = 1
"""Raised when the conversion changes, so that files are converted again."""
_DATE = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One file that can't be read, and the days that it held when it could, or that its name says."""

    days: frozenset[date]
    why: str
    was_readable: bool


@dataclass(slots=True)
class FileSource:
    """Transactions of a file or folder. ``since`` and ``until`` bound the days that count (both included).

    ``scratch`` is a folder of the home in which the files are kept by day.
    """

    path: Path
    columns: ColumnMap
    scratch: Path
    currency: str
    since: date | None = None
    until: date | None = None
    name: str = "file"
    _known: dict[str, Converted | Unreadable] = field(default_factory=dict, repr=False)

    def days(self) -> tuple[date, date]:
        """First and last day that a file holds, or an unreadable one held before or is named after.

        Raises SourceError if there is no file, or none whose days are known.
        """
        files = self._files()
        held = [day for file in files for day in file.days]
        inside = sorted(day for day in held if self._counts(day))
        if inside and any(isinstance(file, Converted) or file.was_readable for file in files):
            return inside[0], inside[-1]
        for file in files:
            if isinstance(file, Unreadable):
                raise SourceError(file.why)
        raise SourceError(
            f"{self.path} holds no day between {self.since or 'ever'} and {self.until or 'ever'}; "
            f"its days are {min(held)} to {max(held)}"
        )

    def read(self, day: date) -> RawDay:
        """That day's rows of all files, none if no file has any.

        Raises SourceError for a day out of range, and if a file that belongs to it can't be read.
        """
        first, last = self.days()
        if not first <= day <= last:
            raise SourceError(f"{self.path} holds {first} to {last}; {day} is not among these days")
        tables: list[pa.Table] = []
        for file in self._files():
            if isinstance(file, Unreadable):
                if day in (file.days or {first}):
                    raise SourceError(file.why)
            else:
                tables += self._rows(file, day, first)
        return _raw_day(tables, self.path.name)

    def _rows(self, file: Converted, day: date, first: date) -> list[pa.Table]:
        tables = file.read(day) if day in file.days else []
        inside = [d for d in sorted(file.days) if self._counts(d)]
        if day == (inside[0] if inside else first):
            late = [d for d in file.days if self.until and d > self.until]
            strays = [file.read(d) for d in late] + [file.read(None) if file.stray else []]
            tables += [table for found in strays for table in found]
        return tables

    def _counts(self, day: date) -> bool:
        return (self.since or day) <= day <= (self.until or day)

    def _files(self) -> list[Converted | Unreadable]:
        """Every file as it is now, converted if it was not yet."""
        found = []
        for path in _listed(self.path):
            stat = path.stat()
            key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
            if key not in self._known:
                self._known[key] = self._converted(path, key)
            found.append(self._known[key])
        return found

    def _converted(self, path: Path, key: str) -> Converted | Unreadable:
        what = f"{_FORMAT}|{key}|{self.currency}|{self.columns.model_dump_json()}"
        stem = f"{path.stem}-{_hash(str(path.resolve()))}"
        folder = self.scratch / f"{stem}-{_hash(what)}"
        kept = converted_at(folder, path.name)
        if kept is None:
            try:
                kept = convert(path, folder, self.columns, self.currency)
            except SourceError as error:
                before = self._days_before(stem)
                return Unreadable(before or _day_in(path.name), str(error), bool(before))
            _forget(self.scratch, stem, folder)
        return kept

    def _days_before(self, stem: str) -> frozenset[date]:
        """Days that the file held when it could last be read."""
        kept = (
            converted_at(folder, stem) for folder in self.scratch.glob(f"{glob.escape(stem)}-*")
        )
        return frozenset(day for found in kept if found for day in found.days)


def _raw_day(tables: list[pa.Table], file: str) -> RawDay:
    rows = pa.concat_tables(tables) if tables else WITH_VERDICTS.empty_table()
    labels = label_table(
        {name: rows[name] for name in KEYS},
        rows["moment"], rows["is_fraud"], rows["label_available_at"],
    )  # fmt: skip
    return RawDay(rows.select([*RAW, *PLACE]), labels, file)


def _listed(path: Path) -> list[Path]:
    """The file itself, or those of the folder by name. Raises SourceError if there is none."""
    if path.is_file():
        return [path]
    found = sorted(
        p for p in path.glob("*")
        if p.is_file() and p.suffix.lower() in SUFFIXES and not p.name.startswith((".", "_"))
    )  # fmt: skip
    if not found:
        what = "holds no .csv or .parquet file" if path.is_dir() else "does not exist"
        raise SourceError(f"{path} {what}; --data must name a file or a folder of them")
    return found


def _forget(scratch: Path, stem: str, kept: Path) -> None:
    """Remove what was kept of the same file as it was before."""
    for folder in scratch.glob(f"{glob.escape(stem)}-*"):
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)


def _day_in(name: str) -> frozenset[date]:
    """
    >>> _day_in("sales-20260105.csv"), _day_in("part-0.parquet")
    (frozenset({datetime.date(2026, 1, 5)}), frozenset())
    """
    for year, month, day in _DATE.findall(name):
        try:
            return frozenset({date(int(year), int(month), int(day))})
        except ValueError:
            continue
    return frozenset()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Conversion: one of somebody's files, read once as it streams, becomes our raw rows by day in a folder.

Here: reading Parquet and CSV with errors that name file, column and row, and writing rows by day. Not here:
which files there are (``files``) and which column means what (``column_map``).
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from switchyard.errors import SourceError
from switchyard.fraud.column_map import ColumnMap, MappedBatch, mapped
from switchyard.fraud.moments import MOMENT, parse_moments
from switchyard.fraud.raw import RAW
from switchyard.lake import write_parquet, write_text

SUFFIXES = (".csv", ".parquet", ".pq")
WITH_VERDICTS = pa.schema(
    [(name, pa.string()) for name in RAW]
    + [("source_row", pa.int64()), ("source_file", pa.string()), ("moment", MOMENT)]
    + [("is_fraud", pa.bool_()), ("label_available_at", MOMENT)]
)
"""Rows as kept: RAW and PLACE, the time if it can be read, the verdict if there is one."""

_BLOCK_BYTES = 1 << 24
_BUFFERED_ROWS = 1_000_000
_DAY_US = 86_400_000_000
_STRAY_DAY = -(10**6)
_STRAY = "stray"


@dataclass(frozen=True, slots=True)
class Converted:
    """One file by day below ``folder``; ``days`` holds the rows of each, ``stray`` those without a time."""

    file: str
    folder: Path
    days: dict[date, int]
    stray: int

    def read(self, day: date | None) -> list[pa.Table]:
        """Rows of one day (None: the stray ones), in the order of the file."""
        pattern = f"{_name(day)}.*.parquet"
        return [pq.read_table(p, schema=WITH_VERDICTS) for p in sorted(self.folder.glob(pattern))]


def converted_at(folder: Path, file: str) -> Converted | None:
    """What an earlier conversion left, if there is one."""
    index = folder / "index.json"
    if not index.exists():
        return None
    found = json.loads(index.read_text(encoding="utf-8"))
    days = {date.fromisoformat(day): rows for day, rows in found["days"].items()}
    return Converted(file, folder, days, found["stray"])


def convert(path: Path, folder: Path, columns: ColumnMap, currency: str) -> Converted:
    """Write the file's rows by day below ``folder``, which appears whole or not at all.

    Raises SourceError, naming the file and column and row where there is one, if it can't be read.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        writer = _DayWriter(part)
        for batch in _batches(path, columns):
            first_row = writer.rows + 1
            writer.add(
                mapped(batch, columns, file=path.name, first_row=first_row, currency=currency)
            )
        days, stray = writer.close(path.name, columns)
        index = {"days": {day.isoformat(): rows for day, rows in days.items()}, "stray": stray}
        write_text(json.dumps(index), part / "index.json")
        if not folder.exists():
            part.rename(folder)
        return Converted(path.name, folder, days, stray)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class _DayWriter:
    """Gathers rows, and writes them by day whenever there are many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._written = 0
        self._counts: dict[int, int] = {}
        self._example: str | None = None
        self.rows = 0

    def add(self, batch: MappedBatch) -> None:
        table = batch.raw.append_column("moment", batch.moment)
        table = table.append_column("is_fraud", batch.is_fraud)
        self._waiting.append(table.append_column("label_available_at", batch.label_available_at))
        self._example = self._example or _first(batch.raw["event_timestamp"])
        self.rows += table.num_rows
        self._waiting_rows += table.num_rows
        if self._waiting_rows >= _BUFFERED_ROWS:
            self._flush()

    def close(self, file: str, columns: ColumnMap) -> tuple[dict[date, int], int]:
        """Write what waits; rows of each day, and without a time. Raises SourceError if none has one."""
        if self.rows == 0:
            raise SourceError(f"{file}: holds no rows; it must hold at least one transaction")
        self._flush()
        stray = self._counts.pop(_STRAY_DAY, 0)
        if not self._counts:
            raise _no_times(file, columns, self._example)
        return {_day(number): rows for number, rows in sorted(self._counts.items())}, stray

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        micros = table["moment"].combine_chunks().cast(pa.int64())
        days = micros.fill_null(_STRAY_DAY * _DAY_US).to_numpy() // _DAY_US
        order = np.argsort(days, kind="stable")
        table, days = table.take(pa.array(order)), days[order]
        starts = np.flatnonzero(np.diff(days, prepend=days[0] - 1))
        for start, end in zip(starts, [*starts[1:], len(days)], strict=True):
            day = int(days[start])
            name = _name(None if day == _STRAY_DAY else _day(day))
            part = self._folder / f"{name}.{self._written:05d}.parquet"
            write_parquet(table.slice(start, end - start), part)
            self._counts[day] = self._counts.get(day, 0) + int(end - start)
        self._written += 1
        self._waiting, self._waiting_rows = [], 0


def _batches(path: Path, columns: ColumnMap) -> Iterator[pa.RecordBatch]:
    """Their columns of the file, in pieces. Raises SourceError."""
    if path.stat().st_size == 0:
        raise SourceError(f"{path.name}: is empty; it must hold at least one transaction")
    if path.suffix.lower() == ".csv":
        yield from _csv_batches(path, columns)
    else:
        yield from _parquet_batches(path, columns)


def _parquet_batches(path: Path, columns: ColumnMap) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            _check_names(path.name, file.schema_arrow.names, columns)
            yield from file.iter_batches(columns=columns.theirs)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{path.name}: is no whole Parquet file (cut off or damaged): {_line(error)}"
        ) from None


def _csv_batches(path: Path, columns: ColumnMap) -> Iterator[pa.RecordBatch]:
    """Every cell as a string; only an empty one is null ('NA' is Namibia).

    All columns are read, since a quote left open in any of them swallows the rows that follow.
    """
    header = _csv_header(path, columns.delimiter)
    _check_names(path.name, header, columns)
    try:
        with pacsv.open_csv(
            path,
            read_options=pacsv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
            parse_options=pacsv.ParseOptions(delimiter=columns.delimiter),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        ) as reader:
            row = 1
            for batch in reader:
                _check_quotes(path.name, header, batch, row)
                yield batch
                row += batch.num_rows
    except pa.ArrowInvalid as error:
        raise _csv_error(path.name, header, str(error)) from None


def _check_quotes(file: str, header: list[str], batch: pa.RecordBatch, first_row: int) -> None:
    for name, column in zip(header, batch.columns, strict=True):
        rows = pc.indices_nonzero(pc.match_substring(column, "\n"))
        if len(rows):
            raise SourceError(
                f"{file}: column '{name}', row {first_row + rows[0].as_py()} holds a line break: a quote "
                "is not closed, or a quoted value spans several lines"
            )


def _csv_header(path: Path, delimiter: str) -> list[str]:
    try:
        with path.open("rb") as file:
            line = file.readline(_BLOCK_BYTES).decode("utf-8-sig")
        return next(csv.reader([line], delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise SourceError(f"{path.name}: has no readable header in UTF-8: {error}") from None


def _csv_error(file: str, header: list[str], message: str) -> SourceError:
    """Arrow counts the header as row 1; we count transactions."""
    if cells := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        row, expected, got = map(int, cells.groups())
        return SourceError(f"{file}: row {row - 1} has {got} columns; the header has {expected}")
    if cell := re.search(r"CSV column #(\d+): Row #(\d+): .*invalid UTF8", message):
        column, row = map(int, cell.groups())
        return SourceError(f"{file}: column '{header[column]}', row {row - 1} is not in UTF-8")
    if "out of sync" in message or "straddles" in message:
        return SourceError(f"{file}: a quote is not closed, or a quoted value spans several lines")
    return SourceError(f"{file}: can't be read as CSV: {_line(message)}")


def _check_names(file: str, found: list[str], columns: ColumnMap) -> None:
    for ours, theirs in columns.columns.items():
        if found.count(theirs) != 1:
            how = "is there twice" if theirs in found else "is missing"
            raise SourceError(
                f"{file}: column '{theirs}' (our {ours}) {how}; the file has {', '.join(found)}"
            )


def _no_times(file: str, columns: ColumnMap, example: str | None) -> SourceError:
    place = f"{file}: column '{columns.columns['event_timestamp']}'"
    if example is None:
        return SourceError(f"{place} is empty in every row; it must hold times")
    as_utc = parse_moments(pa.array([example]), format=columns.timestamp_format, zone="UTC")
    if as_utc.null_count == 0:
        return SourceError(
            f"{place} holds times without a time zone, such as '{example}'; add 'timezone: …' (such as "
            "UTC) to the column map"
        )
    form = columns.timestamp_format or "ISO 8601"
    return SourceError(
        f"{place} holds no time that can be read, in no row; the first is '{example}', but {form} is "
        "expected (timestamp_format of the column map)"
    )


def _first(texts: pa.ChunkedArray) -> str | None:
    there = texts.drop_null()
    return str(there[0].as_py()) if len(there) else None


def _day(number: int) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + number)


def _name(day: date | None) -> str:
    return day.isoformat() if day else _STRAY


def _line(error: object) -> str:
    return str(error).strip().splitlines()[0]

"""Column maps: a small YAML file that says which of somebody's columns is which of ours.

    columns:                       # ours: theirs
      transaction_id: id
      customer_id: card
      terminal_id: shop
      amount: amount               # in major units
      event_timestamp: booked_at
      is_fraud: fraud              # if there are verdicts
    label_delay_days: 7            # or label_available_at among the columns
    timezone: Europe/Berlin        # of times without an offset
    timestamp_format: "%d.%m.%Y %H:%M:%S"   # else ISO 8601
    delimiter: ";"                 # of CSV files, else a comma
    constants: {currency: EUR, channel: pos}

Here: reading a map, and one batch of their rows by it. Not here: files and days (``files``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from switchyard.errors import SourceError
from switchyard.fraud.columns import TRANSACTION
from switchyard.fraud.moments import MOMENT, check_zone, parse_moments, pattern_of
from switchyard.fraud.money import settled
from switchyard.fraud.raw import RAW, raw_table

VERDICT = ("is_fraud", "label_available_at")
NEEDED = tuple(
    "amount" if c.name == "amount_minor" else c.name
    for c in TRANSACTION
    if not c.nullable and c.name != "currency"
)
"""Ours that the file itself must have; a currency can be the home's."""
CONSTANTS = tuple(name for name in RAW if name not in (*NEEDED, "device_id"))

VERDICT_WORDS = {
    **dict.fromkeys(["1", "true", "t", "yes", "y"], True),
    **dict.fromkeys(["0", "false", "f", "no", "n"], False),
}
_DAY_US = 86_400_000_000


class ColumnMap(BaseModel):
    """A checked column map; build it with :func:`load_column_map`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, str]
    constants: dict[str, str] = {}
    timezone: str | None = None
    timestamp_format: str | None = None
    label_delay_days: Annotated[float, Field(ge=0, le=3650)] | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","

    @property
    def theirs(self) -> list[str]:
        """Their columns that are read, each once."""
        return list(dict.fromkeys(self.columns.values()))

    def check(self) -> None:
        """Raises SourceError for what no single field shows."""
        _check_known("columns", self.columns, (*RAW, *VERDICT))
        _check_known("constants", self.constants, CONSTANTS)
        if missing := [name for name in NEEDED if name not in self.columns]:
            raise SourceError(f"columns lack {', '.join(missing)}")
        if twice := sorted(set(self.columns) & set(self.constants)):
            raise SourceError(f"{', '.join(twice)} is both a column and a constant")
        known = "label_available_at" in self.columns, self.label_delay_days is not None
        if "is_fraud" in self.columns and sum(known) != 1:
            raise SourceError(
                "is_fraud needs either the column label_available_at or label_delay_days, "
                "since a verdict is not known at once"
            )
        if "is_fraud" not in self.columns and any(known):
            raise SourceError("label_available_at and label_delay_days need the column is_fraud")
        check_zone(self.timezone)
        pattern_of(self.timestamp_format)


def load_column_map(path: Path) -> ColumnMap:
    """Raises SourceError naming the file, the key and what would be right."""
    try:
        found = ColumnMap.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        found.check()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SourceError(f"the column map {path} can't be read: {error}") from None
    except ValidationError as error:
        raise SourceError(f"the column map {path} is wrong: {_told(error)}") from None
    except SourceError as error:
        raise SourceError(f"the column map {path} is wrong: {error}") from None
    return found


@dataclass(frozen=True, slots=True)
class MappedBatch:
    """One batch of a file. ``raw``: columns RAW and PLACE, all strings but source_row.

    Row by row ``moment`` (null where the time can't be read), ``is_fraud`` and ``label_available_at``
    (null without a verdict).
    """

    raw: pa.Table
    moment: pa.Array
    is_fraud: pa.Array
    label_available_at: pa.Array


def mapped(
    batch: pa.RecordBatch, columns: ColumnMap, *, file: str, first_row: int, currency: str
) -> MappedBatch:
    """One batch of their rows as ours; ``first_row`` is the number of its first row in the file.

    ``currency`` holds where the map gives none. What is wrong with a single transaction passes through as
    text. Raises SourceError, naming file, column and row, for a column of an unusable type, for times
    that need the map's time zone, and for a verdict that can't be understood.
    """
    cells = _Cells(batch, columns, file, first_row)
    texts = {ours: cells.text(ours) for ours in columns.columns}
    texts["amount"] = cells.amount(currency)
    constants = {"currency": currency} if "currency" not in columns.columns else {}
    for name, value in (constants | columns.constants).items():
        texts[name] = pa.array([value] * batch.num_rows, pa.string())
    moment = cells.moments("event_timestamp")
    texts["event_timestamp"] = pc.coalesce(_iso(moment), texts["event_timestamp"])
    is_fraud, available_at = _verdicts(cells, columns, texts, moment)
    raw = raw_table(texts, batch.num_rows, file, first_row)
    return MappedBatch(raw, moment, is_fraud, available_at)


class _Cells:
    """Their columns by our names, with errors that tell where they are."""

    def __init__(
        self, batch: pa.RecordBatch, columns: ColumnMap, file: str, first_row: int
    ) -> None:
        self._batch = batch
        self._columns = columns
        self._file = file
        self._first_row = first_row

    def error(self, ours: str, what: str, row: int | None = None) -> SourceError:
        place = f"column '{self._columns.columns[ours]}'"
        if row is not None:
            place += f", row {self._first_row + row}"
        return SourceError(f"{self._file}: {place} {what}")

    def text(self, ours: str) -> pa.Array:
        """The column as strings, null where it is empty."""
        array = self._plain(ours)
        if pa.types.is_timestamp(array.type):
            array = array.cast(pa.int64())  # only times that can't be read are shown like this
        try:
            text = array.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise self.error(ours, f"holds {array.type}; it must hold single values") from None
        return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)

    def amount(self, currency: str) -> pa.Array:
        """As text; of a float the amount that it lies at, since text would not show that it was one."""
        array = self._plain("amount")
        if not pa.types.is_float64(array.type):
            return self.text("amount")
        values = settled(array.fill_null(np.nan).to_numpy(zero_copy_only=False), currency)
        return pa.array(values, mask=array.is_null().to_numpy(zero_copy_only=False)).cast(
            pa.string()
        )

    def moments(self, ours: str) -> pa.Array:
        array, zone = self._plain(ours), self._columns.timezone
        naive = pa.types.is_date(array.type) or (
            pa.types.is_timestamp(array.type) and array.type.tz is None
        )
        if naive and zone is None:
            raise self.error(
                ours,
                "holds times without a time zone; add 'timezone: …' (such as UTC) to the column map",
            )
        try:
            return parse_moments(array, format=self._columns.timestamp_format, zone=zone)
        except SourceError as error:
            raise self.error(ours, f"can't be used: {error}") from None

    def _plain(self, ours: str) -> pa.Array:
        array = self._batch.column(self._columns.columns[ours])
        return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _verdicts(
    cells: _Cells, columns: ColumnMap, texts: dict[str, pa.Array], moment: pa.Array
) -> tuple[pa.Array, pa.Array]:
    """``is_fraud`` and ``label_available_at`` of each row; both null where there is no verdict."""
    texts.pop("label_available_at", None)
    said = texts.pop("is_fraud", None)
    if said is None:
        return pa.nulls(len(moment), pa.bool_()), pa.nulls(len(moment), MOMENT)
    index = pc.index_in(pc.utf8_lower(said), value_set=pa.array(list(VERDICT_WORDS)))
    is_fraud = pa.array(list(VERDICT_WORDS.values())).take(index)
    _refuse(cells, "is_fraud", pc.and_(pc.is_valid(said), pc.is_null(is_fraud)), said,
            "is no verdict; it must be 1 or 0, true or false, yes or no")  # fmt: skip
    if columns.label_delay_days is not None:
        delay = int(columns.label_delay_days * _DAY_US)
        return is_fraud, pc.add(moment, pa.scalar(delay, pa.duration("us")))
    given = cells.text("label_available_at")
    at = cells.moments("label_available_at")
    _refuse(cells, "label_available_at", pc.and_(pc.is_valid(given), pc.is_null(at)), given,
            "is no time that can be read")  # fmt: skip
    _refuse(cells, "label_available_at", pc.less(at, moment), given,
            "lies before the transaction; a verdict comes after it")  # fmt: skip
    return is_fraud, at


def _refuse(cells: _Cells, ours: str, wrong: pa.Array, values: pa.Array, what: str) -> None:
    rows = np.flatnonzero(pc.fill_null(wrong, False).to_numpy(zero_copy_only=False))
    if len(rows):
        row = int(rows[0])
        raise cells.error(ours, f"holds {values[row].as_py()!r}, which {what}", row)


def _iso(moments: pa.Array) -> pa.Array:
    """Moments as ISO 8601 text (Arrow is slow at times with a zone)."""
    return pc.binary_join_element_wise(moments.cast(pa.timestamp("us")).cast(pa.string()), "Z", "")


def _check_known(key: str, given: dict[str, str], known: tuple[str, ...]) -> None:
    if unknown := [name for name in given if name not in known]:
        raise SourceError(f"{key} holds '{unknown[0]}'; it may hold {', '.join(known)}")


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]") or "the whole file"
    hint = " (quote it)" if first["type"] == "string_type" else ""
    return f"{where}: {first['msg']}{hint}, got {first['input']!r}"

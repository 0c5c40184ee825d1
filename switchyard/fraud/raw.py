"""Raw days: what every source hands over, before anything is parsed or refused.

Here: the protocol of a source and the shape of its tables. Not here: the sources (``sources``, ``files``)
or what makes a row bad (``ingest``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.fraud.columns import LABEL, TRANSACTION, arrow_schema, names

RAW: tuple[str, ...] = tuple(
    "amount" if name == "amount_minor" else name for name in names(TRANSACTION)
)
"""Columns of a transaction as sources give it: the amount in major units, nothing parsed."""
KEYS = ("transaction_id", "customer_id", "terminal_id")
PLACE = ("source_row", "source_file")
"""Where a row stood: its number among the file's rows from 1 on (int64), and the file's name (string)."""


@dataclass(frozen=True, slots=True)
class RawDay:
    """One day of a source.

    ``transactions``: columns RAW and PLACE, one row per row of the source. ``amount`` may be string, float
    or decimal (major units), ``event_timestamp`` a moment or a string, the others are strings. ``labels``:
    columns LABEL, for rows that have a verdict, a time and all keys. ``file``: where the day came from.
    """

    transactions: pa.Table
    labels: pa.Table
    file: str


class Source(Protocol):
    """Anything that holds days of transactions."""

    @property
    def name(self) -> str:
        """One of the setting ``source``'s values."""
        ...

    def days(self) -> tuple[date, date] | None:
        """First and last day (UTC), or None for a source without end."""
        ...

    def read(self, day: date) -> RawDay:
        """That day's rows. Raises SourceError if the day or its file can't be read."""
        ...


def raw_table(
    columns: Mapping[str, pa.Array], rows: int, file: str, first_row: int = 1
) -> pa.Table:
    """``columns`` as a table of RAW and PLACE; what is not among them is null."""
    table = {name: columns.get(name, pa.nulls(rows, pa.string())) for name in RAW}
    table["source_row"] = pa.array(np.arange(first_row, first_row + rows))
    table["source_file"] = pa.array([file] * rows, pa.string())
    return pa.table(table)


def label_table(
    keys: Mapping[str, pa.Array], moments: pa.Array, is_fraud: pa.Array, available_at: pa.Array
) -> pa.Table:
    """LABEL rows where key, time and verdict are there; ``available_at`` may be null (never yet)."""
    columns = [*(keys[name] for name in KEYS), moments, is_fraud, available_at]
    table = pa.table(columns, names=names(LABEL))
    there = [pc.is_valid(table[name]) for name in names(LABEL)[:-1]]
    rows = there[0]
    for other in there[1:]:
        rows = pc.and_(rows, other)
    return table.filter(rows).cast(arrow_schema(LABEL))

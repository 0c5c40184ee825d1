"""Files of verdicts, such as a card scheme's chargebacks, into the label ledger.

A CSV or Parquet file with ``transaction_id``, ``is_fraud`` and ``label_available_at``; what else it holds is not looked at.
A bad row is set aside with its number and reason (table ``refused_labels`` of the lake, by the day it was
read), the others count. Not here: what a ledger is (``labels``), or the transactions' own file (``files``).
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from switchyard.errors import InputError
from switchyard.fraud.column_map import VERDICT_WORDS
from switchyard.fraud.columns import TRANSACTION, arrow_schema
from switchyard.fraud.compaction import LOCK
from switchyard.fraud.labels import LEDGER_SCHEMA, record_labels
from switchyard.fraud.moments import MOMENT, parse_moments
from switchyard.lake import Lake
from switchyard.learning import Ints
from switchyard.lock import alone
from switchyard.settings import Settings

COLUMNS = ("transaction_id", "is_fraud", "label_available_at")
REFUSED = "refused_labels"
REFUSED_SCHEMA = pa.schema(
    [("source_file", pa.string()), ("source_row", pa.int64())]
    + [(name, pa.string()) for name in COLUMNS]
    + [("reason", pa.string())]
)
"""Bad rows as they stood in the file, numbered from 1 on without the header."""
_OF_TRANSACTION = ("transaction_id", "customer_id", "terminal_id", "event_timestamp")


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a file's rows: new in the ledger, there already, or refused (REFUSED_SCHEMA)."""

    rows: int
    added: int
    known: int
    refused: pa.Table

    def as_dict(self) -> dict[str, object]:
        reasons = dict(Counter(self.refused["reason"].to_pylist()).most_common())
        counts = {"rows": self.rows, "added": self.added, "known": self.known}
        return counts | {"refused": len(self.refused), "reasons": reasons}


def add_labels(path: Path, settings: Settings, now: datetime) -> Added:
    """Add a file's verdicts to the ledger, as recorded at ``now``; the same file again adds nothing.

    An id that came again means its newest transaction. Raises InputError, naming the file and what is wrong, if it
    can't be read as a whole.
    """
    lake = Lake(settings.lake)
    told = _read(path)
    ids = told["transaction_id"].combine_chunks()
    found = _transactions(lake, ids.drop_null().unique())
    rows = found.take(pc.index_in(ids, value_set=found["transaction_id"].combine_chunks()))
    reason = _reasons(told, rows, now)
    good = pc.is_null(reason)
    verdicts = _verdicts(rows.filter(good), told.filter(good), now)
    refused = told.append_column("reason", reason).filter(pc.invert(good))
    refused = refused.select(REFUSED_SCHEMA.names).cast(REFUSED_SCHEMA)
    with alone(settings.journal / LOCK):
        added = record_labels(lake, verdicts)
        _set_aside(lake, now.date(), refused)
    return Added(len(told), added, len(verdicts) - added, refused)


def _verdicts(rows: pa.Table, told: pa.Table, now: datetime) -> pa.Table:
    """Rows of the ledger."""
    columns = {name: rows[name] for name in _OF_TRANSACTION}
    columns |= {"is_fraud": told["verdict"], "label_available_at": told["moment"]}
    columns["source"] = pa.repeat("chargeback", len(rows))
    columns["recorded_at"] = pa.repeat(pa.scalar(now, MOMENT), len(rows))
    return pa.table(columns).select(LEDGER_SCHEMA.names).cast(LEDGER_SCHEMA)


def _transactions(lake: Lake, ids: pa.Array) -> pa.Table:
    """The newest transaction of each id, where there is one: day after day backwards until all are found."""
    fields = [arrow_schema(TRANSACTION).field(name) for name in _OF_TRANSACTION]
    found = [pa.schema(fields).empty_table()]
    for day in reversed(lake.days("transactions")):
        if len(ids) == 0:
            break
        wanted = pc.field("transaction_id").isin(ids)
        path = lake.path("transactions", day)
        rows = pq.read_table(path, columns=list(_OF_TRANSACTION), filters=wanted)
        found.append(rows.cast(found[0].schema))
        ids = ids.filter(pc.invert(pc.is_in(ids, value_set=rows["transaction_id"])))
    return pa.concat_tables(found)


def _reasons(told: pa.Table, rows: pa.Table, now: datetime) -> pa.ChunkedArray:
    """Why each row is refused, null where it is not; ``rows``: its transaction."""
    moment, took_place = told["moment"], rows["event_timestamp"]
    wrong = {
        "transaction_id is missing": pc.is_null(told["transaction_id"]),
        "is_fraud is no verdict; it must be 1 or 0, true or false, yes or no": pc.is_null(
            told["verdict"]
        ),
        "label_available_at is no time with a zone, such as 2026-03-01T12:00:00Z": pc.is_null(
            moment
        ),
        "label_available_at lies ahead; a verdict that is to come is none yet": pc.greater(
            moment, pa.scalar(now, MOMENT)
        ),
        "the lake has no such transaction": pc.is_null(took_place),
        "label_available_at lies before the transaction": pc.less(moment, took_place),
    }
    reason = told["broken"]
    for why, rows_wrong in wrong.items():
        here = pc.and_(pc.fill_null(rows_wrong, False), pc.is_null(reason))
        reason = pc.if_else(here, why, reason)
    return reason


def _set_aside(lake: Lake, day: date, refused: pa.Table) -> None:
    """Add bad rows to their day, each once."""
    if len(refused) == 0:
        return
    held = [lake.read(REFUSED, day)] if lake.has(REFUSED, day) else []
    both = pa.concat_tables([*held, refused]).group_by(REFUSED_SCHEMA.names).aggregate([])
    lake.write(
        REFUSED, day, both.sort_by([("source_file", "ascending"), ("source_row", "ascending")])
    )


# ---------------------------------------------------------------- reading


def _read(path: Path) -> pa.Table:
    """COLUMNS as text, PLACE, what they say (``verdict``, ``moment``), and ``broken``: why a row is no row."""
    reader = _read_csv if path.suffix.lower() == ".csv" else _read_parquet
    try:
        table, numbers, broken = reader(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path.name}: is no whole CSV (.csv) or Parquet file: {str(error).splitlines()[0]}"
        ) from None
    texts = {name: _text(path, table, name) for name in COLUMNS}
    words = pa.array(list(VERDICT_WORDS))
    verdict = pa.array(list(VERDICT_WORDS.values())).take(
        pc.index_in(pc.utf8_lower(texts["is_fraud"]).combine_chunks(), value_set=words)
    )
    at = table["label_available_at"]
    real = pa.types.is_timestamp(at.type) or pa.types.is_date(at.type)
    moment = parse_moments(at if real else texts["label_available_at"])
    more = {"verdict": verdict, "moment": moment, "broken": pa.nulls(len(table), pa.string())}
    told = pa.table({"source_row": pa.array(numbers), **texts, **more})
    bad = pa.table(
        {"source_row": pa.array(list(broken), pa.int64()), "broken": list(broken.values())}
    )
    told = pa.concat_tables([told, bad], promote_options="permissive").sort_by("source_row")
    return told.append_column("source_file", pa.repeat(path.name, len(told)))


def _text(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    try:
        return pc.utf8_trim_whitespace(table[name].cast(pa.string()))
    except pa.ArrowNotImplementedError:
        raise InputError(
            f"{path.name}: column '{name}' holds {table[name].type}; it must hold one value a row, such as text"
        ) from None


def _read_parquet(path: Path) -> tuple[pa.Table, Ints, dict[int, str]]:
    with pq.ParquetFile(path) as file:
        _check_names(path, file.schema_arrow.names)
        table = file.read(columns=list(COLUMNS))
    return table, np.arange(1, len(table) + 1), {}


def _read_csv(path: Path) -> tuple[pa.Table, Ints, dict[int, str]]:
    """Every cell as text; rows with another number of cells than the header are told by their number."""
    broken: dict[int, str] = {}

    def set_aside(row: pacsv.InvalidRow) -> str:
        broken[row.number - 1] = (
            f"has {row.actual_columns} columns; the header has {row.expected_columns}"
        )
        return "skip"

    with path.open("rb") as file:
        header = next(csv.reader([file.readline().decode("utf-8-sig", "replace")]), [])
    _check_names(path, header)
    table = pacsv.read_csv(
        path,
        read_options=pacsv.ReadOptions(use_threads=False),
        parse_options=pacsv.ParseOptions(invalid_row_handler=set_aside, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(COLUMNS, pa.string()),
            include_columns=list(COLUMNS),
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
    numbers = np.arange(1, len(table) + len(broken) + 1)
    return table, np.setdiff1d(numbers, list(broken)), broken


def _check_names(path: Path, found: list[str]) -> None:
    for name in COLUMNS:
        if found.count(name) != 1:
            how = "is there twice" if name in found else "is missing"
            raise InputError(f"{path.name}: column '{name}' {how}; the file has {', '.join(found)}")

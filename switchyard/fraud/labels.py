"""What was known of verdicts at a moment: the one door through which anything asks for labels.

A label does not exist before its ``label_available_at``. Two tables of the lake hold them by the day of the transaction:
``labels`` what the transactions' own source says, written anew whenever a day is landed again, and
``label_ledger`` what came on other ways, to which rows are only ever added: a correction is a later row. Here too: adding to
the ledger. Not here: reading what somebody sent (``landing``, ``compaction``, ``label_files``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.fraud.columns import LABEL, arrow_schema, names
from switchyard.lake import Lake, days_between
from switchyard.learning import Ints

LEDGER = "label_ledger"
LEDGER_SCHEMA = pa.schema(
    [
        *(field.with_nullable(False) for field in arrow_schema(LABEL)),
        pa.field("source", pa.string(), False, {"says": "investigator, chargeback"}),
        pa.field(
            "recorded_at",
            pa.timestamp("us", tz="UTC"),
            False,
            {"says": "When it came in; it counts from label_available_at on"},
        ),
    ]
)
_KEY = ("transaction_id", "is_fraud", "label_available_at", "source")
"""What makes two rows of a day the same verdict, told twice."""
_ARRIVAL = ("transaction_id", "customer_id", "terminal_id", "is_fraud", "label_available_at")
"""The same for what the online store counts."""


def labels_as_of(lake: Lake, first: date, last: date, as_of: datetime) -> pa.Table:
    """The verdicts on transactions of the event days ``first`` to ``last`` that were known at ``as_of``.

    LABEL columns, one row per transaction that has one: the newest by ``label_available_at``, the source's own where two
    are equally new. None known or none landed: no row.
    """
    days = [arrow_schema(LABEL).empty_table()]
    for day in days_between(first, last):
        told = _known(_source(lake, day), as_of)
        if lake.has(LEDGER, day):
            ledger = _known(_labels(lake, LEDGER, day), as_of)
            told = _newest(pa.concat_tables([ledger, told]))
        days.append(told)
    return pa.concat_tables(days)


def verdicts_beside(lake: Lake, first: date, last: date) -> pa.Table:
    """The investigators' verdicts on transactions of those event days, the revised ones too, that the source does not
    tell likewise: with the source's, all that the online store has counted. LABEL columns.

    Chargeback files are not among them: nothing tells the online store of these.
    """
    days = [arrow_schema(LABEL).empty_table()]
    for day in days_between(first, last):
        if lake.has(LEDGER, day):
            ledger = lake.read(LEDGER, day)
            came = ledger.filter(pc.equal(ledger["source"], "investigator"))
            source = _source(lake, day)
            both = pa.concat_tables([source, came.select(names(LABEL)).cast(source.schema)])
            rows = _firsts(both, _ARRIVAL, np.arange(len(both)))
            days.append(both.take(rows[rows >= len(source)]))
    return pa.concat_tables(days)


def record_labels(lake: Lake, rows: pa.Table) -> int:
    """Add to the ledger what of ``rows`` (LEDGER_SCHEMA) it does not hold yet; how many rows that were.

    One writer at a time: the caller holds the lock of the journal's folder (``compaction.LOCK``). Days are written
    whole, one after the other; killed between two, the same call again adds the rest.
    """
    days = pc.floor_temporal(rows["event_timestamp"], unit="day").cast(pa.date32())
    return sum(
        _record(lake, day, rows.filter(pc.equal(days, day)))
        for day in sorted(days.unique().to_pylist())
    )


def _record(lake: Lake, day: date, rows: pa.Table) -> int:
    held = lake.read(LEDGER, day) if lake.has(LEDGER, day) else LEDGER_SCHEMA.empty_table()
    both = pa.concat_tables([held, rows.select(LEDGER_SCHEMA.names)])
    once = _firsts(both, _KEY, np.arange(len(both)))
    if len(once) > len(held):
        lake.write(LEDGER, day, both.take(once))
    return len(once) - len(held)


def _source(lake: Lake, day: date) -> pa.Table:
    if lake.has("labels", day):
        return _labels(lake, "labels", day)
    return arrow_schema(LABEL).empty_table()


def _labels(lake: Lake, table: str, day: date) -> pa.Table:
    return lake.read(table, day, columns=names(LABEL)).cast(arrow_schema(LABEL))


def _known(told: pa.Table, as_of: datetime) -> pa.Table:
    known = pc.less_equal(told["label_available_at"], pa.scalar(as_of))
    return told.filter(pc.fill_null(known, False))


def _newest(told: pa.Table) -> pa.Table:
    """Of each transaction the row that counts, where rows that count more among equally new ones stand later. Ids do
    not come again within a day."""
    at = told["label_available_at"].cast(pa.int64()).to_numpy()
    newest_first = np.lexsort((-np.arange(len(told)), -at))
    return told.take(_firsts(told, ["transaction_id"], newest_first))


def _firsts(rows: pa.Table, key: Sequence[str], order: Ints) -> Ints:
    """Indices of the row of each key that comes first in ``order``, rising."""
    ordered = rows.select(list(key)).take(pa.array(order)).append_column("row", pa.array(order))
    found = ordered.group_by(list(key), use_threads=False).aggregate([("row", "first")])
    return np.sort(found["row_first"].to_numpy())

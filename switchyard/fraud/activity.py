"""Activity: what lately happened to every card and terminal, exact to the event.

Here: the lake's table of windows, the snapshots that fill an empty online store, and all that others
import of activity. Its parts: one event and its bytes (``events``), windows and replay (``sliding``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.errors import LakeError
from switchyard.fraud.columns import LABEL, arrow_schema
from switchyard.fraud.events import (
    CAPACITY,
    EVENT,
    FRAUD_KIND,
    KEY,
    LABEL_DELAY_DAYS,
    MISSING,
    TRANSACTION_KIND,
    Event,
    Events,
    Ints,
    Owner,
    country_code,
    decode_blob,
    encode,
    encode_blob,
    events_of,
    fraud_verdicts,
    owned,
    stable_hash,
)
from switchyard.fraud.labels import verdicts_beside
from switchyard.fraud.sliding import (
    COLUMNS,
    CUSTOMER_WIDTH,
    DAY_US,
    KEPT_DAYS,
    KEPT_US,
    TERMINAL_WIDTH,
    arrange,
    customer_windows,
    insert,
    newest,
    replay,
    terminal_windows,
)
from switchyard.lake import Lake, days_between

__all__ = [
    "CAPACITY", "CUSTOMER_WIDTH", "EVENT", "FRAUD_KIND", "KEY", "MISSING", "TERMINAL_WIDTH",
    "TRANSACTION_KIND", "Event", "Events", "Ints", "Owner", "build_activity", "compile_windows",
    "country_code", "customer_windows", "decode_blob", "encode", "encode_blob", "insert", "replay",
    "snapshot", "stable_hash", "terminal_windows",
]  # fmt: skip

CHUNK_ROWS = 1_000_000
"""Transactions taken at a time: bounds the memory, whatever the range."""
_IDS = ["transaction_id", "customer_id", "terminal_id", "event_timestamp"]
_READ = [*_IDS, "amount_minor", "device_id", "terminal_country"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _History:
    """All keys of one owner, taken through the days in order; ``kept`` is grouped by key."""

    owner: Owner
    codes: dict[str, int] = field(default_factory=dict)
    starts: Ints = field(default_factory=lambda: np.zeros(1, np.int64))
    kept: Events = field(default_factory=lambda: np.empty(0, EVENT))

    def advance(self, keys: pa.ChunkedArray, events: Events, rows: int, until_us: int) -> Ints:
        """Let ``events`` enter, all of them before ``until_us``; windows of the first ``rows`` of them."""
        codes = self._codes_of(keys)
        starts, steps, source = arrange(codes, events, self.starts, self.kept, len(self.codes))
        asks = np.where(source < rows, source, -1)
        out = np.empty((rows, len(COLUMNS[self.owner])), np.int64)
        enters = np.ones(len(steps), np.bool_)
        replay(starts, steps, asks, enters, out, self.owner == "customer", CAPACITY)
        self.starts, self.kept = newest(starts, steps, until_us - KEPT_US, CAPACITY)
        return out

    def _codes_of(self, keys: pa.ChunkedArray) -> Ints:
        encoded = pc.dictionary_encode(keys).combine_chunks()
        known = self.codes
        codes = [known.setdefault(key, len(known)) for key in encoded.dictionary.to_pylist()]
        of_key: Ints = np.array(codes, np.int64)
        return of_key[np.asarray(encoded.indices.to_numpy(), np.int64)]

    def blobs(self, since_us: int) -> pa.Table:
        """Rows (owner, key, blob) of the keys that hold anything at or after ``since_us``."""
        starts, kept = newest(self.starts, self.kept, since_us, CAPACITY)
        kept["seq"] = np.arange(1, len(kept) + 1) - np.repeat(starts[:-1], np.diff(starts))
        held = [(key, kept[starts[k] : starts[k + 1]]) for key, k in self.codes.items()]
        held = [(key, events) for key, events in held if len(events)]
        return pa.table(
            {
                "owner": pa.array([self.owner] * len(held), pa.string()),
                "key": pa.array([key for key, _ in held], pa.string()),
                "blob": pa.array([encode_blob(len(e), e) for _, e in held], pa.large_binary()),
            }
        )


def compile_windows() -> None:
    """Compile what the functions below run, or find it compiled: seconds, once for an environment."""
    for owner in KEY:
        _History(owner).advance(pa.chunked_array([], pa.string()), np.empty(0, EVENT), 0, 0)


def build_activity(lake: Lake, start: date, end: date) -> int:
    """Write ``activity_windows`` of each day from ``start`` to ``end``: one row per transaction, in order.

    Reads 30 days of lead-in besides. Returns the rows written. Raises LakeError if there is no
    transaction in these days.
    """
    histories = [_History(owner) for owner in KEY]
    written = 0
    for chunk in _chunks(lake, start - timedelta(days=KEPT_DAYS), end, start):
        windows = _enter(histories, chunk, asked=chunk.days[0] >= start)
        if chunk.days[0] < start:
            continue
        row = 0
        for day, rows in zip(chunk.days, chunk.lengths, strict=True):
            part = slice(row, row + rows)
            ids = chunk.transactions.select(_IDS).slice(row, rows)
            lake.write("activity_windows", day, _table(ids, [out[part] for out in windows]))
            row += rows
        written += row
    return written


def customer_windows_of(
    transactions: pa.Table, labels: pa.Table
) -> list[tuple[pa.Field, pa.Array]]:
    """CUSTOMER_ACTIVITY of each transaction, column by column in the rows' order, from these rows alone: what
    ``build_activity`` gives cards that have no others."""
    frauds = fraud_verdicts(labels)
    events = events_of(transactions, frauds)
    keys, own = owned(transactions, frauds, events, "customer")
    ends = int(events["event_timestamp"].max(initial=0)) + 1
    out = _History("customer").advance(keys, own, len(transactions), ends)
    return list(_columns(out, "customer"))


def snapshot(lake: Lake, cutoff: datetime) -> pa.Table:
    """Rows (owner, key, blob): the activity of every card and terminal just before ``cutoff``.

    Made from the transactions of the 30 days before, and the verdicts that arrived in them. Raises
    LakeError if there is no such transaction.
    """
    until = (cutoff - _EPOCH) // timedelta(microseconds=1)
    histories = [_History(owner) for owner in KEY]
    last = (cutoff - timedelta(microseconds=1)).astimezone(UTC).date()
    for chunk in _chunks(lake, last - timedelta(days=KEPT_DAYS), last, last):
        _enter(histories, chunk.before(cutoff), asked=False)
    return pa.concat_tables([history.blobs(until - KEPT_US) for history in histories])


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Transactions of some days in order, and the verdicts 'fraud' that arrived until the chunk's end."""

    days: list[date]
    lengths: list[int]
    transactions: pa.Table
    frauds: pa.Table
    end: date

    def before(self, cutoff: datetime) -> _Chunk:
        """What of it lies before ``cutoff``."""
        moment = pa.scalar(cutoff, pa.timestamp("us", tz="UTC"))
        rows = self.transactions.filter(pc.less(self.transactions["event_timestamp"], moment))
        frauds = self.frauds.filter(pc.less(self.frauds["label_available_at"], moment))
        return replace(self, transactions=rows, frauds=frauds)


def _chunks(lake: Lake, first: date, end: date, split: date) -> Iterator[_Chunk]:
    """The days from ``first`` to ``end``, at most about CHUNK_ROWS at a time, with a cut before ``split``."""
    if not lake.paths("transactions", split, end):
        raise LakeError(
            f"the lake has no 'transactions' from {split} to {end} below {lake.root}; "
            "materialize 'transactions' for these days first"
        )
    arrivals = _arrivals(lake, first, end)
    since = first
    tables: dict[date, pa.Table] = {}
    for day in days_between(first, end):
        if lake.has("transactions", day):
            tables[day] = lake.read("transactions", day, columns=_READ)
        last = day + timedelta(days=1) in (split, end + timedelta(days=1))
        if tables and (last or sum(map(len, tables.values())) >= CHUNK_ROWS):
            lengths = [len(table) for table in tables.values()]
            rows = pa.concat_tables(tables.values())
            yield _Chunk(list(tables), lengths, rows, _between(arrivals, since, day), day)
            since, tables = day + timedelta(days=1), {}


def _arrivals(lake: Lake, first: date, end: date) -> pa.Table:
    """The verdicts 'fraud' that arrived from ``first`` to ``end``."""
    since = first - timedelta(days=LABEL_DELAY_DAYS)
    tables = [arrow_schema(LABEL).empty_table()]
    for path in lake.paths("labels", since, end):
        tables.append(_between(fraud_verdicts(pq.read_table(path)), first, end))
    beside = fraud_verdicts(verdicts_beside(lake, since, end))
    return pa.concat_tables([*tables, _between(beside, first, end)])


def _between(frauds: pa.Table, first: date, last: date) -> pa.Table:
    arrived = pc.floor_temporal(frauds["label_available_at"], unit="day").cast(pa.date32())
    inside = pc.and_(pc.greater_equal(arrived, first), pc.less_equal(arrived, last))
    return frauds.filter(inside)


def _enter(histories: list[_History], chunk: _Chunk, *, asked: bool) -> list[Ints]:
    rows = len(chunk.transactions)
    events = events_of(chunk.transactions, chunk.frauds)
    until = ((chunk.end - _EPOCH.date()).days + 1) * DAY_US
    return [
        history.advance(
            *owned(chunk.transactions, chunk.frauds, events, history.owner), rows * asked, until
        )
        for history in histories
    ]


def _table(ids: pa.Table, windows: list[Ints]) -> pa.Table:
    """Ids, then the windows of both owners with real nulls."""
    for owner, out in zip(KEY, windows, strict=True):
        for field_and_values in _columns(out, owner):
            ids = ids.append_column(*field_and_values)
    return ids


def _columns(out: Ints, owner: Owner) -> Iterator[tuple[pa.Field, pa.Array]]:
    for i, column in enumerate(COLUMNS[owner]):
        null = out[:, i] == MISSING if column.nullable else None
        yield pa.field(column.name, pa.int64(), column.nullable), pa.array(out[:, i], mask=null)

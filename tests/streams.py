"""Small streams of transactions and verdicts, landed in a lake of their own. Factories only, no tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from switchyard.fraud import activity
from switchyard.fraud.activity import EVENT, Events, Owner
from switchyard.fraud.columns import LABEL, TRANSACTION, arrow_schema
from switchyard.fraud.events import HEADER
from switchyard.lake import Lake

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Row = dict[str, Any]


def make_transaction(**overrides: Any) -> Row:
    """A transaction's row, valid as it is."""
    return {
        "transaction_id": "t1",
        "customer_id": "c1",
        "terminal_id": "s1",
        "amount_minor": 1_000,
        "currency": "EUR",
        "event_timestamp": NOON,
        "customer_country": "FR",
        "terminal_country": "FR",
        "device_id": "d1",
        "channel": "pos",
        "merchant_category": "5411",
    } | overrides


def make_label(transaction: Row, **overrides: Any) -> Row:
    """A verdict 'fraud' on ``transaction``, a week later."""
    return {
        "transaction_id": transaction["transaction_id"],
        "customer_id": transaction["customer_id"],
        "terminal_id": transaction["terminal_id"],
        "event_timestamp": transaction["event_timestamp"],
        "is_fraud": True,
        "label_available_at": transaction["event_timestamp"] + timedelta(days=7),
    } | overrides


def transactions_of(rows: list[Row]) -> pa.Table:
    """Rows as a table, in the lake's order."""
    ordered = sorted(rows, key=lambda row: (row["event_timestamp"], row["transaction_id"]))
    return pa.Table.from_pylist(ordered, arrow_schema(TRANSACTION))


def labels_of(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, arrow_schema(LABEL))


def land(root: Path, transactions: list[Row], labels: list[Row] = []) -> Lake:  # noqa: B006
    """A lake below ``root`` with these rows, each table by the day of its transactions."""
    lake = Lake(root)
    for day in sorted({row["event_timestamp"].date() for row in transactions}):
        todays = [row for row in transactions if row["event_timestamp"].date() == day]
        lake.write("transactions", day, transactions_of(todays))
        verdicts = [row for row in labels if row["event_timestamp"].date() == day]
        lake.write("labels", day, labels_of(verdicts))
    return lake


_GAPS = st.one_of(
    st.just(timedelta(0)),
    st.timedeltas(timedelta(microseconds=1), timedelta(minutes=2)),
    st.timedeltas(timedelta(minutes=1), timedelta(days=2)),
    st.sampled_from(
        [timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=30)]
    ),
    st.timedeltas(timedelta(days=20), timedelta(days=100)),
)


@st.composite
def streams(draw: st.DrawFn, max_size: int = 30) -> tuple[list[Row], list[Row]]:
    """Transactions of few cards and terminals with ties and gaps of months, and their late verdicts."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    transactions, labels = [], []
    for number in range(draw(st.integers(1, max_size))):
        moment += draw(_GAPS)
        row = make_transaction(
            transaction_id=f"t{number}",
            customer_id=draw(st.sampled_from(["c1", "c2"])),
            terminal_id=draw(st.sampled_from(["s1", "s2", "s3"])),
            amount_minor=draw(st.sampled_from([0, 499, 500, 12_345, 100_000_000])),
            event_timestamp=moment,
            customer_country=draw(st.sampled_from(["FR", "DE", None])),
            terminal_country=draw(st.sampled_from(["FR", "DE", None])),
            device_id=draw(st.sampled_from(["d1", "d2", None])),
        )
        transactions.append(row)
        arrival = draw(
            st.one_of(
                st.none(),
                st.timedeltas(timedelta(0), timedelta(days=34)).map(moment.__add__),
                st.just(moment + timedelta(days=1)),
            )
        )
        verdict = draw(st.sampled_from([True, True, False]))
        labels.append(make_label(row, is_fraud=verdict, label_available_at=arrival))
    return transactions, labels


class BlobStore:
    """The append of the online store in plain Python: what the script in Valkey must do."""

    def __init__(self, capacity: int = activity.CAPACITY) -> None:
        self.capacity = capacity
        self.blobs: dict[tuple[Owner, str], bytes] = {}

    def append(self, owner: Owner, key: str, event: np.void) -> int:
        """The event's number; an event that is there already keeps its own."""
        last, events = self._held(owner, key)
        for held in events:
            if (held["event_timestamp"], held["event_id"]) == (
                event["event_timestamp"],
                event["event_id"],
            ):
                return int(held["seq"])
        numbered = np.array([event], EVENT)
        numbered["seq"] = last + 1
        events = np.concatenate([events, numbered])
        events = events[np.lexsort((events["event_id"], events["event_timestamp"]))]
        if len(events) > 2 * self.capacity:
            events = events[-self.capacity :]
        self.blobs[owner, key] = activity.encode_blob(last + 1, events)
        return last + 1

    def read(self, owner: Owner, key: str) -> tuple[int, Events]:
        """Last number given out and the newest ``capacity`` events."""
        last, events = self._held(owner, key)
        return last, events[-self.capacity :]

    def _held(self, owner: Owner, key: str) -> tuple[int, Events]:
        blob = self.blobs.get((owner, key), activity.encode_blob(0, np.empty(0, EVENT)))
        (last, _), events = HEADER.unpack_from(blob), np.frombuffer(blob, EVENT, offset=16)
        return last, events


def windows_of(owner: Owner, events: Events, subject: np.void) -> list[int]:
    """One key's windows, by the function that the service calls."""
    customer = owner == "customer"
    out = np.empty(activity.CUSTOMER_WIDTH if customer else activity.TERMINAL_WIDTH, np.int64)
    (activity.customer_windows if customer else activity.terminal_windows)(events, subject, out)
    return out.tolist()

"""One event of a card or terminal: its 48 bytes, how a table becomes events, the blob that stores them.

The record and the hashes are what the online store holds: to change them is to change BLOB_VERSION. Not
here: what is computed from events (``activity``).
"""

from __future__ import annotations

import struct
from typing import Any, Literal, TypeAlias, cast

import mmh3
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import StoreError

Owner = Literal["customer", "terminal"]
KEY: dict[Owner, str] = {"customer": "customer_id", "terminal": "terminal_id"}
"""The column that names the owner; the other one is its counterpart."""
_COUNTERPART: dict[Owner, str] = {"customer": "terminal_id", "terminal": "customer_id"}

Events = npt.NDArray[np.void]
"""Array of EVENT records, oldest first in the order (event_timestamp, event_id)."""
Event: TypeAlias = Any
"""One EVENT record: an element of such an array."""
Ints = npt.NDArray[np.int64]

EVENT = np.dtype(
    [
        ("event_timestamp", "<i8"),  # microseconds since 1970; of a verdict: when it arrived
        ("event_id", "<i8"),  # stable_hash of "t:" or "l:" and the transaction's id
        ("other", "<i8"),  # stable_hash of the counterpart's id; 0 in a verdict
        ("amount_minor", "<i8"),
        ("device", "<i8"),  # stable_hash of the device's id; 0: none given
        ("seq", "<u4"),  # number of the append to this key, from 1
        ("country", "<u2"),  # country_code of the terminal's country; 0: none given
        ("kind", "u1"),  # TRANSACTION_KIND or FRAUD_KIND
        ("spare", "u1"),
    ]
)
TRANSACTION_KIND = 0
FRAUD_KIND = 1
"""A verdict 'fraud' that arrived. Verdicts 'not fraud' are no events: they would crowd out the rest."""

MISSING = int(np.iinfo(np.int64).min)
"""Null inside an int64 matrix."""
CAPACITY = 256
"""Events kept of a key: the newest, by (event_timestamp, event_id), of those appended so far."""
HEADER = struct.Struct("<qq")
"""Head of a blob: last sequence number given out, format version."""
BLOB_VERSION = 1

LABEL_DELAY_DAYS = 35
"""A verdict that took longer to arrive enters no profile and no activity."""


def stable_hash(text: str) -> int:
    """64-bit hash of an id, the same in every process and for ever; never 0, which means 'none'.

    >>> stable_hash("terminal-1") == stable_hash("terminal-1") != 0
    True
    """
    return mmh3.hash64(text, signed=True)[0] or 1


def country_code(country: str | None) -> int:
    """ISO 3166 alpha-2 as a number that fits 16 bits; 0 for none.

    >>> country_code("AA"), country_code("ZZ"), country_code(None)
    (28, 728, 0)
    """
    if country is None:
        return 0
    return (ord(country[0]) - 64) * 27 + (ord(country[1]) - 64)


# ---------------------------------------------------------------- the blob in the online store


def encode_blob(last_seq: int, events: Events) -> bytes:
    """The value stored for one key: the header, then EVENT records, oldest first."""
    return HEADER.pack(last_seq, BLOB_VERSION) + events.tobytes()


def decode_blob(blob: bytes) -> tuple[int, Events]:
    """Last sequence number given out, and the newest CAPACITY events. Raises StoreError as split_blob."""
    last_seq, records = split_blob(blob)
    return last_seq, np.frombuffer(records, EVENT)


def split_blob(blob: bytes) -> tuple[int, bytes]:
    """Last sequence number given out, and the newest CAPACITY events as their bytes.

    Raises StoreError if the blob has another format version or a torn record.
    """
    held = len(blob) - HEADER.size
    if held < 0 or held % EVENT.itemsize:
        raise StoreError(
            f"an activity blob of {len(blob)} bytes is torn; right is a head of {HEADER.size} bytes "
            f"and records of {EVENT.itemsize}"
        )
    last_seq, version = HEADER.unpack_from(blob)
    if version != BLOB_VERSION:
        raise StoreError(
            f"an activity blob has format version {version}; this code reads version {BLOB_VERSION}"
        )
    return last_seq, blob[max(HEADER.size, len(blob) - CAPACITY * EVENT.itemsize) :]


# ---------------------------------------------------------------- tables of transactions as events


def _dictionary(column: pa.ChunkedArray) -> tuple[Ints, list[str | None]]:
    encoded = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def hashes(column: pa.ChunkedArray) -> Ints:
    """stable_hash of every value of a string column, 0 for null; each distinct value hashed once."""
    codes, values = _dictionary(column)
    unique = [0 if value is None else stable_hash(value) for value in values]
    return np.array([*unique, 0], np.int64)[codes]


def country_codes(column: pa.ChunkedArray) -> npt.NDArray[np.uint16]:
    """country_code of every value, 0 for null."""
    codes, values = _dictionary(column)
    return np.array([*map(country_code, values), 0], np.uint16)[codes]


def _event_ids(prefix: str, column: pa.ChunkedArray) -> Ints:
    return np.fromiter(
        (stable_hash(prefix + text) for text in column.to_pylist()), np.int64, len(column)
    )


def encode(
    transactions: pa.Table, labels: pa.Table | None, owner: Owner
) -> tuple[pa.ChunkedArray, Events]:
    """Transactions, then the verdicts 'fraud' among ``labels``, as events of the owners.

    Returns the key of each event (string) and the events (``seq`` 0), in the order of the rows given;
    verdicts 'not fraud' and those that never arrive are left out. Which labels had arrived at a moment
    is the caller's to filter.
    """
    frauds = fraud_verdicts(labels) if labels is not None else None
    return owned(transactions, frauds, events_of(transactions, frauds), owner)


def fraud_verdicts(labels: pa.Table) -> pa.Table:
    """The labels that become events: 'fraud', and arrived some day."""
    return labels.filter(pc.and_(labels["is_fraud"], pc.is_valid(labels["label_available_at"])))


def keys_of(table: pa.Table) -> pa.Array:
    """What tells transactions apart, as one string each: the id, which may come again after 35 days, and the event
    day (somebody who judges a transaction may know its time to the second only)."""
    day = pa.array(micros(table["event_timestamp"]) // 86_400_000_000).cast(pa.string())
    return pc.binary_join_element_wise(day, table["transaction_id"].combine_chunks(), " ")


def events_of(transactions: pa.Table, frauds: pa.Table | None) -> Events:
    """What is the same in both owners' events: everything but ``other``."""
    count = len(transactions)
    events = np.zeros(count + (len(frauds) if frauds is not None else 0), EVENT)
    mine, verdicts = events[:count], events[count:]
    mine["event_timestamp"] = micros(transactions["event_timestamp"])
    mine["event_id"] = _event_ids("t:", transactions["transaction_id"])
    mine["amount_minor"] = transactions["amount_minor"].to_numpy()
    mine["device"] = hashes(transactions["device_id"])
    mine["country"] = country_codes(transactions["terminal_country"])
    if frauds is not None:
        verdicts["event_timestamp"] = micros(frauds["label_available_at"])
        verdicts["event_id"] = _event_ids("l:", frauds["transaction_id"])
        verdicts["kind"] = FRAUD_KIND
    return events


def owned(
    transactions: pa.Table, frauds: pa.Table | None, events: Events, owner: Owner
) -> tuple[pa.ChunkedArray, Events]:
    """Keys and events of one owner, made from ``events_of`` the same rows (written into, and returned)."""
    events["other"][: len(transactions)] = hashes(transactions[_COUNTERPART[owner]])
    keys = transactions[KEY[owner]].chunks
    more = frauds[KEY[owner]].chunks if frauds is not None else []
    return pa.chunked_array([*keys, *more], pa.string()), events


def micros(column: pa.ChunkedArray) -> Ints:
    """A timestamp[us] column without nulls as microseconds since 1970."""
    return cast(Ints, column.cast(pa.int64()).to_numpy())

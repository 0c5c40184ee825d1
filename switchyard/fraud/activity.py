"""Activity: what lately happened to one card or terminal, exact to the event.

Here: the EVENT record and its blob in the online store, the windows over a key's kept events, and the
one compiled loop that replays any sequence of events and questions. Windows are [t - w, t) in event
time: ties and the transaction itself are outside. Not here: whole days (``windows``), the
vector (``features``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar, cast

import mmh3
import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import StoreError
from switchyard.fraud.columns import (
    CUSTOMER_ACTIVITY,
    SMALL_AMOUNT_MINOR,
    TERMINAL_ACTIVITY,
    positions,
)

Owner = Literal["customer", "terminal"]
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

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
KEPT_US = 30 * DAY_US
"""Longest window: older events count nowhere."""

_C = positions(CUSTOMER_ACTIVITY)
_T = positions(TERMINAL_ACTIVITY)
CUSTOMER_WIDTH = len(CUSTOMER_ACTIVITY)
TERMINAL_WIDTH = len(TERMINAL_ACTIVITY)

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile with numba at the first call, strict IEEE arithmetic, cached beside the source."""
    return cast(_F, numba.njit(cache=True)(function))


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


# ---------------------------------------------------------------- windows over the kept events


@compiled
def _first_of_its_other(events: Events, i: int, before: int) -> bool:
    """Whether no transaction after ``i`` and before the time ``before`` has the same counterpart."""
    for j in range(i + 1, len(events)):
        if events[j].event_timestamp >= before:
            break
        if events[j].kind == TRANSACTION_KIND and events[j].other == events[i].other:
            return False
    return True


@compiled
def customer_windows(events: Events, event: Event, out: Ints) -> None:
    """Write CUSTOMER_ACTIVITY at the moment of ``event`` into ``out`` (int64[13]).

    ``events``: the kept events of the card, oldest first. Of ``event`` the fields event_timestamp,
    other, device and country are read. Null is MISSING.
    """
    now = event.event_timestamp
    out[:] = 0
    out[_C.customer_last_tx_age_us] = MISSING
    if event.device == 0:
        out[_C.customer_device_seen_30d] = MISSING
    if event.country == 0:
        out[_C.customer_country_seen_30d] = MISSING
    for i in range(len(events) - 1, -1, -1):
        past = events[i]
        age = now - past.event_timestamp
        if age <= 0:
            continue
        if age > KEPT_US:
            break
        if past.kind == FRAUD_KIND:
            out[_C.customer_fraud_label_count_30d] += 1
            continue
        if out[_C.customer_last_tx_age_us] == MISSING:
            out[_C.customer_last_tx_age_us] = age
        if past.other == event.other:
            out[_C.customer_terminal_seen_30d] = 1
        if event.device != 0 and past.device == event.device:
            out[_C.customer_device_seen_30d] = 1
        if event.country != 0 and past.country == event.country:
            out[_C.customer_country_seen_30d] = 1
        if age > DAY_US:
            continue
        out[_C.customer_tx_count_24h] += 1
        out[_C.customer_amount_sum_24h] += past.amount_minor
        out[_C.customer_amount_max_24h] = max(out[_C.customer_amount_max_24h], past.amount_minor)
        out[_C.customer_terminal_count_24h] += _first_of_its_other(events, i, now)
        if age > HOUR_US:
            continue
        out[_C.customer_tx_count_1h] += 1
        out[_C.customer_small_amount_count_1h] += past.amount_minor < SMALL_AMOUNT_MINOR
        out[_C.customer_tx_count_10min] += age <= 10 * MINUTE_US
        out[_C.customer_tx_count_1min] += age <= MINUTE_US


@compiled
def terminal_windows(events: Events, event: Event, out: Ints) -> None:
    """Write TERMINAL_ACTIVITY at the moment of ``event`` into ``out`` (int64[6]).

    ``events``: the kept events of the terminal, oldest first. Of ``event`` only event_timestamp is
    read. Null is MISSING.
    """
    now = event.event_timestamp
    out[:] = 0
    out[_T.terminal_last_fraud_label_age_us] = MISSING
    for i in range(len(events) - 1, -1, -1):
        past = events[i]
        age = now - past.event_timestamp
        if age <= 0:
            continue
        if age > KEPT_US:
            break
        if past.kind == FRAUD_KIND:
            out[_T.terminal_fraud_label_count_30d] += 1
            out[_T.terminal_fraud_label_count_24h] += age <= DAY_US
            if out[_T.terminal_last_fraud_label_age_us] == MISSING:
                out[_T.terminal_last_fraud_label_age_us] = age
        elif age <= HOUR_US:
            out[_T.terminal_tx_count_1h] += 1
            out[_T.terminal_small_amount_count_1h] += past.amount_minor < SMALL_AMOUNT_MINOR
            out[_T.terminal_customer_count_1h] += _first_of_its_other(events, i, now)


# ---------------------------------------------------------------- replaying events and questions


@compiled
def insert(kept: Events, count: int, event: Event, capacity: int) -> int:
    """Put ``event`` in its place among ``kept[:count]``; returns the new count.

    An event that is there already changes nothing. When ``kept`` (longer than ``capacity``) is full,
    all but its newest ``capacity`` events are dropped first.
    """
    i = count
    while i > 0 and (
        kept[i - 1].event_timestamp > event.event_timestamp
        or (
            kept[i - 1].event_timestamp == event.event_timestamp
            and kept[i - 1].event_id > event.event_id
        )
    ):
        i -= 1
    if (
        i > 0
        and kept[i - 1].event_timestamp == event.event_timestamp
        and kept[i - 1].event_id == event.event_id
    ):
        return count
    if count == len(kept):
        dropped = count - capacity
        for j in range(dropped, count):
            kept[j - dropped] = kept[j]
        count = capacity
        i -= dropped
        if i < 0:
            return count
    for j in range(count, i, -1):
        kept[j] = kept[j - 1]
    kept[i] = event
    return count + 1


@compiled
def replay(
    starts: Ints,
    steps: Events,
    rows: Ints,
    enters: npt.NDArray[np.bool_],
    out: Ints,
    of_customer: bool,
    capacity: int,
) -> None:
    """Take each key through its steps: answer the question, then let the event enter.

    ``steps[starts[k]:starts[k + 1]]`` are key k's, in the order in which they happened to the store.
    A step with ``rows[s] >= 0`` asks for the windows at its moment, written into ``out[rows[s]]``;
    one with ``enters[s]`` is then kept. In training each transaction does both, in canonical order.
    """
    kept = np.empty(2 * capacity, steps.dtype)
    for k in range(len(starts) - 1):
        count = 0
        for s in range(starts[k], starts[k + 1]):
            if rows[s] >= 0:
                newest = kept[max(0, count - capacity) : count]
                if of_customer:
                    customer_windows(newest, steps[s], out[rows[s]])
                else:
                    terminal_windows(newest, steps[s], out[rows[s]])
            if enters[s]:
                count = insert(kept, count, steps[s], capacity)


# ---------------------------------------------------------------- the blob in the online store


def encode_blob(last_seq: int, events: Events) -> bytes:
    """The value stored for one key: the header, then EVENT records, oldest first."""
    return HEADER.pack(last_seq, BLOB_VERSION) + events.tobytes()


def decode_blob(blob: bytes) -> tuple[int, Events]:
    """Last sequence number given out, and the newest CAPACITY events without copying them.

    Raises StoreError if the blob has another format version or a torn record.
    """
    if len(blob) < HEADER.size or (len(blob) - HEADER.size) % EVENT.itemsize:
        raise StoreError(
            f"an activity blob of {len(blob)} bytes is torn; right is a head of {HEADER.size} bytes "
            f"and records of {EVENT.itemsize}"
        )
    last_seq, version = HEADER.unpack_from(blob)
    if version != BLOB_VERSION:
        raise StoreError(
            f"an activity blob has format version {version}; this code reads version {BLOB_VERSION}"
        )
    return last_seq, np.frombuffer(blob, EVENT, offset=HEADER.size)[-CAPACITY:]


# ---------------------------------------------------------------- tables of transactions as events


def _dictionary(column: pa.ChunkedArray) -> tuple[Ints, list[str | None]]:
    encoded = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def hashes(column: pa.ChunkedArray) -> Ints:
    """stable_hash of every value of a string column, 0 for null; each distinct value hashed once."""
    codes, values = _dictionary(column)
    unique = [0 if value is None else stable_hash(value) for value in values]
    return np.array([*unique, 0], np.int64)[codes]


def _country_codes(column: pa.ChunkedArray) -> npt.NDArray[np.uint16]:
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
    key, other = (
        ("customer_id", "terminal_id") if owner == "customer" else ("terminal_id", "customer_id")
    )
    events = np.zeros(len(transactions), EVENT)
    events["event_timestamp"] = micros(transactions["event_timestamp"])
    events["event_id"] = _event_ids("t:", transactions["transaction_id"])
    events["other"] = hashes(transactions[other])
    events["amount_minor"] = transactions["amount_minor"].to_numpy()
    events["device"] = hashes(transactions["device_id"])
    events["country"] = _country_codes(transactions["terminal_country"])
    keys = transactions[key]
    if labels is None:
        return keys, events
    frauds = labels.filter(pc.and_(labels["is_fraud"], pc.is_valid(labels["label_available_at"])))
    verdicts = np.zeros(len(frauds), EVENT)
    verdicts["event_timestamp"] = micros(frauds["label_available_at"])
    verdicts["event_id"] = _event_ids("l:", frauds["transaction_id"])
    verdicts["kind"] = FRAUD_KIND
    chunks = [*keys.chunks, *frauds[key].chunks]
    return pa.chunked_array(chunks, pa.string()), np.concatenate([events, verdicts])


def micros(column: pa.ChunkedArray) -> Ints:
    """A timestamp[us] column without nulls as microseconds since 1970."""
    return cast(Ints, column.cast(pa.int64()).to_numpy())

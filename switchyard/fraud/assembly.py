"""From one read trip to the vectors of a batch, and what each of them saw.

Here: which stored profile is usable, windows over the blobs, the batch as columns. Not here: the formulas
(``activity``, ``features``), how old a profile may be (``switchyard.serving.freshness``).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from switchyard import compiling
from switchyard.errors import StoreError
from switchyard.fraud.columns import (
    CHANNELS,
    CUSTOMER_PROFILE,
    FEATURES,
    PROFILE_TTL_DAYS,
    TERMINAL_PROFILE,
)
from switchyard.fraud.compiling import COMPILED_IN
from switchyard.fraud.events import (
    BLOB_VERSION,
    CAPACITY,
    EVENT,
    FRAUD_KIND,
    HEADER,
    KEY,
    MISSING,
    TRANSACTION_KIND,
    Events,
    Ints,
    country_code,
    split_blob,
    stable_hash,
)
from switchyard.fraud.features import Floats, fill_vector
from switchyard.fraud.requests import Label, Transaction
from switchyard.fraud.sliding import (
    CUSTOMER_WIDTH,
    TERMINAL_WIDTH,
    customer_windows,
    terminal_windows,
)
from switchyard.serving.domain import Assembled
from switchyard.serving.freshness import EXPIRED, OVERDUE, PERIOD_US, STALE, state_of
from switchyard.serving.replies import Rung
from switchyard.serving.trip import Trip

_TTL_US = PROFILE_TTL_DAYS * PERIOD_US
_RECORD = struct.Struct("<qqqqqIHBB")
_RECORD_BYTES, _HEAD_BYTES = EVENT.itemsize, HEADER.size
_OTHER_FIELDS = np.dtype(
    [("cross_border", "i1"), ("channel", "i1"), ("spare", "<u2"), ("merchant_category", "<i4")]
)
_pack_other_fields = struct.Struct("<bbxxi").pack
_PROFILE_WIDTHS = (len(CUSTOMER_PROFILE), len(TERMINAL_PROFILE))
_STALE, _DAMAGED, _TORN = 1, 2, 4
"""Marks of a request: a profile is past its time; too far past it; an activity can't be read."""
_log = logging.getLogger(__name__)
_CHANNEL_CODE: dict[str | None, int] = {None: -1} | {name: i for i, name in enumerate(CHANNELS)}
_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    return compiling.compiled(
        function, compiled_in=(*COMPILED_IN, "features", "../serving/freshness")
    )


def transaction_records(transaction: Transaction) -> tuple[bytes, bytes]:
    """The transaction as EVENT records (48 bytes) of its customer's and its terminal's activity."""
    return _customer_record(transaction), _record(transaction, transaction.customer_id)


def verdict_record(label: Label) -> bytes:
    """A verdict 'fraud' as an EVENT record, the same for both keys."""
    event_id = stable_hash(f"l:{label.transaction_id}")
    return _RECORD.pack(label.label_available_at_us, event_id, 0, 0, 0, 0, 0, FRAUD_KIND, 0)


def assemble(requests: Sequence[Transaction], trip: Trip | None, minor_units: int) -> Assembled:
    """Vectors float64[n, 50]; without a trip from the defaults of the feature service alone."""
    n = len(requests)
    trip = trip or _nothing(n)
    events = np.frombuffer(b"".join(map(_customer_record, requests)), EVENT)
    others = np.frombuffer(b"".join(map(_other_fields, requests)), _OTHER_FIELDS)
    vectors, seqs, marks = (
        np.empty((n, len(FEATURES))),
        np.empty((2, n), np.int64),
        np.zeros(n, np.int64),
    )
    customer_blobs, terminal_blobs = map(_joined, trip.activity)
    customer_profiles, terminal_profiles = trip.profiles
    customer_times, terminal_times = trip.available_at
    customer_synced, terminal_synced = trip.synced_through
    _assemble(
        events, others, *customer_blobs, *terminal_blobs, customer_profiles, terminal_profiles,
        customer_times, terminal_times, customer_synced, terminal_synced, minor_units, vectors, seqs,
        marks,
    )  # fmt: skip
    days = [
        [None if day == MISSING else day for day in profiles[:, 0].tolist()]
        for profiles in trip.profiles
    ]
    return Assembled(
        vectors,
        [
            {
                "customer_profile_day": customer_day,
                "terminal_profile_day": terminal_day,
                "customer_seq_seen": customer_seq,
                "terminal_seq_seen": terminal_seq,
            }
            for customer_day, terminal_day, customer_seq, terminal_seq in zip(
                *days, *seqs.tolist(), strict=True
            )
        ],
        [
            _rungs(mark, i, trip) if mark or trip.damaged else []
            for i, mark in enumerate(marks.tolist())
        ],
    )


def _nothing(n: int) -> Trip:
    """A trip that brought nothing for anybody."""
    return Trip(
        profiles=tuple(np.full((n, width), MISSING) for width in _PROFILE_WIDTHS),
        available_at=(np.full(n, MISSING),) * 2,
        activity=([b""] * n,) * 2,
        claims=[None] * n,
        synced_through=(MISSING,) * 2,
        damaged=frozenset(range(n)),
    )


def _joined(blobs: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], Ints]:
    """The blobs one after the other, and where each ends."""
    together = np.frombuffer(b"".join(blobs) or b"\0", np.uint8)
    return together, np.fromiter(accumulate(map(len, blobs)), np.int64, len(blobs))


@compiled
def _int64_at(text: npt.NDArray[np.uint8], at: int) -> Any:
    number = np.int64(0)
    for k in range(8):
        number |= np.int64(text[at + k]) << np.int64(8 * k)
    return number


@compiled
def _unpack(text: npt.NDArray[np.uint8], start: int, end: int, kept: npt.NDArray[np.uint8]) -> Any:
    """Of a blob the newest CAPACITY events into ``kept``: how many, and the newest number; -1 if it is torn.

    What ``events.split_blob`` does.
    """
    held = end - start - _HEAD_BYTES
    if end == start:
        return np.int64(0), np.int64(0)
    if held < 0 or held % _RECORD_BYTES or _int64_at(text, start + 8) != BLOB_VERSION:
        return np.int64(-1), np.int64(0)
    size = min(held, CAPACITY * _RECORD_BYTES)
    begin = end - size
    for k in range(size):
        kept[k] = text[begin + k]
    return np.int64(size // _RECORD_BYTES), _int64_at(text, start)


@compiled
def _state(profile: Ints, available_at: int, moment: int, synced_through: int) -> int:
    """What is wrong with a profile as a mark; one that can't be used becomes MISSING."""
    state = state_of(available_at, moment, synced_through, _TTL_US)
    if state in (EXPIRED, OVERDUE):
        profile[:] = MISSING
    if state == OVERDUE:
        return _DAMAGED
    return _STALE if state == STALE else 0


@compiled
def _assemble(
    events: Events,
    others: npt.NDArray[np.void],
    customer_blobs: npt.NDArray[np.uint8],
    customer_ends: Ints,
    terminal_blobs: npt.NDArray[np.uint8],
    terminal_ends: Ints,
    customer_profiles: Ints,
    terminal_profiles: Ints,
    customer_times: Ints,
    terminal_times: Ints,
    customer_synced: int,
    terminal_synced: int,
    minor_units: int,
    vectors: Floats,
    seqs: Ints,
    marks: Ints,
) -> None:
    """Fill in ``vectors``, ``seqs`` (of both activities the newest number) and ``marks``."""
    kept = np.empty(CAPACITY, EVENT)
    content = kept.view(np.uint8)
    customer, terminal = np.empty(CUSTOMER_WIDTH, np.int64), np.empty(TERMINAL_WIDTH, np.int64)
    for i in range(len(events)):
        event, other = events[i], others[i]
        start = customer_ends[i - 1] if i else 0
        count, seqs[0, i] = _unpack(customer_blobs, start, customer_ends[i], content)
        if count < 0:
            marks[i] |= _TORN
        customer_windows(kept[: max(count, 0)], event, customer)
        start = terminal_ends[i - 1] if i else 0
        count, seqs[1, i] = _unpack(terminal_blobs, start, terminal_ends[i], content)
        if count < 0:
            marks[i] |= _TORN
        terminal_windows(kept[: max(count, 0)], event, terminal)
        moment = event.event_timestamp
        marks[i] |= _state(customer_profiles[i], customer_times[i], moment, customer_synced)
        marks[i] |= _state(terminal_profiles[i], terminal_times[i], moment, terminal_synced)
        fill_vector(
            vectors[i], event.amount_minor, moment, other.cross_border, other.channel,
            other.merchant_category, event.device, int(event.country), customer_profiles[i],
            terminal_profiles[i], customer, terminal, minor_units,
        )  # fmt: skip


def _other_fields(request: Transaction) -> bytes:
    """What the vector needs beside the event, -1 for null."""
    return _pack_other_fields(
        _cross_border(request), _CHANNEL_CODE[request.channel], int(request.merchant_category or -1)
    )


def _cross_border(request: Transaction) -> int:
    if request.customer_country is None or request.terminal_country is None:
        return -1
    return int(request.customer_country != request.terminal_country)


def _customer_record(transaction: Transaction) -> bytes:
    return _record(transaction, transaction.terminal_id)


def _record(transaction: Transaction, counterpart: str) -> bytes:
    return _RECORD.pack(
        transaction.event_timestamp_us,
        stable_hash(f"t:{transaction.transaction_id}"),
        stable_hash(counterpart),
        transaction.amount_minor,
        stable_hash(transaction.device_id) if transaction.device_id is not None else 0,
        0,
        country_code(transaction.terminal_country),
        TRANSACTION_KIND,
        0,
    )


def _rungs(mark: int, i: int, trip: Trip) -> list[Rung]:
    """The rungs that a request's ``mark`` names; what is wrong with a torn activity goes to the log."""
    if mark & _TORN:
        for owner, blobs in zip(KEY, trip.activity, strict=True):
            try:
                split_blob(blobs[i])
            except StoreError as error:
                if blobs[i]:
                    _log.warning("the activity of a %s is read as empty: %s", owner, error)
    rungs: list[Rung] = ["stale_profile"] if mark & _STALE else []
    if mark & (_DAMAGED | _TORN) or i in trip.damaged:
        rungs.append("default_features")
    return rungs

"""From one read trip to the vectors of a batch, and what each of them saw.

Here: which stored profile is usable, windows over the blobs, the batch as columns. Not here: the formulas
(``activity``, ``features``), how old a profile may be (``switchyard.serving.freshness``).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from switchyard.errors import StoreError
from switchyard.fraud.columns import (
    CHANNELS,
    CUSTOMER_PROFILE,
    PROFILE_TTL_DAYS,
    TERMINAL_PROFILE,
)
from switchyard.fraud.compiling import compiled
from switchyard.fraud.events import (
    EVENT,
    FRAUD_KIND,
    MISSING,
    TRANSACTION_KIND,
    Events,
    Ints,
    Owner,
    country_code,
    split_blob,
    stable_hash,
)
from switchyard.fraud.features import Requests, vectors
from switchyard.fraud.requests import Label, Transaction
from switchyard.fraud.sliding import COLUMNS, customer_windows, terminal_windows
from switchyard.serving.domain import Assembled
from switchyard.serving.freshness import PERIOD_US, profile_state
from switchyard.serving.replies import Rung
from switchyard.serving.trip import Trip

_TTL_US = PROFILE_TTL_DAYS * PERIOD_US
_RECORD = struct.Struct("<qqqqqIHBB")
_PROFILE_WIDTHS = (len(CUSTOMER_PROFILE), len(TERMINAL_PROFILE))
_log = logging.getLogger(__name__)
_CHANNEL_CODE: dict[str | None, int] = {None: -1} | {name: i for i, name in enumerate(CHANNELS)}


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
    events = np.frombuffer(b"".join(map(_customer_record, requests)), EVENT)
    blobs = trip.activity if trip else ([b""] * n, [b""] * n)
    customer = _windows(blobs[0], events, "customer")
    terminal = _windows(blobs[1], events, "terminal")
    profiles, stale, overdue = _usable_profiles(requests, trip)
    damaged = customer.torn | terminal.torn | overdue | (trip.damaged if trip else set(range(n)))
    days = [
        [None if day == MISSING else day for day in matrix[:, 0].tolist()] for matrix in profiles
    ]
    seen = zip(*days, customer.last_seqs, terminal.last_seqs, strict=True)
    return Assembled(
        vectors(
            _columns(requests, events), *profiles, customer.values, terminal.values, minor_units
        ),
        [dict(zip(_SEEN, each, strict=True)) for each in seen],
        [_rungs(i in stale, i in damaged) for i in range(n)],
    )


_SEEN = ("customer_profile_day", "terminal_profile_day", "customer_seq_seen", "terminal_seq_seen")


@dataclass(frozen=True, slots=True)
class _Windows:
    """Windows int64[n, width] over n blobs, the newest number in each, and which could not be read."""

    values: Ints
    last_seqs: list[int]
    torn: set[int]


def _windows(blobs: Sequence[bytes], events: Events, owner: Owner) -> _Windows:
    kept: list[bytes] = []
    last_seqs: list[int] = []
    torn: set[int] = set()
    for i, blob in enumerate(blobs):
        last_seq, records = 0, b""
        if blob:
            try:
                last_seq, records = split_blob(blob)
            except StoreError as error:
                _log.warning("the activity of a %s is read as empty: %s", owner, error)
                torn.add(i)
        kept.append(records)
        last_seqs.append(last_seq)
    starts = np.cumsum([0, *map(len, kept)]) // EVENT.itemsize
    values = np.empty((len(blobs), len(COLUMNS[owner])), np.int64)
    together = np.frombuffer(b"".join(kept), EVENT)  # np.concatenate compares dtypes each time
    _windows_of_each(starts, together, events, values, owner == "customer")
    return _Windows(values, last_seqs, torn)


@compiled
def _windows_of_each(
    starts: Ints, kept: Events, events: Events, values: Ints, of_customer: bool
) -> None:
    for i in range(len(events)):
        mine = kept[starts[i] : starts[i + 1]]
        if of_customer:
            customer_windows(mine, events[i], values[i])
        else:
            terminal_windows(mine, events[i], values[i])


def _usable_profiles(
    requests: Sequence[Transaction], trip: Trip | None
) -> tuple[tuple[Ints, Ints], set[int], set[int]]:
    """Both profiles of each request, MISSING where none is usable; whose are past their time, whose too far."""
    stale: set[int] = set()
    overdue: set[int] = set()
    if trip is None:
        empty = [np.full((len(requests), width), MISSING) for width in _PROFILE_WIDTHS]
        return (empty[0], empty[1]), stale, overdue
    for matrix, times, synced in zip(
        trip.profiles, trip.available_at, trip.synced_through, strict=True
    ):
        for i, available_at in enumerate(times.tolist()):
            moment = requests[i].event_timestamp_us
            state = profile_state(available_at, moment, synced, _TTL_US)
            if state in ("expired", "overdue"):
                matrix[i] = MISSING
            if state == "overdue":
                overdue.add(i)
            elif state == "stale":
                stale.add(i)
    return (trip.profiles[0], trip.profiles[1]), stale, overdue


def _columns(requests: Sequence[Transaction], events: Events) -> Requests:
    """The batch as a struct of arrays, what the vector is made from."""
    return Requests(
        amount_minor=events["amount_minor"],
        event_timestamp=events["event_timestamp"],
        cross_border=np.array([_cross_border(r) for r in requests], np.int8),
        channel=np.array([_CHANNEL_CODE[r.channel] for r in requests], np.int8),
        merchant_category=np.array([int(r.merchant_category or -1) for r in requests], np.int32),
        device=events["device"],
        country=events["country"],
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


def _rungs(stale: bool, damaged: bool) -> list[Rung]:
    rungs: list[Rung] = []
    if stale:
        rungs.append("stale_profile")
    if damaged:
        rungs.append("default_features")
    return rungs

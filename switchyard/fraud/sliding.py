"""Sliding windows over a key's kept events, and the compiled loops that replay events and questions.

Windows are [t - w, t) in event time: ties and the transaction itself are outside. One definition serves
one event (the service) and millions (``replay``). Not here: what an event is (``events``), tables of the
lake (``activity``), whole days (``windows``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from switchyard.fraud.columns import (
    CUSTOMER_ACTIVITY,
    SMALL_AMOUNT_MINOR,
    TERMINAL_ACTIVITY,
    Column,
    positions,
)
from switchyard.fraud.compiling import compiled as compiled
from switchyard.fraud.events import (
    FRAUD_KIND,
    MISSING,
    TRANSACTION_KIND,
    Event,
    Events,
    Ints,
    Owner,
)

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
KEPT_DAYS = 30
KEPT_US = KEPT_DAYS * DAY_US
"""Longest window: older events count nowhere."""

_C = positions(CUSTOMER_ACTIVITY)
_T = positions(TERMINAL_ACTIVITY)
COLUMNS: dict[Owner, tuple[Column, ...]] = {
    "customer": CUSTOMER_ACTIVITY,
    "terminal": TERMINAL_ACTIVITY,
}
CUSTOMER_WIDTH = len(CUSTOMER_ACTIVITY)
TERMINAL_WIDTH = len(TERMINAL_ACTIVITY)

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
def _is_after(one: Event, other: Event) -> bool:
    return bool(
        one.event_timestamp > other.event_timestamp
        or (one.event_timestamp == other.event_timestamp and one.event_id > other.event_id)
    )


@compiled
def insert(kept: Events, count: int, event: Event, capacity: int) -> int:
    """Put ``event`` in its place among ``kept[:count]``; returns the new count.

    An event that is there already changes nothing. When ``kept`` (longer than ``capacity``) is full,
    all but its newest ``capacity`` events are dropped first.
    """
    i = count
    while i > 0 and _is_after(kept[i - 1], event):
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


# ---------------------------------------------------------------- grouping events by key


@compiled
def arrange(
    codes: Ints, events: Events, kept_starts: Ints, kept: Events, keys: int
) -> tuple[Ints, Events, Ints]:
    """Group events by key (``codes`` in 0..keys-1) behind what is kept of the key, in canonical order.

    Returns starts int64[keys + 1], the grouped events, and of each its index in ``events`` (-1: it was
    kept). Cheap where ``events`` come nearly in order of time.
    """
    starts = np.zeros(keys + 1, np.int64)
    for code in codes:
        starts[code + 1] += 1
    for k in range(len(kept_starts) - 1):
        starts[k + 1] += kept_starts[k + 1] - kept_starts[k]
    for k in range(keys):
        starts[k + 1] += starts[k]
    filled = starts[:-1].copy()
    grouped = np.empty(starts[-1], events.dtype)
    source = np.full(starts[-1], -1, np.int64)
    for k in range(len(kept_starts) - 1):
        for i in range(kept_starts[k], kept_starts[k + 1]):
            grouped[filled[k]] = kept[i]
            filled[k] += 1
    for i in range(len(codes)):
        k = codes[i]
        at = filled[k]
        while at > starts[k] and _is_after(grouped[at - 1], events[i]):
            grouped[at] = grouped[at - 1]
            source[at] = source[at - 1]
            at -= 1
        grouped[at] = events[i]
        source[at] = i
        filled[k] += 1
    return starts, grouped, source


@compiled
def newest(starts: Ints, grouped: Events, since: int, capacity: int) -> tuple[Ints, Events]:
    """Of each key the newest ``capacity`` events at or after ``since``, as starts and events."""
    firsts = starts[1:].copy()
    kept_starts = np.zeros(len(starts), np.int64)
    for k in range(len(starts) - 1):
        oldest = max(starts[k], starts[k + 1] - capacity)
        while firsts[k] > oldest and grouped[firsts[k] - 1].event_timestamp >= since:
            firsts[k] -= 1
        kept_starts[k + 1] = kept_starts[k] + starts[k + 1] - firsts[k]
    kept = np.empty(kept_starts[-1], grouped.dtype)
    for k in range(len(starts) - 1):
        for i in range(firsts[k], starts[k + 1]):
            kept[kept_starts[k] + i - firsts[k]] = grouped[i]
    return kept_starts, kept

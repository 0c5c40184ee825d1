"""The activity of every key gathered from events in any order: the blobs that fill a store.

Here: each event once, of each key the newest CAPACITY, numbered anew. Not here: where the events come from
(``rebuild``), the snapshot of the lake (``activity``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from switchyard.fraud.events import CAPACITY, EVENT, Events, Ints, Owner, encode_blob
from switchyard.fraud.sliding import KEPT_US

SETTLED_AT = 1_000_000
"""Events that may wait unsorted: bounds the memory, however many come."""


class Gathered:
    """Events of one owner's keys."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self._codes: dict[str, int] = {}
        self._keys: list[Ints] = []
        self._events: list[Events] = []
        self._waiting = 0

    def add(self, keys: Sequence[str], events: Events) -> None:
        """Take in events and their keys; one that is there already changes nothing."""
        known = self._codes
        self._keys.append(
            np.fromiter((known.setdefault(k, len(known)) for k in keys), np.int64, len(keys))
        )
        self._events.append(events)
        self._waiting += len(events)
        if self._waiting >= SETTLED_AT:
            self._settle()

    def table(self) -> pa.Table:
        """Rows (owner, key, blob) of the keys that hold anything in the 30 days before the newest event."""
        keys, events = self._settle()
        if len(events):
            recent = events["event_timestamp"] >= events["event_timestamp"].max() - KEPT_US
            keys, events = keys[recent], events[recent]
        starts = np.searchsorted(keys, np.arange(len(self._codes) + 1))
        events["seq"] = np.arange(1, len(events) + 1) - np.repeat(starts[:-1], np.diff(starts))
        held = [
            (name, encode_blob(int(end - start), events[start:end]))
            for name, start, end in zip(self._codes, starts, starts[1:], strict=False)
            if end > start
        ]
        return pa.table(
            {
                "owner": pa.array([self.owner] * len(held), pa.string()),
                "key": pa.array([name for name, _ in held], pa.string()),
                "blob": pa.array([blob for _, blob in held], pa.large_binary()),
            }
        )

    def _settle(self) -> tuple[Ints, Events]:
        """Everything by key and time, each event once, of each key the newest CAPACITY."""
        keys = np.concatenate([np.empty(0, np.int64), *self._keys])
        events = np.concatenate([np.empty(0, EVENT), *self._events])
        order = np.lexsort((events["event_id"], events["event_timestamp"], keys))
        keys, events = keys[order], events[order]
        first = np.ones(len(keys), np.bool_)
        first[1:] = (
            (keys[1:] != keys[:-1])
            | (events["event_timestamp"][1:] != events["event_timestamp"][:-1])
            | (events["event_id"][1:] != events["event_id"][:-1])
        )
        keys, events = keys[first], events[first]
        ends = np.searchsorted(keys, keys, side="right")
        newest = np.arange(len(keys)) >= ends - CAPACITY
        self._keys, self._events = [keys[newest]], [events[newest]]
        self._waiting = 0
        return self._keys[0], self._events[0]

"""What a worker lately read from the online store, kept for the minutes in which the store can't be read.

Here: profiles and activity as one read trip brought them, by view and entity, least recently read out
first. Not here: when they are used (``ladder``), how old a profile may be (``freshness``). They stay exact
to replay: an activity carries its last sequence number, so the journal still tells what a decision saw.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from switchyard.serving.feast_format import Ints, View
from switchyard.serving.trip import Trip, Wanted

KEPT_S = 300.0
"""How long what was read may serve in the store's place."""

_OVERHEAD = 400
"""Bytes that an entity takes beside its profile and activity: its name, three objects, a place in a table."""

_Kept = tuple[float, int, bytes, bytes]
"""When it was read, available_at, the profile's int64 values, the activity's blob."""


class Read(NamedTuple):
    """What was read of one entity: profile int64[features], its ``available_at`` (MISSING: there was no
    profile) and its activity (b"" for none)."""

    available_at: int
    profile: Ints
    activity: bytes


class Recent:
    """At most ``most_bytes`` in all; an activity takes 24 KiB at most, an ordinary one 1 or 2.

    Times are monotonic seconds, not the wall clock's: a jump of that must neither empty this nor keep it
    alive. Remembering costs about half a microsecond per entity.
    """

    def __init__(self, views: tuple[View, ...], most_bytes: int = 24 * 1024 * 1024) -> None:
        self._kept: tuple[OrderedDict[str, _Kept], ...] = tuple(OrderedDict() for _ in views)
        self._bytes = [0] * len(views)
        self.epoch: str | None = None
        """That of the store when all this was read: the activities' numbers count in it."""
        self._most = most_bytes // len(views)

    def __len__(self) -> int:
        return sum(map(len, self._kept))

    def remember(self, wanted: Sequence[Wanted], trip: Trip, now_s: float) -> None:
        """Keep what ``trip`` brought for ``wanted``, but for transactions where something was damaged."""
        if trip.epoch != self.epoch:  # the store was filled anew: other numbers from here on
            self.clear()
            self.epoch = trip.epoch
        rows: Sequence[int] = range(len(wanted))
        if trip.damaged:
            rows = [i for i in rows if i not in trip.damaged]
        for v, kept in enumerate(self._kept):
            raw, activity = trip.profiles[v].tobytes(), trip.activity[v]
            moments = trip.available_at[v].tolist()
            width = len(raw) // (len(moments) or 1)
            held = self._bytes[v]
            for i in rows:
                entity = wanted[i].entities[v]
                if earlier := kept.get(entity):
                    held -= len(earlier[3]) + width + _OVERHEAD
                    kept.move_to_end(entity)
                kept[entity] = now_s, moments[i], raw[i * width : (i + 1) * width], activity[i]
                held += len(activity[i]) + width + _OVERHEAD
            while held > self._most:
                _, (_, _, _, blob) = kept.popitem(last=False)
                held -= len(blob) + width + _OVERHEAD
            self._bytes[v] = held

    def recall(self, view: int, entity: str, now_s: float) -> Read | None:
        """What was read of the entity of that view (by its place) within KEPT_S, or None."""
        kept = self._kept[view].get(entity)
        if kept is None or now_s - kept[0] > KEPT_S:
            return None
        return Read(kept[1], np.frombuffer(kept[2], np.int64), kept[3])

    def clear(self) -> None:
        """Forget everything."""
        for v, kept in enumerate(self._kept):
            kept.clear()
            self._bytes[v] = 0

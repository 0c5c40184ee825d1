"""The feature ladder: online store, else what was lately read, else the cold store, else the defaults.

Here: whether the online store is tried, and what stands in for its read trip. Not here: the trip itself
(``online_store``), how old a profile may be (``freshness``, which judges every rung's profiles alike), the
model ladder (``judging``). One event loop calls it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, NamedTuple

import numpy as np

from switchyard.errors import StoreError
from switchyard.serving.breaker import Breaker
from switchyard.serving.cold_store import ColdStore, ColdView
from switchyard.serving.feast_format import MISSING, View
from switchyard.serving.recent import Recent
from switchyard.serving.replies import Rung
from switchyard.serving.sparse_log import SparseLog
from switchyard.serving.trip import Trip, Wanted

COLD_PATIENCE_S = 0.02
"""Longest wait for a cold store that is not on this machine's disk."""

_log = logging.getLogger(__name__)


class StandIn(NamedTuple):
    """What stands in for a read trip, and the rung on which each of its transactions stands.

    'cached_features': profiles and activity as they were read at most five minutes ago. 'cold_features': for
    an entity the cold store was asked instead, which has no activity. 'default_features': for an entity
    there was nobody to ask. As online, an entity may be known to have no profile; that is no rung.
    """

    trip: Trip
    rungs: list[Rung]


class FeatureLadder:
    """Ask ``tries_store`` before each read trip, then tell ``took`` or ``failed``; after a failed or an untried
    trip ``stand_in`` brings what there is. Nothing here raises. ``clock`` is in monotonic seconds.

    ``cold``: None where there is no cold store.
    """

    def __init__(
        self,
        views: tuple[View, ...],
        recent: Recent,
        cold: ColdStore | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        cold_patience_s: float = COLD_PATIENCE_S,
    ) -> None:
        self.breaker = Breaker("online_store", clock=clock)
        self.cold_breaker = Breaker("cold_store", clock=clock)
        self.recent = recent
        self._views = views
        self._cold = cold
        self._clock = clock
        self._cold_patience_s = cold_patience_s
        self._marks: tuple[int, ...] = (MISSING,) * len(views)
        self._asked = 0
        self._absent = [0] * len(views)
        self._said = SparseLog(_log, clock)
        self._reading: asyncio.Future[list[ColdView]] | None = None

    def profiles(self) -> Iterator[tuple[str, int, int, int | None]]:
        """Of each view its name, the profiles that the store was asked for, those that it did not have, and
        how far its sync is known to be (microseconds since 1970)."""
        for view, absent, mark in zip(self._views, self._absent, self._marks, strict=True):
            yield view.name, self._asked, absent, mark if mark != MISSING else None

    def tries_store(self) -> bool:
        """Whether the online store should be asked now."""
        return self.breaker.allows()

    def took(self, wanted: Sequence[Wanted], trip: Trip) -> None:
        """The online store answered."""
        self.breaker.succeeded()
        self._marks = trip.synced_through
        self.recent.remember(wanted, trip, self._clock())
        self._asked += len(wanted)
        for v, times in enumerate(trip.available_at):
            self._absent[v] += times.tolist().count(MISSING)

    def failed(self, error: StoreError) -> None:
        """The online store did not answer, or not as it should."""
        self.breaker.failed()
        self._said.error("store", "deciding without the online store: %s", error)

    async def stand_in(self, wanted: Sequence[Wanted]) -> StandIn:
        """What is known of ``wanted`` without the online store; no claim was made."""
        trip = _nothing(self._views, len(wanted), self._marks)._replace(epoch=self.recent.epoch)
        rungs: list[Rung] = ["cached_features"] * len(wanted)
        missing = self._fill_from_recent(wanted, trip)
        if not any(missing):
            return StandIn(trip, rungs)
        cold = await self._read_cold([[entity for _, entity in of_view] for of_view in missing])
        for v, of_view in enumerate(missing):
            synced = _fill_from_cold(of_view, trip, v, cold)
            for i, _ in of_view:
                if rungs[i] != "default_features":
                    rungs[i] = "cold_features" if synced else "default_features"
        return StandIn(trip._replace(synced_through=_oldest(self._marks, cold)), rungs)

    @property
    def breakers(self) -> tuple[Breaker, ...]:
        """One for each store."""
        return self.breaker, self.cold_breaker

    def close(self) -> None:
        """Close the cold store, without waiting for it."""
        if self._cold is not None and (self._reading is None or self._reading.done()):
            self._cold.close()

    def _fill_from_recent(
        self, wanted: Sequence[Wanted], trip: Trip
    ) -> list[list[tuple[int, str]]]:
        """Fill in what was lately read; of each view the rows and entities that were not."""
        now_s = self._clock()
        missing: list[list[tuple[int, str]]] = [[] for _ in self._views]
        for v in range(len(self._views)):
            for i, each in enumerate(wanted):
                read = self.recent.recall(v, each.entities[v], now_s)
                if read is None:
                    missing[v].append((i, each.entities[v]))
                else:
                    trip.available_at[v][i] = read.available_at
                    trip.profiles[v][i] = read.profile
                    trip.activity[v][i] = read.activity
        return missing

    async def _read_cold(self, entities: list[list[str]]) -> list[ColdView] | None:
        """What the cold store has of them; None if it can't be read, or not in time."""
        if self._cold is None or not self.cold_breaker.allows():
            return None
        try:
            found = (
                self._cold.read(entities)
                if self._cold.quick
                else await self._in_time(self._cold, entities)
            )
        except StoreError as error:
            self.cold_breaker.failed()
            self._said.error("cold", "deciding without the cold store: %s", error)
            return None
        self.cold_breaker.succeeded()
        return found

    async def _in_time(self, cold: ColdStore, entities: list[list[str]]) -> list[ColdView]:
        """One read at a time in a thread of its own; one that hangs holds up neither decisions nor the exit."""
        if self._reading is not None and not self._reading.done():
            raise StoreError("the cold store has not answered the last question yet")
        self._reading = _in_thread(lambda: cold.read(entities))
        done, _ = await asyncio.wait({self._reading}, timeout=self._cold_patience_s)
        if not done:
            raise StoreError(
                f"the cold store took longer than {self._cold_patience_s * 1000:g} ms to answer"
            )
        return self._reading.result()


def _in_thread(work: Callable[[], list[ColdView]]) -> asyncio.Future[list[ColdView]]:
    """``work`` in a daemon thread: unlike an executor's it is not waited for when the process ends."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[list[ColdView]] = loop.create_future()

    def tell(give: Callable[[Any], None], what: object) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(lambda: None if outcome.done() else give(what))

    def run() -> None:
        try:
            tell(outcome.set_result, work())
        except Exception as error:  # the thread's entry point: whoever waits gets it
            tell(outcome.set_exception, error)

    outcome.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard or not
    Thread(target=run, name="cold-store", daemon=True).start()
    return outcome


def _nothing(views: tuple[View, ...], count: int, marks: tuple[int, ...]) -> Trip:
    return Trip(
        profiles=tuple(np.full((count, len(view.features)), MISSING) for view in views),
        available_at=tuple(np.full(count, MISSING) for _ in views),
        activity=tuple([b""] * count for _ in views),
        claims=[None] * count,
        synced_through=marks,
        damaged=frozenset(),
    )


def _fill_from_cold(
    missing: list[tuple[int, str]], trip: Trip, v: int, cold: list[ColdView] | None
) -> bool:
    """Fill in the profiles of view ``v`` that the cold store has; whether it knows the view at all."""
    if cold is None or cold[v].synced_through == MISSING:
        return False
    for i, entity in missing:
        found = cold[v].profiles.get(entity)
        if found is not None:
            trip.available_at[v][i] = found.available_at
            trip.profiles[v][i] = found.profile
    return True


def _oldest(marks: tuple[int, ...], cold: list[ColdView] | None) -> tuple[int, ...]:
    """Of each view the older of both marks, so that no profile passes for newer than it is."""
    if cold is None:
        return marks
    return tuple(
        min((mark for mark in pair if mark != MISSING), default=MISSING)
        for pair in zip(marks, (of_view.synced_through for of_view in cold), strict=True)
    )

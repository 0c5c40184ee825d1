"""A body has to arrive within a time in all, however slowly it trickles in; a client that lets it take longer is
cut off, so that slow senders can't fill a worker with half-read requests.

One look-out task watches all bodies being read, oldest first: a timer per request would cost more than
deciding it. Not here: bounds on a body's length (``http``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from switchyard.errors import RequestError

BODY_DEADLINE_S = 5.0
"""Longest time that a body may take to arrive."""
_LOOK_EVERY_S = 0.5


class BodyDeadline:
    """Ends reads that take longer than ``patience_s``; one for each event loop.

    ``clock`` is a monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float], patience_s: float = BODY_DEADLINE_S) -> None:
        self._clock, self._patience_s = clock, patience_s
        self._begun: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._look_out: asyncio.Task[None] | None = None

    async def within(self, reading: Awaitable[bytes]) -> bytes:
        """The body that ``reading`` gives. Raises RequestError 408 if that takes too long."""
        task = asyncio.current_task()
        assert task is not None, "only a task can be ended"
        self._begun[task] = self._clock()
        if self._look_out is None or self._look_out.done():
            self._look_out = asyncio.get_running_loop().create_task(self._watch())
        try:
            return await reading
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise RequestError(
                f"the body did not arrive within {self._patience_s:.0f} s", status=408
            ) from None
        finally:
            self._begun.pop(task, None)
            self._late.discard(task)

    async def _watch(self) -> None:
        """End what is late; end itself when there is nothing left to watch."""
        while self._begun:
            await asyncio.sleep(min(_LOOK_EVERY_S, self._patience_s / 4))
            latest = self._clock() - self._patience_s
            for task, begun in list(self._begun.items()):
                if begun > latest:
                    break
                if task not in self._late:
                    self._late.add(task)
                    task.cancel()

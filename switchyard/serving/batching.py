"""Micro-batching: what is waiting together is handled together; a lone request waits for nobody.

All on one event loop: whatever arrives while a batch is being handled makes the next one, at most ``limit``
of it. Nothing is delayed to fill a batch. Not here: what is done with a batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

MAX_BATCH = 64


class Batcher(Generic[In, Out]):
    """Awaits ``handle`` with lists of 1 to ``limit`` items, in their order, one list at a time.

    ``handle`` returns one answer for each item; if it raises, every item of that call raises the same.
    """

    def __init__(
        self, handle: Callable[[Sequence[In]], Awaitable[Sequence[Out]]], *, limit: int = MAX_BATCH
    ) -> None:
        self._handle = handle
        self._limit = limit
        self._waiting: deque[tuple[In, asyncio.Future[Out]]] = deque()
        self._handling: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._waiting)

    def submit(self, item: In) -> asyncio.Future[Out]:
        """The answer to ``item``, to be awaited on the loop that this is called on."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Out] = loop.create_future()
        self._waiting.append((item, answer))
        if self._handling is None or self._handling.done():
            self._handling = loop.create_task(self._handle_all())
        return answer

    async def _handle_all(self) -> None:
        while waiting := self._waiting:
            batch = [waiting.popleft() for _ in range(min(self._limit, len(waiting)))]
            try:
                answers = await self._handle([item for item, _ in batch])
            except (
                Exception
            ) as error:  # the loop's entry point: the callers get it, the rest goes on
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), found in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(found)

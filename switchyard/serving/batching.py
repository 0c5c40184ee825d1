"""Micro-batching: what is waiting together is handled together; a lone request waits for nobody.

All on one event loop: whatever arrives while a batch has its turn makes the next one, at most ``limit`` of it.
Nothing is delayed to fill a batch. A batch that only waits for somebody else gives its turn up, so that the
next one is at work meanwhile. Not here: what is done with a batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

GoOn = Callable[[], None]
"""Called by a batch once the next one may begin; a batch that has ended need not."""

MAX_BATCH = 32


class Batcher(Generic[In, Out]):
    """Awaits ``handle`` with lists of 1 to ``limit`` items, in their order, one list having its turn at a time.

    ``handle`` is given the items and a GoOn, and returns one answer for each item; if it raises, every item
    of that call raises the same.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[In], GoOn], Awaitable[Sequence[Out]]],
        *,
        limit: int = MAX_BATCH,
    ) -> None:
        self._handle = handle
        self._limit = limit
        self._waiting: deque[tuple[In, asyncio.Future[Out]]] = deque()
        self._taken = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._waiting)

    def submit(self, item: In) -> asyncio.Future[Out]:
        """The answer to ``item``, to be awaited on the loop that this is called on."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Out] = loop.create_future()
        self._waiting.append((item, answer))
        if len(self._waiting) == 1:
            loop.call_soon(self._begin)
        return answer

    def _begin(self) -> None:
        """Begin a batch, if it is one's turn. Called a round of the loop after what gives rise to it, so that
        what has arrived on other connections is in it, too."""
        if self._waiting and not self._taken:
            self._taken = True
            task = asyncio.get_running_loop().create_task(self._take_turn())
            self._tasks.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(self._tasks.discard)

    async def _take_turn(self) -> None:
        """Handle one batch; its successor takes over when it gives up its turn, or has ended."""
        waiting, mine = self._waiting, True
        batch = [waiting.popleft() for _ in range(min(self._limit, len(waiting)))]

        def go_on() -> None:
            nonlocal mine
            if mine:
                mine = False
                self._taken = False
                asyncio.get_running_loop().call_soon(self._begin)

        try:
            answers = await self._handle([item for item, _ in batch], go_on)
        except Exception as error:  # the loop's entry point: the callers get it, the rest goes on
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for (_, answer), found in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(found)
        finally:
            go_on()

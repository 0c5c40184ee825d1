"""Micro-batching: what is waiting together is handled together; a lone request waits for nobody.

All on one event loop: whatever arrives while a batch has its turn makes the next one, at most ``limit`` of it.
Nothing is delayed to fill a batch. A batch that only waits for somebody else gives its turn up, so that the
next one is at work meanwhile. Not here: what is done with a batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

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
        self._waiting: deque[tuple[In, _Asker, int]] = deque()
        self._taken = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._waiting)

    def submit(self, items: Sequence[In]) -> asyncio.Future[list[Out]]:
        """The answers to ``items``, in their order, to be awaited on the loop that this is called on."""
        loop = asyncio.get_running_loop()
        asker = _Asker(loop.create_future(), len(items))
        if not self._waiting:
            loop.call_soon(self._begin)
        self._waiting.extend([(item, asker, i) for i, item in enumerate(items)])
        return asker.future

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
            answers = await self._handle([item for item, _, _ in batch], go_on)
        except Exception as error:  # the loop's entry point: the callers get it, the rest goes on
            for _, asker, _ in batch:
                asker.failed(error)
        else:
            for (_, asker, i), found in zip(batch, answers, strict=True):
                asker.answered(i, found)
        finally:
            go_on()


class _Asker:
    """Who waits for several answers, all together."""

    def __init__(self, future: asyncio.Future[list[Any]], count: int) -> None:
        self.future = future
        self._answers: list[Any] = [None] * count
        self._left = count

    def answered(self, i: int, found: Any) -> None:
        self._answers[i] = found
        self._left -= 1
        if not self._left and not self.future.done():
            self.future.set_result(self._answers)

    def failed(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

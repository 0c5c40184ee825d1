"""Micro-batching: what is waiting together is handled together; a lone request waits for nobody.

All on one event loop: whatever arrives while a batch has its turn makes the next one, at most ``limit`` of it.
Nothing is delayed to fill a batch. A batch that only waits for somebody else passes its turn on, so that the
next one is at work meanwhile. Not here: what is done with a batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

MAX_BATCH = 32


class Turn:
    """A batch's turn; this one is nobody's, for what is handled apart from others."""

    def pass_on(self) -> None:
        """The next batch may begin, whatever is waiting; one that has ended need not call this."""

    def share(self) -> bool:
        """Have the next batch begin at once if a full one is waiting; whether it does."""
        return False


class Batcher(Generic[In, Out]):
    """Awaits ``handle`` with lists of 1 to ``limit`` items, in their order, one list having its turn at a time.

    ``handle`` is given the items and its Turn, and returns one answer for each item; if it raises, every item
    of that call raises the same.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[In], Turn], Awaitable[Sequence[Out]]],
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
        """Handle one batch; its successor takes over when it passes its turn on, or has ended."""
        waiting, turn = self._waiting, _TurnOf(self)
        batch = [waiting.popleft() for _ in range(min(self._limit, len(waiting)))]
        try:
            answers = await self._handle([item for item, _, _ in batch], turn)
        except Exception as error:  # the loop's entry point: the callers get it, the rest goes on
            for _, asker, _ in batch:
                asker.failed(error)
        else:
            for (_, asker, i), found in zip(batch, answers, strict=True):
                asker.answered(i, found)
        finally:
            turn.pass_on()


class _TurnOf(Turn):
    """A turn at a batcher."""

    def __init__(self, batcher: Batcher[Any, Any]) -> None:
        self._batcher: Batcher[Any, Any] | None = batcher

    def pass_on(self) -> None:
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            batcher._taken = False
            asyncio.get_running_loop().call_soon(batcher._begin)

    def share(self) -> bool:
        batcher = self._batcher
        if batcher is None or batcher.waiting < batcher._limit:
            return False
        self._batcher = None
        batcher._taken = False
        batcher._begin()
        return True


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

"""Micro-batching: what is waiting together is handled together; a lone request waits for nobody.

One engine thread takes whatever waits (at most ``limit``) as soon as it is free. Nothing is delayed to fill
a batch. Here: the hand-over between the event loop and that thread. Not here: what is done with a batch.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

MAX_BATCH = 64


class Batcher(Generic[In, Out]):
    """Calls ``handle`` in a thread of its own with lists of 1 to ``limit`` items, in their order.

    ``handle`` returns one answer for each item; if it raises, every item of that call raises the same.
    """

    def __init__(
        self, handle: Callable[[Sequence[In]], Sequence[Out]], *, limit: int = MAX_BATCH
    ) -> None:
        self._handle = handle
        self._limit = limit
        self._waiting: SimpleQueue[tuple[In, asyncio.Future[Out]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def submit(self, item: In) -> Out:
        """The answer to ``item``."""
        answer: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._waiting.put((item, answer))
        return await answer

    def close(self) -> None:
        """Handle what still waits, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, last = self._with_those_waiting(first)
            self._answer(batch)
            if last:
                return

    def _with_those_waiting(
        self, first: tuple[In, asyncio.Future[Out]]
    ) -> tuple[list[tuple[In, asyncio.Future[Out]]], bool]:
        batch = [first]
        while len(batch) < self._limit:
            try:
                following = self._waiting.get_nowait()
            except Empty:
                break
            if following is None:
                return batch, True
            batch.append(following)
        return batch, False

    def _answer(self, batch: list[tuple[In, asyncio.Future[Out]]]) -> None:
        loop = batch[0][1].get_loop()
        futures = [future for _, future in batch]
        try:
            answers = self._handle([item for item, _ in batch])
        except (
            Exception
        ) as error:  # the thread's entry point: the callers get it, the thread goes on
            loop.call_soon_threadsafe(_fail, futures, error)
        else:
            loop.call_soon_threadsafe(_resolve, futures, answers)


def _resolve(futures: Sequence[asyncio.Future[Out]], answers: Sequence[Out]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if not future.done():
            future.set_result(answer)


def _fail(futures: Sequence[asyncio.Future[Out]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)

"""What a worker does beside answering, on its event loop: small steps at a steady pace, and tasks that watch.

Not here: the steps themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class Housekeeping:
    """Tasks of the running loop that go on until ``close``; one that fails is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def every(self, seconds: float, step: Callable[[], None]) -> None:
        """Call ``step`` again and again, ``seconds`` after its last return."""
        self.watch(_again(seconds, step))

    def watch(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` until it ends or this is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def close(self) -> None:
        """End what still runs."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a task of the worker ended with an error", exc_info=error)


async def _again(seconds: float, step: Callable[[], None]) -> None:
    while True:
        try:
            step()
        except Exception:  # the task's entry point: the next step may succeed
            _log.exception("a step of the worker's housekeeping failed")
        await asyncio.sleep(seconds)

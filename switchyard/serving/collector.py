"""The garbage collector of a worker: what lives long is not looked at again, and every stop is measured.

A collection costs what it looks at, not what it frees, so what there is at the start is set aside at
once, and later what a full collection took too long over. Not here: who shows the figures (``metrics``).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

ENOUGH_S = 0.002
"""CPU seconds of a full collection after which what survived it is set aside."""


class Collector:
    """Measures this process's collections; ``paused`` is told generation and seconds of each."""

    def __init__(self, paused: Callable[[int, float], None]) -> None:
        self._paused = paused
        self._began = 0.0
        self._began_cpu = 0.0
        self._heavy = False

    def begin(self) -> None:
        """Set aside all that exists (code, models, tables), and measure from now on.

        Without the second collection the collector would still hold the first one's size against what is
        new, and put a full collection off until that had become a quarter of it.
        """
        gc.collect()
        gc.freeze()
        gc.collect()
        gc.callbacks.append(self._note)

    def relieve(self) -> None:
        """Set aside what is there if the last full collection took long: caches fill, releases are loaded.

        Call it about once a second. What is set aside and later becomes garbage is freed as ever, but
        for cycles.
        """
        if self._heavy:
            gc.freeze()
            self._heavy = False

    def close(self) -> None:
        """Measure no more."""
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, info: Mapping[str, Any]) -> None:
        if phase == "start":
            self._began, self._began_cpu = time.perf_counter(), time.thread_time()
            return
        if info["generation"] == 2 and time.thread_time() - self._began_cpu > ENOUGH_S:
            self._heavy = True
        self._paused(info["generation"], time.perf_counter() - self._began)

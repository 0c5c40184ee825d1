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
        self._calls = 0

    def begin(self) -> None:
        """Set aside all that exists (code, models, tables), and measure from now on."""
        _set_aside()
        gc.callbacks.append(self._note)

    def relieve(self) -> None:
        """Set aside what is there if the last full collection took long: caches fill, releases are loaded.

        Call it about once a second. The second call sets aside what the server made after the worker had
        begun. What is set aside and later becomes garbage is freed as ever, but
        for cycles.
        """
        self._calls += 1
        if self._calls == 2:
            _set_aside()
        elif self._heavy:
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


def _set_aside() -> None:
    """Without the second collection the next full one would wait until what is new is a quarter of all that
    the first one saw."""
    gc.collect()
    gc.freeze()
    gc.collect()

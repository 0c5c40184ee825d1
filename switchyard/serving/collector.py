"""The garbage collector of a worker: what is there at its start is never looked at again, and every stop
is measured.

Not here: who shows the figures (``metrics``).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

Paused = Callable[[int, float], None]
"""Is told the generation that was collected and the seconds that it took."""


def set_aside() -> None:
    """Take all that exists now (code, models, tables) out of every later collection.

    Without the second collection the collector would still hold its size against what is new, and wait
    with a full collection until that had become a quarter of it.
    """
    gc.collect()
    gc.freeze()
    gc.collect()


def watch_pauses(paused: Paused) -> Callable[[], None]:
    """Tell ``paused`` of each collection from now on; returns what ends that."""
    began = 0.0

    def note(phase: str, info: Mapping[str, Any]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            paused(info["generation"], time.perf_counter() - began)

    gc.callbacks.append(note)
    return lambda: gc.callbacks.remove(note)

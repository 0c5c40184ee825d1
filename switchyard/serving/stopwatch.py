"""How long each stage of one batch took. Not here: what becomes of it (``metrics``)."""

from __future__ import annotations

import time
from collections.abc import Callable

from switchyard.serving.metrics import STAGES, Stage

_PLACE = {stage: i for i, stage in enumerate(STAGES)}


class Stopwatch:
    """Runs from its making. ``seconds`` of each of STAGES, in their order."""

    def __init__(self) -> None:
        self.seconds = [0.0] * len(STAGES)
        self._since = time.perf_counter()

    def lap(self, stage: Stage) -> None:
        """All since the last lap was ``stage``, but for what was within it."""
        now = time.perf_counter()
        self.seconds[_PLACE[stage]] += now - self._since
        self._since = now

    def within(self, stage: Stage) -> Callable[[float], None]:
        """Takes seconds of the running lap for ``stage``."""

        def take(seconds: float) -> None:
            self.seconds[_PLACE[stage]] += seconds
            self._since += seconds

        return take

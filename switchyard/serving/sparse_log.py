"""Logging of what happens again with every decision: said once a minute, with how often it was kept quiet.

Not here: what happens once (plain ``logging`` says that).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

QUIET_S = 60.0
"""How long the same thing is not said again."""


class SparseLog:
    """Writes to ``log``. ``clock`` is in monotonic seconds."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}

    def error(self, what: str, message: str, *values: object) -> None:
        """Log ``message`` unless ``what``, one of a few names, was logged within QUIET_S."""
        now = self._clock()
        at, kept_quiet = self._said.get(what, (-QUIET_S, 0))
        if now - at < QUIET_S:
            self._said[what] = at, kept_quiet + 1
            return
        self._said[what] = now, 0
        more = f" (and {kept_quiet} times more since it was last said)" if kept_quiet else ""
        self._log.error(message + more, *values)

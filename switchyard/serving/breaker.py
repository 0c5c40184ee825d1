"""A circuit breaker: what fails again and again is left alone for a while, then tried by one probe at a time.

After Nygard, *Release It!* (2018), chapter 5. Here: when to try. Not here: what is tried, and what is done
instead (``ladder``, ``judging``). One thread calls it; a call costs well under a microsecond.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Literal

BreakerState = Literal["closed", "half_open", "open"]
STATE_CODE: dict[BreakerState, int] = {"closed": 0, "half_open": 1, "open": 2}
"""The states as a gauge shows them: the higher, the worse."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
JITTER = 0.2
"""A pause is up to this share longer or shorter, so that workers do not probe in step."""

_log = logging.getLogger(__name__)


class Breaker:
    """``name`` is what metrics and the log call it by. Opens after ``failures`` in a row; then one probe per
    pause is let through, and its success closes it. The first pause is ``first_pause_s``, so that a hiccup
    costs no more; each probe that fails doubles it, up to ``longest_pause_s``.

    ``clock`` is in monotonic seconds, ``random`` draws from [0, 1). A probe whose outcome is never told
    (its task was cancelled) keeps the breaker half open for one more pause only.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 5,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.state: BreakerState = "closed"
        self._most = failures
        self._first_pause_s = self._pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._random = random
        self._failures = 0
        self._probe_at = 0.0

    @property
    def code(self) -> int:
        """The state as a small integer, see STATE_CODE."""
        return STATE_CODE[self.state]

    def allows(self) -> bool:
        """Whether to try now. True while closed; while open, for one probe at a time after a pause."""
        if self.state == "closed":
            return True
        if self._clock() < self._probe_at:
            return False
        self._wait("half_open")
        return True

    def succeeded(self) -> None:
        """What was tried worked."""
        self._failures = 0
        if self.state != "closed":
            self.state = "closed"
            _log.warning("'%s' works again", self.name)

    def failed(self) -> None:
        """What was tried did not work."""
        self._failures += 1
        if self.state == "half_open":
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
            self._wait("open")
        elif self.state == "closed" and self._failures >= self._most:
            self._pause_s = self._first_pause_s
            self._wait("open")
            _log.error(
                "'%s' failed %d times in a row and is left alone, but for probes at most %g s apart",
                self.name, self._failures, self._longest_pause_s,
            )  # fmt: skip

    def _wait(self, state: BreakerState) -> None:
        self.state = state
        self._probe_at = self._clock() + self._pause_s * (1 + JITTER * (2 * self._random() - 1))

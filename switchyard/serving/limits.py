"""How much one key, and how much in all, may be asked: refusals with 429 and 503, each with a retry-after.

Rates are counted over all worker processes of the host by a file that they map: each writes its own row and
reads all, so no lock is ever waited for. Here: counting. Not here: who a caller is (``keys``), HTTP
(``http``). A sliding window of one second from two counters, as in Cloudflare's 'How we built rate limiting'
(2017).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from switchyard.errors import RequestError, ServiceError

PROCESSES = 32
"""Rows of the file: processes that may count at a time."""
DEFAULT_RATE_PER_S = 2_000
"""Of one key, where keys are configured and no rate is."""
MOST_HELD_BYTES = 64 * 1024 * 1024
"""Of bodies that one worker holds."""
_FIELDS = 3
"""Of a process and key: the second that it counts in, the count of that second, of the one before."""


def rate_for(configured: int | None, keys: int) -> int:
    """The setting ``rate_limit_per_s`` as a rate; 0 is no limit.

    >>> rate_for(None, 0), rate_for(None, 3), rate_for(0, 3), rate_for(50, 0)
    (0, 2000, 0, 50)
    """
    if configured is not None:
        return configured
    return DEFAULT_RATE_PER_S if keys else 0


class RateLimit:
    """At most ``rate_per_s`` in any second from each of ``keys`` keys, over all processes of ``folder``.

    Two processes that count at the same moment may each admit one too many; nothing else is inexact. A
    process that ended gives its row back (the kernel drops its lock). ``clock`` is the wall clock in
    seconds: processes share it. Raises ServiceError when PROCESSES count there already.
    """

    def __init__(
        self, folder: Path, rate_per_s: int, keys: int, clock: Callable[[], float]
    ) -> None:
        self._rate, self._keys, self._clock = rate_per_s, keys, clock
        folder.mkdir(parents=True, exist_ok=True)
        row, self._lock = _own_row(folder)
        row_bytes = keys * _FIELDS * 8
        with (folder / f"of-{keys}-keys").open("a+b") as file:
            file.truncate(PROCESSES * row_bytes)
            self._map = mmap.mmap(file.fileno(), PROCESSES * row_bytes)
        self._counts = memoryview(self._map).cast("q")
        self._own = row * keys * _FIELDS
        self._counts[self._own : self._own + keys * _FIELDS] = memoryview(bytes(row_bytes)).cast(
            "q"
        )

    def admit(self, key: int, weight: int = 1) -> None:
        """Count ``weight`` requests of the key. Raises RequestError 429 beyond the rate, counting nothing."""
        now = self._clock()
        second = int(now)
        used = self._used(key, second, now - second)
        if used + weight > self._rate and used > 0:
            raise RequestError(
                f"this key sends more than {self._rate} requests a second; send it again later",
                status=429,
                retry_after_s=1,
            )
        self._count(key, second, weight)

    def close(self) -> None:
        self._counts.release()
        self._map.close()
        os.close(self._lock)

    def __enter__(self) -> RateLimit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _used(self, key: int, second: int, elapsed: float) -> float:
        """Requests of the key in the second that ends now, by all processes."""
        counts, total = self._counts, 0.0
        for at in range(key * _FIELDS, len(counts), self._keys * _FIELDS):
            counted_in = counts[at]
            if counted_in == second:
                total += counts[at + 1] + counts[at + 2] * (1.0 - elapsed)
            elif counted_in == second - 1:
                total += counts[at + 1] * (1.0 - elapsed)
        return total

    def _count(self, key: int, second: int, weight: int) -> None:
        counts, at = self._counts, self._own + key * _FIELDS
        if counts[at] != second:
            counts[at + 2] = counts[at + 1] if counts[at] == second - 1 else 0
            counts[at + 1] = 0
            counts[at] = second
        counts[at + 1] += weight


def _own_row(folder: Path) -> tuple[int, int]:
    """A row that no living process has, and the lock that keeps it while this one lives."""
    for row in range(PROCESSES):
        lock = os.open(folder / f"{row}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return row, lock
    raise ServiceError(f"{PROCESSES} processes count in {folder} already; end some of them")


class Room:
    """What one worker holds at most: requests that wait for an answer, and bytes of bodies.

    Beyond it a request is refused at once, rather than kept in memory until its client has gone. Bytes
    count from the head of a request on, the request itself when its body is there: who sends slowly takes
    nobody's place. Both refusals are RequestError 503.
    """

    def __init__(self, most_waiting: int, most_bytes: int = MOST_HELD_BYTES) -> None:
        self._most_waiting, self._most_bytes = most_waiting, most_bytes
        self.waiting = 0
        self.held_bytes = 0

    def hold(self, size: int) -> None:
        """Count a body of ``size`` bytes that will come; each needs a :meth:`free` later."""
        if self.held_bytes and self.held_bytes + size > self._most_bytes:
            raise _full(f"bodies of {self.held_bytes} bytes are held here already")
        self.held_bytes += size

    def free(self, size: int) -> None:
        self.held_bytes -= size

    def enter(self) -> None:
        """Count a request that waits for its answer; each needs a :meth:`leave` later."""
        if self.waiting >= self._most_waiting:
            raise _full(f"{self.waiting} requests are waiting here already")
        self.waiting += 1

    def leave(self) -> None:
        self.waiting -= 1


def _full(what: str) -> RequestError:
    return RequestError(f"{what}; send it again later", status=503, retry_after_s=1)

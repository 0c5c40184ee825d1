"""One process at a time: a lock on a file, which goes with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(file: Path, *, wait_s: float | None = None) -> Iterator[bool]:
    """Whether this process is the only one here, having waited up to ``wait_s`` for it (None: as long as it takes)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        yield _taken(lock.fileno(), wait_s)


def _taken(lock: int, wait_s: float | None) -> bool:
    if wait_s is None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True

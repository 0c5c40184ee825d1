"""Who on this host is deciding a transaction just now: a claim among processes that dies with its process.

A claim is one locked byte of a shared file, at the place that the id's hash names (POSIX record locks, which the
kernel releases when a process ends in whatever way). Not here: whether the transaction was decided (``ledger``).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from switchyard.serving.index import key_of


class Holds:
    """The claims of this process in ``file``.

    One for a file and process: closing another one would release this one's claims, since POSIX locks
    belong to the process. Two ids of one hash exclude each other, at 2**63 places never in practice.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._mine: set[int] = set()

    def hold(self, transaction_id: str) -> bool:
        """Claim the id; False if this process or another one of the host holds it already."""
        place = key_of(transaction_id) >> 1
        if place in self._mine:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
            return False
        self._mine.add(place)
        return True

    def let_go(self, transaction_id: str) -> None:
        """Give the claim up; nothing happens if there is none."""
        place = key_of(transaction_id) >> 1
        if place in self._mine:
            self._mine.remove(place)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Give up every claim."""
        self._mine.clear()
        os.close(self._file)

"""Who on this host is deciding a transaction just now: a claim among processes that dies with its process.

A claim is one locked byte of a shared file, at the place that the id's hash names (POSIX record locks, which the
kernel releases when a process ends in whatever way). Not here: whether the transaction was decided (``ledger``).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from switchyard.serving.index import key_of

_TOKEN_BYTES = 16


class Holds:
    """The claims of this process in ``file``.

    One for a file and process: closing another one would release this one's claims, since POSIX locks
    belong to the process. That two ids have one place among 2**63 never happens in practice.
    ``token`` (16 bytes) is the host's: whoever holds here may take over what others of the host claimed
    elsewhere, since they no longer hold it.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._mine: dict[str, int] = {}
        try:
            self.token = _token_in(self._file)
        except OSError:
            os.close(self._file)
            raise

    def hold(self, transaction_id: str) -> bool:
        """Claim the id; False if this process or another one of the host holds it already."""
        if transaction_id in self._mine:
            return False
        place = key_of(transaction_id) >> 1
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
            return False
        self._mine[transaction_id] = place
        return True

    def let_go(self, transaction_id: str) -> None:
        """Give the claim up; nothing happens if there is none."""
        place = self._mine.pop(transaction_id, None)
        if place is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Give up every claim."""
        self._mine.clear()
        os.close(self._file)


def _token_in(file: int) -> bytes:
    """The bytes that the file begins with, drawn by whoever opens it first. Raises OSError."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        token = os.pread(file, _TOKEN_BYTES, 0)
        if len(token) < _TOKEN_BYTES:
            token = os.urandom(_TOKEN_BYTES)
            if os.pwrite(file, token, 0) < _TOKEN_BYTES:
                raise OSError("the host's token did not fit")
        return token
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)

"""Room on the disk for the journal: how much of its allowance is used, and how much the disk has left.

Measured at most once a second; in between, what this process writes is taken off, so that asking costs
nothing. Not here: what is done when there is none (``journal``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

MEASURED_EVERY_S = 1.0
MEASURED_WHEN_SHORT_S = 0.25
"""While there is no room, so that its return is noticed at once."""


class Room:
    """Room below ``folder`` for at most ``max_bytes``, while the disk keeps ``min_free_bytes`` free."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        min_free_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._clock = clock
        self._sealed: dict[str, int] = {}
        self.used_bytes = self._free = 0
        self._left = 0
        self._shortage: str | None = None
        self._due = 0.0

    def shortage(self, wanted_bytes: int = 0) -> str | None:
        """Why so many bytes more are too many, None if they are not."""
        if self._clock() >= self._due:
            self._measure()
        if self._shortage is None and self._left < wanted_bytes:
            self._measure()
        return self._shortage or (self._words() if self._left < wanted_bytes else None)

    def took(self, count: int) -> None:
        """Say that ``count`` bytes were written."""
        self._left -= count

    def _measure(self) -> None:
        self.used_bytes = self._measure_used()
        disk = os.statvfs(_existing(self._folder))
        self._free = disk.f_bavail * disk.f_frsize
        self._left = min(self._max_bytes - self.used_bytes, self._free - self._min_free_bytes)
        self._shortage = self._words() if self._left <= 0 else None
        self._due = self._clock() + (MEASURED_WHEN_SHORT_S if self._shortage else MEASURED_EVERY_S)

    def _words(self) -> str:
        if self._max_bytes - self.used_bytes <= self._left:
            return (
                f"the journal holds {self.used_bytes:,} bytes, of at most {self._max_bytes:,} "
                "(setting 'journal_max_bytes')"
            )
        return (
            f"the disk has {self._free:,} bytes free, of which {self._min_free_bytes:,} are to stay "
            "free (setting 'journal_min_free_bytes')"
        )

    def _measure_used(self) -> int:
        """Bytes of the folder's files; of a sealed segment, which changes no more, asked only once."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return 0
        stems = {name.removesuffix(".sorted") for name in names if name.endswith(".sorted")}
        sealed = {name for name in names if name.rpartition(".")[0] in stems}
        self._sealed = {
            name: self._sealed.get(name) or _size(self._folder / name) for name in sealed
        }
        growing = sum(_size(self._folder / name) for name in names if name not in sealed)
        return growing + sum(self._sealed.values())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return folder if folder.exists() else _existing(folder.parent)

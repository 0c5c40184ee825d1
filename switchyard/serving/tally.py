"""Numbers of one process in a small mapped file, which its sister processes can read and add up.

A number costs its owner one write into mapped memory; no lock, no system call. Here: the file, its
reading, and the keeping of what ended processes counted. Not here: what the numbers mean (``metrics``).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

CAPACITY = 2048
"""Most numbers of one process."""

_MAGIC = b"swtally1"
_HEADER = 64
_NAME_BYTES = 160
_SUFFIX = ".tally"
_ENDED = "ended.tally"
_LOCK = ".lock"
_DOUBLE = 8


class Tally:
    """Named float64 numbers, all 0 at first, in ``file``. One process writes it, one thread at a time.

    ``values[slot(name)] += 1`` counts. Names hold no line break; a name once given keeps its slot.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            os.ftruncate(descriptor, _HEADER + CAPACITY * (_DOUBLE + _NAME_BYTES))
            self._map = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._map[:8] = _MAGIC
        self._slots: dict[str, int] = {}
        self._name_end = 0
        self.file = file
        self.values = memoryview(self._map)[_HEADER : _HEADER + CAPACITY * _DOUBLE].cast("d")

    def slot(self, name: str) -> int:
        """The index of ``name`` in ``values``; a new one if there is none. Raises ValueError when full."""
        found = self._slots.get(name)
        return self._add(name) if found is None else found

    def close(self) -> None:
        """Unmap the file, which stays; nothing may be counted afterwards."""
        self.values.release()
        self._map.close()

    def _add(self, name: str) -> int:
        line, slot = name.encode() + b"\n", len(self._slots)
        start = _HEADER + CAPACITY * _DOUBLE + self._name_end
        if slot >= CAPACITY or start + len(line) > len(self._map):
            raise ValueError(f"{self.file} is full with {slot} numbers; '{name}' is one too many")
        self._map[start : start + len(line)] = line
        self._name_end += len(line)
        self._map[8:16] = struct.pack("<Q", self._name_end)  # last: a reader sees whole names only
        self._slots[name] = slot
        return slot


def read_tally(file: Path) -> dict[str, float]:
    """The numbers in ``file`` by name; none if it is no tally or just being made."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    try:
        header = os.pread(descriptor, _HEADER, 0)
        if header[:8] != _MAGIC:
            return {}
        (end,) = struct.unpack_from("<Q", header, 8)
        names = os.pread(descriptor, end, _HEADER + CAPACITY * _DOUBLE).decode().splitlines()
        values = os.pread(descriptor, len(names) * _DOUBLE, _HEADER)
    finally:
        os.close(descriptor)
    return dict(zip(names, struct.unpack(f"<{len(names)}d", values), strict=True))


def own_file(folder: Path) -> Path:
    """Where this process keeps its numbers below ``folder``."""
    return folder / f"{os.getpid()}{_SUFFIX}"


def read_all(folder: Path) -> tuple[dict[int, dict[str, float]], dict[str, float]]:
    """The numbers of each living process by its id, and the sum of what ended ones counted."""
    with _locked(folder, fcntl.LOCK_SH):
        living: dict[int, dict[str, float]] = {}
        ended = read_tally(folder / _ENDED)
        for pid, file in _files(folder):
            if lives(pid):
                living[pid] = read_tally(file)
            else:
                _add_to(ended, read_tally(file))
    return living, ended


def keep_ended(folder: Path) -> None:
    """Add up the files of ended processes in one, so that restarts don't fill ``folder``.

    To be called before this process makes its own file: one of the same process id is an ended one's.
    """
    with _locked(folder, fcntl.LOCK_EX):
        gone = [file for pid, file in _files(folder) if pid == os.getpid() or not lives(pid)]
        if not gone:
            return
        total = read_tally(folder / _ENDED)
        for file in gone:
            _add_to(total, read_tally(file))
        kept = Tally(folder / f".{_ENDED}.part")
        for name, value in total.items():
            kept.values[kept.slot(name)] = value
        kept.close()
        for file in gone:  # a death between these lines loses counts, and never doubles one
            file.unlink()
        kept.file.replace(folder / _ENDED)


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    for file in sorted(folder.glob(f"*{_SUFFIX}")):
        if file.stem.isdigit():
            yield int(file.stem), file


def lives(pid: int) -> bool:
    """Whether a process of that id is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _add_to(total: dict[str, float], more: dict[str, float]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0.0) + value


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)

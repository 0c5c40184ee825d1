"""The journal: every decision, event and label as it was, in append-only segments of checksummed lines.

Each process writes segments of its own, whose names sort by the time they were opened; they are closed by size
and by age, and beside each an index of its decisions grows. Here: writing, rotation, the bounds of the disk.
Not here: lines and reading (``segments``), what a record means.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from switchyard.errors import JournalError
from switchyard.serving.index import ENTRY, Key, growing_path, key_in, write_sorted
from switchyard.serving.room import Room
from switchyard.serving.segments import SUFFIX, frame
from switchyard.settings import Settings

SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment that has reached this size is closed and the next one opened."""
SEGMENT_SECONDS = 3600
"""The same for one that was opened so long ago."""
UNBOUNDED_BYTES = 1 << 62

_PROBE_BYTES = 64 * 1024
_PROBED_EVERY_S = 0.25
_pack = struct.Struct("<QQII").pack  # an index.ENTRY


def journal_of(settings: Settings) -> Journal:
    """A journal of the home, within the bounds that its settings say."""
    return Journal(
        settings.journal,
        fsync=settings.journal_fsync == "always",
        max_bytes=settings.journal_max_bytes,
        min_free_bytes=settings.journal_min_free_bytes,
    )


def wall_clock_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class Journal:
    """The segments that this process writes below ``folder``. Not thread-safe: one writer.

    Without ``fsync`` a record survives the death of the process, with it that of the machine. ``max_bytes``
    bounds the whole folder, ``min_free_bytes`` is what the disk must keep free. ``clock`` (microseconds
    since the epoch) names the segments and ages them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fsync: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        max_bytes: int = UNBOUNDED_BYTES,
        min_free_bytes: int = 0,
        clock: Callable[[], int] = wall_clock_us,
    ) -> None:
        self.folder = folder
        self.fsync = fsync
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._segment_us = int(segment_seconds * 1e6)
        self._room = Room(folder, max_bytes, min_free_bytes)
        self._segment: _Segment | None = None
        self._failure: str | None = None
        self._probe_due = 0.0
        self._syncing = False
        self._sealing: list[threading.Thread] = []

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, records: Sequence[Any], keys: Sequence[Key | None] | None = None) -> None:
        """:meth:`write`, and :meth:`sync` where the policy asks for it."""
        self.write(records, keys)
        if self.fsync:
            self.sync()

    def write(self, records: Sequence[Any], keys: Sequence[Key | None] | None = None) -> None:
        """Write the records in order with one ``write``; they are all in the journal, or none is.

        A record is anything that becomes a JSON object, or that JSON as bytes. ``keys``: for each record
        ``index.key_of_decision`` of it, None for what is no decision; left out, they are found in the records.
        Raises JournalError if they can't be written (no room, folder gone); the next call tries anew.
        """
        if not records:
            return
        lines = [frame(record) for record in records]
        content = b"".join(lines)
        try:
            if shortage := self._room.shortage(len(content)):
                raise OSError(shortage)
            segment = self._open_segment()
            segment.write(content)
        except OSError as error:
            keep = self._segment.size if self._segment else 0
            self._fail(f"{len(records)} records can't be written", error, keep)
        self._failure = None
        self._room.took(len(content))
        segment.index(lines, keys)

    def sync(self) -> None:
        """Have the disk keep what was written; may run in a thread while nothing else is called.

        Raises JournalError if it can't: what was written since the last sync is then cut again.
        """
        if self._segment is None:
            return
        self._syncing = True
        try:
            self._segment.sync()
        except OSError as error:
            self._fail("what was written can't be synced", error, self._segment.synced_size)
        finally:
            self._syncing = False

    def trouble(self) -> str | None:
        """Why an append would fail now, None if it would not; quick enough to be asked at any time."""
        try:
            if shortage := self._room.shortage(_PROBE_BYTES):
                return shortage
            if self._failure is not None and time.monotonic() >= self._probe_due:
                self._probe_due = time.monotonic() + _PROBED_EVERY_S
                _probe(self.folder)
                self._failure = None
        except OSError as error:
            self._failure = str(error)
        return self._failure

    def writable(self) -> bool:
        """Whether an append would succeed now, as far as can be told."""
        return self.trouble() is None

    def close_aged(self) -> None:
        """Close the segment if its time is over, so that it can be compacted although nothing is written;
        to be called now and then."""
        if (
            self._segment
            and not self._syncing
            and self._segment.opened_us + self._segment_us <= self._clock()
        ):
            self._close_segment(in_background=True)

    def turn_over(self) -> bool:
        """Close the segment whatever its age, as ``close_aged`` does; False if it is being synced just now."""
        if self._syncing:
            return False
        self._close_segment(in_background=True)
        return True

    def close(self) -> None:
        """Close the segment; a later append opens the next one."""
        self._close_segment(in_background=False)
        for thread in self._sealing:
            thread.join()
        self._sealing = []

    @property
    def used_bytes(self) -> int:
        """Size of the folder, all processes' segments and indexes, when it was last measured."""
        return self._room.used_bytes

    def _open_segment(self) -> _Segment:
        now_us, held = self._clock(), self._segment
        over = held and (
            held.size >= self._segment_bytes or held.opened_us + self._segment_us <= now_us
        )
        if over and not self._syncing:
            self._close_segment(in_background=True)
        if self._segment is None:
            self._segment = _Segment(self.folder, now_us, self.fsync)
        return self._segment

    def _close_segment(self, *, in_background: bool) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        if self.fsync and segment.synced_size < segment.size:
            with contextlib.suppress(OSError):  # whoever was answered had its own sync
                segment.sync()
        if in_background:
            self._sealing = [thread for thread in self._sealing if thread.is_alive()]
            self._sealing.append(threading.Thread(target=segment.close, name="journal-seal"))
            self._sealing[-1].start()
        else:
            segment.close()

    def _fail(self, what: str, error: OSError, keep: int) -> NoReturn:
        """Give up the segment, cut to what is whole; a later append opens the next one."""
        self._failure = str(error)
        self._probe_due = time.monotonic() + _PROBED_EVERY_S
        segment, self._segment = self._segment, None
        if segment:
            segment.cut(keep)
            segment.close()
        raise JournalError(
            f"{what} to the journal {self.folder}: {error}; free space or mend the folder, nothing is "
            "decided meanwhile"
        ) from error


class _Segment:
    """One open segment, locked, and its growing index. Its methods raise OSError."""

    def __init__(self, folder: Path, opened_us: int, fsync: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{opened_us:016d}-{os.getpid()}-{secrets.token_hex(4)}"
        self.opened_us = opened_us
        self.path = folder / f"{name}{SUFFIX}"
        self.size = self.synced_size = 0
        self._entries = bytearray()
        self._indexed_bytes = 0
        self._index_file = -1
        self._file = self._create(folder, name)
        if fsync:
            _sync_folder(folder)

    def _create(self, folder: Path, name: str) -> int:
        """Locked before it has its name, so that nobody ever takes it for a dead process's."""
        unnamed = folder / f"{name}.part"
        file = _open_new(unnamed)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            unnamed.rename(self.path)
        except OSError:
            os.close(file)
            raise
        return file

    def write(self, content: bytes) -> None:
        if os.fstat(self._file).st_nlink == 0:
            raise FileNotFoundError(f"{self.path} was removed while it was written")
        written = os.write(self._file, content)
        if written < len(content):
            raise OSError(f"only {written} of {len(content)} bytes fitted")
        self.size += written

    def sync(self) -> None:
        size = self.size
        os.fdatasync(self._file)
        self.synced_size = size

    def index(self, lines: Sequence[bytes], keys: Sequence[Key | None] | None) -> None:
        """Enter the decisions among the lines just written; an index that can't be written is short."""
        if keys is not None and not any(keys):
            return
        offset = self.size - sum(map(len, lines))
        for line, key in zip(lines, keys or map(key_in, lines), strict=True):
            if key is not None:
                self._entries += _pack(*key, offset, len(line))
            offset += len(line)
        with contextlib.suppress(OSError):
            self._write_index()

    def cut(self, keep: int) -> None:
        """Cut what lies behind ``keep`` bytes; if even that fails, it stays as a torn tail."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, keep)
        entries = np.frombuffer(bytes(self._entries), ENTRY)
        self._entries = bytearray(entries[entries["offset"] < keep].tobytes())

    def close(self) -> None:
        """Seal the segment: if that fails, who next mends the folder does it."""
        with contextlib.suppress(OSError):
            write_sorted(self.path, np.frombuffer(bytes(self._entries), ENTRY))
        os.close(self._file)
        if self._index_file >= 0:
            os.close(self._index_file)

    def _write_index(self) -> None:
        if self._index_file < 0:
            self._index_file = _open_new(growing_path(self.path))
        missing = self._entries[self._indexed_bytes :]
        if missing and os.write(self._index_file, missing) < len(missing):
            os.ftruncate(self._index_file, self._indexed_bytes)
            return
        self._indexed_bytes += len(missing)


def _open_new(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(path, flags, 0o640)


def _probe(folder: Path) -> None:
    """Raise OSError unless something can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{os.getpid()}.part"
    try:
        path.write_bytes(bytes(_PROBE_BYTES))
    finally:
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The journal: every decision, event and label as it was, in append-only segments of checksummed lines.

One record is one line, ``<crc32 of the JSON, 8 hex> <JSON>\\n``: it can be read with ``less`` and cut with
``grep``, and JSON holds no raw line break. Each process writes segments of its own, whose names sort by
the time they were opened. Here: framing, rotation, reading. Not here: what a record means.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from switchyard.errors import JournalError

SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment that has reached this size is closed and the next one opened."""

_SUFFIX = ".journal"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TornTail:
    """What a process that died in mid-write left at the end of its segment: no whole record follows."""

    file: Path
    offset: int
    lost_bytes: int


def frame(record: Any) -> bytes:
    """One record as one line of the journal; NaN becomes null.

    >>> frame({"type": "event", "amount": 1.5})
    b'df34d6f0 {"type":"event","amount":1.5}\\n'
    """
    body = _encode(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def unframe(line: bytes) -> Any:
    """The record of one line without its line break. Raises ValueError if it is not one, whole."""
    if len(line) < 10 or line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
        raise ValueError("not a whole record")
    return _decode(line[9:])


def wall_clock_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class Journal:
    """The segments that this process writes below ``folder``. Not thread-safe: one writer thread.

    Without ``fsync`` a record survives the death of the process, with it that of the machine. ``clock``
    (microseconds since the epoch) names the segments.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fsync: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], int] = wall_clock_us,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._file = -1
        self._size = 0

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, records: Sequence[Any]) -> None:
        """Write the records in order with one ``write``; they are all in the journal, or none is.

        Raises JournalError if they can't be written (disk full, folder gone); the next call tries anew.
        """
        if not records:
            return
        lines = b"".join(map(frame, records))
        try:
            self._write(lines)
        except OSError as error:
            self._give_up_segment()
            raise JournalError(
                f"{len(records)} records can't be written to the journal {self.folder}: {error}; "
                "free space or mend the folder, nothing is decided meanwhile"
            ) from error

    def close(self) -> None:
        """Close the segment; a later append opens the next one."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, lines: bytes) -> None:
        if self._file < 0 or self._size >= self._segment_bytes:
            self._open_segment()
        written = os.write(self._file, lines)
        if written < len(lines):
            raise OSError(f"only {written} of {len(lines)} bytes fitted")
        if self._fsync:
            os.fdatasync(self._file)
        self._size += written

    def _give_up_segment(self) -> None:
        """Cut what a failed write may have left; if even that fails, it stays as a torn tail."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
        self.close()

    def _open_segment(self) -> None:
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{self._clock():016d}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(self.folder / name, flags, 0o640)
        self._size = 0
        if self._fsync:
            _sync_folder(self.folder)


def segments(folder: Path) -> list[Path]:
    """The segments below ``folder``, by the time they were opened."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def read_journal(
    folder: Path, on_torn_tail: Callable[[TornTail], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Every whole record, segment by segment in the order they were opened.

    A torn tail ends its segment, is handed to ``on_torn_tail`` (default: logged as a warning), and the
    next segment goes on. Raises JournalError naming file and offset where whole records follow a damaged
    one: that is no torn write.
    """
    for file in segments(folder):
        tail = yield from _read_segment(file)
        if tail is not None:
            (on_torn_tail or _warn)(tail)


def find_decision(
    folder: Path, *, decision_id: str | None = None, transaction_id: str | None = None
) -> dict[str, Any] | None:
    """The newest journalled decision with that id, or on that transaction; None if there is none."""
    wanted = {"decision_id": decision_id} if decision_id else {"transaction_id": transaction_id}
    marks = [msgspec.json.encode(wanted)[1:-1], b'"type":"decision"']
    for file in reversed(segments(folder)):
        found = None
        with file.open("rb") as lines:
            for line in lines:
                if all(mark in line for mark in marks):
                    record = _whole(line)
                    found = record if record and _is_of(record, wanted) else found
        if found is not None:
            return found
    return None


def _is_of(record: dict[str, Any], wanted: Mapping[str, str | None]) -> bool:
    of = {**record.get("transaction", {}), **record}
    return record.get("type") == "decision" and all(of.get(k) == v for k, v in wanted.items())


def _read_segment(file: Path) -> Generator[dict[str, Any], None, TornTail | None]:
    offset = 0
    with file.open("rb") as lines:
        for line in lines:
            record = _whole(line)
            if record is None:
                break
            yield record
            offset += len(line)
        else:
            return None
        if any(_whole(later) is not None for later in lines):
            raise JournalError(
                f"{file} is damaged at byte {offset}: whole records follow a broken one; "
                "restore the segment from a copy, or set it aside with the decisions it holds"
            )
    return TornTail(file, offset, file.stat().st_size - offset)


def _whole(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = unframe(line[:-1])
    except ValueError:  # msgspec.DecodeError is one too
        return None
    return record if isinstance(record, dict) else None


def _warn(tail: TornTail) -> None:
    _log.warning("%s: torn tail of %d bytes at byte %d", tail.file, tail.lost_bytes, tail.offset)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

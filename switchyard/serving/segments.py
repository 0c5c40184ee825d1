"""Segments of the journal as files: the framing of a record, names, reading, and mending after a kill.

One record is one line, ``<crc32 of the JSON, 8 hex> <JSON>\\n``: it can be read with ``less`` and cut with
``grep``, and JSON holds no raw line break. A segment is locked (``flock``) by the process that writes it, so
that one without a lock has a dead writer or a done one. Not here: writing (``journal``), what a record means.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from switchyard.errors import JournalError

SUFFIX = ".journal"
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
    """One record, or its JSON as bytes, as one line of the journal; NaN becomes null.

    >>> frame({"type": "event", "amount": 1.5}) == frame(b'{"type":"event","amount":1.5}')
    True
    >>> frame(b'{"type":"event","amount":1.5}')
    b'df34d6f0 {"type":"event","amount":1.5}\\n'
    """
    body = record if isinstance(record, bytes) else _encode(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def body_of(line: bytes) -> bytes:
    """The JSON of one line without its line break. Raises ValueError if the line is not whole."""
    if len(line) < 10 or line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
        raise ValueError("not a whole record")
    return line[9:]


def unframe(line: bytes) -> Any:
    """The record of one line without its line break. Raises ValueError if it is not one, whole."""
    return _decode(body_of(line))


def whole(line: bytes) -> dict[str, Any] | None:
    """The record of a line with its line break, None if it is not one, whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = unframe(line[:-1])
    except ValueError:  # msgspec.DecodeError is one too
        return None
    return record if isinstance(record, dict) else None


def segments(folder: Path) -> list[Path]:
    """The segments below ``folder``, by the time they were opened."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def marker_of(segment: Path) -> Path:
    """The empty file that says that a segment is in the lake."""
    return segment.with_suffix(".compacted")


def opened_us(segment: Path) -> int:
    """When the segment was opened, microseconds since the epoch: its name says so.

    >>> opened_us(Path("1772366400000000-12-ab12cd34.journal"))
    1772366400000000
    """
    return int(segment.name.partition("-")[0])


def read_journal(
    folder: Path, on_torn_tail: Callable[[TornTail], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Every whole record, segment by segment in the order they were opened.

    A torn tail ends its segment, is handed to ``on_torn_tail`` (default: logged as a warning), and the
    next segment goes on. Raises JournalError naming file and offset where whole records follow a damaged
    one: that is no torn write.
    """
    for file in segments(folder):
        tail = yield from read_segment(file)
        if tail is not None:
            (on_torn_tail or warn)(tail)


def read_segment(file: Path) -> Generator[dict[str, Any], None, TornTail | None]:
    """The whole records of one segment; returns its torn tail, None if it has none."""
    offset = 0
    with file.open("rb") as lines:
        for line in lines:
            record = whole(line)
            if record is None:
                break
            yield record
            offset += len(line)
        else:
            return None
        if any(whole(later) is not None for later in lines):
            raise JournalError(
                f"{file} is damaged at byte {offset}: whole records follow a broken one; "
                "restore the segment from a copy, or set it aside with the decisions it holds"
            )
    return TornTail(file, offset, file.stat().st_size - offset)


def whole_bodies(file: Path) -> Iterator[bytes]:
    """The JSON of every whole line of a segment, also behind a damaged one; nothing if it is gone."""
    try:
        lines = file.open("rb")
    except FileNotFoundError:
        return
    with lines:
        for line in lines:
            if not line.endswith(b"\n"):
                continue
            try:
                yield body_of(line[:-1])
            except ValueError:
                _log.warning("%s: a damaged line of %d bytes is passed over", file, len(line))


def written_since(folder: Path, since_us: int) -> list[Path]:
    """The segments that were written to at or after that moment, by the time they were opened."""
    return [s for s in segments(folder) if s.stat().st_mtime_ns // 1000 >= since_us]


def warn(tail: TornTail) -> None:
    """Log what was lost."""
    _log.warning("%s: torn tail of %d bytes at byte %d", tail.file, tail.lost_bytes, tail.offset)


@contextlib.contextmanager
def closed_segment(segment: Path) -> Iterator[int | None]:
    """A descriptor of a segment that nobody writes, locked while it is used; None if somebody does, or it
    is gone."""
    try:
        descriptor = os.open(segment, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)

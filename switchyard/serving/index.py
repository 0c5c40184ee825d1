"""Where in a segment each decision stands: an index beside it, so that one of millions is found in a moment.

While a segment is written, ``<segment>.index`` grows by one ENTRY per decision; closed, it is replaced by
``<segment>.sorted``, columns in the order of the transactions' keys, searched through a memory map. Both can
be made again from the segment. Not here: what is done with a decision that was found (``ledger``).
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import mmh3
import msgspec
import numpy as np
import numpy.typing as npt

from switchyard.serving.segments import TornTail, body_of, closed_segment, segments, warn

ENTRY = np.dtype(
    [("transaction", "<u8"), ("decision", "<u8"), ("offset", "<u4"), ("length", "<u4")]
)
"""A decision's line in its segment (where, how long), under the keys of its two ids."""
Entries = npt.NDArray[np.void]
Keys = npt.NDArray[np.uint64]
Column = npt.NDArray[np.uint32]

_MAGIC = b"sywidx1\n"
_HEAD_BYTES = 16
_log = logging.getLogger(__name__)


class Key(NamedTuple):
    """The two keys under which a decision is found."""

    transaction: int
    decision: int


class Place(NamedTuple):
    """Where a line stands in its segment."""

    offset: int
    length: int


def key_of(name: str) -> int:
    """64-bit key of an id, the same in every process and for ever."""
    key: int = mmh3.hash64(name, signed=False)[0]
    return key


def key_of_decision(transaction_id: str, decision_id: str) -> Key:
    """What :meth:`Journal.append` wants to know of a decision."""
    return Key(key_of(transaction_id), key_of(decision_id))


class _Named(msgspec.Struct):
    transaction_id: str = ""


class _Ids(msgspec.Struct):
    type: str
    decision_id: str = ""
    transaction: _Named = msgspec.field(default_factory=_Named)


_decode_ids = msgspec.json.Decoder(_Ids).decode
_MARK = b'"type":"decision"'


def key_in(line: bytes) -> Key | None:
    """The keys of a journal line (with or without its line break), None if it is no decision."""
    if _MARK not in line:
        return None
    try:
        ids = _decode_ids(line[9:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if ids.type != "decision":
        return None
    return key_of_decision(ids.transaction.transaction_id, ids.decision_id)


# ---------------------------------------------------------------- files


def growing_path(segment: Path) -> Path:
    """The index of a segment that is being written."""
    return segment.with_suffix(".index")


def sorted_path(segment: Path) -> Path:
    """The index of a closed segment."""
    return segment.with_suffix(".sorted")


def write_sorted(segment: Path, entries: Entries) -> None:
    """Seal a closed segment: its sorted index appears whole, and the growing one goes."""
    entries = entries[np.argsort(entries["transaction"], kind="stable")]
    part = segment.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(_MAGIC + len(entries).to_bytes(8, "little"))
        for name in ("transaction", "decision", "offset", "length"):
            file.write(np.ascontiguousarray(entries[name]).tobytes())
        file.flush()
        os.fsync(file.fileno())
    part.replace(sorted_path(segment))
    growing_path(segment).unlink(missing_ok=True)


class SortedIndex:
    """Decisions in the order of their transactions' keys: of a closed segment, mapped into memory, or of a part of
    one that grows. All arrays have the same length."""

    def __init__(
        self, transactions: Keys, decisions: Keys, offsets: Column, lengths: Column
    ) -> None:
        self._transactions, self._decisions = transactions, decisions
        self._offsets, self._lengths = offsets, lengths

    @classmethod
    def of(cls, segment: Path) -> SortedIndex | None:
        """The sorted index of a segment; None if it has none, or none that is whole."""
        try:
            with sorted_path(segment).open("rb") as file:
                columns = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError):  # ValueError: an empty file
            return None
        count = int.from_bytes(columns[8:_HEAD_BYTES], "little")
        if columns[:8] != _MAGIC or len(columns) != _HEAD_BYTES + ENTRY.itemsize * count:
            return None
        return cls(
            np.frombuffer(columns, "<u8", count, _HEAD_BYTES),
            np.frombuffer(columns, "<u8", count, _HEAD_BYTES + 8 * count),
            np.frombuffer(columns, "<u4", count, _HEAD_BYTES + 16 * count),
            np.frombuffer(columns, "<u4", count, _HEAD_BYTES + 20 * count),
        )

    @classmethod
    def made_of(cls, entries: Entries) -> SortedIndex:
        """The sorted index of these entries."""
        entries = entries[np.argsort(entries["transaction"], kind="stable")]
        return cls(*(np.ascontiguousarray(entries[name]) for name in ENTRY.names or ()))

    def __len__(self) -> int:
        return len(self._transactions)

    def find(self, keys: Keys) -> Iterator[tuple[int, Place]]:
        """Which of ``keys`` (transactions') are here, as (position in ``keys``, place)."""
        first = np.searchsorted(self._transactions, keys)
        last = np.searchsorted(self._transactions, keys, side="right")
        for i in np.flatnonzero(last > first).tolist():
            for row in range(int(first[i]), int(last[i])):
                yield i, self._place(row)

    def find_decision(self, key: int) -> Iterator[Place]:
        """Places of the decision with that key."""
        for row in np.flatnonzero(self._decisions == np.uint64(key)).tolist():
            yield self._place(row)

    def _place(self, row: int) -> Place:
        return Place(int(self._offsets[row]), int(self._lengths[row]))


_NEWEST = 2_048
"""Entries of a growing index that are sorted apart from the many before them."""


class GrowingIndex:
    """The index of a segment that may still be written, read as far as it goes, the rest from the segment.

    Each :meth:`refresh` reads only what came since the last one. It takes some 50 bytes for each decision: as
    objects of the interpreter, a segment's 50,000 would take 17 MB, and each collection of garbage 8 ms.
    """

    def __init__(self, segment: Path) -> None:
        self.segment = segment
        self._read_entries = 0
        self._covered = 0
        self._entries = self._newest = np.empty(0, ENTRY)
        self._parts = (SortedIndex.made_of(self._entries), SortedIndex.made_of(self._newest))

    def refresh(self) -> None:
        """Take in what was written since. Raises FileNotFoundError if the segment is gone."""
        with contextlib.suppress(FileNotFoundError), growing_path(self.segment).open("rb") as file:
            file.seek(self._read_entries * ENTRY.itemsize)
            content = file.read()
            entries = np.frombuffer(content, ENTRY, len(content) // ENTRY.itemsize)
            self._read_entries += len(entries)
            self._take(entries)
        self._take(self._tail())

    def find(self, keys: Keys) -> Iterator[tuple[int, Place]]:
        """As in a :class:`SortedIndex`; a place may come twice."""
        return chain.from_iterable(part.find(keys) for part in self._parts)

    def find_decision(self, key: int) -> Iterator[Place]:
        """Places of the decision with that key; a place may come twice."""
        return chain.from_iterable(part.find_decision(key) for part in self._parts)

    def _tail(self) -> Entries:
        """What the segment holds beyond its index: a kill, or a full disk, may come between the two."""
        found: list[tuple[int, int, int, int]] = []
        with self.segment.open("rb") as lines:
            if lines.seek(0, os.SEEK_END) > self._covered:
                lines.seek(self._covered)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    if key := key_in(line):
                        found.append((*key, self._covered, len(line)))
                    self._covered += len(line)
        return np.array(found, ENTRY)

    def _take(self, entries: Entries) -> None:
        if not len(entries):
            return
        ends = entries["offset"].astype(np.int64) + entries["length"]
        self._covered = max(self._covered, int(ends.max()))
        self._newest = np.concatenate([self._newest, entries])
        if len(self._newest) > _NEWEST:
            self._entries = np.concatenate([self._entries, self._newest])
            self._newest = np.empty(0, ENTRY)
            self._parts = (SortedIndex.made_of(self._entries), SortedIndex.made_of(self._newest))
        else:
            self._parts = (self._parts[0], SortedIndex.made_of(self._newest))


# ---------------------------------------------------------------- mending


class Mended(NamedTuple):
    """A segment whose writer had died, now sealed, and what was cut from its end."""

    segment: Path
    cut: TornTail | None


def mend(folder: Path, before: Callable[[Path], None] = lambda _segment: None) -> list[Mended]:
    """Cut the torn tails of segments whose writer is dead, and seal those segments; which they were.

    ``before`` is told of each before it is sealed: if that is interrupted, the next one is told again.

    To be called before a process begins to serve. What is being written, or sealed, is left alone. A
    segment that is damaged in its middle is sealed with the whole lines it holds and cut nowhere: reading
    it says where it is damaged.
    """
    unsealed = [segment for segment in segments(folder) if SortedIndex.of(segment) is None]
    return [mended for segment in unsealed if (mended := _mend(segment, before)) is not None]


def _mend(segment: Path, before: Callable[[Path], None]) -> Mended | None:
    with closed_segment(segment) as descriptor:
        if descriptor is None or SortedIndex.of(segment) is not None:
            return None
        before(segment)
        entries, sound = _scan(segment)
        lost = os.fstat(descriptor).st_size - sound
        if lost:
            os.ftruncate(descriptor, sound)
            os.fsync(descriptor)
        write_sorted(segment, entries)
    tail = TornTail(segment, sound, lost) if lost else None
    if tail is not None:
        warn(tail)
    return Mended(segment, tail)


def entries_of(segment: Path) -> Entries:
    """The entries of a segment's whole lines, in their order."""
    return _scan(segment)[0]


def _scan(segment: Path) -> tuple[Entries, int]:
    """Entries of the whole lines, and where the last of them ends."""
    found: list[tuple[int, int, int, int]] = []
    offset = sound = 0
    with segment.open("rb") as lines:
        for line in lines:
            if _is_whole(line):
                sound = offset + len(line)
                if key := key_in(line):
                    found.append((*key, offset, len(line)))
            offset += len(line)
    return np.array(found, ENTRY), sound


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and bool(body_of(line[:-1]))
    except ValueError:
        return False

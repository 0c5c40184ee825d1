"""Decisions of the journal by their ids, found through the segments' indexes without reading the segments.

Every process of the host may look while others write. Not here: the indexes themselves (``index``), what a
found decision means for a request (``ledger``).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from switchyard.serving.index import GrowingIndex, Place, SortedIndex, key_of
from switchyard.serving.segments import SUFFIX, body_of, unframe

_SETTLED_NS = 1_000_000_000
"""A folder whose time of change is younger may have changed since within the same tick of the clock."""


class _Named(msgspec.Struct):
    transaction_id: str = ""


class _Dated(msgspec.Struct):
    transaction: _Named
    received_at: int


_decode_dated = msgspec.json.Decoder(_Dated).decode


class DecidedIndex:
    """The decisions journalled below ``folder``. Any thread may ask, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._listed_ns = -1
        self._sorted: dict[Path, tuple[SortedIndex, int]] = {}
        self._growing: dict[Path, GrowingIndex] = {}

    def first_of(self, transaction_ids: Sequence[str], since_us: int) -> dict[str, bytes]:
        """The journalled JSON of the first decision since ``since_us`` on each transaction that has one."""
        keys = np.array([key_of(name) for name in transaction_ids], np.uint64)
        first: dict[str, tuple[int, bytes]] = {}
        with self._lock:
            for segment, index in self._indexes(since_us):
                for i, place in index.find(keys):
                    name = transaction_ids[i]
                    dated = _dated(_line(segment, place), name)
                    if dated and since_us <= dated[0] < first.get(name, (1 << 63,))[0]:
                        first[name] = dated
        return {name: body for name, (_, body) in first.items()}

    def newest(
        self, *, decision_id: str | None = None, transaction_id: str | None = None
    ) -> dict[str, Any] | None:
        """The newest journalled decision with that id, or on that transaction; None if there is none."""
        with self._lock:
            indexes = list(self._indexes())
            for segment, index in reversed(indexes):
                if decision_id is not None:
                    places = list(index.find_decision(key_of(decision_id)))
                else:
                    key = np.array([key_of(transaction_id or "")], np.uint64)
                    places = [place for _, place in index.find(key)]
                for place in sorted(places, reverse=True):
                    record = _record(_line(segment, place))
                    if isinstance(record, dict) and _is_of(record, decision_id, transaction_id):
                        return record
        return None

    def _indexes(self, since_us: int = 0) -> Iterator[tuple[Path, SortedIndex | GrowingIndex]]:
        """Segments that were written since then, and their indexes, oldest first."""
        self._list()
        for segment in sorted({*self._sorted, *self._growing}):
            if segment in self._sorted:
                sealed, written_us = self._sorted[segment]
                if written_us >= since_us:
                    yield segment, sealed
            else:
                try:
                    self._growing[segment].refresh()
                except FileNotFoundError:
                    continue
                yield segment, self._growing[segment]

    def _list(self) -> None:
        """Follow the folder: a segment appears, is sealed, goes."""
        try:
            changed_ns = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            changed_ns = 0
        if changed_ns == self._listed_ns:
            return
        self._listed_ns = changed_ns if time.time_ns() - changed_ns > _SETTLED_NS else -1
        names = set(os.listdir(self._folder)) if changed_ns else set()
        here = {self._folder / name for name in names if name.endswith(SUFFIX)}
        self._sorted = {s: held for s, held in self._sorted.items() if s in here}
        for segment in here - set(self._sorted):
            sealed = SortedIndex.of(segment) if f"{segment.stem}.sorted" in names else None
            if sealed is not None:
                self._sorted[segment] = sealed, _written_us(segment)
        self._growing = {
            segment: self._growing.get(segment) or GrowingIndex(segment)
            for segment in here - set(self._sorted)
        }


def _line(segment: Path, place: Place) -> bytes:
    """The line at a place, b"" if the segment is gone."""
    try:
        with segment.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), place.length, place.offset)
    except FileNotFoundError:
        return b""


def _dated(line: bytes, transaction_id: str) -> tuple[int, bytes] | None:
    """When a decision was asked for, and its JSON; None if the line is no whole decision on it."""
    try:
        body = body_of(line[:-1])
        decision = _decode_dated(body)
    except ValueError:
        return None
    return (
        (decision.received_at, body)
        if decision.transaction.transaction_id == transaction_id
        else None
    )


def _record(line: bytes) -> Any:
    try:
        return unframe(line[:-1])
    except ValueError:
        return None


def _is_of(record: dict[str, Any], decision_id: str | None, transaction_id: str | None) -> bool:
    if decision_id is not None:
        return bool(record.get("decision_id") == decision_id)
    return bool(record.get("transaction", {}).get("transaction_id") == transaction_id)


def _written_us(segment: Path) -> int:
    try:
        return segment.stat().st_mtime_ns // 1000
    except FileNotFoundError:
        return 0

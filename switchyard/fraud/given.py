"""The numbers that the store gave lately, as the journal has them: what a store that lost its end can't match.

Read when the store's server is another one than before (started again, a replica in its place): whatever it
lost it lost from its end, so the newest numbers tell. Not here: what follows from a loss (``caretaking``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from switchyard.serving.segments import body_of, written_since

TAIL_BYTES = 16 * 1024 * 1024
"""Read of each segment: some ten thousand decisions."""
LATELY_US = 600_000_000
"""Segments that were written to in so many microseconds before the newest one are read."""


class _Subject(msgspec.Struct):
    transaction_id: str
    customer_id: str


class _Line(msgspec.Struct):
    type: str
    transaction: _Subject | None = None
    transaction_id: str = ""
    customer_id: str = ""
    customer_seq: int | None = None
    epoch: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


def numbers_given(folder: Path, epoch: str) -> dict[str, int]:
    """Customer -> the newest number that the store gave lately to an event of theirs in that epoch."""
    customers: dict[str, str] = {}
    given: dict[str, int] = {}
    for segment in _lately_written(folder):
        for body in _tail(segment):
            try:
                line = _decode(body)
            except msgspec.ValidationError:  # of another version: it tells nothing
                continue
            if line.transaction is not None:
                customers[line.transaction.transaction_id] = line.transaction.customer_id
            elif line.type == "label":
                customers[line.transaction_id] = line.customer_id
            elif line.customer_seq is not None and line.epoch == epoch:
                customer = customers.get(line.transaction_id)
                if customer is not None:
                    given[customer] = max(line.customer_seq, given.get(customer, 0))
    return given


def _lately_written(folder: Path) -> list[Path]:
    every = written_since(folder, 0)
    newest_us = max((s.stat().st_mtime_ns // 1000 for s in every), default=0)
    return written_since(folder, newest_us - LATELY_US)


def _tail(segment: Path) -> Iterator[bytes]:
    """The JSON of the whole lines at the segment's end."""
    with segment.open("rb") as lines:
        size = lines.seek(0, 2)
        lines.seek(max(0, size - TAIL_BYTES))
        for line in lines:
            try:
                yield body_of(line[:-1])
            except ValueError:  # the line that the tail begins in, or a torn one
                continue

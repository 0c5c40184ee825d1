"""Stored profiles read by the batch: Feast's protobuf values of many rows become one matrix, compiled.

A row is a Timestamp and int64 values, one after the other; a null is marked by a byte that begins neither.
Not here: the format itself (``feast_format``), which also reads and writes single values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from switchyard.compiling import compiled
from switchyard.serving.feast_format import MISSING, Ints

_NULL = b"\x00"
INT64_TAG, SECONDS_TAG, NANOS_TAG = 0x20, 0x08, 0x10
Bytes = npt.NDArray[np.uint8]


class StoredRows(NamedTuple):
    """n rows: ``values`` int64[n, width], MISSING for null and for all of an absent row; ``times`` int64[n]
    in microseconds, MISSING for an absent row; ``damaged``: those that can't be read, which read as absent.
    """

    values: Ints
    times: Ints
    damaged: list[int]


def read_rows(replies: list[object], width: int) -> StoredRows:
    """The replies of HMGET (the time, then ``width`` values) as rows, in their order."""
    texts, damaged = [], []
    for i, reply in enumerate(replies):
        text = b""
        if not isinstance(reply, list) or len(reply) != width + 1:
            damaged.append(i)
        elif reply[0] is not None:
            try:
                text = b"".join([value or _NULL for value in reply])
            except TypeError:  # a number, an error
                damaged.append(i)
        texts.append(text)
    n = len(texts)
    values, times = np.empty((n, width), np.int64), np.empty(n, np.int64)
    fine = np.empty(n, np.bool_)
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, n))
    _decode(np.frombuffer(b"".join(texts) or _NULL, np.uint8), ends, values, times, fine)
    if not fine.all():
        damaged += np.flatnonzero(~fine).tolist()
    return StoredRows(values, times, damaged)


@compiled
def read_varint(text: Bytes, at: int, end: int) -> Any:
    """The 64-bit number that starts there, and where it ends; -1 where it does not end in time."""
    number, shift = np.int64(0), np.int64(0)
    while at < end and shift < 70:
        byte = np.int64(text[at])
        at += 1
        number |= (byte & 0x7F) << shift if shift < 64 else np.int64(0)
        if byte < 0x80:
            return number, at
        shift += 7
    return np.int64(0), np.int64(-1)


@compiled
def _decode_row(text: Bytes, at: int, end: int, values: Ints) -> Any:
    """Fill in ``values``; the row's time in microseconds, MISSING if it is no row."""
    seconds: Any = np.int64(0)
    nanos: Any = np.int64(0)
    if text[at] == 0:
        at += 1
    while at < end and (text[at] == SECONDS_TAG or text[at] == NANOS_TAG):
        tag = text[at]
        number, at = read_varint(text, at + 1, end)
        if at < 0:
            return MISSING
        if tag == SECONDS_TAG:
            seconds = number
        else:
            nanos = number
    for k in range(len(values)):
        if at >= end:
            return MISSING
        if text[at] == 0:
            values[k], at = MISSING, at + 1
        elif text[at] == INT64_TAG:
            values[k], at = read_varint(text, at + 1, end)
            if at < 0:
                return MISSING
        else:
            return MISSING
    return seconds * 1_000_000 + nanos // 1_000 if at == end else MISSING


@compiled
def _decode(
    text: Bytes, ends: Ints, values: Ints, times: Ints, fine: npt.NDArray[np.bool_]
) -> None:
    start = 0
    for i in range(len(ends)):
        times[i] = MISSING if ends[i] == start else _decode_row(text, start, ends[i], values[i])
        fine[i] = times[i] != MISSING or ends[i] == start
        if times[i] == MISSING:
            values[i] = MISSING
        start = ends[i]

"""A read trip taken from the bytes of its answers: no object for each of a profile's values.

Compiled, and for answers alone that are as a healthy store gives them: whatever is not is None here, and
``trip`` reads it the slow way and says what is wrong. Here too: where answers end. Not here: what a trip means
(``trip``), single values of Feast's format (``feast_format``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from switchyard import compiling
from switchyard.serving.feast_format import MISSING, Ints, View
from switchyard.serving.stored_rows import INT64_TAG, NANOS_TAG, SECONDS_TAG, read_varint
from switchyard.serving.trip import Trip, Wanted, claimed, epoch_of, mark_of

Bytes = npt.NDArray[np.uint8]

MOST_BYTES = 512 * 1024 * 1024
"""The longest string that the protocol has."""
_STAR, _DOLLAR, _MINUS, _COLON, _PLUS = 0x2A, 0x24, 0x2D, 0x3A, 0x2B
_RETURN, _FEED, _ZERO, _NINE = 0x0D, 0x0A, 0x30, 0x39
_NOT_YET, _WRONG = -1, -2
_NIL = -1
_F = TypeVar("_F", bound=Callable[..., Any])


def _compiled(function: _F) -> _F:
    return compiling.compiled(function, compiled_in=("stored_rows", "feast_format"))


def ends_at(text: bytes, at: int, left: int) -> tuple[int, int]:
    """How far whole answers go from ``at`` on, and how many of ``left`` are still to come (-1: no protocol).

    >>> ends_at(b"+OK\\r\\n$2\\r\\nab\\r\\n:1", 0, 3)
    (13, 1)
    """
    end, still = _scan(np.frombuffer(text, np.uint8), at, left)
    return int(end), int(still)


def read_raw(views: tuple[View, ...], wanted: Sequence[Wanted], text: bytes) -> Trip | None:
    """The trip in the answers of ``Commands.read`` for transactions that all make a claim, as
    ``trip.read_trip`` reads it; None if anything is not as it usually is."""
    n, count = len(wanted), len(views)
    profiles = tuple([np.empty((n, len(view.features)), np.int64) for view in views])
    times = np.empty((count, n), np.int64)
    places = np.empty(((count + 1) * (n + 1), 2), np.int64)
    if not _decode(np.frombuffer(text, np.uint8), n, profiles, times, places):
        return None
    parts = [None if end == _NIL else text[start:end] for start, end in places.tolist()]
    size = n * (count + 1)
    claims = [claimed(part) for part in parts[count : size : count + 1]]
    if None in claims:
        return None
    *marks, epoch = parts[size:]
    return Trip(
        profiles,
        tuple(times),
        tuple([part or b"" for part in parts[v : size : count + 1]] for v in range(count)),
        claims,
        tuple(map(mark_of, marks)),
        frozenset(),
        epoch_of(epoch),
    )


def compile_raw(views: tuple[View, ...]) -> None:
    """Compile what reads trips of so many views, or find it compiled."""
    ends_at(b"+\r\n", 0, 1)
    read_raw(views, (), b"\r\n")


@_compiled
def _number(text: Bytes, at: int) -> Any:
    """The number of a line that began before ``at``, and where the next line begins: _NOT_YET if the line
    is not all there, _WRONG if it is no number."""
    if at >= len(text):
        return np.int64(0), np.int64(_NOT_YET)
    negative = text[at] == _MINUS
    if negative:
        at += 1
    number, first = np.int64(0), at
    while at < len(text) and _ZERO <= text[at] <= _NINE and at - first < 19:
        number = number * 10 + np.int64(text[at]) - _ZERO
        at += 1
    if at + 1 >= len(text) and at - first < 19:
        return np.int64(0), np.int64(_NOT_YET if at >= len(text) or text[at] == _RETURN else _WRONG)
    if at == first or text[at] != _RETURN or text[at + 1] != _FEED:
        return np.int64(0), np.int64(_WRONG)
    return (-number if negative else number), at + 2


@_compiled
def _scan(text: Bytes, at: int, left: int) -> Any:
    while left > 0 and at < len(text):
        kind = text[at]
        if kind in (_PLUS, _MINUS):
            end = at + 1
            while end + 1 < len(text) and not (text[end] == _RETURN and text[end + 1] == _FEED):
                end += 1
            if end + 1 >= len(text):
                return at, left
            at, left = end + 2, left - 1
            continue
        if kind != _DOLLAR and kind != _STAR and kind != _COLON:
            return at, np.int64(-1)
        number, after = _number(text, at + 1)
        if after == _NOT_YET:
            return at, left
        if after == _WRONG or (kind != _COLON and not -1 <= number <= MOST_BYTES):
            return at, np.int64(-1)
        if kind == _DOLLAR and number >= 0:
            if after + number + 2 > len(text):
                return at, left
            if text[after + number] != _RETURN:
                return at, np.int64(-1)
            after += number + 2
        at, left = after, left - 1
        if kind == _STAR and number > 0:
            left += number
    return at, left


@_compiled
def _string(text: Bytes, at: int) -> Any:
    """A string's beginning and end, and where the next answer begins: (_NIL, _NIL, ..) for none, _WRONG last
    for what is no string."""
    if at >= len(text) or text[at] != _DOLLAR:
        return np.int64(_NIL), np.int64(_NIL), np.int64(_WRONG)
    size, start = _number(text, at + 1)
    if start < 0:
        return np.int64(_NIL), np.int64(_NIL), np.int64(_WRONG)
    if size < 0:
        return np.int64(_NIL), np.int64(_NIL), start
    return start, start + size, start + size + 2


@_compiled
def _time(text: Bytes, at: int, end: int) -> Any:
    """A Timestamp in microseconds, MISSING if it is none."""
    seconds: Any = np.int64(0)
    nanos: Any = np.int64(0)
    while at < end:
        tag = text[at]
        number, at = read_varint(text, at + 1, end)
        if at < 0 or (tag != SECONDS_TAG and tag != NANOS_TAG):
            return np.int64(MISSING)
        if tag == SECONDS_TAG:
            seconds = number
        else:
            nanos = number
    return seconds * 1_000_000 + nanos // 1_000


@_compiled
def _profile(text: Bytes, at: int, values: Ints) -> Any:
    """Fill in a profile; its time, and where the next answer begins, _WRONG if it is no profile."""
    wrong = np.int64(MISSING), np.int64(_WRONG)
    if at >= len(text) or text[at] != _STAR:
        return wrong
    size, at = _number(text, at + 1)
    if at < 0 or size != len(values) + 1:
        return wrong
    start, end, at = _string(text, at)
    if at < 0:
        return wrong
    there = start >= 0
    moment = _time(text, start, end) if there else np.int64(MISSING)
    if there and moment == MISSING:
        return wrong
    for k in range(len(values)):
        start, end, at = _string(text, at)
        if at < 0:
            return wrong
        values[k] = MISSING
        if there and start < end:
            if text[start] != INT64_TAG:
                return wrong
            values[k], start = read_varint(text, start + 1, end)
            if start != end:
                return wrong
    return moment, at


@_compiled
def _decode(text: Bytes, n: int, profiles: tuple[Ints, ...], times: Ints, places: Ints) -> bool:
    """Fill in profiles, their times, and where activities and claims, then marks and epoch lie."""
    at: Any = np.int64(0)
    place = 0
    for i in range(n):
        for v in range(len(profiles)):
            times[v, i], at = _profile(text, at, profiles[v][i])
            if at < 0:
                return False
            places[place, 0], places[place, 1], at = _string(text, at)
            if at < 0:
                return False
            place += 1
        places[place, 0], places[place, 1], at = _string(text, at)
        if at < 0:
            return False
        place += 1
    for _ in range(len(profiles) + 1):
        places[place, 0], places[place, 1], at = _string(text, at)
        if at < 0:
            return False
        place += 1
    whole: bool = at == len(text)
    return whole

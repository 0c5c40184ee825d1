"""Answers read from the wire's bytes: the same trip as read from objects, or None."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import StoreError
from switchyard.serving.feast_format import MISSING, View, encode_time
from switchyard.serving.raw_trip import ends_at, read_raw
from switchyard.serving.trip import Claim, Trip, Wanted, read_trip
from switchyard.serving.wire import MORE, bulk, new_reader


def encode_value(number: int) -> bytes:
    """An int64 as Feast writes it: a protobuf field, a varint."""
    rest, septets = number % 2**64, bytearray(b"\x20")
    while rest > 0x7F:
        septets.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*septets, rest])


VIEWS = (
    View("card_profile", "card_id", "card", ("a", "b", "c")),
    View("shop_profile", "shop_id", "shop", ("d",)),
)
NIL = b"$-1\r\n"
Row = tuple[int | None, list[int | None]] | None


def profile(row: Row, width: int) -> bytes:
    """The answer to HMGET: time and values, or nothing at all."""
    head = b"*%d\r\n" % (width + 1)
    if row is None:
        return head + NIL * (width + 1)
    time, values = row
    cells = [NIL if v is None else bulk(encode_value(v)) for v in values]
    return head + (NIL if time is None else bulk(encode_time(time))) + b"".join(cells)


def answer(value: bytes | None) -> bytes:
    return NIL if value is None else bulk(value)


def rows(width: int) -> st.SearchStrategy[Row]:
    number = st.none() | st.integers(MISSING + 1, 2**63 - 1)
    times = st.none() | st.integers(0, 2**55)
    return st.none() | st.tuples(times, st.lists(number, min_size=width, max_size=width))


CLAIMS = st.sampled_from(
    [None, b"r" + bytes(16) + b'{"score":1}', b"c" + bytes(range(32)), b"r" + b"\r\n$3" * 8]
)
TRANSACTIONS = st.lists(
    st.tuples(rows(3), st.none() | st.binary(), rows(1), st.none() | st.binary(), CLAIMS),
    max_size=4,
)
ENDS = st.tuples(
    st.none() | st.integers(0, 2**55), st.none() | st.integers(0, 2**55), st.none() | st.text()
)


def text_of(
    transactions: list[tuple[Row, bytes | None, Row, bytes | None, bytes | None]],
    ends: tuple[int | None, int | None, str | None],
) -> bytes:
    parts = [
        profile(card, 3) + answer(cards) + profile(shop, 1) + answer(shops) + answer(claim)
        for card, cards, shop, shops, claim in transactions
    ]
    marks = [answer(None if mark is None else b"%d" % mark) for mark in ends[:2]]
    return b"".join([*parts, *marks, answer(None if ends[2] is None else ends[2].encode())])


def by_objects(wanted: list[Wanted], text: bytes) -> Trip:
    reader, answers = new_reader(), []
    reader.feed(text)
    while (reply := reader.gets()) is not MORE:
        answers.append(reply)
    return read_trip(VIEWS, wanted, answers)


def same(one: Trip, other: Trip) -> bool:
    arrays = zip(
        (*one.profiles, *one.available_at), (*other.profiles, *other.available_at), strict=True
    )
    return all(np.array_equal(a, b) for a, b in arrays) and one[2:] == other[2:]


def wanted_of(count: int) -> list[Wanted]:
    return [Wanted(("c", "s"), Claim("t", bytes(16), bytes(16)))] * count


@given(TRANSACTIONS, ENDS)
def test_a_trip_is_the_same_from_bytes_as_from_objects(transactions: list, ends: tuple) -> None:
    wanted, text = wanted_of(len(transactions)), text_of(transactions, ends)

    read = read_raw(VIEWS, wanted, text)

    assert read is not None
    assert same(read, by_objects(wanted, text))


@given(TRANSACTIONS, ENDS, st.data())
def test_of_bytes_that_were_changed_it_says_what_the_objects_say_or_nothing(
    transactions: list, ends: tuple, data: st.DataObject
) -> None:
    wanted, text = wanted_of(len(transactions)), bytearray(text_of(transactions, ends))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    if ends_at(bytes(text), 0, 5 * len(wanted) + 3) != (len(text), 0):
        return  # the connection is given up before anybody reads this

    try:
        read = read_raw(VIEWS, wanted, bytes(text))
    except StoreError:  # a mark that is no time
        return

    if read is not None:
        assert same(read, by_objects(wanted, bytes(text)))


@pytest.mark.parametrize(
    "wrong",
    [
        b"-LOADING wait\r\n",
        b":1\r\n",
        b"*0\r\n",
        b"$3\r\nabc\r\n",
        b"*4\r\n$1\r\n\x08\r\n:1\r\n:1\r\n:1\r\n",
    ],
)
def test_an_answer_of_another_kind_is_left_to_the_slow_way(wrong: bytes) -> None:
    good = text_of([(None, None, None, None, None)], (None, None, None))

    assert read_raw(VIEWS, wanted_of(1), wrong + good[len(profile(None, 3)) :]) is None


PIECES = (
    b"+OK\r\n", b"-ERR no\r\n", b":-12\r\n", NIL, b"$0\r\n\r\n", bulk(b"a\r\n$9"), b"*-1\r\n", b"*0\r\n",
    b"*2\r\n$-1\r\n*2\r\n:1\r\n+x\r\n",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8), st.integers(0, 200))
def test_answers_end_where_they_end_however_they_arrive(pieces: list[bytes], seed: int) -> None:
    text, at, left = b"".join(pieces), 0, len(pieces)
    cuts = sorted(random.Random(seed).choices(range(len(text) + 1), k=3))

    for cut in cuts:
        at, left = ends_at(text[:cut], at, left)
        assert left > 0 or cut >= at
    at, left = ends_at(text + b":7\r\n", at, left)

    assert (at, left) == (len(text), 0)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400\r\n",
        b"$abc\r\n",
        b"$-2\r\n",
        b"$1\r\nabc",
        b"*99999999999999\r\n",
        b":\r\n",
        b"$3\r3\r\n",
    ],
)
def test_what_is_no_protocol_is_told(garbage: bytes) -> None:
    assert ends_at(garbage, 0, 1)[1] == -1

"""Rows as the store holds them, read by the batch: whole, absent, with nulls, or damaged and said to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.serving.feast_format import MISSING, encode_time
from switchyard.serving.stored_rows import read_rows

INT64 = st.integers(-(2**63) + 1, 2**63 - 1)


def stored(number: int | None) -> bytes:
    """An int64 as protobuf's Value, b"" for null."""
    if number is None:
        return b""
    number, out = number & (2**64 - 1), bytearray(b"\x20")
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@given(st.lists(st.lists(st.none() | INT64, min_size=3, max_size=3), max_size=5), st.data())
def test_every_row_comes_out_as_it_went_in(
    rows: list[list[int | None]], data: st.DataObject
) -> None:
    moments = [data.draw(st.integers(0, 2**52)) for _ in rows]
    replies = [
        [encode_time(moment), *map(stored, row)] for moment, row in zip(moments, rows, strict=True)
    ]

    read = read_rows(replies, 3)

    assert read.values.tolist() == [[MISSING if v is None else v for v in row] for row in rows]
    assert read.times.tolist() == moments
    assert read.damaged == []


def test_an_absent_row_is_missing_and_not_damaged() -> None:
    read = read_rows([[None, None], [b"\x08\x01", b"\x20\x05"]], 1)

    assert read.times.tolist() == [MISSING, 1_000_000]
    assert read.values.tolist() == [[MISSING], [5]]
    assert read.damaged == []


@pytest.mark.parametrize(
    "reply",
    [
        None,
        7,
        ValueError("WRONGTYPE"),
        [b"\x08\x01"],
        [b"\x08\x01", 5],
        [b"\x08\x01", b"garbage"],
        [b"garbage", b"\x20\x05"],
        [b"\x08\x01", b"\x20"],
        [b"\x08\x01", b"\x20\x80"],
        [b"\x08\x01", b"\x20\x05\x20\x06"],
        [b"\x08\x01", b"\x20" + b"\x80" * 20],
        [b"\x08", b""],
    ],
)
def test_a_damaged_row_reads_as_absent_and_leaves_its_neighbours_alone(reply: object) -> None:
    fine = [b"\x08\x01", b"\x20\x05"]

    read = read_rows([fine, reply, fine], 1)

    assert read.damaged == [1]
    assert read.times.tolist() == [1_000_000, MISSING, 1_000_000]
    assert read.values.tolist() == [[5], [MISSING], [5]]

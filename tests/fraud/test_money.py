"""Amounts: exact, never rounded, and refused with the reason; one by one as by the column."""

from __future__ import annotations

import math
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from switchyard.errors import InputError
from switchyard.fraud.columns import MAX_AMOUNT_MINOR
from switchyard.fraud.countries import COUNTRIES
from switchyard.fraud.money import (
    AMOUNT_REASONS,
    CURRENCIES,
    decimals_of,
    format_minor,
    minor_units,
    parse_amount,
    parse_amounts,
    plain_amount,
)

currencies = st.sampled_from(["EUR", "JPY", "KWD", "CLF"])
texts = st.one_of(
    st.from_regex(r"[+-]?[0-9]{0,12}\.?[0-9]{0,6}(e[+-]?[0-9]{1,2})?", fullmatch=True),
    st.sampled_from(["NaN", "inf", "-Infinity", "1_000", "1,5", "", " 1", "١٢", "0x10", "1e", "."]),
    st.text(max_size=8),
)


def reason_of(value: object, currency: str) -> str | None:
    """The reason by the message of the one-amount parser."""
    words = {
        "is negative": "negative_amount",
        "is above": "amount_too_large",
        "more than the": "too_many_decimals",
        "not a finite number": "bad_amount",
    }
    try:
        parse_amount(value, currency)  # type: ignore[arg-type]
    except InputError as error:
        return next(reason for word, reason in words.items() if word in str(error))
    return None


def test_iso_4217_has_the_decimals_of_its_exceptions() -> None:
    without = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"

    assert " ".join(sorted(c for c, d in CURRENCIES.items() if d == 0)) == without
    assert {c for c, d in CURRENCIES.items() if d == 3} == {
        "BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND",
    }  # fmt: skip
    assert {c for c, d in CURRENCIES.items() if d == 4} == {"CLF", "UYW"}
    assert minor_units("KWD") == 1000


@pytest.mark.parametrize("code", ["eur", "XXX", "EURO", ""])
def test_an_unknown_currency_is_an_error(code: str) -> None:
    with pytest.raises(InputError, match="ISO 4217"):
        decimals_of(code)


@pytest.mark.parametrize(
    ("value", "currency", "minor"),
    [
        ("57.16", "EUR", 5716),
        (57.16, "EUR", 5716),
        (Decimal("57.160"), "EUR", 5716),
        ("57.1600", "EUR", 5716),
        (57, "JPY", 57),
        ("57.0", "JPY", 57),
        ("0.0001", "CLF", 1),
        ("1e3", "EUR", 100_000),
        (-0.0, "EUR", 0),
        ("1000000.00", "EUR", MAX_AMOUNT_MINOR),
    ],
)
def test_an_amount_is_parsed_exactly(value: object, currency: str, minor: int) -> None:
    assert parse_amount(value, currency) == minor  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "currency", "reason"),
    [
        (57.165, "EUR", "too_many_decimals"),
        ("57.165", "EUR", "too_many_decimals"),
        (0.1 + 0.2 + 1e-12, "EUR", "too_many_decimals"),
        ("1.0000000000000000000000000000000000000000001", "EUR", "too_many_decimals"),
        (Decimal("1E-999999"), "EUR", "too_many_decimals"),
        ("57.5", "JPY", "too_many_decimals"),
        ("-0.01", "EUR", "negative_amount"),
        ("1000000.01", "EUR", "amount_too_large"),
        (10**400, "EUR", "amount_too_large"),
        (1e308, "EUR", "amount_too_large"),
        (float("nan"), "EUR", "bad_amount"),
        (float("-inf"), "EUR", "bad_amount"),
        ("twelve", "EUR", "bad_amount"),
        ("1,50", "EUR", "bad_amount"),
        ("", "EUR", "bad_amount"),
        (True, "EUR", "bad_amount"),
    ],
)
def test_a_refused_amount_says_which_it_is(value: object, currency: str, reason: str) -> None:
    assert reason_of(value, currency) == reason


@given(st.integers(0, MAX_AMOUNT_MINOR), currencies)
def test_an_amount_survives_writing_and_reading(minor: int, currency: str) -> None:
    text = format_minor(minor, currency)

    assert parse_amount(text, currency) == minor
    assert parse_amount(float(text), currency) == minor
    assert parse_amounts(pa.array([float(text)]), currency).minor.tolist() == [minor]


def same_by_the_column(values: list[object], column: pa.Array, currency: str) -> None:
    amounts = parse_amounts(column, currency)

    assert amounts.reasons().to_pylist() == [reason_of(v, currency) for v in values]
    for value, minor, bad in zip(values, amounts.minor, amounts.reason >= 0, strict=True):
        assert minor == (0 if bad else parse_amount(value, currency))  # type: ignore[arg-type]


@given(st.lists(texts), currencies)
@example(
    ["57.00", "57.000000", "0", "000.5", "999999999999999", "1000000.00", "1000000.001"], "EUR"
)
@example(["57.00", "57.", "57.5", "100000000"], "JPY")
def test_a_column_of_strings_reads_as_its_cells(values: list[str], currency: str) -> None:
    same_by_the_column(list(values), pa.array(values, pa.string()), currency)


near_cents = st.builds(
    lambda i, ulps: i / 1000 + ulps * math.ulp(i / 1000),
    st.integers(0, 2 * MAX_AMOUNT_MINOR)
    | st.sampled_from([MAX_AMOUNT_MINOR, MAX_AMOUNT_MINOR * 10]),
    st.integers(-6, 6),
)


@given(st.lists(st.one_of(st.floats(), near_cents)), currencies)
def test_a_column_of_floats_reads_as_its_cells(values: list[float], currency: str) -> None:
    same_by_the_column(list(values), pa.array(values, pa.float64()), currency)


@given(
    st.lists(st.decimals(-100, 2_000_000, places=7, allow_nan=False, allow_infinity=False)),
    currencies,
)
def test_a_column_of_decimals_reads_as_its_cells(values: list[Decimal], currency: str) -> None:
    same_by_the_column(list(values), pa.array(values, pa.decimal128(20, 7)), currency)


@given(st.lists(st.decimals(-100, 2_000_000, places=2)))
def test_a_column_of_the_currency_s_own_decimals_reads_as_its_cells(values: list[Decimal]) -> None:
    same_by_the_column(list(values), pa.array(values, pa.decimal128(18, 2)), "EUR")


def test_a_null_is_a_bad_amount_and_a_slice_reads_as_itself() -> None:
    column = pa.chunked_array([pa.array(["9", "1.5"]), pa.array([None, "2"])]).slice(1)

    amounts = parse_amounts(column, "EUR")

    assert amounts.minor.tolist() == [150, 0, 200]
    assert amounts.reasons().to_pylist() == [None, "bad_amount", None]


def test_single_precision_means_its_shortest_decimal() -> None:
    assert parse_amounts(pa.array([57.16], pa.float32()), "EUR").minor.tolist() == [5716]


def test_a_column_of_another_type_is_an_error() -> None:
    with pytest.raises(InputError, match="'amount' holds bool"):
        parse_amounts(pa.array([True]), "EUR")


def test_every_reason_can_occur() -> None:
    values = ["x", "-1", "1e9", "0.001"]

    assert parse_amounts(pa.array(values), "EUR").reasons().to_pylist() == list(AMOUNT_REASONS)


def test_there_are_249_countries() -> None:
    assert len(COUNTRIES) == 249
    assert {"NA", "FR", "GB", "AX"} <= COUNTRIES
    assert not {"UK", "EU", "XX"} & COUNTRIES


@pytest.mark.parametrize(("value", "minor"), [(0.1 + 0.2, 30), (5 * 17.13, 8565), (3 * 27.7, 8310)])
def test_what_float_arithmetic_leaves_behind_is_no_further_decimal(
    value: float, minor: int
) -> None:
    assert parse_amount(value, "EUR") == minor
    assert parse_amounts(pa.array([value]), "EUR").minor.tolist() == [minor]


@given(text=texts, currency=currencies)
@example(text="1000000.00", currency="EUR")
@example(text="1000000.01", currency="EUR")
@example(text="0.1", currency="JPY")
def test_an_amount_that_is_plainly_written_is_what_the_whole_rule_makes_of_it(
    text: str, currency: str
) -> None:
    plain = plain_amount(currency)(text.encode())

    assert plain is None or plain == parse_amount(text, currency)


@given(minor=st.integers(0, MAX_AMOUNT_MINOR), currency=currencies)
def test_amounts_as_they_are_usually_written_are_plain(minor: int, currency: str) -> None:
    assert plain_amount(currency)(format_minor(minor, currency).encode()) == minor

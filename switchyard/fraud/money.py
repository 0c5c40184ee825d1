"""Money: decimal amounts from outside become whole numbers of the currency's smallest unit, exactly.

One amount (the API) or a column of them (files) by the same rules: no rounding ever, so an amount with
more decimals than its currency has is refused. A float means the amount it lies at, give or take what
arithmetic in floats leaves behind; otherwise the shortest decimal that gives it.
Not here: conversion between currencies. Source of the decimals: ISO 4217, list one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import InputError
from switchyard.fraud.columns import MAX_AMOUNT_MINOR

AmountReason = Literal["bad_amount", "negative_amount", "amount_too_large", "too_many_decimals"]
AMOUNT_REASONS: tuple[AmountReason, ...] = get_args(AmountReason)
"""Why an amount is refused, in the order in which they are looked for."""

_DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD "
    "CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS "
    "GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL "
    "MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK "
    "PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS "
    "TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}  # fmt: skip
CURRENCIES: dict[str, int] = {
    code: decimals for decimals, codes in _DECIMALS.items() for code in codes.split()
}
"""Decimals of each currency of ISO 4217 that money is counted in (metals and test codes are not)."""

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_DECIMAL_TEXT = re.compile(_NUMBER + r"(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_LONGEST_TEXT = 80
_EXACT = Context(prec=40, traps=[Inexact, InvalidOperation])
_GOOD = -1


FLOAT_ULPS = 4
"""A binary float so many units in the last place from an amount is that amount."""


def decimals_of(currency: str) -> int:
    """Decimals that the currency has (ISO 4217: 'minor unit').

    Raises InputError for a code that ISO 4217 does not list.

    >>> decimals_of("EUR"), decimals_of("JPY"), decimals_of("KWD")
    (2, 0, 3)
    """
    try:
        return CURRENCIES[currency]
    except KeyError:
        raise InputError(
            f"currency {currency!r} is not in ISO 4217; it must be three capitals, such as 'EUR'"
        ) from None


def minor_units(currency: str) -> int:
    """How many of the currency's smallest unit make one of its major unit; raises as decimals_of.

    >>> minor_units("EUR")
    100
    """
    return int(10 ** decimals_of(currency))


def parse_amount(value: str | int | float | Decimal, currency: str) -> int:
    """The amount, given in major units, as an integer in minor units.

    Raises InputError saying which it is: no number, not finite, negative, above MAX_AMOUNT_MINOR, or
    with more decimals than the currency has. Trailing zeros are no decimals.

    >>> parse_amount("57.16", "EUR"), parse_amount(57.16, "EUR"), parse_amount(57, "JPY")
    (5716, 5716, 57)
    """
    if isinstance(value, float):
        value = float(settled(np.array([value]), currency)[0])
    number = _decimal(value)
    minor = "bad_amount" if number is None else _minor(number, decimals_of(currency))
    if isinstance(minor, str):
        raise InputError(f"amount {_shown(value)} {_why(minor, currency)}")
    return minor


def plain_amount(currency: str) -> Callable[[bytes], int | None]:
    """What reads amounts that are written as most are, digits and a point, as :func:`parse_amount` does but sooner;
    None for every other text.

    >>> read = plain_amount("EUR")
    >>> read(b"57"), read(b"57.1"), read(b"57.16"), read(b"57.160"), read(b"057"), read(b"57.")
    (5700, 5710, 5716, None, None, None)
    """
    decimals = decimals_of(currency)
    point = rb"(?:\.([0-9]{1,%d}))?" % decimals if decimals else b""
    written = re.compile(rb"(0|[1-9][0-9]{0,8})" + point)
    scale = int(10**decimals)

    def read(text: bytes) -> int | None:
        found = written.fullmatch(text)
        if found is None:
            return None
        minor = int(found[1]) * scale
        if decimals and (rest := found[2]):
            minor += int(rest.ljust(decimals, b"0"))
        return minor if minor <= MAX_AMOUNT_MINOR else None

    return read


def format_minor(minor: int, currency: str) -> str:
    """The inverse of :func:`parse_amount`, with exactly the currency's decimals.

    >>> format_minor(5716, "EUR"), format_minor(5, "KWD"), format_minor(57, "JPY")
    ('57.16', '0.005', '57')
    """
    return f"{Decimal(minor).scaleb(-decimals_of(currency)):f}"


def decimal_column(minor: npt.NDArray[np.int64], currency: str) -> pa.Array:
    """Amounts (0 or more) in minor units as Arrow decimals in major units, with the currency's decimals.

    >>> decimal_column(np.array([5716, 5]), "EUR").to_pylist()
    [Decimal('57.16'), Decimal('0.05')]
    """
    words = np.zeros((len(minor), 2), np.int64)
    words[:, 0] = minor
    kind = pa.decimal128(18, decimals_of(currency))
    return pa.Array.from_buffers(kind, len(minor), [None, pa.py_buffer(words)], null_count=0)


@dataclass(frozen=True, slots=True)
class Amounts:
    """A parsed column, one element per row.

    ``minor`` is int64 in minor units (0 where refused); ``reason`` is an int8 index into
    AMOUNT_REASONS, or -1 where the amount is good.
    """

    minor: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int8]

    def reasons(self) -> pa.Array:
        """The reasons as strings, null where the amount is good."""
        index = pa.array(self.reason, mask=self.reason == _GOOD)
        return pa.DictionaryArray.from_arrays(index, list(AMOUNT_REASONS)).cast(pa.string())


def parse_amounts(column: pa.Array | pa.ChunkedArray, currency: str) -> Amounts:
    """The same as :func:`parse_amount` for a column of strings, floats, integers or decimals.

    A null is a 'bad_amount'. Raises InputError for an unknown currency or a column of another type.
    """
    decimals = decimals_of(currency)
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_float64(array.type):
        return _from_floats(array, currency)
    if array.type == pa.decimal128(18, decimals) and array.null_count == 0:
        return _from_decimals(array, decimals)
    if not _is_readable(array.type):
        raise InputError(
            f"column 'amount' holds {array.type}; it must hold strings, floats, integers or decimals"
        )
    text = array if pa.types.is_string(array.type) else array.cast(pa.string())
    return _from_text(text, decimals)


def _decimal(value: str | int | float | Decimal) -> Decimal | None:
    """The exact decimal meant by ``value``; None if it is no number or not finite."""
    if isinstance(value, str):
        readable = len(value) <= _LONGEST_TEXT and _DECIMAL_TEXT.fullmatch(value)
        return Decimal(value) if readable else None
    if isinstance(value, bool):
        return None
    number = Decimal(repr(float(value))) if isinstance(value, float) else Decimal(value)
    return number if number.is_finite() else None


def _minor(number: Decimal, decimals: int) -> int | AmountReason:
    """The amount in minor units, or why it is refused."""
    if number < 0:
        return "negative_amount"
    if number > Decimal(MAX_AMOUNT_MINOR).scaleb(-decimals):
        return "amount_too_large"
    try:
        exact = number.quantize(Decimal(1).scaleb(-decimals), context=_EXACT)
    except Inexact:
        return "too_many_decimals"
    return int(exact.scaleb(decimals))


def _why(reason: str, currency: str) -> str:
    if reason == "negative_amount":
        return "is negative; it must be 0 or more"
    if reason == "amount_too_large":
        return f"is above {format_minor(MAX_AMOUNT_MINOR, currency)} {currency}, the most accepted"
    if reason == "too_many_decimals":
        return f"has more than the {decimals_of(currency)} decimals of {currency}"
    return "is not a finite number; it must be one, such as '57.16'"


def _shown(value: object) -> str:
    text = str(Decimal(value)) if isinstance(value, int) else repr(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _is_readable(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)
        or types.is_integer(kind) or types.is_decimal(kind) or types.is_float32(kind)
    )  # fmt: skip


def settled(values: npt.NDArray[np.float64], currency: str) -> npt.NDArray[np.float64]:
    """Amounts in major units, each moved onto the amount it lies at within FLOAT_ULPS, if it does.

    Below 2^53 both operands of the division are exact and it rounds correctly, so the nearest amount is
    found exactly; what arithmetic in floats has added to it (5 x 17.13 gives 85.64999999999999) is a
    few units in the last place, and a real further decimal is thousands of billions of them.
    """
    scale = minor_units(currency)
    within = (values >= 0) & (values <= (MAX_AMOUNT_MINOR + 1) / scale)
    inside = np.where(within, values, 0.0)
    nearest = np.rint(inside * scale) / scale
    near = np.abs(nearest - inside) <= FLOAT_ULPS * np.spacing(inside)
    return np.where(within & near, nearest, values)


def _from_floats(array: pa.Array, currency: str) -> Amounts:
    """A float is good if it settles on an amount."""
    given = array.fill_null(np.nan).to_numpy(zero_copy_only=False)
    values = settled(given, currency)
    scale, most = minor_units(currency), MAX_AMOUNT_MINOR / minor_units(currency)
    inside = np.where((values >= 0) & (values <= most), values, 0.0)
    minor = np.rint(inside * scale)
    reason = np.full(len(values), _GOOD, np.int8)
    _set(reason, minor / scale != inside, "too_many_decimals")
    _set(reason, values > most, "amount_too_large")
    _set(reason, values < 0, "negative_amount")
    _set(reason, ~np.isfinite(values), "bad_amount")
    return Amounts(np.where(reason == _GOOD, minor, 0).astype(np.int64), reason)


def _from_decimals(array: pa.Array, decimals: int) -> Amounts:
    """Decimals of the currency's own scale, of at most 18 digits, none null: minor units already."""
    minor = _words(array).copy()
    reason = np.full(len(minor), _GOOD, np.int8)
    _set(reason, minor > MAX_AMOUNT_MINOR, "amount_too_large")
    _set(reason, minor < 0, "negative_amount")
    minor[reason != _GOOD] = 0
    return Amounts(minor, reason)


def _from_text(array: pa.Array, decimals: int) -> Amounts:
    """Plain decimals in bulk; whatever is written otherwise, or is wrong, one by one."""
    plain = rf"^[0-9]{{1,15}}(\.[0-9]{{0,{decimals}}}0{{0,6}})?$"
    is_plain = pc.fill_null(pc.match_substring_regex(array, plain), False)
    minor = np.zeros(len(array), np.int64)
    reason = np.full(len(array), _GOOD, np.int8)
    rows = is_plain.to_numpy(zero_copy_only=False)
    minor[rows] = _unscaled(array.filter(is_plain), decimals)
    _set(reason, minor > MAX_AMOUNT_MINOR, "amount_too_large")
    others = np.flatnonzero(~rows)
    for row, text in zip(others, array.take(pa.array(others)).to_pylist(), strict=True):
        number = None if text is None else _decimal(text)
        result = "bad_amount" if number is None else _minor(number, decimals)
        if isinstance(result, str):
            reason[row] = AMOUNT_REASONS.index(result)
        else:
            minor[row] = result
    minor[reason != _GOOD] = 0
    return Amounts(minor, reason)


def _unscaled(texts: pa.Array, decimals: int) -> npt.NDArray[np.int64]:
    """Integers behind decimal strings of at most 15 digits before the point."""
    return _words(pc.cast(texts, pa.decimal128(38, decimals)))


def _words(numbers: pa.Array) -> npt.NDArray[np.int64]:
    """Low words of 128-bit decimals."""
    data = numbers.buffers()[1]
    if data is None or len(numbers) == 0:
        return np.empty(0, np.int64)
    words = np.frombuffer(data, np.int64)
    return words[2 * numbers.offset : 2 * (numbers.offset + len(numbers)) : 2]


def _set(reason: npt.NDArray[np.int8], rows: npt.NDArray[np.bool_], why: AmountReason) -> None:
    reason[rows] = AMOUNT_REASONS.index(why)

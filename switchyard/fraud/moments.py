"""Moments: times as files give them become UTC microseconds, exactly, or are left out one by one.

A column of strings (ISO 8601 or a strptime-like format) or of Arrow timestamps, with the zone they carry
or the one a column map names. A time without either, a time that does not exist (31 June, or an hour that
a clock change skips) and one outside 1900 to 2199 become null; an hour that comes twice means the first.
Zones are as Arrow knows them: clock changes until 2037.
Not here: whether a moment is plausible for its day (``ingest``).
"""

from __future__ import annotations

import re
import zoneinfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import SourceError

MOMENT = pa.timestamp("us", tz="UTC")
_LOCAL = pa.timestamp("us")
_OFFSET = r"Z|z|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?"
_DIRECTIVES = {
    "%Y": r"(?P<Y>[0-9]{4})",
    "%m": r"(?P<m>[0-9]{1,2})",
    "%d": r"(?P<d>[0-9]{1,2})",
    "%H": r"(?P<H>[0-9]{1,2})",
    "%M": r"(?P<M>[0-9]{1,2})",
    "%S": r"(?P<S>[0-9]{1,2})",
    "%f": r"(?P<f>[0-9]{1,9})",
    "%z": rf"(?P<z>{_OFFSET})",
    "%%": "%",
}
_ISO_8601 = (
    r"^\s*(?P<Y>[0-9]{4})-(?P<m>[0-9]{2})-(?P<d>[0-9]{2})[T ]"
    r"(?P<H>[0-9]{2}):(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?"
    rf"\s*(?P<z>{_OFFSET})?\s*$"
)
_PLAIN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})$"
"""What Arrow casts by itself; it is slow to fail."""
_TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EARLIEST = int(np.datetime64("1900-01-01", "us").astype(np.int64))
_LATEST = int(np.datetime64("2200-01-01", "us").astype(np.int64))

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def parse_moments(
    column: pa.Array | pa.ChunkedArray, *, format: str | None = None, zone: str | None = None
) -> pa.Array:
    """The column as timestamp[us, UTC], null where it is null or no moment; digits below 1 us are cut.

    ``zone`` is for times that carry none. Raises SourceError for an unknown zone or directive, and for a
    column that holds neither strings, timestamps nor dates.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    check_zone(zone)
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        return _bounded(_from_timestamps(array, zone))
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _bounded(_from_text(array, pattern_of(format), zone))
    if pa.types.is_null(array.type):
        return array.cast(MOMENT)
    raise SourceError(f"times are {array.type}; they must be strings, timestamps or dates")


def pattern_of(format: str | None) -> str:
    """The regular expression of a strptime-like format (None: ISO 8601).

    Raises SourceError for a directive other than %Y %m %d %H %M %S %f %z %%, or without %Y, %m and %d.
    """
    if format is None:
        return _ISO_8601
    parts = re.split(r"(%.?)", format)
    unknown = [p for p in parts if p.startswith("%") and p not in _DIRECTIVES]
    if unknown or not {"%Y", "%m", "%d"} <= set(parts):
        raise SourceError(
            f"timestamp_format {format!r} can't be used"
            + (f": {unknown[0]!r} is not known" if unknown else "")
            + f"; it may hold {' '.join(_DIRECTIVES)} and must hold %Y, %m and %d"
        )
    if any(parts.count(d) > 1 for d in _DIRECTIVES if d != "%%"):
        raise SourceError(f"timestamp_format {format!r} holds a directive twice")
    return "^" + "".join(_DIRECTIVES.get(p, re.escape(p)) for p in parts) + "$"


def check_zone(zone: str | None) -> None:
    """Raises SourceError if ``zone`` is given and not of the IANA database."""
    try:
        if zone is not None:
            zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise SourceError(
            f"timezone {zone!r} is unknown; it must be one of the IANA database, such as 'Europe/Paris'"
        ) from None


def _from_timestamps(array: pa.Array, zone: str | None) -> pa.Array:
    """Bounds are checked in the column's own unit, in which nothing overflows."""
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("s" if pa.types.is_date32(array.type) else "ms"))
    ticks, per_second = array.cast(pa.int64()), _TICKS[array.type.unit]
    low, high = (bound * per_second // 1_000_000 for bound in (_EARLIEST, _LATEST))
    inside = pc.and_(pc.greater_equal(ticks, low), pc.less(ticks, high))
    array = pc.if_else(inside, array, pa.scalar(None, array.type))
    if array.type.tz is not None:
        return pc.cast(array, MOMENT, safe=False)
    return _in_zone(pc.cast(array, _LOCAL, safe=False), zone)


def _from_text(array: pa.Array, pattern: str, zone: str | None) -> pa.Array:
    if pattern == _ISO_8601 and pc.all(pc.match_substring_regex(array, _PLAIN)).as_py():
        try:
            return array.cast(MOMENT)
        except pa.ArrowInvalid:
            pass  # one of them does not exist: go through the parts
    parts = pc.extract_regex(array, pattern)
    number = {name: _number(parts, name) for name in "YmdHMS"}
    micros, exists = _micros(number)
    micros = micros + _fraction(parts)
    offset, carries = _offset(parts)
    good = pc.is_valid(parts).to_numpy(zero_copy_only=False) & exists
    aware = pa.array(micros - offset, mask=~(good & carries)).cast(MOMENT)
    local = _in_zone(pa.array(micros, mask=~good | carries).cast(_LOCAL), zone)
    return pc.coalesce(aware, local)


def _in_zone(local: pa.Array, zone: str | None) -> pa.Array:
    """Local times of ``zone`` as moments: null without a zone and for hours that its clocks skip."""
    if zone is None:
        return pa.nulls(len(local), MOMENT)
    moment = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="latest")
    exists = pc.equal(pc.local_timestamp(moment), local)
    return pc.if_else(exists, moment.cast(MOMENT), pa.scalar(None, MOMENT))


def _bounded(moments: pa.Array) -> pa.Array:
    micros = moments.cast(pa.int64())
    inside = pc.and_(pc.greater_equal(micros, _EARLIEST), pc.less(micros, _LATEST))
    return pc.if_else(inside, moments, pa.scalar(None, MOMENT))


def _text(parts: pa.StructArray, name: str) -> pa.Array | None:
    """One part of each match ('' where it is absent), None if the pattern has no such part."""
    index = parts.type.get_field_index(name)
    return pc.fill_null(parts.field(index), "") if index >= 0 else None


def _number(parts: pa.StructArray, name: str) -> Ints:
    text = _text(parts, name)
    if text is None:
        return np.zeros(len(parts), np.int64)
    filled = pc.if_else(pc.equal(text, ""), "0", text)
    return np.asarray(filled.cast(pa.int64()).to_numpy(zero_copy_only=False))


def _fraction(parts: pa.StructArray) -> Ints:
    """Microseconds of up to nine decimals of a second; what is below is cut."""
    text = _text(parts, "f")
    if text is None:
        return np.zeros(len(parts), np.int64)
    digits = pc.utf8_slice_codeunits(pc.utf8_rpad(text, 9, "0"), 0, 6)
    return np.asarray(digits.cast(pa.int64()).to_numpy(zero_copy_only=False))


def _offset(parts: pa.StructArray) -> tuple[Ints, Bools]:
    """East of UTC in microseconds, and whether an offset is there at all."""
    text = _text(parts, "z")
    if text is None:
        return np.zeros(len(parts), np.int64), np.zeros(len(parts), bool)
    values, index = np.unique(text.to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    east = np.array([_east(v) for v in values], np.int64)
    return east[index], (values != "")[index]


def _east(offset: str) -> int:
    """
    >>> [_east(offset) // 60_000_000 for offset in ("+01:30", "-0130", "+02", "Z", "")]
    [90, -90, 120, 0, 0]
    """
    if offset in ("", "Z", "z"):
        return 0
    digits = offset[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:] or 0)
    return (-minutes if offset[0] == "-" else minutes) * 60_000_000


def _micros(number: dict[str, Ints]) -> tuple[Ints, Bools]:
    """Microseconds since 1970 of local times to the second, and which of them exist."""
    year, month, day = number["Y"], number["m"], number["d"]
    exists = (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1)
    exists &= (number["H"] <= 23) & (number["M"] <= 59) & (number["S"] <= 59)
    safe_month = np.where(exists, month, 1)
    months = (np.where(exists, year, 1970) - 1970) * 12 + safe_month - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]")
    after = (months + 1).astype("datetime64[M]").astype("datetime64[D]")
    exists &= day <= (after - first).astype(np.int64)
    days = first.astype(np.int64) + np.where(exists, day, 1) - 1
    seconds = days * 86_400 + number["H"] * 3_600 + number["M"] * 60 + number["S"]
    return seconds * 1_000_000, exists

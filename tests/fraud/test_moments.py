"""Times from files: exact to the microsecond, in the zone they carry or are given, or left out."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import SourceError
from switchyard.fraud.moments import MOMENT, parse_moments, pattern_of

PARIS = zoneinfo.ZoneInfo("Europe/Paris")


def one(text: str, **options: str) -> datetime | None:
    moment = parse_moments(pa.array([text]), **options)[0].as_py()  # type: ignore[arg-type]
    assert moment is None or isinstance(moment, datetime)
    return moment


offsets = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
local_times = st.datetimes(datetime(1901, 1, 1), datetime(2199, 1, 1))


@given(st.lists(st.tuples(local_times, offsets), max_size=5), st.booleans())
def test_iso_8601_reads_as_python_reads_it(
    times: list[tuple[datetime, timezone]], beside_a_naive_one: bool
) -> None:
    aware = [time.replace(tzinfo=zone) for time, zone in times]
    texts = [time.isoformat(sep=" ") for time in aware] + ["2026-01-01 00:00"] * beside_a_naive_one

    parsed = parse_moments(pa.array(texts, pa.string())).to_pylist()

    assert parsed == aware + [None] * beside_a_naive_one


@given(st.datetimes(datetime(1950, 1, 1), datetime(2037, 12, 31)))
def test_a_naive_time_is_one_of_the_zone_given(time: datetime) -> None:
    expected = time.replace(tzinfo=PARIS)
    exists = expected.astimezone(UTC).astimezone(PARIS).replace(tzinfo=None) == time

    assert one(time.isoformat(), zone="Europe/Paris") == (expected if exists else None)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-05T12:00Z", "2026-01-05T12:00:00+00:00"),
        ("2026-01-05 12:00:00.5+0530", "2026-01-05T06:30:00.500000+00:00"),
        (" 2026-01-05 12:00:00,123456789 -01 ", "2026-01-05T13:00:00.123456+00:00"),
        ("2024-02-29T00:00:00z", "2024-02-29T00:00:00+00:00"),
    ],
)
def test_variants_of_iso_8601_are_read(text: str, moment: str) -> None:
    assert one(text) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    "text",
    [
        "", "soon", "2026-06-31T00:00Z", "2026-02-29T00:00Z", "2026-01-05T24:00Z", "2026-00-05T01:00Z",
        "2026-01-05T12:00:60Z", "2026-01-05T12:00+99:00", "1767600000", "05/01/2026 12:00",
        "1850-01-01T00:00Z", "9999-12-31T00:00Z", "0000-01-01T00:00Z", "2026-01-05T12:00",
    ],
)  # fmt: skip
def test_what_is_no_moment_is_null(text: str) -> None:
    assert one(text) is None


def test_an_hour_skipped_is_null_and_an_hour_twice_is_the_first() -> None:
    assert one("2026-03-29 02:30:00", zone="Europe/Paris") is None
    assert one("2026-10-25 02:30:00", zone="Europe/Paris") == datetime(
        2026, 10, 25, 0, 30, tzinfo=UTC
    )


def test_a_zone_carried_wins_over_the_one_given() -> None:
    assert one("2026-01-05T12:00:00Z", zone="Europe/Paris") == datetime(2026, 1, 5, 12, tzinfo=UTC)


def test_a_format_of_one_s_own() -> None:
    moment = one("5.1.2026 9:07:08.25", format="%d.%m.%Y %H:%M:%S.%f", zone="UTC")

    assert moment == datetime(2026, 1, 5, 9, 7, 8, 250_000, tzinfo=UTC)
    assert one("2026-01-05 +01:00", format="%Y-%m-%d %z") == datetime(2026, 1, 4, 23, tzinfo=UTC)


@pytest.mark.parametrize("format", ["%Y-%j", "%d.%m.", "%Y%Y%m%d", "%Y-%m-%d %"])
def test_a_format_that_can_t_be_used_is_an_error(format: str) -> None:
    with pytest.raises(SourceError, match="timestamp_format"):
        pattern_of(format)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd"])
def test_an_unknown_zone_is_an_error(zone: str) -> None:
    with pytest.raises(SourceError, match="IANA"):
        parse_moments(pa.array(["2026-01-05"]), zone=zone)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_every_unit_and_none_that_overflows(unit: str) -> None:
    ticks = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    column = pa.array([1_767_600_000 * ticks, 2**63 - 1, -(2**63) + 1, None], pa.int64())

    moments = parse_moments(column.cast(pa.timestamp(unit, tz="America/New_York")))

    assert moments.type == MOMENT
    assert moments.to_pylist() == [datetime.fromtimestamp(1_767_600_000, UTC), None, None, None]


def test_naive_timestamps_and_dates_need_a_zone() -> None:
    naive = pa.array([datetime(2026, 1, 5, 12)], pa.timestamp("ns"))

    assert parse_moments(naive).to_pylist() == [None]
    assert parse_moments(naive, zone="Europe/Paris").to_pylist() == [
        datetime(2026, 1, 5, 11, tzinfo=UTC)
    ]
    assert parse_moments(naive.cast(pa.date32(), safe=False), zone="UTC").to_pylist() == [
        datetime(2026, 1, 5, tzinfo=UTC)
    ]


def test_numbers_are_no_times() -> None:
    with pytest.raises(SourceError, match="int64"):
        parse_moments(pa.array([1]))

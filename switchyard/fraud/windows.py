"""Profiles: aggregates of one card or terminal over whole past days, and finding the right one again.

Every profile column is generated from its ``measure`` and ``window_days`` in ``columns``. Integers
only, so that two runs and two engines agree to the bit. The SQL below the view ``facts`` is plain;
what only DuckDB knows stands in ``_open`` and ``_facts`` (reading) and ``_matched`` (the as-of join).
Not here: windows over single events (``activity``), ratios and means (``features``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from switchyard.errors import LakeError
from switchyard.fraud.columns import (
    CUSTOMER_PROFILE,
    LABEL,
    NIGHT_END_HOUR,
    PROFILE_AVAILABLE_HOUR,
    PROFILE_TTL_DAYS,
    TERMINAL_PROFILE,
    TRANSACTION,
    Column,
    Measure,
    arrow_schema,
    names,
)
from switchyard.fraud.events import (
    KEY,
    LABEL_DELAY_DAYS,
    MISSING,
    Ints,
    Owner,
    country_code,
    micros,
    stable_hash,
)
from switchyard.fraud.labels import verdicts_beside
from switchyard.fraud.sliding import DAY_US, HOUR_US
from switchyard.lake import Lake, days_between

LONGEST_DAYS = 30
"""The longest window of a profile."""
THREADS = 2
MEMORY = "2GB"
"""What DuckDB may hold in memory; beyond it spills to a temporary folder."""

TABLE: dict[Owner, str] = {"customer": "customer_profiles", "terminal": "terminal_profiles"}
COLUMNS: dict[Owner, tuple[Column, ...]] = {
    "customer": CUSTOMER_PROFILE,
    "terminal": TERMINAL_PROFILE,
}

_EPOCH = date(1970, 1, 1)
_LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class ProfileRows:
    """How many profile rows were written."""

    customer: int
    terminal: int


@dataclass(frozen=True, slots=True)
class _Rule:
    """A measure: its value on one fact, how a day's facts are put together, and how a window's days."""

    value: str
    of_day: str = "SUM"
    of_window: str = "SUM"


_RULES: dict[Measure, _Rule] = {
    "tx_count": _Rule("is_transaction"),
    "amount_sum": _Rule("amount_minor"),
    "amount_square_sum": _Rule("amount_minor * amount_minor"),
    "amount_max": _Rule("amount_minor", "MAX", "MAX"),
    "night_count": _Rule(f"CASE WHEN hour < {NIGHT_END_HOUR} THEN is_transaction ELSE 0 END"),
    "cross_border_count": _Rule("CASE WHEN customer_country <> terminal_country THEN 1 ELSE 0 END"),
    "active_days": _Rule("is_transaction", "MAX"),
    "device_bits": _Rule("device_bit", "BIT_OR", "BIT_OR"),
    "country_bits": _Rule("country_bit", "BIT_OR", "BIT_OR"),
    "label_count": _Rule("is_label"),
    "fraud_count": _Rule("is_fraud_label"),
}


def profile_schema(owner: Owner) -> pa.Schema:
    """Key, ``available_at``, ``created_at`` (UTC), then the profile's columns."""
    stamp = pa.timestamp("us", tz="UTC")
    head = [
        pa.field(KEY[owner], pa.string(), False),
        pa.field("available_at", stamp, False),
        pa.field("created_at", stamp, False),
    ]
    return pa.schema([*head, *arrow_schema(COLUMNS[owner])])


def available_at(day: date) -> datetime:
    """When the profile that covers ``day`` counts as available (UTC).

    >>> available_at(date(2026, 1, 31)).isoformat()
    '2026-02-01T02:00:00+00:00'
    """
    return datetime.combine(day + timedelta(days=1), time(PROFILE_AVAILABLE_HOUR), UTC)


def build_profiles(lake: Lake, start: date, end: date, *, created_at: datetime) -> ProfileRows:
    """Write the profiles of both owners for each day from ``start`` to ``end``, sorted by key.

    One row per key and day whose 30-day window holds anything. Reads ``transactions`` of these days
    and 29 before, and the ``labels`` that arrived in them. Raises LakeError if no transaction is there.
    """
    first = start - timedelta(days=LONGEST_DAYS - 1)
    days = days_between(start, end)
    with _open() as engine:
        _facts(engine, lake, first, end)
        for owner in KEY:
            _sum_days(engine, owner)
        with ThreadPoolExecutor(len(KEY)) as pool:
            written = {
                owner: pool.submit(_write_days, engine.cursor(), lake, owner, days, created_at)
                for owner in KEY
            }
            return ProfileRows(**{owner: rows.result() for owner, rows in written.items()})


def _sum_days(engine: duckdb.DuckDBPyConnection, owner: Owner) -> None:
    """Table ``<owner>_days``: one row per key and day, by day, with each measure of that day alone."""
    measures = dict.fromkeys(c.measure for c in COLUMNS[owner] if c.measure)
    values = ", ".join(
        f"{_integer(f'{_RULES[m].of_day}({_RULES[m].value})')} AS {m}" for m in measures
    )
    which = "" if owner == "terminal" else "WHERE is_transaction = 1"
    engine.execute(
        f"CREATE TABLE {owner}_days AS SELECT {KEY[owner]} AS owner_key, day, {values} "
        f"FROM facts {which} GROUP BY {KEY[owner]}, day ORDER BY day"
    )


def _write_days(
    engine: duckdb.DuckDBPyConnection,
    lake: Lake,
    owner: Owner,
    days: list[date],
    created_at: datetime,
) -> int:
    rows = 0
    for day in days:
        profiles = _window(engine, owner, (day - _EPOCH).days)
        stamps = [pa.repeat(_stamp(t), len(profiles)) for t in (available_at(day), created_at)]
        columns = [profiles.column(0), *stamps, *profiles.columns[1:]]
        schema = profile_schema(owner)
        lake.write(TABLE[owner], day, pa.table(columns, names=schema.names).cast(schema))
        rows += len(profiles)
    return rows


def _window(engine: duckdb.DuckDBPyConnection, owner: Owner, last: int) -> pa.Table:
    """One row per key: its window that ends with the day ``last`` (days since 1970), sorted by key."""
    values = ", ".join(_over_window(column, last) for column in COLUMNS[owner])
    return engine.sql(
        f"SELECT owner_key, {values} FROM {owner}_days "
        f"WHERE day > {last - LONGEST_DAYS} AND day <= {last} GROUP BY owner_key ORDER BY owner_key"
    ).to_arrow_table()


def _over_window(column: Column, last: int) -> str:
    """SQL of one profile column for the window that ends with the day ``last``."""
    if column.measure is None or column.window_days is None:
        return f"CAST({last} AS BIGINT) AS {column.name}"
    inside = f"CASE WHEN day > {last - column.window_days} THEN {column.measure} ELSE 0 END"
    value = column.measure if column.window_days == LONGEST_DAYS else inside
    return f"{_integer(f'{_RULES[column.measure].of_window}({value})')} AS {column.name}"


def _integer(aggregate: str) -> str:
    """A sum as 64 bits; one that no longer fits stays at the largest."""
    return f"CAST(LEAST({aggregate}, {_LARGEST}) AS BIGINT)"


def _stamp(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment, pa.timestamp("us", tz="UTC"))


# ---------------------------------------------------------------- point-in-time lookup


def profiles_as_of(lake: Lake, transactions: pa.Table) -> tuple[Ints, Ints]:
    """The profiles usable at each transaction's moment: customers int64[n, 14], terminals int64[n, 11].

    The newest row of the key with available_at <= t and >= t - PROFILE_TTL_DAYS, as Feast's
    point-in-time join finds it. A row full of MISSING where there is none.
    """
    if not len(transactions):
        return _no_profiles(0, "customer"), _no_profiles(0, "terminal")
    with _open() as engine:
        return (
            _as_of(engine, lake, transactions, "customer"),
            _as_of(engine, lake, transactions, "terminal"),
        )


def _as_of(
    engine: duckdb.DuckDBPyConnection, lake: Lake, transactions: pa.Table, owner: Owner
) -> Ints:
    at = micros(transactions["event_timestamp"])
    ready = DAY_US + PROFILE_AVAILABLE_HOUR * HOUR_US
    first = (int(at.min()) - PROFILE_TTL_DAYS * DAY_US - ready) // DAY_US
    paths = lake.paths(TABLE[owner], _date(first), _date((int(at.max()) - ready) // DAY_US))
    asked = pa.table({"owner_key": transactions[KEY[owner]], "at": at, "row": np.arange(len(at))})
    condition = (
        f"ASOF JOIN profiles AS p ON a.owner_key = p.{KEY[owner]} AND a.at >= epoch_us(p.available_at) "
        f"WHERE epoch_us(p.available_at) >= a.at - {PROFILE_TTL_DAYS * DAY_US}"
    )
    return _matched(engine, paths, asked, condition, owner)


def profiles_on(
    lake: Lake, keys: Sequence[str] | pa.ChunkedArray, days: Ints, owner: Owner
) -> Ints:
    """The profile of each key that covers each given day (days since 1970, MISSING for none).

    int64[n, 14] for customers, int64[n, 11] for terminals; a row full of MISSING where there is none.
    """
    wanted = np.unique(days[days != MISSING])
    paths = [p for day in wanted.tolist() for p in lake.paths(TABLE[owner], _date(day), _date(day))]
    texts = keys if isinstance(keys, pa.ChunkedArray) else pa.array(keys, pa.string())
    asked = pa.table({"owner_key": texts, "day": days, "row": np.arange(len(days))})
    condition = (
        f"JOIN profiles AS p ON a.owner_key = p.{KEY[owner]} AND a.day = p.{COLUMNS[owner][0].name}"
    )
    with _open() as engine:
        return _matched(engine, paths, asked, condition, owner)


def _no_profiles(count: int, owner: Owner) -> Ints:
    return np.full((count, len(COLUMNS[owner])), MISSING, np.int64)


def _date(days: int) -> date:
    return _EPOCH + timedelta(days=days)


def _matched(
    engine: duckdb.DuckDBPyConnection,
    paths: list[Path],
    asked: pa.Table,
    condition: str,
    owner: Owner,
) -> Ints:
    """Profiles joined to the rows ``asked`` under ``condition``, scattered to their row numbers."""
    out = _no_profiles(len(asked), owner)
    if not paths:
        return out
    engine.register("asked", asked)
    _read(engine, "profiles", paths, profile_schema(owner))
    wanted = ", ".join(f"p.{name}" for name in names(COLUMNS[owner]))
    found = engine.sql(f"SELECT a.row, {wanted} FROM asked AS a {condition}").to_arrow_table()
    rows = found.column(0).to_numpy()
    for i, values in enumerate(found.columns[1:]):
        out[rows, i] = values.to_numpy()
    return out


# ---------------------------------------------------------------- what only DuckDB knows


@contextmanager
def _open() -> Iterator[duckdb.DuckDBPyConnection]:
    with tempfile.TemporaryDirectory(prefix="switchyard-spill-") as spill:
        config: dict[str, Any] = {
            "threads": THREADS,
            "memory_limit": MEMORY,
            "temp_directory": spill,
        }
        with duckdb.connect(config=config) as engine:
            yield engine


def _read(
    engine: duckdb.DuckDBPyConnection, name: str, paths: list[Path], schema: pa.Schema
) -> None:
    """A view of the files' rows; of no rows if there are no files."""
    if paths:
        engine.read_parquet([str(path) for path in paths]).create_view(name, replace=True)
    else:
        engine.register(name, schema.empty_table())


def _facts(engine: duckdb.DuckDBPyConnection, lake: Lake, first: date, end: date) -> None:
    """View ``facts``: transactions, and verdicts by the day of their arrival, from ``first`` to ``end``."""
    transactions = lake.paths("transactions", first, end)
    if not transactions:
        raise LakeError(
            f"the lake has no 'transactions' from {first} to {end} below {lake.root}; "
            "materialize 'transactions' for these days first"
        )
    since = first - timedelta(days=LABEL_DELAY_DAYS)
    _read(engine, "transactions", transactions, arrow_schema(TRANSACTION))
    _read(engine, "labels", lake.paths("labels", since, end), arrow_schema(LABEL))
    engine.register("beside", verdicts_beside(lake, since, end))
    _register_bits(engine, "device", "device_id", stable_hash)
    _register_bits(engine, "country", "terminal_country", country_code)
    engine.execute(f"""
        CREATE TEMP VIEW facts AS
        SELECT customer_id, terminal_id, epoch_us(event_timestamp) // {DAY_US} AS day,
            1 AS is_transaction, 0 AS is_label, 0 AS is_fraud_label, amount_minor,
            epoch_us(event_timestamp) // {HOUR_US} % 24 AS hour, customer_country, terminal_country,
            COALESCE(device_bit, 0) AS device_bit, COALESCE(country_bit, 0) AS country_bit
        FROM transactions
        LEFT JOIN device_bits USING (device_id) LEFT JOIN country_bits USING (terminal_country)
        UNION ALL
        SELECT customer_id, terminal_id, epoch_us(label_available_at) // {DAY_US} AS day,
            0, 1, CAST(is_fraud AS INTEGER), 0, NULL, NULL, NULL, 0, 0
        FROM (SELECT * FROM labels UNION ALL BY NAME SELECT * FROM beside)
        WHERE label_available_at IS NOT NULL
            AND epoch_us(label_available_at) // {DAY_US}
                BETWEEN {(first - _EPOCH).days} AND {(end - _EPOCH).days}
    """)


def _register_bits(engine: duckdb.DuckDBPyConnection, name: str, column: str, number: Any) -> None:
    """Table ``<name>_bits``: each distinct value of ``column`` with its one bit of 64."""
    values = engine.sql(f"SELECT DISTINCT {column} FROM transactions WHERE {column} IS NOT NULL")
    texts = [text for (text,) in values.fetchall()]
    bits = np.array([1 << (number(text) & 63) for text in texts], np.uint64).view(np.int64)
    table = pa.table({column: pa.array(texts, pa.string()), f"{name}_bit": bits})
    engine.register(f"{name}_bits", table)

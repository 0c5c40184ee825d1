"""Ingest: raw rows of one day become clean transactions, or are quarantined with the reason.

Every check is a column of the table below, in the order in which it is looked for; a row gets the first
that applies. An id is spent by a clean row alone: of several rows with one id the first that is otherwise
good stays. Not here: reading files (``sources``), the suite over what came out (``expectations``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import InputError
from switchyard.fraud.columns import CHANNELS, LABEL, TRANSACTION, arrow_schema, names
from switchyard.fraud.countries import COUNTRIES
from switchyard.fraud.moments import MOMENT, parse_moments
from switchyard.fraud.money import AMOUNT_REASONS, parse_amounts
from switchyard.fraud.raw import KEYS, RAW

Reason = Literal[
    "null_key",
    "other_currency",
    "bad_amount",
    "negative_amount",
    "amount_too_large",
    "too_many_decimals",
    "bad_time",
    "future_time",
    "wrong_day",
    "unknown_country",
    "unknown_channel",
    "bad_merchant_category",
    "repeated_id",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a row is quarantined, in the order in which the reasons are looked for."""

_CLEAN = -1
_DETAIL_CHARACTERS = 200
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ingested:
    """One day's outcome. ``clean``: schema of TRANSACTION, sorted by (event_timestamp, transaction_id).

    ``quarantined``: the raw columns as strings, ``reason`` and ``detail``, in the order of the file.
    """

    clean: pa.Table
    quarantined: pa.Table

    @property
    def reasons(self) -> Counter[str]:
        """Quarantined rows by reason."""
        return Counter(self.quarantined["reason"].to_pylist())


def ingest(
    raw: pa.Table,
    day: date,
    *,
    seen: pa.Array | pa.ChunkedArray,
    now: datetime,
    currency: str,
) -> Ingested:
    """Split ``raw`` (columns RAW, and any others) into clean transactions of ``day`` (UTC) and the rest.

    ``seen``: ids of clean transactions of the 35 days before, without those of ``day`` itself, so that
    ingesting a day again finds the same. Raises InputError if a column is missing or ``now`` is naive.
    """
    missing = [name for name in RAW if name not in raw.column_names]
    if missing or now.tzinfo is None:
        raise InputError(
            f"raw transactions of {day} lack the columns {', '.join(missing)}"
            if missing
            else f"now is {now.isoformat()}, without a zone; it must be aware"
        )
    raw = raw.combine_chunks()
    amounts = parse_amounts(raw["amount"], currency)
    moments = parse_moments(raw["event_timestamp"])
    found = _Findings(raw)
    for key in KEYS:
        found.mark("null_key", _missing(raw[key]), key)
    foreign = ~_bools(pc.equal(_text(raw["currency"]), currency))
    found.mark("other_currency", foreign, "currency")
    for index, reason in enumerate(AMOUNT_REASONS):
        found.mark(reason, amounts.reason == index, "amount")
    _mark_times(found, moments, day, now)
    _mark_sets(found, raw)
    repeated = _repeated(raw["transaction_id"], found.codes, seen)
    found.mark("repeated_id", repeated, "transaction_id")
    clean = _clean(raw, found.codes == _CLEAN, amounts.minor, moments)
    return Ingested(clean=clean, quarantined=found.quarantined())


def labels_of(clean: pa.Table, labels: pa.Table) -> pa.Table:
    """The labels of ``clean`` transactions, one each at most, in their order; schema of LABEL.

    A label belongs to a transaction if id, customer, terminal and time agree; the first one counts.
    """
    labels = labels.combine_chunks()
    position = pc.index_in(labels["transaction_id"], clean["transaction_id"].combine_chunks())
    rows = np.flatnonzero(_bools(pc.is_valid(position)))
    at = position.take(pa.array(rows)).to_numpy().astype(np.int64)
    matches = np.ones(len(rows), bool)
    for name in ("customer_id", "terminal_id", "event_timestamp"):
        theirs = labels[name].take(pa.array(rows))
        matches &= _bools(pc.equal(theirs, clean[name].take(pa.array(at))))
    _, first = np.unique(at[matches], return_index=True)
    return (
        labels.take(pa.array(rows[matches][first])).select(names(LABEL)).cast(arrow_schema(LABEL))
    )


class _Findings:
    """Which reason each raw row got first, and which column it is about."""

    def __init__(self, raw: pa.Table) -> None:
        self._raw = raw
        self.codes: Codes = np.full(raw.num_rows, _CLEAN, np.int8)
        self._columns: Codes = np.zeros(raw.num_rows, np.int8)

    def mark(self, reason: Reason, rows: Bools, column: str) -> None:
        new = rows & (self.codes == _CLEAN)
        self.codes[new] = REASONS.index(reason)
        self._columns[new] = RAW.index(column)

    def quarantined(self) -> pa.Table:
        rows = np.flatnonzero(self.codes != _CLEAN)
        bad = self._raw.take(pa.array(rows))
        texts = {name: _text(bad[name]) for name in bad.column_names}
        reason = pa.array(REASONS).take(pa.array(self.codes[rows]))
        details = _details(texts, self._columns[rows])
        return pa.table(texts | {"reason": reason, "detail": details})


def _mark_times(found: _Findings, moments: pa.Array, day: date, now: datetime) -> None:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    low, high, clock = (
        pa.scalar(t.astimezone(UTC), MOMENT) for t in (start, start + timedelta(days=1), now)
    )
    other_day = pc.or_(pc.less(moments, low), pc.greater_equal(moments, high))
    found.mark("bad_time", _bools(pc.is_null(moments)), "event_timestamp")
    found.mark("future_time", _bools(pc.greater(moments, clock)), "event_timestamp")
    found.mark("wrong_day", _bools(other_day), "event_timestamp")


def _mark_sets(found: _Findings, raw: pa.Table) -> None:
    countries = pa.array(sorted(COUNTRIES))
    for name in ("customer_country", "terminal_country"):
        found.mark("unknown_country", _outside(raw[name], countries), name)
    found.mark("unknown_channel", _outside(raw["channel"], pa.array(CHANNELS)), "channel")
    code = _text(raw["merchant_category"])
    bad_code = ~_bools(pc.fill_null(pc.match_substring_regex(code, "^[0-9]{4}$"), True))
    found.mark("bad_merchant_category", bad_code, "merchant_category")


def _outside(column: pa.ChunkedArray, values: pa.Array) -> Bools:
    """Where a value is given that is none of ``values``."""
    text = _text(column)
    return _bools(pc.and_(pc.is_valid(text), pc.invert(pc.is_in(text, value_set=values))))


def _missing(column: pa.ChunkedArray) -> Bools:
    return _bools(pc.fill_null(pc.equal(_text(column), ""), True))


def _repeated(ids: pa.ChunkedArray, codes: Codes, seen: pa.Array | pa.ChunkedArray) -> Bools:
    """Rows, good so far, whose id was seen on another day or on such a row further up."""
    good = np.flatnonzero(codes == _CLEAN)
    own = _text(ids).take(pa.array(good))
    index = own.dictionary_encode().indices.to_numpy()
    again = np.ones(len(good), bool)
    again[np.unique(index, return_index=True)[1]] = False
    hits = seen.filter(pc.is_in(seen, value_set=own.cast(seen.type)))
    again |= _bools(pc.is_in(own, value_set=hits.cast(pa.string())))
    rows = np.zeros(len(codes), bool)
    rows[good] = again
    return rows


def _clean(raw: pa.Table, rows: Bools, minor: Ints, moments: pa.Array) -> pa.Table:
    keep = np.flatnonzero(rows)
    keep = keep[_order(moments.take(pa.array(keep)), _text(raw["transaction_id"]), keep)]
    columns = {n: _text(raw[n]) for n in RAW if n not in ("amount", "event_timestamp")}
    columns |= {"amount_minor": pa.array(minor), "event_timestamp": moments}
    schema = arrow_schema(TRANSACTION)
    return pa.table([columns[name] for name in schema.names], schema=schema).take(pa.array(keep))


def _order(moments: pa.Array, ids: pa.Array, rows: Ints) -> Ints:
    """Positions by time, then id. Ids are compared only where times tie."""
    micros = moments.cast(pa.int64()).to_numpy()
    order = np.argsort(micros, kind="stable")
    same = np.diff(micros[order]) == 0
    slots = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    tied = order[slots]
    keys = pa.table({"time": micros[tied], "id": ids.take(pa.array(rows[tied]))})
    by = pc.sort_indices(keys, sort_keys=[("time", "ascending"), ("id", "ascending")])
    order[slots] = tied[by.to_numpy()]
    return order


def _details(texts: dict[str, pa.Array], columns: Codes) -> pa.Array:
    """For each quarantined row the column and the value it is about."""
    details = [pa.array([], pa.string())]
    places = [np.empty(0, np.int64)]
    for index in np.unique(columns):
        places.append(np.flatnonzero(columns == index))
        value = texts[RAW[index]].take(pa.array(places[-1]))
        cut = pc.utf8_slice_codeunits(value, 0, _DETAIL_CHARACTERS)
        told = pc.binary_join_element_wise(f"{RAW[index]} is '", cut, "'", "")
        details.append(pc.fill_null(told, f"{RAW[index]} is null"))
    return pa.concat_arrays(details).take(pa.array(np.argsort(np.concatenate(places))))


def _text(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array of strings."""
    array = column.combine_chunks()
    if pa.types.is_string(array.type):
        return array
    if array.type == MOMENT:  # Arrow takes forever to write times with a zone
        return pc.binary_join_element_wise(
            array.cast(pa.timestamp("us")).cast(pa.string()), "Z", ""
        )
    return array.cast(pa.string())


def _bools(mask: pa.Array | pa.ChunkedArray) -> Bools:
    return np.asarray(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))

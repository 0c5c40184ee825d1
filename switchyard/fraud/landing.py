"""Landing: a source's day into the lake, raw and then validated, each step repeatable.

Here: which tables a day fills and which earlier ids make a repeat. Not here: what makes a row bad
(``ingest``) or how a source is read (``sources``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import pyarrow as pa

from switchyard.errors import SourceError
from switchyard.fraud.ingest import ingest, labels_of
from switchyard.fraud.raw import Source
from switchyard.lake import Lake, days_between

REPEAT_DAYS = 35
"""An id seen within so many days is a repeat."""


@dataclass(slots=True)
class Landed:
    """Rows by day, and for each unreadable day what was wrong with its file."""

    rows: dict[date, int] = field(default_factory=dict)
    unreadable: dict[date, str] = field(default_factory=dict)


@dataclass(slots=True)
class Validated:
    """Clean and quarantined rows by day, and quarantined rows by reason."""

    clean: dict[date, int] = field(default_factory=dict)
    quarantined: dict[date, int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


def land_raw(source: Source, lake: Lake, days: list[date]) -> Landed:
    """Write ``raw_transactions`` and ``raw_labels`` of ``days``.

    An unreadable day is left out; what an earlier delivery of it left in the lake stays.
    """
    landed = Landed()
    for day in days:
        try:
            raw = source.read(day)
        except SourceError as error:
            landed.unreadable[day] = str(error)
            continue
        lake.write("raw_labels", day, raw.labels)
        lake.write("raw_transactions", day, raw.transactions)
        landed.rows[day] = raw.transactions.num_rows
    return landed


def validate_days(lake: Lake, days: list[date], *, now: datetime, currency: str) -> Validated:
    """Write ``transactions``, ``quarantine`` and ``labels`` of the landed ``days``, oldest first.

    A day that never landed is left out.
    """
    result = Validated()
    ids: dict[date, pa.ChunkedArray] = {}
    for day in sorted(days):
        if not lake.has("raw_transactions", day):
            continue
        raw = lake.read("raw_transactions", day)
        ids = _ids_before(lake, day, ids)
        seen = pa.chunked_array([c for kept in ids.values() for c in kept.chunks], pa.string())
        sorted_out = ingest(raw, day, seen=seen, now=now, currency=currency)
        lake.write("quarantine", day, sorted_out.quarantined)
        lake.write("labels", day, labels_of(sorted_out.clean, lake.read("raw_labels", day)))
        lake.write("transactions", day, sorted_out.clean)
        result.clean[day] = sorted_out.clean.num_rows
        result.quarantined[day] = sorted_out.quarantined.num_rows
        result.reasons.update(sorted_out.quarantined["reason"].to_pylist())
    return result


def _ids_before(
    lake: Lake, day: date, known: dict[date, pa.ChunkedArray]
) -> dict[date, pa.ChunkedArray]:
    """Ids by day of the days before ``day`` within which an id must not come again; ``known`` are read."""
    return {
        d: known[d]
        if d in known
        else lake.read("transactions", d, d, ["transaction_id"])["transaction_id"]
        for d in days_between(day - timedelta(days=REPEAT_DAYS), day - timedelta(days=1))
        if lake.has("transactions", d)
    }

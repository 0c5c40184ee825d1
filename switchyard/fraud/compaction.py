"""Closed segments of the journal into the lake, exactly once, however often it is run or killed.

One row per record, in tables by the UTC day on which it was received: ``decisions``, ``shadows`` and
``served_events``; a day's file names the segments it holds, so a repeated run adds none twice. Verdicts go into the label
ledger, which holds each once (``labels``). A segment whose every day is written is marked, and may go once it is old.
Not here: reading single decisions (``explain``).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from switchyard.errors import JournalError
from switchyard.fraud.columns import TRANSACTION, arrow_schema
from switchyard.fraud.labels import LEDGER, LEDGER_SCHEMA, record_labels
from switchyard.lake import Lake, write_text
from switchyard.lock import alone
from switchyard.serving.index import growing_path, sorted_path
from switchyard.serving.ledger import note_what_the_dead_left
from switchyard.serving.segments import closed_segment, marker_of, segments, whole_bodies

LOCK = "compacting"
"""File of the journal's folder: its holder alone rewrites segments, or the days made of them."""
SEGMENTS_AT_ONCE = 8
"""Bounds the memory: a segment's records take a few hundred megabytes as rows."""
_MOMENT = pa.timestamp("us", tz="UTC")
_HELD = b"switchyard.segments"
_REASON = pa.struct(
    [
        ("code", pa.string()),
        ("feature", pa.string()),
        ("value", pa.float64()),
        ("contribution", pa.float64()),
    ]
)


def _column(name: str, kind: pa.DataType, says: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable, {"says": says})


_RECEIVED = [
    _column("received_at", _MOMENT, "When the service received it"),
    _column("segment", pa.string(), "Segment of the journal that holds the record"),
]
_OF_TRIAL = [
    _column("experiment", pa.string(), "Salt of the experiment; null outside one", nullable=True),
    _column("plan", pa.int64(), "Number of the traffic plan; 0 before the first", nullable=True),
    _column(
        "model_us",
        pa.float64(),
        "Microseconds of the model stage, its share of the batch; reasons apart",
        nullable=True,
    ),
]
DECISION_COLUMNS = [
    _column("decision_id", pa.string(), "The decision's own id"),
    _column("score", pa.float64(), "Probability of fraud; null where rules decided", nullable=True),
    _column("decision", pa.string(), "allow, review or block"),
    _column(
        "propensity",
        pa.float64(),
        "Chance with which exploration decided so; null where nothing was left to chance",
        nullable=True,
    ),
    _column("release", pa.string(), "Release that decided"),
    _column(
        "variant",
        pa.string(),
        "Part of the traffic plan: champion, challenger, control; named: of none, the request named it",
    ),
    *_OF_TRIAL,
    _column("degraded", pa.list_(pa.string()), "Rungs of the two ladders that were stepped on"),
    _column("reasons", pa.list_(_REASON), "Reasons as they were told, contributions in log-odds"),
    _column("latency_ms", pa.float64(), "From the body's arrival to the decision"),
    _column(
        "vector",
        pa.list_(pa.float64()),
        "Features as served, in the order of the release's columns",
        nullable=True,
    ),
    _column("epoch", pa.string(), "Filling of the online store that it saw", nullable=True),
    _column("customer_profile_day", pa.int64(), "Day of the card's profile", nullable=True),
    _column("terminal_profile_day", pa.int64(), "Day of the terminal's profile", nullable=True),
    _column("customer_seq_seen", pa.int64(), "Newest event of the card that it saw", nullable=True),
    _column("terminal_seq_seen", pa.int64(), "The same of the terminal", nullable=True),
]
"""Of a decision beside its transaction."""
SHADOW_COLUMNS = [
    _column("decision_id", pa.string(), "Decision of the champion beside which this was judged"),
    _column("release", pa.string(), "Release in shadow"),
    _column(
        "score", pa.float64(), "Its score of the same vector; null if it failed", nullable=True
    ),
    _column("decision", pa.string(), "What it would have decided", nullable=True),
    *_OF_TRIAL,
]
"""Of what a challenger in shadow said, once for each decision that it had time for."""
SCHEMAS = {
    "decisions": pa.schema([*_RECEIVED, *DECISION_COLUMNS, *arrow_schema(TRANSACTION)]),
    "shadows": pa.schema([*_RECEIVED, *SHADOW_COLUMNS]),
    "served_events": pa.schema([*_RECEIVED, *arrow_schema(TRANSACTION)]),
    LEDGER: LEDGER_SCHEMA,
}
"""Table of the lake -> its columns."""
_TABLE_OF = {
    "decision": "decisions",
    "shadow": "shadows",
    "event": "served_events",
    "label": LEDGER,
}

_Rows = dict[tuple[str, date], list[dict[str, Any]]]
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a run did: rows written by table, and how many segments are now in the lake that were not."""

    rows: dict[str, int]
    segments: int


def compact(journal: Path, lake: Lake) -> Compacted:
    """Bring every closed segment that is not in the lake yet there. Raises JournalError, naming the segment
    and what is wrong, if a record has not the shape of its table; all other segments are in the lake then."""
    rows = dict.fromkeys(SCHEMAS, 0)
    if not journal.exists():
        return Compacted(rows, 0)
    with alone(journal / LOCK):
        return Compacted(rows, _compact(journal, lake, rows))


def _compact(journal: Path, lake: Lake, rows: dict[str, int]) -> int:
    """How many segments are done; ``rows`` grows by what was written. One that can't be brought there stays, and
    keeps no other from it."""
    note_what_the_dead_left(journal)
    there = compacted_names(journal)
    waiting = [segment for segment in segments(journal) if segment.name not in there]
    done, troubles = 0, list[JournalError]()
    for start in range(0, len(waiting), SEGMENTS_AT_ONCE):
        some = waiting[start : start + SEGMENTS_AT_ONCE]
        try:
            done += _bring(some, lake, rows)
        except JournalError:
            for segment in some:
                try:
                    done += _bring([segment], lake, rows)
                except JournalError as error:
                    troubles.append(error)
    if troubles:
        raise JournalError(
            f"{len(troubles)} of {len(waiting)} segments stay in the journal, the others are in the lake: {troubles[0]}"
        )
    return done


def _bring(some: Sequence[Path], lake: Lake, rows: dict[str, int]) -> int:
    """How many of these segments were closed, and are in the lake now."""
    with ExitStack() as stack:
        closed = [
            segment for segment in some if stack.enter_context(closed_segment(segment)) is not None
        ]
        for (table, day), found in _rows_of(closed).items():
            if table == LEDGER:
                rows[table] += record_labels(lake, _verdicts(found))
            else:
                rows[table] += _add(lake, table, day, found)
        for segment in closed:
            write_text("", marker_of(segment))
        return len(closed)


def remove_old(journal: Path, before: datetime) -> int:
    """Remove the segments that are in the lake and were last written before that moment; how many."""
    removed = 0
    for segment in segments(journal):
        old = segment.stat().st_mtime < before.timestamp()
        if old and marker_of(segment).exists():
            for file in (segment, sorted_path(segment), growing_path(segment), marker_of(segment)):
                file.unlink(missing_ok=True)
            removed += 1
    return removed


def compacted_names(journal: Path) -> set[str]:
    """Names of the segments that are in the lake."""
    return {f"{marker.stem}.journal" for marker in journal.glob("*.compacted")}


def _rows_of(closed: Sequence[Path]) -> _Rows:
    rows: _Rows = defaultdict(list)
    for segment in closed:
        for body in whole_bodies(segment):
            record = _decode(body)
            table = _TABLE_OF.get(record.get("type", ""))
            if table is None or record.get("from_source"):  # the source's own are in its table
                continue
            try:
                day = datetime.fromtimestamp(record["received_at"] // 1_000_000, UTC).date()
                rows[table, day].append(row_of(record) | {"segment": segment.name})
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise JournalError(
                    f"{segment} has a record that is no row of {table!r}: {type(error).__name__} {error}"
                ) from None
    return rows


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """A record as a row: the transaction's columns beside its own, times under the columns' names."""
    flat = record | record.get("transaction", {})
    return {name.removesuffix("_us"): value for name, value in flat.items()}


def _verdicts(found: list[dict[str, Any]]) -> pa.Table:
    told = {"source": "investigator"}
    return _as_rows(LEDGER, [row | told | {"recorded_at": row["received_at"]} for row in found])


def _add(lake: Lake, table: str, day: date, found: list[dict[str, Any]]) -> int:
    """Add the rows of segments that the day does not hold yet, and write the day whole; rows added."""
    path = lake.path(table, day)
    held = segments_in(path)
    new = [row for row in found if row["segment"] not in held]
    if not new:
        return 0
    rows = _as_rows(table, new)
    if path.exists():
        held_rows = pq.read_table(path).replace_schema_metadata(None)
        both = pa.concat_tables([held_rows, rows], promote_options="default")
        rows = both.select(
            rows.schema.names
        )  # a column that an earlier version did not have is null
    names = sorted(held | {row["segment"] for row in new})
    rows = rows.sort_by("received_at").replace_schema_metadata({_HELD: json.dumps(names)})
    lake.write(table, day, rows)
    return len(new)


def _as_rows(table: str, found: list[dict[str, Any]]) -> pa.Table:
    try:
        return pa.Table.from_pylist(found, SCHEMAS[table])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise JournalError(
            f"records of {sorted({row['segment'] for row in found})} are no rows of {table!r}: {error}; "
            "they were written by another version, compact them with its code"
        ) from error


def segments_in(path: Path) -> set[str]:
    """Names of the segments whose rows a day's file holds; none if there is no such file."""
    if not path.exists():
        return set()
    return set(json.loads((pq.read_schema(path).metadata or {}).get(_HELD, b"[]")))

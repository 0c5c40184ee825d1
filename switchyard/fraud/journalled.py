"""The decisions of a span of event time: from the lake where the journal was compacted, else from the journal itself.

What a service decides is seen here at once, open segments included; each decision once, also while the journal is being
compacted: a segment counts as in the lake once it is marked, when its every day is written. Not here: checking
decisions (``recompute``), one decision by its id (``explain``).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.errors import JournalError
from switchyard.fraud.compaction import SCHEMAS, compacted_names, row_of
from switchyard.lake import Lake
from switchyard.serving.rewriting import origin_of
from switchyard.serving.segments import segments, whole_bodies

TABLE = "decisions"


class _Moment(msgspec.Struct):
    event_timestamp_us: int


class _Head(msgspec.Struct):
    """What tells whether a record is a decision of the span; the rest of it is skipped."""

    type: str
    transaction: _Moment | None = None


_head = msgspec.json.Decoder(_Head).decode
_whole = msgspec.json.Decoder(dict[str, Any]).decode


def decisions_between(
    journal: Path, lake: Lake, start: datetime, end: datetime, columns: list[str]
) -> pa.Table:
    """The decisions with start <= event_timestamp < end, ``columns`` of the lake's ``decisions``; in no order.

    Raises JournalError, naming the segment, if a record of the span has not the table's shape.
    """
    schema = pa.schema([SCHEMAS[TABLE].field(name) for name in columns])
    there = compacted_names(journal)
    waiting = [segment for segment in segments(journal) if segment.name not in there]
    names = [name for s in waiting for name in (s.name, origin_of(s.name))]
    wanted = (
        (pc.field("event_timestamp") >= start)
        & (pc.field("event_timestamp") < end)
        & ~pc.field("segment").isin(pa.array(names, pa.string()))
    )
    days = [day for day in lake.days(TABLE) if day >= _received_from(start)]
    parts = [_read(lake.path(TABLE, day), columns, wanted) for day in days]
    bounds = tuple(int(moment.timestamp() * 1_000_000) for moment in (start, end))
    parts += [_rows(segment, bounds, schema) for segment in waiting if not _older(segment, start)]
    return pa.concat_tables(
        [schema.empty_table(), *(part.cast(schema) for part in parts)]
    ).replace_schema_metadata(None)


def _received_from(start: datetime) -> date:
    """What took place then was received then or later; a clock that goes ahead is allowed for."""
    return date.fromordinal(start.date().toordinal() - 1)


def _older(segment: Path, start: datetime) -> bool:
    """Last written before anything of the span had taken place, so that it holds nothing of it."""
    return segment.stat().st_mtime < start.timestamp() - 86_400


def _read(path: Path, columns: list[str], wanted: pc.Expression) -> pa.Table:
    there = set(pq.read_schema(path).names)
    table = pq.read_table(path, columns=[c for c in columns if c in there], filters=wanted)
    for name in columns:
        if name not in there:  # an earlier version had no such column
            kind = SCHEMAS[TABLE].field(name).type
            table = table.append_column(name, pa.nulls(len(table), kind))
    return table.select(columns)


def _rows(segment: Path, bounds: tuple[int, ...], schema: pa.Schema) -> pa.Table:
    try:
        rows = [row_of(_whole(body)) for body in _of_span(segment, *bounds)]
        return pa.Table.from_pylist(rows, schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, msgspec.DecodeError, KeyError) as error:
        raise JournalError(
            f"{segment} has a decision that is no row of '{TABLE}': {error}; it was written by another version"
        ) from error


def _of_span(segment: Path, first_us: int, past_us: int) -> Iterator[bytes]:
    for body in whole_bodies(segment):
        head = _head(body)
        moment = head.transaction
        if head.type == "decision" and moment and first_us <= moment.event_timestamp_us < past_us:
            yield body

"""Batch scoring: rows of Parquet files by the release that serving uses, of bounded memory, resumable.

A row is either a transaction whose profiles and activity are in the lake (its vector is computed as training
computes it), or a vector already: ``transaction_id`` and the release's columns. The command line, the asset
``batch_scores`` and ``POST /v1/batch_predict`` all come here. Not here: queues (``serving.jobs``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import InputError, ReleaseError
from switchyard.fraud.columns import TRANSACTION, arrow_schema, names
from switchyard.fraud.features import code_hash, vectors_of
from switchyard.lake import Lake
from switchyard.learning import Floats
from switchyard.learning.release import Release
from switchyard.piecewise import Advance, Parquet, work_through
from switchyard.storage import Place

SCHEMA = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("event_timestamp", pa.timestamp("us", tz="UTC")),  # null if the input has none
        pa.field("score", pa.float64(), nullable=False),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("release", pa.string(), nullable=False),
    ]
)
SPAN_DAYS = 7
"""Days of activity and profiles in memory at a time, for transactions in no order."""
_DECISIONS = np.array(["allow", "review", "block"], dtype=object)


def score_rows(
    lake: Lake,
    release: Release,
    source: Place,
    output: Place,
    advance: Advance = lambda _what, _done, _of: None,
) -> int:
    """Score every row of ``source``, a Parquet file or a folder of them, into ``output``; rows.

    The output is one file if it is named ``*.parquet``, else a folder with a file for each of the
    input's. Both may lie in an object store. Started again after a kill it goes on behind the last finished
    piece (``piecewise``). Raises InputError if the rows are of neither form or can't be read, LakeError if a
    transaction's activity is not in the lake, ReleaseError if transactions need columns that this code does
    not compute, StorageError if an object store fails.
    """
    rows = Parquet.at(source)
    form = _form_of(rows, lake, release)
    return work_through(
        rows,
        output,
        lambda table: _scored(table, form.vectors(table), release),
        columns=form.columns,
        schema=SCHEMA,
        identity=f"{release.id} {form.name}",
        advance=advance,
    )


def score_days(lake: Lake, release: Release, days: list[date]) -> dict[date, int]:
    """Score each day's transactions into the lake's ``batch_scores``; rows by day.

    A day is written whole, and again with the same result; a day without transactions is left out.
    Raises LakeError if a day's transactions lack their activity.
    """
    return {
        day: score_rows(
            lake, release, lake.path("transactions", day), lake.path("batch_scores", day)
        )
        for day in days
        if lake.has("transactions", day)
    }


@dataclass(frozen=True, slots=True)
class _Form:
    """What rows look like: the columns that are read, and how vectors come of them."""

    name: str
    columns: list[str]
    vectors: Callable[[pa.Table], Floats]


def _form_of(rows: Parquet, lake: Lake, release: Release) -> _Form:
    found = set(rows.schema.names)
    raw, ready = names(TRANSACTION), ["transaction_id", *release.columns]
    if found.issuperset(ready):
        _refuse_text(rows, release)
        times = [name for name in ("event_timestamp",) if name in found]
        return _Form("vectors", [*ready, *times], lambda table: _matrix(table, release.columns))
    if found.issuperset(raw):
        if release.manifest["code_hash"] != code_hash():
            raise ReleaseError(
                f"release {release.id} has columns of code {release.manifest['code_hash']}; this code "
                "computes others, so it can score only rows that hold them already"
            )
        return _Form("transactions", raw, lambda table: _computed(table, lake))
    raise InputError(
        f"{rows.source} holds neither transactions (missing {_some(raw, found)}) nor vectors of release "
        f"{release.id} (missing {_some(ready, found)})"
    )


def _some(wanted: list[str], found: set[str]) -> str:
    missing = [name for name in wanted if name not in found]
    return ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")


def _refuse_text(rows: Parquet, release: Release) -> None:
    for name in release.columns:
        kind = rows.schema.field(name).type
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        ):
            raise InputError(f"{rows.source}: column '{name}' is {kind}; a feature is a number")


def _matrix(table: pa.Table, columns: tuple[str, ...]) -> Floats:
    out = np.empty((len(table), len(columns)))
    for i, name in enumerate(columns):
        out[:, i] = table[name].cast(pa.float64()).to_numpy()
    return out


def _computed(table: pa.Table, lake: Lake) -> Floats:
    """Vectors of transactions in any order, few days at a time."""
    transactions = _transactions(table)
    out: list[Floats] = []
    places = []
    for rows in _spans(transactions):
        out.append(vectors_of(lake, transactions.take(rows)))
        places.append(rows)
    vectors: Floats = np.concatenate(out)[np.argsort(np.concatenate(places))]
    return vectors


def _transactions(table: pa.Table) -> pa.Table:
    try:
        return table.cast(arrow_schema(TRANSACTION))
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"the rows are no transactions: {error}") from None


def _spans(transactions: pa.Table) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The rows of each SPAN_DAYS days that occur."""
    days = transactions["event_timestamp"].cast(pa.int64()).to_numpy() // (
        SPAN_DAYS * 86_400_000_000
    )
    for span in np.unique(days):
        yield np.flatnonzero(days == span)


def _scored(table: pa.Table, vectors: Floats, release: Release) -> pa.Table:
    ids = table["transaction_id"].cast(pa.string())
    if ids.null_count:
        raise InputError(f"{ids.null_count} rows have no transaction_id; each row needs one")
    scores = release.score(vectors)
    limits = release.thresholds
    levels = (scores >= limits.review).astype(np.int8) + (scores >= limits.block)
    return pa.Table.from_arrays(
        [
            ids,
            _times(table),
            pa.array(scores),
            pa.array(_DECISIONS[levels], pa.string()),
            pa.repeat(release.id, len(scores)),
        ],
        schema=SCHEMA,
    )


def _times(table: pa.Table) -> pa.ChunkedArray | pa.Array:
    kind = SCHEMA.field("event_timestamp").type
    if "event_timestamp" not in table.column_names:
        return pa.nulls(len(table), kind)
    return pc.cast(table["event_timestamp"], kind)

"""Batch scoring: the transactions of whole days, by the vectors and the release that serving uses."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa

from switchyard.fraud.features import vectors_of
from switchyard.lake import Lake
from switchyard.learning.release import Release

SCHEMA = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("event_timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("release", pa.string(), nullable=False),
    ]
)


def score_days(lake: Lake, release: Release, days: list[date]) -> dict[date, int]:
    """Score each day's transactions into the lake's ``batch_scores``; rows by day.

    A day is written whole, and again with the same result; a day without transactions is left out.
    Raises LakeError if a day's transactions lack their activity.
    """
    rows: dict[date, int] = {}
    for day in days:
        if not lake.has("transactions", day):
            continue
        transactions = lake.read("transactions", day)
        scores = release.score(vectors_of(lake, transactions))
        scored = pa.Table.from_arrays(
            [
                transactions["transaction_id"],
                transactions["event_timestamp"],
                pa.array(scores),
                pa.array([release.thresholds.decide(score) for score in scores.tolist()]),
                pa.array(np.full(len(scores), release.id)),
            ],
            schema=SCHEMA,
        )
        lake.write("batch_scores", day, scored)
        rows[day] = scored.num_rows
    return rows

"""Labels are only what was known at the moment asked about."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from switchyard.fraud.columns import LABEL, arrow_schema
from switchyard.fraud.labels import labels_as_of
from switchyard.lake import Lake

DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_label(name: str, known: datetime | None) -> dict[str, object]:
    return {
        "transaction_id": name,
        "customer_id": "c1",
        "terminal_id": "t1",
        "event_timestamp": NOON,
        "is_fraud": True,
        "label_available_at": known,
    }


def test_a_label_is_there_from_the_moment_it_was_known(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    known = NOON + timedelta(days=5)
    rows = [make_label("early", known), make_label("never", None)]
    lake.write("labels", DAY, pa.Table.from_pylist(rows, arrow_schema(LABEL)))

    before = labels_as_of(lake, DAY, DAY, known - timedelta(microseconds=1))
    then = labels_as_of(lake, DAY, DAY, known)

    assert len(before) == 0
    assert then["transaction_id"].to_pylist() == ["early"]


def test_days_without_labels_have_none(tmp_path: Path) -> None:
    assert len(labels_as_of(Lake(tmp_path), DAY, DAY, NOON)) == 0

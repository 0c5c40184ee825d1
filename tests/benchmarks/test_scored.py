"""Decisions to resample from: those of a home's journal with their labels, kept as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.scored import journalled
from switchyard.lake import Lake
from switchyard.settings import Settings, load_settings
from tests.releases import make_release

DAY = datetime(2026, 3, 1, tzinfo=UTC)
N = 60


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """A lake whose decisions, written from last to first, are of two releases; ten have no label yet."""
    settings = load_settings(home=tmp_path)
    release = make_release(settings.releases).id
    ids = [f"t{i}" for i in range(N)]
    when = [DAY + timedelta(minutes=N - i) for i in range(N)]
    decisions = pa.table(
        {
            "transaction_id": ids,
            "customer_id": [f"c{i % 7}" for i in range(N)],
            "event_timestamp": pa.array(when, pa.timestamp("us", tz="UTC")),
            "amount_minor": pa.array(range(N), pa.int64()),
            "score": [None if i == 5 else i / N for i in range(N)],
            "release": [release if i >= 20 else "f" * 32 for i in range(N)],
            "degraded": pa.array([["stale_profile"] if i == 30 else [] for i in range(N)]),
        }
    )
    labels = pa.table({"transaction_id": ids[:50], "is_fraud": [i % 10 == 0 for i in range(50)]})
    lake = Lake(settings.lake)
    lake.write("decisions", DAY.date(), decisions)
    lake.write("labels", DAY.date(), labels)
    return settings


def test_they_are_those_of_one_release_with_a_label_in_order_of_time(home: Settings):
    found = journalled(home, least=30)

    assert found is not None
    assert found.amount_minor.tolist() == list(range(49, 19, -1))
    assert np.flatnonzero(found.degraded).tolist() == [49 - 30]
    assert found.amount_minor[found.is_fraud].tolist() == [40, 30, 20]
    assert (found.review, found.block) == (0.3, 0.6)
    assert found.customer.max() == 6


def test_too_few_are_none(home: Settings):
    assert journalled(home, least=31) is None
    assert journalled(load_settings(home=home.home / "empty")) is None

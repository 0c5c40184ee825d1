"""The measured world holds what the conditions of the figures ask for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load import CUSTOMERS, TERMINALS
from benchmarks.world import (
    COLUMNS,
    FLAGGED_AMOUNT,
    Floats,
    fill,
    make_release,
    newest_day,
    vectors_of_load,
)
from switchyard.fraud.columns import PROFILE_TTL_DAYS
from switchyard.fraud.events import decode_blob
from switchyard.fraud.online import online_store_of
from switchyard.serving import valkey
from switchyard.serving.freshness import PERIOD_US, profile_state
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.trip import Trip, Wanted
from switchyard.settings import Settings
from tests.homes import open_small, own_environment

US = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Settings]:
    opened = open_small(tmp_path_factory.mktemp("world"), mlflow_database)
    yield opened
    valkey.stop(opened.home)


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[OnlineStore]:
    with own_environment():
        made = online_store_of(valkey.address_of(settings).url)
        fill(settings, made, datetime.now(UTC))
    yield made
    made.close()


@pytest.fixture(scope="module")
def trip(store: OnlineStore) -> Trip:
    pairs = [Wanted((str(i % CUSTOMERS), str(i))) for i in range(TERMINALS)]
    return store.read(pairs, timeout_s=20.0)


@pytest.fixture(scope="module")
def sample(settings: Settings, store: OnlineStore) -> Floats:
    return vectors_of_load(settings, store)


def test_every_card_and_terminal_has_a_current_profile(trip: Trip) -> None:
    now = (datetime.now(UTC) - EPOCH) // US
    for times, synced in zip(trip.available_at, trip.synced_through, strict=True):
        states = {profile_state(int(t), now, synced, PROFILE_TTL_DAYS * PERIOD_US) for t in times}

        assert states == {"current"}


def test_every_card_has_ten_events_and_every_terminal_thirty_within_30_days(trip: Trip) -> None:
    since = (datetime.now(UTC) - timedelta(days=30) - EPOCH) // US

    customers, terminals = (
        min(np.sum(decode_blob(blob)[1]["event_timestamp"] >= since) for blob in blobs)
        for blobs in trip.activity
    )

    assert customers >= 10
    assert terminals >= 30


def test_one_percent_of_the_load_is_flagged(settings: Settings, sample: Floats) -> None:
    release = make_release(settings, sample, trees=60, rows=8_000)

    decisions = np.array([release.thresholds.decide(score) for score in release.score(sample)])

    flagged = decisions != "allow"
    assert 0.005 < flagged.mean() < 0.02
    assert set(sample[flagged, COLUMNS.index("amount")]) == {FLAGGED_AMOUNT}
    assert "block" in decisions


def test_the_newest_day_is_the_one_whose_profile_counts_by_now() -> None:
    assert newest_day(datetime(2026, 1, 3, 2, tzinfo=UTC)).isoformat() == "2026-01-02"
    assert newest_day(datetime(2026, 1, 3, 1, 59, tzinfo=UTC)).isoformat() == "2026-01-01"

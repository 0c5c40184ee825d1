"""A sync reaches both stores of a real home: the online store and the cold one beside it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from switchyard.errors import StoreError
from switchyard.fraud.compaction import compact
from switchyard.fraud.labels import LEDGER
from switchyard.fraud.online import VIEWS, cold_store_of
from switchyard.fraud.sync import sync_activity, sync_profiles
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake
from switchyard.serving import valkey
from switchyard.serving.cold_store import ColdStore
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.trip import Wanted
from switchyard.settings import load_settings
from tests.streams import NOON, land, make_label, make_transaction

DAY = date(2026, 3, 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineStore]:
    home: Path = tmp_path_factory.mktemp("sync")
    store = OnlineStore(valkey.start(home), "sync", VIEWS)
    yield store
    store.close()
    valkey.stop(home)


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[ColdStore]:
    cold = cold_store_of(None, tmp_path / "cold" / "store.sqlite")
    yield cold
    cold.close()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = land(tmp_path / "lake", [make_transaction()])
    build_profiles(lake, DAY, DAY, created_at=datetime(2026, 3, 2, tzinfo=UTC))
    return lake


def test_both_stores_have_the_same_rows(lake: Lake, store: OnlineStore, cold: ColdStore) -> None:
    written = sync_profiles(lake, store, DAY, cold)

    trip = store.read([Wanted(("c1", "s1"))])
    found = cold.read([["c1"], ["s1"]])
    assert written == 2
    for v, entity in enumerate(("c1", "s1")):
        assert found[v].profiles[entity].profile.tolist() == trip.profiles[v][0].tolist()
        assert found[v].profiles[entity].available_at == trip.available_at[v][0]
        assert found[v].synced_through == trip.synced_through[v]


def test_an_online_store_that_is_gone_keeps_nothing_from_the_cold_one(
    lake: Lake, cold: ColdStore, tmp_path: Path
) -> None:
    nowhere = OnlineStore(f"unix://{tmp_path}/nobody.sock", "x", VIEWS)

    with pytest.raises(StoreError, match="profiles of 2026-03-01 are not everywhere"):
        sync_profiles(lake, nowhere, DAY, cold)

    assert set(cold.read([["c1"], ["s1"]])[1].profiles) == {"s1"}


def test_a_cold_store_that_is_gone_keeps_nothing_from_the_online_one(
    lake: Lake, store: OnlineStore, tmp_path: Path
) -> None:
    (tmp_path / "in the way").write_text("")
    broken = cold_store_of(None, tmp_path / "in the way" / "store.sqlite")

    with pytest.raises(StoreError, match="can't be written"):
        sync_profiles(lake, store, DAY, broken)

    assert store.read([Wanted(("c1", "s1"))]).profiles[1][0, 0] == 20_513


def test_the_sources_verdicts_that_a_sync_journals_stay_out_of_the_label_ledger(
    store: OnlineStore, tmp_path: Path
) -> None:
    settings, payment = load_settings(home=tmp_path / "home"), make_transaction()
    lake = land(settings.lake, [payment], [make_label(payment)])
    sync_activity(lake, store, settings, NOON + timedelta(hours=1))
    done = sync_activity(lake, store, settings, NOON + timedelta(days=8))

    rows = compact(settings.journal, lake).rows

    assert (rows["served_events"], rows[LEDGER]) == (1, 0)
    assert done.events == 2

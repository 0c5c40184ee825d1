"""The feature ladder on a real Valkey and a real SQLite cold store, on a clock that stands still until told."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from switchyard.errors import StoreError
from switchyard.serving.cold_store import ColdStore, open_cold_store
from switchyard.serving.cold_tables import Found, Mark, Row
from switchyard.serving.commands import Commands
from switchyard.serving.feast_format import MISSING, View
from switchyard.serving.freshness import PERIOD_US
from switchyard.serving.ladder import FeatureLadder, StandIn
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.recent import KEPT_S, Recent
from switchyard.serving.trip import Trip, Wanted
from tests.serving.test_breaker import Clock
from tests.serving.test_online_store import append, make_record

CARD = View("card_profile", "card_id", "card", ("day", "count", "bits"))
SHOP = View("shop_profile", "shop_id", "shop", ("day", "sum"))
VIEWS = (CARD, SHOP)
DAY = PERIOD_US
WANTED = [Wanted(("c", "s"))]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(store_url: str, project: str) -> Iterator[OnlineStore]:
    store = OnlineStore(store_url, project, VIEWS)
    yield store
    store.close()


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[ColdStore]:
    cold = open_cold_store(None, tmp_path / "cold.sqlite", VIEWS)
    yield cold
    cold.close()


@pytest.fixture
def ladder(cold: ColdStore, clock: Clock) -> FeatureLadder:
    return FeatureLadder(VIEWS, Recent(VIEWS, 100), cold, clock=clock)


def write(store: OnlineStore | ColdStore, day: int, card: str = "c", shop: str = "s") -> None:
    """Profiles of the day in both views, with the day in their columns."""
    for view, entity in ((CARD, card), (SHOP, shop)):
        row = np.full((1, len(view.features)), day)
        store.write_profiles(view.name, [entity], row, np.array([day * DAY]))


def read(ladder: FeatureLadder, store: OnlineStore, wanted: list[Wanted]) -> Trip:
    trip = store.read(wanted)
    ladder.took(wanted, trip)
    return trip


def stand_in(ladder: FeatureLadder, wanted: list[Wanted] | None = None) -> StandIn:
    return asyncio.run(ladder.stand_in(wanted or WANTED))


def same(one: Trip, other: Trip) -> bool:
    pairs = zip(
        (*one.profiles, *one.available_at), (*other.profiles, *other.available_at), strict=True
    )
    return all(np.array_equal(a, b) for a, b in pairs) and one.activity == other.activity


def test_what_was_lately_read_stands_in_with_its_activity(
    ladder: FeatureLadder, store: OnlineStore
) -> None:
    write(store, 10)
    append(store, make_record(5, 1), make_record(6, 2))
    trip = read(ladder, store, WANTED)

    found = stand_in(ladder)

    assert found.rungs == ["cached_features"]
    assert same(found.trip, trip)
    assert found.trip.synced_through == trip.synced_through == (10 * DAY, 10 * DAY)
    assert len(found.trip.activity[0][0]) > 2 * 48


def test_what_the_caller_does_to_a_trip_later_changes_nothing_that_is_kept(
    ladder: FeatureLadder, store: OnlineStore
) -> None:
    write(store, 10)
    read(ladder, store, WANTED).profiles[0][:] = MISSING
    stand_in(ladder).trip.profiles[0][:] = MISSING

    assert stand_in(ladder).trip.profiles[0].tolist() == [[10, 10, 10]]


def test_a_key_known_to_have_no_profile_is_no_further_rung(
    ladder: FeatureLadder, store: OnlineStore
) -> None:
    read(ladder, store, WANTED)

    found = stand_in(ladder)

    assert found.rungs == ["cached_features"]
    assert found.trip.available_at[0].tolist() == [MISSING]


def test_after_five_minutes_the_cold_store_takes_over(
    ladder: FeatureLadder, store: OnlineStore, cold: ColdStore, clock: Clock
) -> None:
    for each in (store, cold):
        write(each, 10)
    append(store, make_record(5))
    read(ladder, store, WANTED)

    clock.now_s += KEPT_S
    at_last = stand_in(ladder).rungs
    clock.now_s += 0.001
    found = stand_in(ladder)

    assert (at_last, found.rungs) == (["cached_features"], ["cold_features"])
    assert found.trip.profiles[0].tolist() == [[10, 10, 10]]
    assert found.trip.available_at[1].tolist() == [10 * DAY]
    assert found.trip.activity == ([b""], [b""])


def test_each_transaction_stands_on_its_own_rung(
    ladder: FeatureLadder, store: OnlineStore, cold: ColdStore
) -> None:
    for each in (store, cold):
        write(each, 10)
    read(ladder, store, WANTED)

    found = stand_in(ladder, [Wanted(("c", "s")), Wanted(("c", "new")), Wanted(("x", "y"))])

    assert found.rungs == ["cached_features", "cold_features", "cold_features"]
    assert found.trip.profiles[0].tolist() == [[10] * 3, [10] * 3, [MISSING] * 3]


def test_without_any_store_there_are_the_defaults(tmp_path: Path, clock: Clock) -> None:
    never_synced = open_cold_store(None, tmp_path / "none.sqlite", VIEWS)

    for cold in (None, never_synced):
        found = stand_in(FeatureLadder(VIEWS, Recent(VIEWS, 100), cold, clock=clock))

        assert found.rungs == ["default_features"]
        assert [matrix.tolist() for matrix in found.trip.profiles] == [
            [[MISSING] * 3],
            [[MISSING] * 2],
        ]
        assert found.trip.activity == ([b""], [b""])
        assert found.trip.claims == [None]


def test_a_view_that_was_never_synced_leaves_its_entities_on_the_defaults(
    ladder: FeatureLadder, cold: ColdStore
) -> None:
    cold.write_profiles("card_profile", ["c"], np.array([[1, 1, 1]]), np.array([DAY]))

    found = stand_in(ladder)

    assert found.rungs == ["default_features"]
    assert found.trip.profiles[0].tolist() == [[1, 1, 1]]


def test_the_older_mark_counts_so_that_no_profile_passes_for_newer_than_it_is(
    ladder: FeatureLadder, store: OnlineStore, cold: ColdStore
) -> None:
    write(store, 10)
    write(cold, 9)
    read(ladder, store, WANTED)

    found = stand_in(ladder, [Wanted(("other", "s"))])

    assert found.trip.synced_through == (9 * DAY, 9 * DAY)


def test_after_five_failures_the_store_is_left_alone_and_probed_again(
    ladder: FeatureLadder, store: OnlineStore, clock: Clock
) -> None:
    for _ in range(5):
        assert ladder.tries_store()
        ladder.failed(StoreError("it is gone"))
    left_alone = not ladder.tries_store()
    clock.now_s += 1.3

    probed = ladder.tries_store()
    read(ladder, store, WANTED)

    assert left_alone
    assert probed
    assert ladder.breaker.state == "closed"


def test_failures_are_logged_once_a_minute(
    ladder: FeatureLadder, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "switchyard.serving.ladder"):
        for _ in range(4):
            ladder.failed(StoreError("it is gone"))
        clock.now_s += 60
        ladder.failed(StoreError("it is gone"))

    said = [r.getMessage() for r in caplog.records if r.name == "switchyard.serving.ladder"]
    assert said == [
        "deciding without the online store: it is gone",
        "deciding without the online store: it is gone (and 3 times more since it was last said)",
    ]


def test_a_damaged_cold_store_means_the_defaults_and_is_left_alone(
    ladder: FeatureLadder, clock: Clock, tmp_path: Path
) -> None:
    (tmp_path / "cold.sqlite").write_bytes(b"garbage" * 1000)

    rungs = [stand_in(ladder).rungs[0] for _ in range(6)]

    assert rungs == ["default_features"] * 6
    assert ladder.cold_breaker.state == "open"


class HangingTables:
    """The tables of a database that answers when it is let go."""

    quick = False

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked = 0

    def read(self, _wanted: object) -> Found:
        self.asked += 1
        self.let_go.wait()
        return {}, {view.name: [] for view in VIEWS}

    def write(self, view: str, rows: Sequence[Row], mark: Mark) -> int:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_a_cold_store_that_hangs_holds_up_no_decision_and_is_asked_once(clock: Clock) -> None:
    tables = HangingTables()
    ladder = FeatureLadder(
        VIEWS, Recent(VIEWS, 100), ColdStore(tables, VIEWS), clock=clock, cold_patience_s=0.01
    )

    async def three_times() -> list[str]:
        found = [(await ladder.stand_in(WANTED)).rungs[0] for _ in range(3)]
        tables.let_go.set()
        return [str(rung) for rung in found]

    assert asyncio.run(three_times()) == ["default_features"] * 3
    assert tables.asked == 1
    ladder.close()


# ---------------------------------------------------------------- what is kept


def test_the_least_recently_read_goes_first(store: OnlineStore) -> None:
    recent = Recent(VIEWS, 2)
    for name in ("a", "b", "a", "c"):
        wanted = [Wanted((name, name))]
        recent.remember(wanted, store.read(wanted), 0.0)

    kept = [name for name in ("a", "b", "c") if recent.recall(0, name, 0.0)]

    assert kept == ["a", "c"]
    assert len(recent) == 4


def test_what_could_not_be_read_is_not_kept(store: OnlineStore, store_url: str) -> None:
    import redis

    recent = Recent(VIEWS, 10)
    with redis.Redis.from_url(store_url) as client:
        client.hset(Commands(store.project, VIEWS).activity_key("card", "damaged"), "a", "b")
    wanted = [Wanted(("damaged", "s1")), Wanted(("fine", "s2"))]

    recent.remember(wanted, store.read(wanted), 0.0)

    assert recent.recall(0, "damaged", 0.0) is None
    assert recent.recall(0, "fine", 0.0) is not None


def test_from_a_store_that_was_filled_anew_on_nothing_read_before_serves(
    ladder: FeatureLadder, store: OnlineStore
) -> None:
    read(ladder, store, WANTED)
    before = stand_in(ladder).rungs
    elsewhere = [Wanted(("other", "other"))]

    ladder.took(elsewhere, store.read(elsewhere)._replace(epoch="the next"))

    found = stand_in(ladder)
    assert (before, found.rungs) == (["cached_features"], ["default_features"])
    assert found.trip.epoch == "the next"

"""The feature ladder on a real Valkey and a real SQLite cold store, on a clock that stands still until told."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from switchyard.errors import StoreError
from switchyard.serving.cold_store import ColdStore, open_cold_store
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
    return FeatureLadder(VIEWS, Recent(VIEWS), cold, clock=clock)


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


def test_profiles_asked_for_and_not_there_are_counted_by_view(
    ladder: FeatureLadder, store: OnlineStore
) -> None:
    before = list(ladder.profiles())
    write(store, 10)
    read(ladder, store, [*WANTED, Wanted(("c", "unseen"))])

    assert before == [(CARD.name, 0, 0, None), (SHOP.name, 0, 0, None)]
    assert list(ladder.profiles()) == [(CARD.name, 2, 0, 10 * DAY), (SHOP.name, 2, 1, 10 * DAY)]


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
        found = stand_in(FeatureLadder(VIEWS, Recent(VIEWS), cold, clock=clock))

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


def test_a_postgres_that_hangs_holds_up_one_decision_and_is_read_again_when_it_answers(
    postgres_url: str, clock: Clock, tmp_path: Path
) -> None:
    import psycopg

    cold = open_cold_store(postgres_url, tmp_path, VIEWS)
    write(cold, 10)
    ladder = FeatureLadder(VIEWS, Recent(VIEWS), cold, clock=clock, cold_patience_s=0.5)

    async def rungs() -> list[str]:
        seen = [str((await ladder.stand_in(WANTED)).rungs[0])]
        with psycopg.connect(postgres_url) as other:
            hanging = other.execute(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT v.view%'"
            ).fetchall()
        for (pid,) in hanging:
            os.kill(pid, signal.SIGSTOP)
        for _ in range(3):
            seen.append((await ladder.stand_in(WANTED)).rungs[0])
        for (pid,) in hanging:
            os.kill(pid, signal.SIGCONT)
        for _ in range(100):
            clock.now_s += 2  # past any pause of the breaker
            seen.append((await ladder.stand_in(WANTED)).rungs[0])
            if seen[-1] == "cold_features":
                break
            await asyncio.sleep(0.05)
        return seen

    seen = asyncio.run(rungs())

    assert seen[:4] == ["cold_features", *["default_features"] * 3]
    assert seen[-1] == "cold_features"
    ladder.close()


# ---------------------------------------------------------------- what is kept


def test_the_least_recently_read_goes_first(store: OnlineStore) -> None:
    recent = Recent(VIEWS, most_bytes=2 * 2 * 480)  # two entities of each of two views
    for name in ("a", "b", "a", "c"):
        wanted = [Wanted((name, name))]
        recent.remember(wanted, store.read(wanted), 0.0)

    kept = [name for name in ("a", "b", "c") if recent.recall(0, name, 0.0)]

    assert kept == ["a", "c"]
    assert len(recent) == 4


def test_what_could_not_be_read_is_not_kept(store: OnlineStore, store_url: str) -> None:
    import redis

    recent = Recent(VIEWS)
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

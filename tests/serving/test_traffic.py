"""Where the plan is kept: a real store and a file, which agree, and each of which is enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from switchyard.errors import PlanError, ReleaseError
from switchyard.serving.plan import Change, Plan, first
from switchyard.serving.traffic import (
    KEPT,
    Traffic,
    change_plan,
    decides,
    mirror_of,
    mirrored,
    plan_key,
    stamp_of,
)

A, B, C, D = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOWHERE = "redis://127.0.0.1:5299/0"
Make = Callable[..., Traffic]


@pytest.fixture
def make(tmp_path: Path, store_url: str, project: str) -> Iterator[Make]:
    made: list[Traffic] = []

    def make(home: str = "home", url: str = store_url) -> Traffic:
        made.append(Traffic(tmp_path / home, url, project))
        return made[-1]

    yield make
    for traffic in made:
        traffic.close()


@pytest.fixture
def store(store_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(store_url)
    yield client
    client.close()


def change(traffic: Traffic, action: str, release: str | None = None, **fields: object) -> Plan:
    wanted = Change(action, "ann", "a test", release, **fields)  # type: ignore[arg-type]
    return change_plan(traffic, A, wanted, now=NOW)[1]


def test_before_the_first_change_there_is_no_plan(make: Make) -> None:
    traffic = make()

    assert (traffic.current(), traffic.history(), stamp_of(traffic.home)) == (None, [], 0)
    assert (mirrored(traffic.home), decides(traffic.home, A)) == (None, A)


def test_a_change_says_who_when_and_why_and_the_history_from_what_to_what(make: Make) -> None:
    traffic = make()

    shadow = change(traffic, "shadow", B)
    canary = change(traffic, "canary", share=0.1)

    assert (shadow.number, canary.number) == (1, 2)
    assert (canary.who, canary.when, canary.why) == ("ann", NOW, "a test")
    assert traffic.history() == [shadow, canary]
    assert mirrored(traffic.home) == traffic.current() == canary


def test_every_change_has_a_stamp_of_its_own_and_none_where_nothing_changes(make: Make) -> None:
    traffic = make()
    change(traffic, "shadow", B)
    first_stamp = stamp_of(traffic.home)

    change(traffic, "shadow", B)
    same_stamp = stamp_of(traffic.home)
    change(traffic, "reload")

    assert 0 < first_stamp == same_stamp < stamp_of(traffic.home)
    assert len(traffic.history()) == 2


def test_another_home_of_the_same_store_has_the_same_plan(make: Make) -> None:
    here, there = make("here"), make("there")
    plan = change(here, "shadow", B)

    assert there.current() == plan
    assert mirrored(there.home) == plan


def test_a_store_that_is_away_is_done_without_and_catches_up_later(make: Make) -> None:
    before = change(make(), "canary", B, share=0.2)
    away = make(url=NOWHERE)

    known = away.current()
    rolled_back = change(away, "rollback")

    assert known == before
    assert rolled_back.challenger is None
    assert mirrored(away.home) == rolled_back
    assert make("elsewhere").current() == before  # the store does not know it yet
    assert make().history() == [before, rolled_back]
    assert make("elsewhere").current() == rolled_back


def test_a_new_store_is_filled_from_the_mirror(
    make: Make, store: redis.Redis, project: str
) -> None:
    traffic = make()
    plans = [change(traffic, "shadow", B), change(traffic, "canary", share=0.1)]
    store.delete(plan_key(project))

    assert traffic.current() == plans[-1]
    assert make("elsewhere").history() == plans


def test_a_lost_or_damaged_mirror_is_written_anew_from_the_store(make: Make) -> None:
    traffic = make()
    plan = change(traffic, "shadow", B)

    for damage in ("", "{", '{"champion": 7}'):
        mirror_of(traffic.home).write_text(damage)
        assert traffic.current() == plan
        assert mirrored(traffic.home) == plan
    mirror_of(traffic.home).unlink()
    assert traffic.current() == mirrored(traffic.home) == plan


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"bento": "x", "champion": "../../etc"}', '{"champion": 7}']
)
def test_what_is_no_plan_is_refused_with_the_way_out(make: Make, content: str) -> None:
    traffic = make(url=NOWHERE)
    traffic.home.mkdir()
    mirror_of(traffic.home).write_text(content)

    with pytest.raises(ReleaseError, match=r"traffic\.jsonl can't be read .*remove it"):
        traffic.current()


def test_of_two_plans_with_the_same_number_the_stores_holds(make: Make) -> None:
    here, away = make("here"), make("there", NOWHERE)
    ours, theirs = change(here, "shadow", B), change(away, "shadow", C)

    assert ours.number == theirs.number
    assert make("there").current() == ours


def test_of_many_changes_at_once_none_is_lost(make: Make) -> None:
    def work(who: str) -> None:
        traffic = make(who[0])
        for n in range(10):
            change_plan(traffic, A, Change("reload", who, f"{n}"), now=NOW)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, ("one", "other", "two")))

    assert [plan.number for plan in make().history()] == list(range(1, 31))


def test_only_the_newest_plans_are_kept(make: Make, store: redis.Redis, project: str) -> None:
    traffic = make()
    plan = json.loads(json.dumps({"bento": A, "champion": A}))
    store.rpush(plan_key(project), *[json.dumps(plan | {"number": n + 1}) for n in range(KEPT)])

    change(traffic, "shadow", B)

    numbers = [plan.number for plan in traffic.history()]
    assert (numbers[0], numbers[-1], len(numbers)) == (2, KEPT + 1, KEPT)
    assert len(mirror_of(traffic.home).read_bytes().splitlines()) == KEPT


def test_a_plan_for_another_bento_counts_as_none_but_numbers_go_on(make: Make) -> None:
    traffic = make()
    change(traffic, "shadow", B)

    _, plan = change_plan(traffic, D, Change("shadow", "ann", "why", C), now=NOW)

    assert (plan.bento, plan.champion, plan.challenger, plan.number) == (D, D, C, 2)
    assert (decides(traffic.home, D), decides(traffic.home, A)) == (D, A)


def test_a_release_that_can_not_be_served_changes_nothing(make: Make) -> None:
    traffic = make()
    asked: list[str] = []

    def check(release: str) -> None:
        asked.append(release)
        raise ReleaseError("holds no release")

    with pytest.raises(ReleaseError, match="holds no release"):
        change_plan(traffic, A, Change("shadow", "ann", "why", B), now=NOW, check=check)

    assert (asked, traffic.history()) == ([B], [])


def test_what_a_plan_can_not_be_is_refused_before_it_is_kept(make: Make) -> None:
    traffic = make()

    with pytest.raises(PlanError, match="no such plan"):
        change(traffic, "canary", B, share=0.7)

    assert traffic.current() is None


def test_what_lies_in_the_store_instead_of_plans_does_not_hide_the_homes(
    make: Make, store: redis.Redis, project: str
) -> None:
    traffic = make()
    plan = change(traffic, "shadow", B)
    store.set(plan_key(project), "no list")

    assert traffic.current() == plan
    assert first(A).number == 0

"""Following the plan: taken when it can be served, refused with words when not, never in a request's way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from switchyard.fraud.online import VIEWS
from switchyard.learning.release import Release, load_release
from switchyard.learning.thresholds import Thresholds
from switchyard.serving.commands import Commands
from switchyard.serving.hot_store import HotStore
from switchyard.serving.lineup import Lineup, Standing
from switchyard.serving.plan import Change, Plan
from switchyard.serving.reload import Reloader
from switchyard.serving.traffic import Traffic, change_plan, mirrored, plan_key
from switchyard.serving.workers import (
    Service,
    Worker,
    open_run_folder,
    run_folder,
    services,
    tell,
    workers,
)
from tests import loops
from tests.releases import make_release

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOWHERE = "redis://127.0.0.1:5299/0"
Newest = Callable[[], Awaitable[bytes | None]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reload")


@pytest.fixture(scope="module")
def own(releases: Path) -> Release:
    return make_release(releases)


@pytest.fixture(scope="module")
def other(releases: Path) -> Release:
    return make_release(releases, thresholds=Thresholds(0.2, 0.5))


@pytest.fixture
def lineup(own: Release) -> Lineup:
    return Lineup(Standing(own))


@pytest.fixture
def traffic(home: Path, store_url: str, project: str) -> Iterator[Traffic]:
    traffic = Traffic(home, store_url, project)
    yield traffic
    traffic.close()


@pytest.fixture
def reloader(traffic: Traffic, lineup: Lineup, releases: Path) -> Reloader:
    return make_reloader(traffic, lineup, lambda i: load_release(releases / i))


async def nothing() -> None:
    """A store whose plan nobody changes."""


def make_reloader(
    traffic: Traffic, lineup: Lineup, load: Callable[[str], Any], newest: Newest = nothing
) -> Reloader:
    return Reloader(traffic, newest, lineup, load, traffic.home / "run" / "1")


def write(traffic: Traffic, bento: str, champion: str, previous: str | None = None) -> int:
    """Let there be such a plan; its number."""
    plan = Plan(bento=bento, champion=champion, previous=previous)
    _, after = traffic.change(bento, lambda _: plan, who="ann", why="a test", now=NOW)
    return after.number


def trial(traffic: Traffic, bento: str, release: str, share: float = 0.2) -> int:
    change = Change("canary", "ann", "a test", release, share)
    return change_plan(traffic, bento, change, now=NOW)[1].number


def told(home: Path) -> Worker:
    (worker,) = workers(home / "run" / "1")
    return worker


def test_without_a_plan_the_bentos_own_release_decides(
    home: Path, reloader: Reloader, lineup: Lineup, own: Release
) -> None:
    reloader.begin()

    assert lineup.standing == Standing(own)
    assert told(home) == Worker(os.getpid(), own.id, None, None, plan=0)


def test_a_plan_is_followed_from_the_start(
    traffic: Traffic, reloader: Reloader, lineup: Lineup, own: Release, other: Release
) -> None:
    number = write(traffic, own.id, other.id, own.id)

    reloader.begin()

    assert (lineup.champion.id, lineup.previous) == (other.id, own)
    assert lineup.standing.loaded[own.id] is own
    assert told(traffic.home) == Worker(os.getpid(), other.id, own.id, None, plan=number)


def test_a_plan_for_another_bento_changes_nothing(
    traffic: Traffic, reloader: Reloader, lineup: Lineup, own: Release, other: Release
) -> None:
    write(traffic, other.id, other.id)
    write(traffic, other.id, own.id)

    reloader.begin()

    assert lineup.standing == Standing(own)


def test_an_unknown_release_is_refused_with_words_and_the_old_one_goes_on(
    traffic: Traffic, reloader: Reloader, lineup: Lineup, own: Release
) -> None:
    number = write(traffic, own.id, "0" * 32)

    reloader.begin()

    assert lineup.champion is own
    assert "holds no release" in (told(traffic.home).refused or "")
    assert told(traffic.home).plan == number


def test_without_its_predecessor_a_champion_serves_all_the_same(
    traffic: Traffic, reloader: Reloader, lineup: Lineup, own: Release, other: Release
) -> None:
    write(traffic, own.id, other.id, "0" * 32)

    reloader.begin()

    assert (lineup.champion.id, lineup.previous) == (other.id, None)
    assert told(traffic.home).refused is None


def test_a_challenger_is_loaded_stands_on_trial_and_leaves_when_it_is_withdrawn(
    traffic: Traffic, reloader: Reloader, lineup: Lineup, own: Release, other: Release
) -> None:
    number = trial(traffic, own.id, other.id)

    reloader.begin()
    standing, said = lineup.standing, told(traffic.home)
    change_plan(traffic, own.id, Change("rollback", "ann", "worse"), now=NOW)
    reloader.begin()

    assert standing.champion is own
    assert standing.challenger is not None
    assert standing.challenger.id == other.id
    assert standing.trial == standing.plan
    assert said == Worker(os.getpid(), own.id, None, other.id, plan=number)
    assert (lineup.standing.challenger, lineup.standing.trial) == (None, None)
    assert set(lineup.standing.loaded) == {own.id}


def test_a_promoted_challenger_decides_without_being_loaded_again(
    traffic: Traffic, lineup: Lineup, own: Release, other: Release
) -> None:
    loaded: list[str] = []

    def load(release: str) -> Release:
        loaded.append(release)
        return other

    reloader = make_reloader(traffic, lineup, load)
    trial(traffic, own.id, other.id)
    reloader.begin()

    change_plan(traffic, own.id, Change("promote", "ann", "better"), now=NOW)
    reloader.begin()

    assert (lineup.champion, lineup.previous, loaded) == (other, own, [other.id])


def test_a_challenger_whose_columns_this_code_can_not_compute_is_not_tried_and_the_champion_goes_on(
    traffic: Traffic, lineup: Lineup, own: Release, other: Release, releases: Path
) -> None:
    foreign = make_release(releases, code_hash="of-another-code")
    write(traffic, own.id, other.id, own.id)
    trial(traffic, own.id, foreign.id)
    reloader = make_reloader(
        traffic, lineup, lambda i: load_release(releases / i, computes={own.manifest["code_hash"]})
    )

    reloader.begin()

    assert (lineup.champion.id, lineup.standing.challenger) == (other.id, None)
    assert lineup.standing.trial is None
    assert "of-another-code" in (told(traffic.home).refused or "")


def test_a_change_is_taken_while_the_loop_goes_on_and_loaded_in_a_thread(
    traffic: Traffic, lineup: Lineup, own: Release, other: Release, releases: Path
) -> None:
    outcomes: list[str] = []
    threads: list[bool] = []

    async def scene() -> int:
        def load(release_id: str) -> Release:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                threads.append(True)
            return load_release(releases / release_id)

        reloader = Reloader(
            traffic,
            nothing,
            lineup,
            load,
            traffic.home / "run" / "1",
            reloaded=outcomes.append,
        )
        reloader.begin()
        task = asyncio.create_task(reloader.watch())
        write(traffic, own.id, other.id)
        reloader.call()
        turns = 0
        while "taken" not in outcomes or lineup.champion.id != other.id:
            await asyncio.sleep(0.001)
            turns += 1
        task.cancel()
        return turns

    turns = asyncio.run(asyncio.wait_for(scene(), 30))

    assert turns > 1
    assert set(outcomes) == {"taken"}
    assert threads == [True]


async def followed(reloader: Reloader, lineup: Lineup, begin: Callable[[], object]) -> None:
    """Begin a trial in a thread beside a worker that watches, and return when it has its challenger."""
    reloader.begin()
    task = asyncio.create_task(reloader.watch())
    await asyncio.to_thread(begin)
    async with asyncio.timeout(30):
        while lineup.standing.challenger is None:
            await asyncio.sleep(0.01)
    task.cancel()


def test_a_change_made_on_another_host_arrives_through_the_store(
    traffic: Traffic, lineup: Lineup, own: Release, other: Release, home: Path, store_url: str,
    project: str,
) -> None:  # fmt: skip
    elsewhere = Traffic(home / "elsewhere", store_url, project)
    hot = HotStore(store_url, Commands(project, VIEWS), budget_s=1.0)

    reloader = make_reloader(traffic, lineup, lambda _: other, lambda: hot.last(plan_key(project)))
    loops.run(hot, followed(reloader, lineup, lambda: trial(elsewhere, own.id, other.id)))

    assert mirrored(home) == elsewhere.current()
    elsewhere.close()


def test_without_the_store_a_change_of_the_home_is_followed(
    lineup: Lineup, own: Release, other: Release, home: Path, project: str
) -> None:
    traffic = Traffic(home, NOWHERE, project)
    hot = HotStore(NOWHERE, Commands(project, VIEWS))

    reloader = make_reloader(traffic, lineup, lambda _: other, lambda: hot.last(plan_key(project)))
    loops.run(hot, followed(reloader, lineup, lambda: trial(traffic, own.id, other.id)))

    assert told(home).challenger == other.id


def test_a_release_whose_loading_breaks_is_refused_and_the_next_plan_is_followed(
    traffic: Traffic, lineup: Lineup, own: Release, other: Release
) -> None:
    broken = True

    def load(_release_id: str) -> Any:
        if broken:
            raise RuntimeError("no such symbol")
        return other

    reloader = make_reloader(traffic, lineup, load)
    write(traffic, own.id, other.id)

    reloader.begin()
    refused, stood = told(traffic.home).refused, lineup.champion
    broken = False
    reloader.begin()

    assert "no such symbol" in (refused or "")
    assert (stood, lineup.champion) == (own, other)


# ---------------------------------------------------------------- who serves


def test_only_living_services_and_workers_are_listed(home: Path) -> None:
    gone = 2**22 + 1  # beyond the kernel's largest process id
    tell(run_folder(home, gone), Worker(gone, "a" * 32, None, None, 0))

    own_folder = open_run_folder(home, "b" * 32)
    tell(own_folder, Worker(gone, "a" * 32, None, None, 0))
    tell(own_folder, Worker(os.getpid(), "b" * 32, None, None, 0))

    assert not run_folder(home, gone).exists()
    assert services(home) == [Service(os.getpid(), "b" * 32)]
    assert [worker.pid for worker in workers(own_folder)] == [os.getpid()]

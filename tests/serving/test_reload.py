"""Following the plan: taken when it can be served, refused with words when not, never in a request's way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchyard.errors import ReleaseError
from switchyard.learning.release import Release, load_release
from switchyard.learning.thresholds import Thresholds
from switchyard.serving.lineup import Lineup, Standing
from switchyard.serving.plan import Plan, decides, plan_file, read_plan, stamp_of, write_plan
from switchyard.serving.reload import Reloader
from switchyard.serving.workers import (
    Service,
    Worker,
    open_run_folder,
    run_folder,
    services,
    tell,
    workers,
)
from tests.releases import make_release

Make = Callable[[], Reloader]


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
def reloader(home: Path, lineup: Lineup, releases: Path) -> Reloader:
    return Reloader(home, lineup, lambda i: load_release(releases / i), home / "run" / "1")


def told(home: Path) -> Worker:
    (worker,) = workers(home / "run" / "1")
    return worker


def test_without_a_plan_the_bentos_own_release_decides(
    home: Path, reloader: Reloader, lineup: Lineup, own: Release
) -> None:
    reloader.begin()

    assert lineup.standing == Standing(own)
    assert told(home) == Worker(os.getpid(), own.id, None, plan=0)


def test_a_plan_is_followed_from_the_start(
    home: Path, reloader: Reloader, lineup: Lineup, own: Release, other: Release
) -> None:
    stamp = write_plan(home, Plan(own.id, other.id, own.id))

    reloader.begin()

    assert (lineup.champion.id, lineup.previous) == (other.id, own)
    assert lineup.standing.find(own.id) is own
    assert told(home) == Worker(os.getpid(), other.id, own.id, plan=stamp)


def test_a_plan_for_another_bento_changes_nothing(
    home: Path, reloader: Reloader, lineup: Lineup, own: Release, other: Release
) -> None:
    write_plan(home, Plan(other.id, other.id))

    reloader.begin()

    assert lineup.standing == Standing(own)


def test_an_unknown_release_is_refused_with_words_and_the_old_one_goes_on(
    home: Path, reloader: Reloader, lineup: Lineup, own: Release
) -> None:
    write_plan(home, Plan(own.id, "0" * 32))

    reloader.begin()

    assert lineup.champion is own
    assert "holds no release" in (told(home).refused or "")


def test_without_its_predecessor_a_champion_serves_all_the_same(
    home: Path, reloader: Reloader, lineup: Lineup, own: Release, other: Release
) -> None:
    write_plan(home, Plan(own.id, other.id, "0" * 32))

    reloader.begin()

    assert (lineup.champion.id, lineup.previous) == (other.id, None)
    assert told(home).refused is None


def test_a_change_is_taken_while_the_loop_goes_on_and_loaded_in_a_thread(
    home: Path, lineup: Lineup, own: Release, other: Release, releases: Path
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

        reloader = Reloader(home, lineup, load, home / "run" / "1", reloaded=outcomes.append)
        reloader.begin()
        task = asyncio.create_task(reloader.watch())
        write_plan(home, Plan(own.id, other.id))
        reloader.call()
        turns = 0
        while not outcomes:
            await asyncio.sleep(0.001)
            turns += 1
        task.cancel()
        return turns

    turns = asyncio.run(asyncio.wait_for(scene(), 30))

    assert turns > 1
    assert (outcomes, threads) == (["taken"], [True])
    assert lineup.champion.id == other.id


def test_a_release_whose_loading_breaks_is_refused_and_the_next_plan_is_followed(
    home: Path, lineup: Lineup, own: Release, other: Release
) -> None:
    broken = True

    def load(_release_id: str) -> Any:
        if broken:
            raise RuntimeError("no such symbol")
        return other

    reloader = Reloader(home, lineup, load, home / "run" / "1")
    write_plan(home, Plan(own.id, other.id))

    reloader.begin()
    refused, stood = told(home).refused, lineup.champion
    broken = False
    reloader.begin()

    assert "no such symbol" in (refused or "")
    assert (stood, lineup.champion) == (own, other)


# ---------------------------------------------------------------- the plan's file


def test_a_plan_is_read_as_it_was_written_and_each_writing_has_a_stamp_of_its_own(
    home: Path,
) -> None:
    plan = Plan("a" * 32, "b" * 32, "c" * 32, "better on the last week")

    first = write_plan(home, plan)
    second = write_plan(home, plan)

    assert read_plan(home) == plan
    assert 0 < first < second == stamp_of(home)
    assert decides(home, "a" * 32) == "b" * 32
    assert decides(home, "d" * 32) == "d" * 32


def test_where_there_is_no_plan_there_is_none(home: Path) -> None:
    assert (read_plan(home), stamp_of(home), decides(home, "a" * 32)) == (None, 0, "a" * 32)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"bento": "x", "champion": "../../etc"}', '{"champion": 7}'],
)
def test_what_is_no_plan_is_refused_with_the_way_out(home: Path, content: str) -> None:
    plan_file(home).write_text(content)

    with pytest.raises(ReleaseError, match=r"traffic\.json can't be read .*switchyard reload"):
        read_plan(home)


# ---------------------------------------------------------------- who serves


def test_only_living_services_and_workers_are_listed(home: Path) -> None:
    gone = 2**22 + 1  # beyond the kernel's largest process id
    tell(run_folder(home, gone), Worker(gone, "a" * 32, None, 0))

    own_folder = open_run_folder(home, "b" * 32)
    tell(own_folder, Worker(gone, "a" * 32, None, 0))
    tell(own_folder, Worker(os.getpid(), "b" * 32, None, 0))

    assert not run_folder(home, gone).exists()
    assert services(home) == [Service(os.getpid(), "b" * 32)]
    assert [worker.pid for worker in workers(own_folder)] == [os.getpid()]

"""Homes: what they hold is fixed, what a kill left is put right, and no two touch each other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from orchestration.home import exports, open_home
from orchestration.runs import PROCESS_TAG, fail_orphaned_runs, process_tag
from switchyard.errors import SettingsError
from switchyard.serving import valkey
from switchyard.settings import Settings
from tests.homes import own_environment


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Callable[..., Settings]]:
    """Opens homes by name in an environment of the test's own."""
    names = set()

    def open_named(name: str = "home", **overrides: Any) -> Settings:
        names.add(name)
        return open_home(home=tmp_path / name, **overrides)

    with own_environment():
        yield open_named
    for name in names:
        valkey.stop(tmp_path / name)


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# ---------------------------------------------------------------- what it holds


def test_a_home_remembers_what_it_holds(opening: Callable[..., Settings], tmp_path: Path) -> None:
    opening(seed=11, customers=50, source="handbook", data=tmp_path)

    again = opening()

    assert (again.seed, again.customers, again.source, again.data) == (11, 50, "handbook", tmp_path)


@pytest.mark.parametrize(
    ("other", "told"),
    [({"seed": 12}, "seed=11, not 12"), ({"source": "handbook"}, "source=simulator, not handbook")],
)
def test_a_home_refuses_other_contents(
    opening: Callable[..., Settings], other: dict[str, Any], told: str
) -> None:
    opening(seed=11)

    with pytest.raises(
        SettingsError, match=f"home holds transactions with {told}; use another home"
    ):
        opening(**other)


def test_a_home_refuses_another_seed_from_the_environment(
    opening: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    opening(seed=11)
    monkeypatch.setenv("SWITCHYARD_SEED", "12")

    with pytest.raises(SettingsError, match="seed=11, not 12"):
        opening()


def test_a_home_opened_after_another_has_a_store_of_its_own(
    opening: Callable[..., Settings],
) -> None:
    first = opening("first")
    before = os.environ["SWITCHYARD_REDIS_URL"]

    second = opening("second")

    assert before == exports(first)["SWITCHYARD_REDIS_URL"]
    assert str(second.home) in os.environ["SWITCHYARD_REDIS_URL"]
    assert valkey.running(second.home)


def test_data_given_from_one_folder_are_found_from_another(
    opening: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opening(source="handbook", data="delivered")
    monkeypatch.chdir("/")

    again = opening()

    assert again.data == tmp_path / "delivered"


# ---------------------------------------------------------------- what a kill left


def test_half_written_files_of_dead_processes_go_and_those_of_living_ones_stay(
    opening: Callable[..., Settings],
) -> None:
    home = opening().home
    dead, living = dead_process(), os.getpid()
    for folder in ("lake/transactions", "training", "releases"):
        (home / folder).mkdir(exist_ok=True)
        for pid in (dead, living):
            (home / folder / f".file.{pid}.part").write_text("half")

    opening()

    left = sorted(str(p.relative_to(home)) for p in home.rglob("*.part"))
    assert left == [
        f"lake/transactions/.file.{living}.part",
        f"releases/.file.{living}.part",
        f"training/.file.{living}.part",
    ]


def add_run(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    run = dg.DagsterRun(job_name="ingest", status=dg.DagsterRunStatus.STARTED, tags=tags)
    return instance.add_run(run).run_id


def tag(**changed: Any) -> dict[str, str]:
    mine = json.loads(process_tag()[PROCESS_TAG])
    return {PROCESS_TAG: json.dumps(mine | changed)}


def test_runs_of_dead_processes_are_marked_failed_and_no_others(tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral(str(tmp_path))
    dead = add_run(instance, tag(pid=dead_process()))
    reused = add_run(instance, tag(started=psutil.Process().create_time() - 60))
    living = add_run(instance, tag())
    elsewhere = add_run(instance, tag(host=f"not-{socket.gethostname()}", pid=dead_process()))
    of_the_daemon = add_run(instance, {})

    marked = fail_orphaned_runs(instance, no_daemon_runs=False)

    failed = {
        r.run_id for r in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    }
    assert set(marked) == failed == {dead, reused}
    assert {r.run_id for r in instance.get_runs()} - failed == {living, elsewhere, of_the_daemon}


def test_runs_of_a_daemon_are_marked_failed_where_none_is_running(tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral(str(tmp_path))
    of_the_daemon = add_run(instance, {})

    assert fail_orphaned_runs(instance, no_daemon_runs=True) == [of_the_daemon]
    assert fail_orphaned_runs(instance, no_daemon_runs=True) == []

"""The demo, killed at work and started again, ends where an undisturbed one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.homes import SMALL, Home, close, free_port, open_small

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0


def ingesting(home: Path) -> bool:
    return len(list((home / "lake" / "transactions").glob("*.parquet"))) >= 10


def training(home: Path) -> bool:
    return (home / "training" / "training_set.parquet").exists()


@dataclass(frozen=True)
class Restarted:
    """A home whose demo was killed, and the figures of the demo that then went through."""

    home: Home
    figures: dict[str, Any]


@pytest.fixture(scope="module")
def restarted(
    tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path
) -> Iterator[Restarted]:
    folder = tmp_path_factory.mktemp("killed")
    settings = open_small(folder / ".switchyard", mlflow_database)
    try:
        for moment in (ingesting, training):
            kill_at(moment, start_demo(folder), settings.home)
        demo = start_demo(folder)
        output, _ = demo.communicate(timeout=PATIENCE_S)
        assert demo.returncode == 0, output
        home = Home.of(settings, dg.DagsterInstance.from_config(str(settings.home / "dagster")))
        yield Restarted(home, json.loads((folder / "demo.json").read_text()))
    finally:
        close(settings)


def start_demo(folder: Path) -> subprocess.Popen[str]:
    small = {f"SWITCHYARD_{name.upper()}": str(value) for name, value in SMALL.items()}
    mine = {"SWITCHYARD_HOME": str(folder / ".switchyard"), "SWITCHYARD_PORT": str(free_port())}
    rest = {k: v for k, v in os.environ.items() if not k.startswith("SWITCHYARD_")}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli", "demo", "--json", str(folder / "demo.json")],
        env=rest | small | mine, cwd=PROJECT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def kill_at(moment: Callable[[Path], bool], demo: subprocess.Popen[str], home: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not moment(home):
        assert demo.poll() is None, demo.communicate()[0]
        assert time.monotonic() < deadline, f"never {moment.__name__}"
        time.sleep(0.01)
    demo.send_signal(signal.SIGKILL)
    demo.communicate()


def test_it_makes_the_release_of_an_undisturbed_home_with_the_same_seed(
    restarted: Restarted, served_home: Home
) -> None:
    (undisturbed,) = served_home.settings.releases.iterdir()

    assert restarted.figures["release_and_deploy"]["release"] == undisturbed.name
    assert [p.name for p in restarted.home.settings.releases.iterdir()] == [undisturbed.name]


def test_every_score_is_the_same_to_the_bit(restarted: Restarted, served_home: Home) -> None:
    first, last = served_home.days[1], served_home.days[1]
    served_home.run("score_batch", [first])

    scores = restarted.home.lake.read("batch_scores", first, last)
    assert scores.num_rows > 0
    assert scores == served_home.lake.read("batch_scores", first, last)


def test_what_it_served_recomputes_without_a_difference(restarted: Restarted) -> None:
    replayed = restarted.figures["replay_and_recompute"]

    assert replayed["rows"] > 0
    assert replayed["differences"] == 0


def test_nothing_half_written_is_left_and_no_run_stays_started(restarted: Restarted) -> None:
    instance = restarted.home.instance
    statuses = [run.status for run in instance.get_runs()]

    assert list(restarted.home.settings.home.rglob("*.part")) == []
    assert statuses.count(dg.DagsterRunStatus.FAILURE) == 2
    assert set(statuses) == {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}

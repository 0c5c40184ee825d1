"""Blue-green under load: new Bentos take over behind the gateway, then a promotion is killed at each of its steps.

Every request that is not answered with a decision counts as failed, none is sent again. Not here: a change of the
plan alone (``traffic``).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from assets.fraud import registry
from benchmarks.retrying import Client, Sent
from benchmarks.served import set_home
from benchmarks.world import World, close_world, make_world
from bentos.fraud.build import build_bento
from orchestration import deployment, promotion
from orchestration.home import EXPERIMENT, exports, prepare_mlflow
from switchyard.errors import SettingsError
from switchyard.fraud.features import code_hash
from switchyard.learning.release import write_release
from switchyard.settings import Settings, load_settings

PORT = 5300
WHO = "the benchmark"
RATE = 500.0
QUICK_RATE = 100.0
SWITCHES = 10
MOST_S = 590.0
"""The client ends by itself after so long."""

Figures = dict[str, Any]


def run(
    console: Any = None, *, quick: bool = False, folder: Path | None = None, **source: Any
) -> Figures:
    """Figures of the switches and of the kills; ``failed`` says what did not hold.

    ``quick``: two switches under less load, and a kill at every second step; ``folder`` keeps the home.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures a world of its own; leave out {', '.join(given)}")
    told = console.print if console else (lambda *_: None)
    with _world(folder) as (world, releases):
        told("both Bentos are built, the first one answers")
        switches = 2 if quick else SWITCHES
        figures: Figures = {
            "switches": _switches(
                world.settings, releases, switches, QUICK_RATE if quick else RATE, told
            ),
            "kills": _kills(world.settings, releases, promotion.STEPS[:: 2 if quick else 1], told),
        }
    figures["failed"] = [
        *(f"{n} requests failed" for n in [figures["switches"]["failed_requests"]] if n),
        *(f"killed before {s}: {k}" for s, k in figures["kills"].items() if not k["agree"]),
    ]
    return figures


@contextlib.contextmanager
def _world(folder: Path | None) -> Iterator[tuple[World, list[str]]]:
    """A home with two registered releases and their Bentos, the first of which answers."""
    with contextlib.ExitStack() as stack:
        home = folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "home"
        world = make_world(home)
        set_home(world, port=PORT, workers=2)
        world = replace(world, settings=load_settings(home=home))
        stack.callback(close_world, world)
        stack.callback(promotion.down, world.settings)
        os.environ.update(exports(world.settings))
        prepare_mlflow(world.settings)
        releases = [world.release.id, _sibling(world)]
        for release in releases:
            _register(world.settings, release)
        promotion.promote(world.settings, releases[0], who=WHO, why="the first")
        yield world, releases


def _sibling(world: World) -> str:
    """The same model under another threshold, packed: a release of its own."""
    release = world.release
    other = write_release(
        world.settings.releases, model=release.model, calibration=release.calibration,
        baseline=release.baseline, baseline_calibration=release.baseline_calibration,
        thresholds=replace(release.thresholds, review=release.thresholds.review / 2),
        feature_service=release.feature_service, columns=release.columns, code_hash=code_hash(),
        training=release.manifest["training"], metrics=release.manifest["metrics"],
    )  # fmt: skip
    build_bento(other.folder, world.settings.home / "bentoml")
    return other.id


def _register(settings: Settings, release: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run():
        registry.register(
            mlflow, settings.mlflow_tracking_uri, release, settings.releases / release
        )


# ---------------------------------------------------------------- switches under load


def _switches(
    settings: Settings, releases: list[str], count: int, rate: float, told: Any
) -> Figures:
    running = deployment.current(settings)
    assert running is not None, "the first release was promoted, so its service runs"
    client = Client(f"{running.url}/v1/predict", rate, MOST_S, 0.0)
    time.sleep(3.0)
    seconds = []
    for i in range(count):
        moved = promotion.promote(
            settings, releases[(i + 1) % 2], who=WHO, why="to switch once more"
        )
        seconds.append(round(moved.seconds, 2))
        told(f"switch {i + 1} of {count} in {moved.seconds:.1f} s")
    time.sleep(1.0)
    sent = client.end()
    failed = [one for one in sent if one.decision_id is None]
    return {
        "switches": count,
        "requests": len(sent),
        "requests_per_s": rate,
        "failed_requests": len(failed),
        "troubles": _counted(failed),
        "degraded": sum(bool(one.degraded) for one in sent),
        "seconds_each": seconds,
        **_latency(sent),
    }


def _counted(failed: list[Sent]) -> dict[str, int]:
    named = [trouble for one in failed for trouble in one.troubles]
    return {name: named.count(name) for name in sorted(set(named))}


def _latency(sent: list[Sent]) -> dict[str, float]:
    """Through the gateway, two services starting and ending on the same processors."""
    latencies = [1e3 * one.answered_after_s for one in sent if one.answered_after_s is not None]
    at = np.percentile(latencies, [50, 99]) if latencies else (0.0, 0.0)
    return {"p50_ms": round(float(at[0]), 2), "p99_ms": round(float(at[1]), 2)}


# ---------------------------------------------------------------- kills


def _kills(settings: Settings, releases: list[str], steps: tuple[str, ...], told: Any) -> Figures:
    """For each step: a promotion killed just before it, recovered, and who is named where afterwards."""
    figures: Figures = {}
    forking = multiprocessing.get_context("forkserver")
    for step in steps:
        answers = deployment.named(settings)
        assert answers is not None, "a release was promoted"
        other = next(release for release in releases if release != answers.release)
        process = forking.Process(target=_killed, args=(str(settings.home), other, step))
        process.start()
        process.join()
        said = promotion.recover(settings) or "nothing"
        named = promotion.agreement(settings)
        agree = len(set(named.values())) == 1 and process.exitcode == -signal.SIGKILL
        outcome = "completed" if "completed" in said else "undone"
        figures[step] = {"agree": agree, "recovered": outcome, "decides": named["plan"]}
        told(f"killed before '{step}': {said}")
    return figures


def _killed(home: str, release: str, step: str) -> None:
    settings = load_settings(home=home)
    os.environ.update(exports(settings))
    promotion.promote(settings, release, who=WHO, why="to be killed", step=partial(_kill_at, step))


def _kill_at(step: str, name: str) -> None:
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)

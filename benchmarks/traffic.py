"""Changes of the traffic plan under load: how soon every worker follows, and what shadow costs.

Requests arrive at a constant rate all the while (``peers/openloop.py``), so a stall would show. Not here: the judge of a
canary, deployment.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.demo import ROOT
from benchmarks.served import Served, service
from benchmarks.serving import Figures, Told, machine
from benchmarks.world import World, close_world, make_world
from orchestration.traffic import asked, change_traffic
from switchyard.errors import SettingsError
from switchyard.learning.release import Release, write_release
from switchyard.serving.segments import read_journal

PORT = 5200
WORKERS = 2
RATE = 500
BARS = {"change_s": 1.0, "shadow_p99": 1.1}
TOLD = {"who": "bench", "why": "measured"}


@dataclass(frozen=True)
class Lengths:
    """Challengers that are loaded, pairs of measurements without and with shadow, seconds of each."""

    challengers: int = 10
    pairs: int = 7
    seconds: float = 10.0


QUICK = Lengths(challengers=2, pairs=1, seconds=3.0)


def run(
    console: Any = None, *, quick: bool = False, folder: Path | None = None, **source: Any
) -> Figures:
    """Figures of ``changes`` and ``shadow``, and ``reached`` by bar.

    ``quick``: little of it; ``folder`` keeps the home. ``failed`` lists answers that were none.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures a world of its own; leave out {', '.join(given)}")
    told: Told = console.print if console is not None else lambda _: None
    with tempfile.TemporaryDirectory(prefix="switchyard-traffic-") as temporary:
        world = make_world(folder or Path(temporary) / "home")
        try:
            with service(world, PORT, WORKERS) as served:
                figures = measure(world, served, QUICK if quick else Lengths(), told)
        finally:
            close_world(world)
    return {"machine": machine()} | figures


def measure(world: World, served: Served, lengths: Lengths, told: Told) -> Figures:
    """The figures of a running service."""
    challengers = [challenger_of(world, n) for n in range(lengths.challengers)]
    told(f"{RATE} arrivals/s, {WORKERS} workers: {lengths.challengers} challengers come and go")
    found = changes(world, served, challengers)
    pairs = []
    for number in range(lengths.pairs):
        told(f"without and with shadow, pair {number + 1} of {lengths.pairs}")
        pairs.append(shadowed(world, served, challengers[0], lengths.seconds))
    ratio = round(statistics.median(b["p99_ms"] / a["p99_ms"] for a, b in pairs), 3)
    shadow = {
        "p99_ms": [(a["p99_ms"], b["p99_ms"]) for a, b in pairs],
        "p99_ratio": ratio,
        "judged_share": round(statistics.median(b["judged_share"] for _, b in pairs), 4),
    }
    bad = sum(a["bad"] + b["bad"] for a, b in pairs) + found["bad"]
    slowest = max(found["slowest_step_s"], found["slowest_rollback_s"])
    return {
        "changes": found,
        "shadow": shadow,
        "reached": {
            "change_s": slowest < BARS["change_s"],
            "shadow_p99": ratio <= BARS["shadow_p99"],
            "no_request_failed": bad == 0,
        },
        "failed": [f"{bad} requests were not answered with 200"] if bad else [],
    }


def changes(world: World, served: Served, challengers: list[Release]) -> Figures:
    """Each challenger is loaded, grows and is rolled back; seconds until every worker follows each change."""
    loads, steps, rollbacks = [], [], []
    with arrivals(served, 4.0 * len(challengers)) as outcome:
        time.sleep(1.0)
        for challenger in challengers:
            named = {"release": challenger.id}
            loads.append(seconds_of(world, action="canary", share=0.05, **named))
            steps.append(seconds_of(world, action="canary", share=0.2, **named))
            time.sleep(0.5)
            rollbacks.append(seconds_of(world, action="rollback", **named))
    return {
        "challengers": len(challengers),
        "slowest_load_s": max(loads),
        "slowest_step_s": max(steps),
        "median_step_s": round(statistics.median(steps), 3),
        "slowest_rollback_s": max(rollbacks),
        "median_rollback_s": round(statistics.median(rollbacks), 3),
        **outcome,
    }


def shadowed(
    world: World, served: Served, challenger: Release, seconds: float
) -> tuple[Figures, Figures]:
    """The load's figures without and with the challenger in shadow."""
    with arrivals(served, seconds) as without:
        pass
    seconds_of(world, action="shadow", release=challenger.id)
    before = shadows(world)
    with arrivals(served, seconds) as beside:
        pass
    time.sleep(0.5)
    judged = shadows(world) - before
    seconds_of(world, action="rollback", release=challenger.id)
    return without, beside | {"judged_share": judged / (RATE * seconds)}


def shadows(world: World) -> int:
    """Decisions that a shadow has judged so far."""
    return sum(record["type"] == "shadow" for record in read_journal(world.settings.journal))


def seconds_of(world: World, **change: Any) -> float:
    """Seconds from the change until every worker says that it follows."""
    return round(change_traffic(world.settings, asked(change | TOLD)).seconds, 3)


@contextmanager
def arrivals(served: Served, seconds: float) -> Iterator[Figures]:
    """Load at RATE while the block runs, at least; the figures are there when it has ended."""
    url, outcome = f"{served.url}/v1/predict", dict[str, Any]()
    command = [sys.executable, "-m", "benchmarks.peers.openloop", url, str(RATE), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as sending:
        yield outcome
        said = json.loads(sending.communicate()[0])
    outcome |= {"sent": said["sent"], "bad": sum(said["bad"].values())}
    outcome |= {"degraded": said["degraded"], "p50_ms": said["p50_ms"], "p99_ms": said["p99_ms"]}


def challenger_of(world: World, number: int) -> Release:
    """The world's model with other thresholds: as dear as the champion, and another release."""
    own = world.release
    review = own.thresholds.review * (1 - (number + 1) / 100)
    return write_release(
        world.settings.releases,
        model=own.model,
        calibration=own.calibration,
        baseline=own.baseline,
        baseline_calibration=own.baseline_calibration,
        thresholds=replace(own.thresholds, review=review),
        feature_service=own.feature_service,
        columns=own.columns,
        code_hash=own.manifest["code_hash"],
        training=own.manifest["training"],
        metrics=own.manifest["metrics"],
    )

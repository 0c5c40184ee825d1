"""The decision service by plain ``bentoml serve``, beside its peers in the same run.

Each round takes every candidate in turn, so that a machine that slows down slows all of them; reported are
medians over rounds, and ratios within a round. CPU seconds per decision stand beside them: they move less
on a busy machine. Not here: the world that is served (``world``), processes (``served``), what is sent
(``load``, ``peers/openloop.py``), faults (``faults``).
"""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import load, wrk
from benchmarks.demo import ROOT
from benchmarks.load import BULK, Bodies, closed_loop
from benchmarks.served import (
    Peers,
    Served,
    cpu_seconds,
    peers,
    private_mb,
    service,
    store_process,
)
from benchmarks.world import World, adopt, close_world, make_world
from switchyard.errors import ServiceError, SettingsError, SwitchyardError
from switchyard.settings import default_home

PORT = 4600
SECTIONS = ("closed", "bulk", "open", "hot", "soak")
CONNECTIONS = (8, 32)
RATE = 600
HIGH_RATE = 1_000
MOST_DEGRADED = 0.01
BARS = {"predict_to_peer": 2.5, "bulk_to_single": 2.0, "p99_to_peer": 0.1, "p99_ms_at_1000": 10.0,
        "hot_rate": 0.8, "hot_p99": 1.5, "soak_growth": 0.05}  # fmt: skip

Figures = dict[str, Any]
Told = Callable[[str], None]


@dataclass(frozen=True)
class Lengths:
    """How long everything takes: rounds, and seconds of each measurement."""

    rounds: int = 5
    closed_s: float = 4.0
    open_s: float = 20.0
    high_s: float = 60.0
    hot_s: float = 10.0
    warm_up_s: float = 180.0
    soak_s: float = 600.0


QUICK = Lengths(
    rounds=1, closed_s=3.0, open_s=3.0, high_s=3.0, hot_s=3.0, warm_up_s=6.0, soak_s=20.0
)


def run(
    console: Any = None,
    *,
    quick: bool = False,
    only: str | None = None,
    soak: bool = False,
    folder: Path | None = None,
    **source: Any,
) -> Figures:
    """Figures by section, and ``reached`` by bar.

    ``only``: sections of SECTIONS, comma-separated (default: all but the soak, which ``soak`` adds);
    ``quick``: one short round; ``folder`` keeps the world for the next run. ``failed`` lists what makes the
    run worthless: answers that were not 200, more than MOST_DEGRADED of the decisions degraded.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures a world of its own; leave out {', '.join(given)}")
    sections = _sections(only, soak)
    told: Told = console.print if console is not None else lambda _: None
    demo_home = default_home()  # before the world's own home becomes the environment's
    with tempfile.TemporaryDirectory(prefix="switchyard-serving-") as temporary:
        told("making the world: cards, terminals, release, Bento")
        world = make_world(folder or Path(temporary) / "home")
        try:
            return measure(world, demo_home, sections, QUICK if quick else Lengths(), told)
        finally:
            close_world(world)


def measure(
    world: World, demo_home: Path, sections: Sequence[str], lengths: Lengths, told: Told
) -> Figures:
    """The figures of ``sections``; ``reached`` says which bars of these hold.

    ``demo_home``: the home whose champion is shown beside, if it has one.
    """
    figures: Figures = {"machine": machine(), "world": described(world)}
    if {"closed", "bulk", "open"} & set(sections):
        with service(world, PORT) as ours, peers(PORT + 1) as theirs:
            bench = Bench(world, ours, theirs, lengths, told)
            if {"closed", "bulk"} & set(sections):
                figures |= closed(bench, sections)
            if "open" in sections:
                figures["open"] = open_loop(bench)
        if "closed" in sections:
            figures["shipped_model"] = shipped(world, demo_home, lengths, told)
    if {"open", "hot", "soak"} & set(sections):
        with service(world, PORT, workers=2) as ours:
            bench = Bench(world, ours, None, lengths, told)
            for name, section in (("open", high_rate), ("hot", hot_terminal), ("soak", soaked)):
                if name in sections:
                    figures.setdefault(name, {}).update(section(bench))
    return figures | {"reached": verdicts(figures), "failed": failures(figures)}


@dataclass
class Bench:
    """What is running and how long to ask it."""

    world: World
    ours: Served
    theirs: Peers | None
    lengths: Lengths
    told: Told
    store: psutil.Process = field(init=False)

    def __post_init__(self) -> None:
        self.store = store_process(self.world.settings.home)


# ---------------------------------------------------------------- closed loop


@dataclass(frozen=True)
class Candidate:
    """Something that answers: ``weight`` decisions in each request, ``status`` expected; ``decides``:
    its replies are the contract's."""

    served: Served
    store: psutil.Process
    path: str
    bodies: Bodies | None
    weight: int = 1
    status: int = 200
    decides: bool = False


def closed(bench: Bench, sections: Sequence[str]) -> Figures:
    """Decisions/s and p99 of each candidate at each number of connections, and ratios."""
    candidates, lengths = _candidates(bench, sections), bench.lengths
    for candidate in candidates.values():
        _asked(candidate, 8, min(2.0, lengths.closed_s))
    taken: dict[tuple[str, int], list[Figures]] = {}
    for number, connections in itertools.product(range(lengths.rounds), CONNECTIONS):
        bench.told(
            f"closed loop, round {number + 1} of {lengths.rounds}, {connections} connections"
        )
        for name, candidate in candidates.items():
            found = _asked(candidate, connections, lengths.closed_s)
            taken.setdefault((name, connections), []).append(found)
        if wrk.available() and "closed" in sections:
            for name in ("predict", "peer"):
                found = _by_wrk(candidates[name], connections, lengths.closed_s)
                taken.setdefault((f"{name}_by_wrk", connections), []).append(found)
    return {f"at_{n}_connections": _medians(taken, n) for n in CONNECTIONS}


def _candidates(bench: Bench, sections: Sequence[str]) -> dict[str, Candidate]:
    assert bench.theirs is not None
    ours, theirs = bench.ours, bench.theirs
    of_peer = lambda: load.transactions(int_ids=True)  # noqa: E731
    found = {
        "predict": Candidate(ours, bench.store, "/v1/predict", load.transactions, decides=True)
    }
    if "bulk" in sections:
        found["bulk"] = Candidate(
            ours, bench.store, "/v1/predict/bulk", load.in_bulk, BULK, decides=True
        )
    if "closed" in sections:
        refused = lambda: itertools.repeat(b"{}")  # noqa: E731
        found |= {
            "peer": Candidate(theirs.naive, theirs.store, "/v1/predict", of_peer),
            "plain_bento": Candidate(
                theirs.plain_bento, theirs.store, "/v1/predict", load.as_argument
            ),
            "refused": Candidate(ours, bench.store, "/v1/predict", refused, status=422),
            "empty": Candidate(ours, bench.store, "/livez", None),
        }
    return found


def _asked(candidate: Candidate, connections: int, seconds: float) -> Figures:
    before = candidate.served.cpu_s(), cpu_seconds(candidate.store)
    try:
        found = closed_loop(
            candidate.served.port, candidate.path, candidate.bodies, connections, seconds
        )
    except ConnectionError as error:
        raise ServiceError(
            f"{candidate.served.url} can't be reached ({error}); its log ends with:\n"
            f"{candidate.served.log.read_text(errors='replace')[-2_000:]}"
        ) from error
    after = candidate.served.cpu_s(), cpu_seconds(candidate.store)
    others = {status: n for status, n in found.statuses.items() if status != candidate.status}
    decisions = len(found.latencies) * candidate.weight
    figures = {
        "per_second": found.per_second() * candidate.weight,
        "p50_ms": found.percentile_ms(50),
        "p99_ms": found.percentile_ms(99),
        "worker_cpu_us": (after[0] - before[0]) / decisions * 1e6,
        "store_cpu_us": (after[1] - before[1]) / decisions * 1e6,
        "sender_cpu_us": found.cpu_s / decisions * 1e6,
        "not_as_expected": sum(others.values()),
    }
    if candidate.decides:
        figures |= {"degraded_share": found.degraded / decisions}
        figures |= {"flagged_share": 1 - found.allowed / decisions}
    return figures


def _by_wrk(candidate: Candidate, connections: int, seconds: float) -> Figures:
    url = candidate.served.url + candidate.path
    found = wrk.measure(url, connections, seconds, int_ids=not candidate.decides)
    return {
        "per_second": found["per_second"],
        "p99_ms": found["p99_ms"],
        "not_as_expected": found["bad"],
    }


def _medians(taken: dict[tuple[str, int], list[Figures]], connections: int) -> Figures:
    at = {name: found for (name, n), found in taken.items() if n == connections}
    figures: Figures = {name: _middle(found) for name, found in at.items()}
    for ratio, ours, theirs in (
        ("predict_to_peer", "predict", "peer"),
        ("predict_to_peer_by_wrk", "predict_by_wrk", "peer_by_wrk"),
        ("predict_to_plain_bento", "predict", "plain_bento"),
        ("predict_to_empty", "predict", "empty"),
        ("bulk_to_single", "bulk", "predict"),
    ):
        if ours in at and theirs in at:
            figures[ratio] = _ratio(at[ours], at[theirs], "per_second")
    return figures


def _ratio(ours: list[Figures], theirs: list[Figures], key: str) -> float:
    """Median of the ratios within each round."""
    return _rounded(statistics.median(a[key] / b[key] for a, b in zip(ours, theirs, strict=True)))


def _rounded(value: float) -> float:
    return round(value) if abs(value) >= 100 else round(value, 3)


def shipped(world: World, demo_home: Path, lengths: Lengths, told: Told) -> Figures:
    """The champion of ``demo_home``, served in this world; or why there is none to show."""
    try:
        theirs = adopt(world, demo_home)
    except SwitchyardError as error:
        return {"left_out": str(error)}
    told("the shipped model")
    with service(theirs, PORT) as served:
        store = store_process(world.settings.home)
        candidate = Candidate(served, store, "/v1/predict", load.transactions, decides=True)
        _asked(candidate, 8, 2.0)
        found = [_asked(candidate, 8, lengths.closed_s) for _ in range(min(lengths.rounds, 3))]
    figures = {key: _rounded(statistics.median(f[key] for f in found)) for key in found[0]}
    return {
        "release": theirs.release.id,
        "training": theirs.release.manifest["training"].get("params"),
        **figures,
    }


# ---------------------------------------------------------------- constant rate


def open_loop(bench: Bench) -> Figures:
    """Ours (one worker) and the peer at RATE arrivals/s: medians over rounds, and the ratio of p99."""
    assert bench.theirs is not None
    rounds, seconds = min(bench.lengths.rounds, 3), bench.lengths.open_s
    ours, peer = [], []
    for number in range(rounds):
        bench.told(f"{RATE} arrivals/s, round {number + 1} of {rounds}")
        ours.append(_arrivals(bench.ours, RATE, seconds))
        peer.append(_arrivals(bench.theirs.naive, RATE, seconds, "--int-ids"))
    return {
        f"at_{RATE}_per_second": {
            "predict": _middle(ours),
            "peer": _middle(peer),
            "p99_to_peer": _ratio(ours, peer, "p99_ms"),
        }
    }


def high_rate(bench: Bench) -> Figures:
    """Two workers at HIGH_RATE arrivals/s, and what the generator itself shows of a path that is empty."""
    bench.told(f"{HIGH_RATE} arrivals/s, two workers")
    _arrivals(bench.ours, HIGH_RATE, 3.0)
    before = bench.ours.cpu_s(), cpu_seconds(bench.store)
    found = _arrivals(bench.ours, HIGH_RATE, bench.lengths.high_s)
    after = bench.ours.cpu_s(), cpu_seconds(bench.store)
    floor = _arrivals(bench.ours, HIGH_RATE, min(5.0, bench.lengths.high_s), path="/livez")
    cpu = {
        f"{who}_cpu_us": round((b - a) / (HIGH_RATE * bench.lengths.high_s) * 1e6)
        for who, a, b in zip(("worker", "store"), before, after, strict=True)
    }
    floor_ms = {key: value for key, value in floor.items() if key.endswith("_ms")}
    return {
        f"at_{HIGH_RATE}_per_second": _middle([found]) | cpu | {"floor_of_the_generator": floor_ms}
    }


def hot_terminal(bench: Bench, pairs: int = 5) -> Figures:
    """A tenth of all traffic to one terminal, beside evenly spread traffic, in pairs: closed and open."""
    pairs = min(pairs, max(bench.lengths.rounds, 1))
    seconds, port = bench.lengths.hot_s, bench.ours.port
    hot = lambda: load.transactions(hot_share=0.1)  # noqa: E731
    rates, tails, arrivals = [], [], []
    for number in range(pairs):
        bench.told(f"hot terminal, pair {number + 1} of {pairs}")
        even, one = (
            closed_loop(port, "/v1/predict", bodies, 32, seconds / 2)
            for bodies in (load.transactions, hot)
        )
        rates.append(one.per_second() / even.per_second())
        tails.append(one.percentile_ms(99) / even.percentile_ms(99))
        spread = _arrivals(bench.ours, HIGH_RATE, seconds)
        to_one = _arrivals(bench.ours, HIGH_RATE, seconds, "--hot-terminal", "0.1")
        arrivals.append((to_one["p99_ms"], spread["p99_ms"]))
    return {
        "decisions_ratio": _rounded(statistics.median(rates)),
        "closed_p99_ratio": _rounded(statistics.median(tails)),
        "p99_ratio": _rounded(statistics.median(a / b for a, b in arrivals)),
        "p99_ms_hot_and_even": arrivals,
    }


def _arrivals(
    served: Served, rate: int, seconds: float, *options: str, path: str = "/v1/predict"
) -> Figures:
    command = [sys.executable, "-m", "benchmarks.peers.openloop", served.url + path, str(rate)]
    done = subprocess.run(
        [*command, str(seconds), *options], check=True, capture_output=True, text=True, cwd=ROOT
    )
    said = json.loads(done.stdout)
    times = {key: value for key, value in said.items() if key.endswith("_ms")}
    return times | {
        "not_as_expected": sum(said["bad"].values()),
        "degraded_share": said["degraded"] / said["sent"],
        "sender_cpu_us": said["cpu_s"] / said["sent"] * 1e6,
    }


def _middle(found: list[Figures]) -> Figures:
    """Medians; of what must not happen, the worst."""
    worst = {"not_as_expected": max, "degraded_share": max}
    return {
        key: _rounded(worst.get(key, statistics.median)([f[key] for f in found]))
        for key in found[0]
    }


# ---------------------------------------------------------------- ten minutes


def soaked(bench: Bench) -> Figures:
    """Private memory of each worker before and after a warm-up, and ten times while the load goes on behind it.

    The warm-up's three minutes are what the bounds of the worker's memory take to be reached at this load: what was
    lately read of the store (``recent_bytes``), and the index of the journal's first segments.
    """
    lengths, slices = bench.lengths, 10
    workers = bench.ours.workers()
    started = [private_mb(p) for p in workers]
    bench.told(f"soak: {lengths.warm_up_s:.0f} s of warm-up, closed load at 8 connections")
    warmed_by = _loaded(bench, lengths.warm_up_s)
    memory = [[private_mb(p) for p in workers]]
    bench.told(
        f"soak: {lengths.soak_s:.0f} s; the warm-up took the workers from {started} to {memory[0]} MB"
    )
    decisions, began = 0, time.monotonic()
    for _ in range(slices):
        decisions += _loaded(bench, lengths.soak_s / slices)
        memory.append([private_mb(p) for p in workers])
    return {
        "warm_up_s": lengths.warm_up_s, "decisions_of_warm_up": warmed_by,
        "private_mb_at_the_start": started, "growth_of_warm_up": _growth(started, memory[0]),
        "seconds": round(time.monotonic() - began), "decisions": decisions,
        "private_mb_after_warm_up": memory[0], "private_mb_at_the_end": memory[-1],
        "private_mb_between": memory[1:-1], "growth": _growth(memory[0], memory[-1]),
        "store_mb": private_mb(bench.store),
    }  # fmt: skip


def _loaded(bench: Bench, seconds: float) -> int:
    """Decisions made in so many seconds of closed load. Raises ServiceError unless all were answered."""
    found = closed_loop(bench.ours.port, "/v1/predict", load.transactions, 8, seconds)
    if set(found.statuses) != {200}:
        raise ServiceError(f"under load some were not answered: {dict(found.statuses)}")
    return len(found.latencies)


def _growth(before: list[float], after: list[float]) -> list[float]:
    return [round(last / first - 1, 4) for first, last in zip(before, after, strict=True)]


# ---------------------------------------------------------------- verdicts


def verdicts(figures: Figures) -> dict[str, bool]:
    """Which bars hold, of those that were measured."""
    reached: dict[str, bool] = {}
    for n in CONNECTIONS:
        at = figures.get(f"at_{n}_connections", {})
        if "predict_to_peer" in at:
            reached[f"predict_to_peer_at_{n}"] = at["predict_to_peer"] >= BARS["predict_to_peer"]
        if "bulk_to_single" in at:
            reached[f"bulk_to_single_at_{n}"] = at["bulk_to_single"] >= BARS["bulk_to_single"]
    for rate, name, key in (
        (RATE, "p99_to_peer", "p99_to_peer"),
        (HIGH_RATE, "p99_ms_at_1000", "p99_ms"),
    ):
        if at := figures.get("open", {}).get(f"at_{rate}_per_second"):
            reached[name] = at[key] < BARS[name]
            reached[name] &= not (at.get("predict") or at)["not_as_expected"]
    if hot := figures.get("hot"):
        reached["hot_rate"] = hot["decisions_ratio"] >= BARS["hot_rate"]
        reached["hot_p99"] = hot["p99_ratio"] <= BARS["hot_p99"]
    if soak := figures.get("soak"):
        reached["soak_growth"] = max(soak["growth"]) < BARS["soak_growth"]
    return reached


def failures(figures: Figures, where: str = "") -> list[str]:
    """What makes the whole run worthless: unexpected answers, and too many degraded decisions."""
    found = []
    for name, value in figures.items():
        place = f"{where}{name}"
        if isinstance(value, dict):
            found += failures(value, f"{place}.")
        elif name == "not_as_expected" and value:
            found.append(f"{place}: {value} answers of another status, or none")
        elif name == "degraded_share" and value > MOST_DEGRADED:
            found.append(f"{place}: {value:.2%} of the decisions were degraded; at most 1 % may be")
    return found


def machine() -> Figures:
    """What it ran on, and how busy that was."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": psutil.cpu_count(), "load_average": round(psutil.getloadavg()[0], 1),
        "processor": _processor(), "wrk": shutil.which("wrk") or "not installed",
    }  # fmt: skip


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "?")


def described(world: World) -> Figures:
    """Sizes that the conditions ask for."""
    said = world.release.manifest["training"]
    return {"release": world.release.id, "trees": said["trees"], "depth": said["depth"],
            "columns": len(world.release.columns), "engine": world.release.manifest["engine"]}  # fmt: skip


def _sections(only: str | None, soak: bool) -> list[str]:
    """Raises SettingsError for a section that there is not."""
    if only is None:
        return [name for name in SECTIONS if name != "soak" or soak]
    wanted = only.split(",")
    if unknown := [name for name in wanted if name not in SECTIONS]:
        raise SettingsError(f"--only {unknown[0]} is no section; they are {', '.join(SECTIONS)}")
    return wanted

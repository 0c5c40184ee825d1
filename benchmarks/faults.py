"""Each fault against the real service under load, with a client that sends the same id until it has an answer.

Counted afterwards: failed (no decision within the client's patience), lost (acknowledged, but not in the
journal) and double (two journalled decisions of different id on one transaction). Not here: the client
(``retrying``), the store's proxy (``store_proxy``).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import redis

from benchmarks.retrying import Client, Sent
from benchmarks.served import Served, kill, set_home, start_service, stop, store_process
from benchmarks.store_proxy import Mode, proxied, tell
from benchmarks.world import World, close_world, make_world
from bentos.fraud.build import build_bento
from orchestration.deployment import Service, ensure_ready, some_port, wait_until_ready
from orchestration.home import prepare_mlflow
from switchyard.errors import ServiceError, SettingsError
from switchyard.fraud.features import code_hash
from switchyard.fraud.recompute import recompute_journal
from switchyard.lake import Lake
from switchyard.learning.release import write_release
from switchyard.learning.thresholds import Thresholds
from switchyard.serving import valkey
from switchyard.serving.segments import read_journal

PORT = 4650
WORKERS = 2
BEFORE_S = 3.0
"""Seconds of undisturbed load before the fault."""
FAULT_S = 5.0
RESTART_PATIENCE_S = 30.0
BACK_WITHIN_S = 30.0
FULL_S = 3.0
"""How long the journal's disk stays full: less than the client's patience."""
DISK_BYTES = 64 << 20
LEAST_FREE_BYTES = 1 << 20
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The load: arrivals a second, seconds of them, and the client's patience."""

    rate: float = 200.0
    seconds: float = 15.0
    patience_s: float = 5.0


QUICK = Plan(rate=100.0, seconds=10.0)


@dataclass(frozen=True)
class Scene:
    """A world and the load that a fault meets; ``environment``: more variables for the service."""

    world: World
    plan: Plan

    @property
    def home(self) -> Path:
        return self.world.settings.home

    @contextlib.contextmanager
    def service(self, **environment: str) -> Iterator[Served]:
        """The service with WORKERS workers, ready. What stands in it at the end is stopped."""
        set_home(self.world, workers=WORKERS)
        served = start_service(self.world, PORT, environment)
        try:
            wait_until_ready(served.url, psutil.Process(served.process.pid), served.log)
            yield served
        finally:
            stop(served)

    def client(self, served: Served, patience_s: float | None = None) -> Client:
        """The load, begun, and BEFORE_S of it over."""
        plan = self.plan
        client = Client(
            f"{served.url}/v1/predict", plan.rate, plan.seconds, patience_s or plan.patience_s
        )
        time.sleep(BEFORE_S)
        return client


def run(
    console: Any = None,
    *,
    quick: bool = False,
    only: str | None = None,
    folder: Path | None = None,
    **source: Any,
) -> Figures:
    """One entry for each fault of FAULTS (``only``: these, comma-separated), and ``reached`` by fault.

    ``quick``: less load; ``folder`` keeps the home. One JSON line for each is printed as it is known.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures a world of its own; leave out {', '.join(given)}")
    wanted = only.split(",") if only else list(FAULTS)
    if unknown := [name for name in wanted if name not in FAULTS]:
        raise SettingsError(f"--only {unknown[0]} is no fault; they are {', '.join(FAULTS)}")
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="switchyard-faults-") as temporary:
        world = make_world(folder or Path(temporary) / "home")
        scene = Scene(world, QUICK if quick else Plan())
        try:
            for name in wanted:
                figures[name] = _told(name, scene)
                line = json.dumps({"fault": name, **figures[name]}, default=str)
                if console is not None:
                    console.print(line, markup=False, highlight=False, soft_wrap=True)
        finally:
            close_world(world)
    return figures | {"reached": {name: bool(figures[name].get("reached")) for name in wanted}}


def _told(name: str, scene: Scene) -> Figures:
    """The fault's figures; a service that does not even start is one of them."""
    valkey.start(scene.home)
    try:
        return FAULTS[name](scene)
    except ServiceError as error:
        return {"error": str(error)[-1_500:], "reached": False}


# ---------------------------------------------------------------- what is counted


def judged(scene: Scene, outcome: list[Sent], **more: Any) -> Figures:
    """Counts of an outcome, held against the journal; ``reached``: all three are 0 and ``more``'s own
    ``reached`` (default True) holds. Call it when the service has stopped."""
    ids = {sent.transaction_id for sent in outcome}
    found = counts(outcome, decisions_by_transaction(scene.world.settings.journal, ids))
    fine = not (found["failed"] or found["lost"] or found["double"])
    return found | more | {"reached": fine and more.get("reached", True)}


def counts(outcome: list[Sent], decided: Mapping[str, Set[str]]) -> Figures:
    """What became of the transactions; ``decided``: the journalled decision ids by transaction."""
    answered = [s for s in outcome if s.answered_after_s is not None]
    waits = np.array([s.answered_after_s for s in answered] or [np.nan])
    return {
        "sent": len(outcome),
        "failed": len(outcome) - len(answered),
        "lost": sum(s.decision_id not in decided.get(s.transaction_id, ()) for s in answered),
        "double": sum(len(ids) > 1 for ids in decided.values()),
        "p50_ms": round(float(np.percentile(waits, 50)) * 1e3, 1),
        "p99_ms": round(float(np.percentile(waits, 99)) * 1e3, 1),
        "max_ms": round(float(waits.max()) * 1e3, 1),
        "troubles": dict(Counter(trouble for s in outcome for trouble in s.troubles)),
        "degraded": dict(Counter(rung for s in outcome for rung in s.degraded)),
    }


def decisions_by_transaction(journal: Path, ids: Set[str]) -> dict[str, set[str]]:
    """The decision ids journalled for each of these transactions."""
    found: dict[str, set[str]] = {}
    for record in read_journal(journal):
        if record["type"] == "decision":
            transaction_id = record["transaction"]["transaction_id"]
            if transaction_id in ids:
                found.setdefault(transaction_id, set()).add(record["decision_id"])
    return found


# ---------------------------------------------------------------- the store


def store_killed(scene: Scene) -> Figures:
    """SIGKILL to the store, which is started again FAULT_S later."""
    with scene.service() as served:
        client = scene.client(served)
        kill(store_process(scene.home))
        time.sleep(FAULT_S)
        valkey.start(scene.home)
        outcome = client.outcome()
    return judged(scene, outcome)


def store_emptied(scene: Scene) -> Figures:
    """The store forgets everything: not ready until it is filled from the journal, every vector the same."""
    settings = scene.world.settings
    with scene.service() as served:
        client = scene.client(served)
        with redis.Redis.from_url(valkey.start(scene.home)) as raw:
            raw.flushall()
        unready = _seconds_until(lambda: _status(served, "/readyz") == 503, BACK_WITHIN_S)
        seconds = _seconds_until(lambda: _status(served, "/readyz") == 200, BACK_WITHIN_S)
        outcome = client.outcome()
    checked = recompute_journal(settings, Lake(settings.lake))
    fine = unready is not None and seconds is not None and not checked.differences
    return judged(
        scene, outcome, ready_again_after_s=seconds, recomputed=checked.rows,
        differences=len(checked.differences), reached=fine,
    )  # fmt: skip


def store_frozen(scene: Scene) -> Figures:
    """SIGSTOP to the store for FAULT_S."""
    with scene.service() as served:
        client = scene.client(served)
        store = store_process(scene.home)
        store.send_signal(signal.SIGSTOP)
        time.sleep(FAULT_S)
        store.send_signal(signal.SIGCONT)
        outcome = client.outcome()
    return judged(scene, outcome)


def store_slow(scene: Scene) -> Figures:
    """Every answer of the store half a second late, for FAULT_S."""
    return _tampered(scene, "slow")


def store_garbage(scene: Scene) -> Figures:
    """Every answer of the store random bytes, for FAULT_S."""
    return _tampered(scene, "garbage")


def _tampered(scene: Scene, mode: Mode) -> Figures:
    listen = scene.home / "proxy.sock"
    with (
        proxied(listen, valkey.socket_path(scene.home)) as proxy,
        scene.service(SWITCHYARD_REDIS_URL=f"unix://{listen}") as served,
    ):
        client = scene.client(served)
        tell(proxy, mode)
        time.sleep(FAULT_S)
        tell(proxy, "pass")
        outcome = client.outcome()
    return judged(scene, outcome)


# ---------------------------------------------------------------- the service


def worker_killed(scene: Scene) -> Figures:
    """SIGKILL to one of the workers; until another one in its place has taken a connection."""
    with scene.service() as served:
        client = scene.client(served)
        before = served.workers()
        kill(before[0])
        seconds = _seconds_until(lambda: _answers_instead(served, before), BACK_WITHIN_S)
        outcome = client.outcome()
    whole = seconds is not None
    return judged(scene, outcome, full_capacity_after_s=seconds, reached=whole)


def _answers_instead(served: Served, before: list[psutil.Process]) -> bool:
    """Whether WORKERS live, and those that are new hold one of a handful of fresh connections."""
    workers = served.workers()
    new = [p for p in workers if p not in before]
    if len(workers) < WORKERS or not new:
        return False
    with contextlib.ExitStack() as opened:
        mine = set()
        for _ in range(16):
            connection = socket.create_connection(("127.0.0.1", served.port), timeout=1)
            mine.add(opened.enter_context(connection).getsockname())
        time.sleep(0.05)
        return all(mine & _peers_of(process) for process in new)


def _peers_of(process: psutil.Process) -> set[tuple[str, int]]:
    with contextlib.suppress(psutil.Error):
        return {tuple(c.raddr) for c in process.net_connections("tcp") if c.raddr}
    return set()


def service_killed(scene: Scene) -> Figures:
    """SIGKILL to the service and all its workers; started again a second later."""
    with scene.service() as served:
        client = scene.client(served, RESTART_PATIENCE_S)
        family = served.family()
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=10)
        served.process.wait()
        time.sleep(1.0)
        started = time.monotonic()
        with scene.service() as again:
            ready = round(time.monotonic() - started, 1)
            outcome = client.outcome()
            assert again.process.poll() is None
    return judged(scene, outcome, ready_again_after_s=ready)


def trackers_gone(scene: Scene) -> Figures:
    """MLflow's database and Dagster's folder moved away, before the service starts and while it serves."""
    prepare_mlflow(scene.world.settings)
    away = scene.home.with_name("trackers-moved-away")
    shutil.rmtree(away, ignore_errors=True)
    away.mkdir()
    for name in ("mlflow", "dagster"):
        (scene.home / name).rename(away / name)
    try:
        with scene.service() as served:
            outcome = scene.client(served).outcome()
    finally:
        for name in ("mlflow", "dagster"):
            shutil.rmtree(scene.home / name, ignore_errors=True)
            (away / name).rename(scene.home / name)
    return judged(scene, outcome)


def clock_jumps(scene: Scene) -> Figures:
    """The clock of service and store an hour ahead, FAULT_S later right again (libfaketime)."""
    if not FAKETIME.exists():
        raise ServiceError("libfaketime is not installed (Debian's package 'faketime')")
    offset = scene.home / "clock.offset"
    offset.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    valkey.stop(scene.home)
    with _variables(environment):
        valkey.start(scene.home)
    try:
        with scene.service(**environment) as served:
            client = scene.client(served)
            offset.write_text("+3600")
            time.sleep(FAULT_S)
            offset.write_text("+0")
            outcome = client.outcome()
    finally:
        valkey.stop(scene.home)
    return judged(scene, outcome)


@contextlib.contextmanager
def _variables(environment: dict[str, str]) -> Iterator[None]:
    """These variables for the processes that are started meanwhile."""
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment:
            del os.environ[name]


# ---------------------------------------------------------------- disk and release


def journal_disk_full(scene: Scene) -> Figures:
    """The journal on a small disk of its own, full for FULL_S: 503 and not ready, then back by itself."""
    settings = scene.world.settings
    set_home(scene.world, journal_min_free_bytes=LEAST_FREE_BYTES)
    with _small_disk(settings.journal), scene.service() as served:
        client = scene.client(served)
        filler = settings.journal / "filler"
        _fill(filler)
        time.sleep(FULL_S)
        meanwhile = _status(served, "/readyz")
        filler.unlink()
        seconds = _seconds_until(lambda: _status(served, "/readyz") == 200, BACK_WITHIN_S)
        outcome = client.outcome()
    refused = sum(sent.troubles.count("503") for sent in outcome)
    fine = bool(refused) and meanwhile == 503 and seconds is not None
    return judged(
        scene, outcome, refused_with_503=refused, readyz_while_full=meanwhile,
        ready_again_after_s=seconds, reached=fine,
    )  # fmt: skip


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs in the folder's place, with what was in it; afterwards what it holds goes back."""
    with tempfile.TemporaryDirectory() as name:
        kept = Path(name) / "kept"
        shutil.copytree(folder, kept)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES + _size(kept)}", "tmpfs"]
        subprocess.run([*mount, str(folder)], check=True)
        try:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            yield
            shutil.copytree(folder, kept, dirs_exist_ok=True)
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.copytree(kept, folder, dirs_exist_ok=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _fill(filler: Path) -> None:
    """Write until the disk is full."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for block in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(block)) == block:
                    pass


def release_damaged(scene: Scene) -> Figures:
    """Another release, damaged after its Bento was built, is started beside the one that serves."""
    settings, damaged = scene.world.settings, _damaged_release(scene.world)
    with scene.service() as served:
        client = scene.client(served)
        try:
            ensure_ready(settings, Service(damaged, "", some_port()))
            words = "it was started"
        except ServiceError as error:
            words = str(error)
        outcome = client.outcome()
        alive = served.process.poll() is None
    said = next((line for line in words.splitlines() if "damaged" in line), words)
    return judged(scene, outcome, said=said, reached=alive and "model.ubj is damaged" in words)


def _damaged_release(world: World) -> str:
    """A release of other thresholds, whose Bento holds a model file with one byte turned."""
    release = world.release
    manifest = release.manifest
    other = write_release(
        world.settings.releases, model=release.model, calibration=release.calibration,
        baseline=release.baseline, baseline_calibration=release.baseline_calibration,
        thresholds=replace(release.thresholds, review=release.thresholds.review / 2),
        feature_service=release.feature_service, columns=release.columns, code_hash=code_hash(),
        training=manifest["training"], metrics=manifest["metrics"],
    )  # fmt: skip
    assert isinstance(other.thresholds, Thresholds)
    home = world.settings.home / "bentoml"
    build_bento(other.folder, home)
    file = home / "bentos" / "fraud" / other.id / "src" / "release" / "model" / "model.ubj"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    return other.id


def _status(served: Served, path: str) -> int:
    try:
        return httpx.get(served.url + path, timeout=2).status_code
    except httpx.TransportError:
        return 0


def _seconds_until(holds: Callable[[], bool], most: float) -> float | None:
    """Seconds until it holds, None if it does not within ``most``."""
    started = time.monotonic()
    while (passed := time.monotonic() - started) < most:
        with contextlib.suppress(OSError, psutil.Error):
            if holds():
                return round(passed, 2)
        time.sleep(0.05)
    return None


FAULTS: dict[str, Callable[[Scene], Figures]] = {
    fault.__name__: fault
    for fault in (
        store_killed, store_emptied, store_frozen, store_slow, store_garbage, worker_killed, service_killed,
        trackers_gone, clock_jumps, journal_disk_full, release_damaged,
    )
}  # fmt: skip

"""Processes that are measured: the Bento by plain ``bentoml serve``, its peers, their CPU and memory.

Not here: what is sent to them (``load``), what the figures mean (``serving``, ``faults``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.demo import ROOT
from benchmarks.world import World
from orchestration.deployment import stop_process, wait_until_ready
from switchyard.errors import ServiceError
from switchyard.serving import valkey

START_S = 60.0
NAIVE = [sys.executable, "-m", "benchmarks.peers.naive_fastapi"]


@dataclass(frozen=True)
class Served:
    """A server on a port of this host, as the processes of one family."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def family(self) -> list[psutil.Process]:
        """The process and everything below it."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """The processes that answer; of a server that is one process, that one."""
        family = self.family()
        return [p for p in family if _is_worker(p)] or family[:1]

    def cpu_s(self) -> float:
        """CPU seconds that the workers have taken so far."""
        return sum(cpu_seconds(p) for p in self.workers())


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "_bentoml_impl.worker.service" in process.cmdline()
    except psutil.Error:
        return False


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process so far; 0 once it is gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def private_mb(process: psutil.Process) -> float:
    """Memory that belongs to the process alone (USS), in MB."""
    return float(round(process.memory_full_info().uss / 1e6, 2))


def set_home(world: World, **values: int | str) -> None:
    """Write settings into the home's ``switchyard.toml``, where plain ``bentoml serve`` finds them."""
    file = world.settings.home / "switchyard.toml"
    lines = [line for line in file.read_text().splitlines() if line.split(" ")[0] not in values]
    lines += [f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in values.items()]
    file.write_text("\n".join(lines) + "\n")


def start_service(
    world: World,
    port: int,
    environment: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
) -> Served:
    """``bentoml serve fraud:<release>`` as from a shell after ``switchyard env``; returns at once.

    ``environment``: what a fault needs besides; ``prefix``: a command to run it under.
    """
    log = world.settings.home / "logs" / f"bench-{port}.log"
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", world.tag]
    return start_process(
        [*prefix, *command, "--port", str(port)],
        port,
        log,
        world.environment() | dict(environment or {}),
    )


def start_process(
    command: list[str], port: int, log: Path, environment: Mapping[str, str]
) -> Served:
    """Start a server whose output goes to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=dict(environment),
            start_new_session=True,
        )
    return Served(port, process, log)


def stop(served: Served) -> None:
    """SIGTERM to the family, SIGKILL to what outlives the time to drain."""
    stop_process(served.process.pid)
    served.process.wait()


@contextmanager
def service(world: World, port: int, workers: int = 1) -> Iterator[Served]:
    """The world's service, ready."""
    set_home(world, workers=workers)
    served = start_service(world, port)
    try:
        wait_until_ready(served.url, psutil.Process(served.process.pid), served.log)
        yield served
    finally:
        stop(served)


@dataclass(frozen=True)
class Peers:
    """Both textbook scorers over one store, and that store's process."""

    naive: Served
    plain_bento: Served
    store: psutil.Process


@contextmanager
def peers(first_port: int) -> Iterator[Peers]:
    """The peers with their store and model, ready, on two ports from ``first_port`` on."""
    with tempfile.TemporaryDirectory(prefix="switchyard-peers-") as name:
        folder = Path(name)
        url, model = valkey.start(folder), str(folder / "model.ubj")
        subprocess.run([*NAIVE, "seed", "--redis", url, "--model", model], check=True, cwd=ROOT)
        started: list[Served] = []
        try:
            for port, command in _peer_commands(first_port, url, model):
                environment = os.environ | {
                    "PEER_REDIS": url, "PEER_MODEL": model, "BENTOML_HOME": str(folder / "bentoml"),
                    "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(ROOT),
                }  # fmt: skip
                log = folder / f"peer-{port}.log"
                started.append(start_process(command, port, log, environment))
            for served, path in zip(started, ("/docs", "/readyz"), strict=True):
                _wait_for(served, path)
            yield Peers(started[0], started[1], store_process(folder))
        finally:
            for served in started:
                stop(served)
            valkey.stop(folder)


def _peer_commands(port: int, url: str, model: str) -> list[tuple[int, list[str]]]:
    bentoml = str(Path(sys.executable).with_name("bentoml"))
    plain = [bentoml, "serve", "benchmarks.peers.plain_bento:PlainFraud", "--port", str(port + 1)]
    naive = [*NAIVE, "serve", "--redis", url, "--model", model, "--port", str(port)]
    return [(port, naive), (port + 1, plain)]


def store_process(home: Path) -> psutil.Process:
    """The embedded store's process of a home."""
    return psutil.Process(int((home / "valkey" / "valkey.pid").read_text()))


def _wait_for(served: Served, path: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and served.process.poll() is None:
        try:
            if httpx.get(served.url + path, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise ServiceError(
        f"a peer was not ready within {START_S:.0f} s:\n{served.log.read_text(errors='replace')}"
    )


def kill(process: psutil.Process) -> None:
    """SIGKILL, and wait until it is gone."""
    process.send_signal(signal.SIGKILL)
    process.wait(10)

"""Deployment on this host: one decision service, replaced only when the next one is ready.

The state is one file, ``deployment.json`` of the home: which release answers, where, as which process.
A new release starts on a free port beside the running one, has to answer ``/readyz`` (which it does after
a warm-up prediction), and only then becomes the one that is named; the old one drains and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil

from assets.ports import Deployed
from bentos.fraud.build import build_bento, built_from
from switchyard.errors import ServiceError
from switchyard.fraud.online import traffic_of
from switchyard.lake import write_text
from switchyard.serving import valkey
from switchyard.serving.plan import deployed
from switchyard.settings import Settings

READY_TIMEOUT_S = 90.0
DRAIN_TIMEOUT_S = 30.0


class LocalServing:
    """Implements ``assets.ports.Serving`` with processes of this host."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def build(self, release_folder: Path) -> tuple[str, float]:
        started = time.perf_counter()
        tag = build_bento(release_folder, self._settings.home / "bentoml")
        return tag, time.perf_counter() - started

    def deploy(self, release_id: str) -> Deployed:
        """Raises ServiceError with the end of the service's log if it does not become ready."""
        started = time.perf_counter()
        _reap(self._settings)
        old = current(self._settings)
        code = built_from(self._settings.home / "bentoml", release_id) or ""
        if old and (old.release, old.code) == (release_id, code):
            return old
        port = free_port(self._settings.port)
        process = start(self._settings, release_id, port)
        _note_unsettled(self._settings, process.pid, old.pid if old else None)
        url = f"http://{self._settings.host}:{port}"
        wait_until_ready(url, process, log_of(self._settings, release_id))
        new = Deployed(
            url=url,
            pid=process.pid,
            release=release_id,
            replaced=old.release if old else None,
            seconds=time.perf_counter() - started,
            code=code,
        )
        write_text(json.dumps(asdict(new), indent=1) + "\n", _state(self._settings))
        _succeed(self._settings, new, old)
        if old:
            stop_process(old.pid)
        _unsettled(self._settings).unlink()
        return new


def current(settings: Settings) -> Deployed | None:
    """The running service, or None if none was deployed or its process is gone."""
    path = _state(settings)
    if not path.exists():
        return None
    named = Deployed(**json.loads(path.read_text()))
    return named if _is_service(named.pid) else None


def stop(settings: Settings) -> bool:
    """Drain and end the running service; False if there was none."""
    _reap(settings)
    running = current(settings)
    if running:
        stop_process(running.pid)
    _state(settings).unlink(missing_ok=True)
    return running is not None


def command(settings: Settings, release_id: str, port: int) -> list[str]:
    """Plain ``bentoml serve`` of the release's Bento."""
    return [
        str(Path(sys.executable).with_name("bentoml")), "serve", f"fraud:{release_id}",
        "--host", settings.host, "--port", str(port),
    ]  # fmt: skip


def environment(settings: Settings) -> dict[str, str]:
    """What the service reads of the settings given to this process alone."""
    return {
        "SWITCHYARD_HOME": str(settings.home),
        "SWITCHYARD_HOST": settings.host,
        "SWITCHYARD_WORKERS": str(settings.workers),
    }


def start(settings: Settings, release_id: str, port: int) -> subprocess.Popen[bytes]:
    """Start the service in a session of its own; its output goes to a log of the home."""
    log = log_of(settings, release_id)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command(settings, release_id, port),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | environment(settings),
            preexec_fn=_listen_to_signals,
        )


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when ``/readyz`` answers 200. Raises ServiceError if the process ends or time runs out."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(
                f"the service ended with code {process.returncode} before it was ready; "
                f"the end of {log}:\n{_tail(log)}"
            )
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    stop_process(process.pid)
    raise ServiceError(
        f"the service at {url} was not ready within {READY_TIMEOUT_S:.0f} s; "
        f"the end of {log}:\n{_tail(log)}"
    )


def stop_process(pid: int) -> None:
    """SIGTERM, so that it drains; SIGKILL to it and its workers if it outlives the time to drain."""
    try:
        parent = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    family = [parent, *parent.children(recursive=True)]
    parent.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=DRAIN_TIMEOUT_S)
    for process in alive:
        process.kill()


def _succeed(settings: Settings, new: Deployed, old: Deployed | None) -> None:
    """In the new service its own release decides, and what decided before is the rung below it."""
    traffic = traffic_of(settings.home, valkey.address_of(settings).url)
    try:
        traffic.change(
            old.release if old else new.release,
            lambda plan: deployed(plan, new.release),
            who="deployment",
            why="deployed as its own Bento",
            now=datetime.now(UTC),
        )
    finally:
        traffic.close()


def log_of(settings: Settings, release_id: str) -> Path:
    return settings.home / "logs" / f"service-{release_id[:12]}.log"


def _unsettled(settings: Settings) -> Path:
    """Names the processes of a deployment that is not over: which start, which are to end."""
    return settings.home / "deployment.unsettled.json"


def _note_unsettled(settings: Settings, *pids: int | None) -> None:
    processes = [{"pid": p, "started": psutil.Process(p).create_time()} for p in pids if p]
    write_text(json.dumps(processes) + "\n", _unsettled(settings))


def _reap(settings: Settings) -> None:
    """End what a killed deployment left behind, all but the service that ``deployment.json`` names."""
    path = _unsettled(settings)
    if not path.exists():
        return
    named = current(settings)
    for process in json.loads(path.read_text()):
        pid = process["pid"]
        if named and named.pid == pid:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(pid).create_time() - process["started"]) < 1:
                stop_process(pid)
    path.unlink()


def _state(settings: Settings) -> Path:
    return settings.home / "deployment.json"


def _is_service(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "bentoml" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def free_port(wanted: int) -> int:
    """The wanted port, or the next that nothing listens on."""
    for port in range(wanted, wanted + 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise ServiceError(f"ports {wanted} to {wanted + 49} are all taken; set SWITCHYARD_PORT")


def _listen_to_signals() -> None:
    """A process started in the background of a script inherits SIGINT as ignored; undo that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])

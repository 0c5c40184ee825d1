"""Decision services as processes of this host: which one is to answer, starting, waiting, ending.

``deployment.json`` of the home names the service that the gateway leads to. A service is known by its command line
(release and port), not by a process id: that holds over kills and restarts. Not here: moving from one to another
as a whole (``promotion``), the gateway itself (``gateway``).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import msgspec
import psutil

from assets.ports import Deployed
from orchestration.gateway import Gateway
from orchestration.process import alive_after, has_ended, process_of, start_apart
from switchyard.errors import ServiceError
from switchyard.lake import write_text
from switchyard.settings import Settings

READY_TIMEOUT_S = 90.0
DRAIN_TIMEOUT_S = 30.0
BEHIND_GATEWAY = "127.0.0.1"


class Service(msgspec.Struct, frozen=True):
    """A service of this host: the release of its Bento, the hash of the Bento's source, its port."""

    release: str
    code: str
    port: int

    @property
    def url(self) -> str:
        """For this host alone; everybody else goes through the gateway."""
        return f"http://{BEHIND_GATEWAY}:{self.port}"

    def process(self) -> psutil.Process | None:
        """Its supervising process, None if it does not run."""
        return process_of(_arguments(self.release, BEHIND_GATEWAY, self.port))


def named(settings: Settings) -> Service | None:
    """The service that is to answer, running or not; None if none was ever deployed."""
    try:
        return msgspec.json.decode(_state(settings).read_bytes(), type=Service)
    except FileNotFoundError:
        return None


def current(settings: Settings) -> Deployed | None:
    """The service that answers, None if it does not run."""
    service = named(settings)
    if service is None or service.process() is None:
        return None
    url = Gateway(settings).url or service.url
    return Deployed(service.release, service.code, service.port, url)


def name(settings: Settings, service: Service) -> None:
    """From now on ``service`` is to answer, and the gateway leads to it."""
    write_text(msgspec.json.encode(service).decode() + "\n", _state(settings))
    Gateway(settings).point(service.port)


def up(settings: Settings) -> Deployed | None:
    """Have the service that is to answer do so, and the gateway; None if none was ever deployed."""
    service = named(settings)
    if service is None:
        return None
    ensure_ready(settings, service)
    Gateway(settings).point(service.port)
    return current(settings)


def down(settings: Settings) -> bool:
    """End the gateway and drain the service, which ``up`` starts again; False if it did not run."""
    Gateway(settings).stop()
    service = named(settings)
    return service is not None and end(service)


def ensure_ready(settings: Settings, service: Service) -> None:
    """Start it unless it runs, and wait until it answers. Raises ServiceError, nothing being left of it."""
    if service.process() is None:
        start(settings, service)
    try:
        wait_until_ready(service.url, service.process(), log_of(settings, service.release))
    except ServiceError:
        end(service)
        raise


def command(release_id: str, host: str, port: int) -> list[str]:
    """Plain ``bentoml serve`` of the release's Bento."""
    return [
        str(Path(sys.executable).with_name("bentoml")),
        *_arguments(release_id, host, port),
    ]


def environment(settings: Settings) -> dict[str, str]:
    """What the service reads of the settings given to this process alone."""
    return {
        "SWITCHYARD_HOME": str(settings.home),
        "SWITCHYARD_HOST": settings.host,
        "SWITCHYARD_PORT": str(settings.port),
        "SWITCHYARD_WORKERS": str(settings.workers),
    }


def start(settings: Settings, service: Service) -> None:
    """Start it behind the gateway; its output goes to a log of the home."""
    start_apart(
        command(service.release, BEHIND_GATEWAY, service.port),
        log_of(settings, service.release),
        os.environ | environment(settings),
    )


def wait_until_ready(url: str, process: psutil.Process | None, log: Path) -> None:
    """Return when ``/readyz`` answers 200. Raises ServiceError if the process ends or time runs out."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process is None or has_ended(process):
            raise ServiceError(
                f"the service at {url} ended before it was ready; the end of {log}:\n{_tail(log)}"
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


def end(service: Service) -> bool:
    """Drain and end a service; False if it did not run."""
    process = service.process()
    if process is not None:
        stop_process(process.pid)
    return process is not None


def stop_process(pid: int) -> None:
    """SIGTERM, so that it drains; SIGKILL to it and its workers if it outlives the time to drain. Jobs that it
    launched, in sessions of their own, go on."""
    try:
        parent = psutil.Process(pid)
        family = [
            p for p in (parent, *parent.children(recursive=True)) if _same_session(p.pid, pid)
        ]
        parent.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return
    for process in alive_after(family, DRAIN_TIMEOUT_S):
        process.kill()


def _same_session(one: int, other: int) -> bool:
    try:
        return os.getsid(one) == os.getsid(other)
    except ProcessLookupError:
        return False


def log_of(settings: Settings, release_id: str) -> Path:
    return settings.home / "logs" / f"service-{release_id[:12]}.log"


def some_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((BEHIND_GATEWAY, 0))
        return int(probe.getsockname()[1])


def _arguments(release_id: str, host: str, port: int) -> list[str]:
    return ["serve", f"fraud:{release_id}", "--host", host, "--port", str(port)]


def _state(settings: Settings) -> Path:
    return settings.home / "deployment.json"


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])

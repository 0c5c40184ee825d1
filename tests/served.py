"""A real Bento of a small release, served by plain ``bentoml serve``. Factories only, no tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bentos.fraud.build import build_bento
from switchyard.serving import valkey
from tests.homes import free_port
from tests.releases import make_release

PROJECT = Path(__file__).resolve().parents[1]
START_S = 60.0
MARK = "conflict_said_by_the_copy"


@dataclass(frozen=True)
class Packed:
    """A home with a release and its Bento, whose copy of the package says MARK."""

    home: Path
    release_folder: Path
    tag: str


@dataclass(frozen=True)
class Served:
    """A running Bento and where it keeps things."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    home: Path
    release_folder: Path
    tag: str

    @property
    def journal(self) -> Path:
        return self.home / "journal"

    @property
    def log(self) -> Path:
        return self.home / "service.log"

    @property
    def port(self) -> int:
        port = self.client.base_url.port
        assert port is not None
        return port

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in below if "_bentoml_impl.worker.service" in p.cmdline()]


def pack(home: Path) -> Packed:
    """Make a release and build its Bento in ``home``."""
    home.mkdir(parents=True)
    release_folder = make_release(home / "releases").folder
    tag = build_bento(release_folder, home / "bentoml")
    mark_the_copy(bento_folder(home, tag))
    return Packed(home, release_folder, tag)


@contextmanager
def serving(packed: Packed, **variables: str) -> Iterator[Served]:
    """The Bento, ready; ended by SIGTERM unless it has ended."""
    port = free_port()
    log = packed.home / "service.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            serve_command(packed.tag, port),
            env=environment(packed.home) | variables,
            cwd=PROJECT,
            stdout=output,
            stderr=output,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        try:
            wait_until_ready(client, process, log)
            yield Served(process, client, packed.home, packed.release_folder, packed.tag)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=30)


def bento_folder(home: Path, tag: str) -> Path:
    return home / "bentoml" / "bentos" / tag.replace(":", "/")


def mark_the_copy(bento: Path) -> None:
    """Change one word in the Bento's copy of the package: only that copy says it."""
    replies = bento / "src" / "switchyard" / "serving" / "replies.py"
    replies.write_text(replies.read_text().replace('409: "conflict"', f'409: "{MARK}"'))


def serve_command(tag: str, port: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "bentoml", "serve", tag, "--port", str(port), *more]


def environment(home: Path) -> dict[str, str]:
    """What ``switchyard env`` sets."""
    return os.environ | {
        "SWITCHYARD_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "SWITCHYARD_REDIS_URL": valkey.start(home),
        "BENTOML_DO_NOT_TRACK": "True",
    }


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(f"the service was not ready:\n{log.read_text()}")


def make_body(transaction_id: str, **overrides: Any) -> dict[str, Any]:
    body = {
        "transaction_id": transaction_id,
        "customer_id": "c1",
        "terminal_id": "s1",
        "amount": "57.16",
        "event_timestamp": datetime.now(UTC).isoformat(),
        "channel": "pos",
    }
    return body | overrides

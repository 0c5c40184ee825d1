"""Decisions per second of one worker, beside the textbook scorer and beside a body that is only refused.

Needs a home with a champion (``switchyard demo``). Each round takes every candidate in turn, so that a
machine that slows down slows all of them; reported are medians over rounds and ratios within a round.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from assets.fraud.registry import release_of
from benchmarks.demo import ROOT
from benchmarks.load import Load, closed_loop
from bentos.fraud.build import build_bento
from orchestration import deployment
from orchestration.home import open_home
from switchyard.errors import ServiceError, SettingsError
from switchyard.fraud.bodies import transaction_body
from switchyard.lake import Lake
from switchyard.serving import valkey
from switchyard.settings import Settings

PEER = ROOT.parent / "shared" / "peers" / "naive_fastapi.py"
SECONDS = 4.0
CONNECTIONS = (8, 32)
BULK = 25
ROWS = 4_000
Bodies = Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Candidate:
    """Something that answers on a port; ``weight`` decisions in each request, ``status`` expected."""

    port: int
    path: str
    bodies: Bodies
    weight: int = 1
    status: int = 200


def run(
    console: Any = None, *, rounds: int = 5, peer: Path = PEER, **source: Any
) -> dict[str, Any]:
    """Median decisions/s and p99 of each candidate at 8 and 32 connections, and ratios to the peer.

    Raises SettingsError for options of a ``source``: what is served is what the home holds.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures the home's own service; leave out {', '.join(given)}")
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    settings = open_home(workers=1)
    with ExitStack() as running:
        port = running.enter_context(_service(settings))
        rows = _rows(settings)
        candidates = {
            "predict": Candidate(port, "/v1/predict", lambda: _single(rows)),
            "bulk_of_25": Candidate(port, "/v1/predict/bulk", lambda: _bulk(rows), BULK),
            "refused": Candidate(port, "/v1/predict", lambda: itertools.repeat(b"{}"), 1, 422),
        }
        if peer.exists():
            candidates["peer"] = running.enter_context(_peer(peer, deployment.free_port(port + 1)))
        else:
            told(f"{peer} is not there: measured without the peer")
        for candidate in candidates.values():
            _loaded(candidate, 8, 1.0)
        loads: dict[tuple[str, int], list[Load]] = {}
        for number, connections in itertools.product(range(rounds), CONNECTIONS):
            told(f"round {number + 1} of {rounds}, {connections} connections")
            for name, candidate in candidates.items():
                found = _loaded(candidate, connections, SECONDS)
                loads.setdefault((name, connections), []).append(found)
    return _figures(candidates, loads)


def _figures(
    candidates: dict[str, Candidate], loads: dict[tuple[str, int], list[Load]]
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for connections in CONNECTIONS:
        rates = {
            name: [load.per_second() * candidate.weight for load in loads[name, connections]]
            for name, candidate in candidates.items()
        }
        at = figures[f"at_{connections}_connections"] = {
            name: {
                "decisions_per_second": round(statistics.median(found)),
                "p99_ms": round(
                    statistics.median(load.percentile_ms(99) for load in loads[name, connections]),
                    2,
                ),
            }
            for name, found in rates.items()
        }
        at["bulk_to_single"] = _ratio(rates["bulk_of_25"], rates["predict"])
        if "peer" in rates:
            at["predict_to_peer"] = _ratio(rates["predict"], rates["peer"])
    return figures


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2)


def _loaded(candidate: Candidate, connections: int, seconds: float) -> Load:
    load = closed_loop(candidate.port, candidate.path, candidate.bodies, connections, seconds)
    if set(load.statuses) != {candidate.status}:
        raise ServiceError(f"{candidate.path} answered {dict(load.statuses)} by status")
    return load


def _rows(settings: Settings) -> list[dict[str, Any]]:
    """Bodies of the newest landed day whose profiles are there."""
    lake = Lake(settings.lake)
    day = lake.days("customer_profiles")[-1]
    after = day + timedelta(days=1)
    held = lake.read("transactions", after if lake.has("transactions", after) else day)
    return [transaction_body(row) for row in held.slice(0, ROWS).to_pylist()]


def _single(rows: list[dict[str, Any]]) -> Iterator[bytes]:
    """Every transaction under an id of its own, however often its row comes again."""
    run = uuid.uuid4().hex
    texts = [json.dumps({**row, "transaction_id": "\0"}).encode() for row in rows]
    for number, text in enumerate(itertools.cycle(texts)):
        yield text.replace(b"\\u0000", f"{run}-{number}".encode())


def _bulk(rows: list[dict[str, Any]]) -> Iterator[bytes]:
    single = _single(rows)
    while True:
        yield b'{"transactions":[%b]}' % b",".join(itertools.islice(single, BULK))


@contextmanager
def _service(settings: Settings) -> Iterator[int]:
    champion = release_of(settings.mlflow_tracking_uri, "champion")
    if champion is None:
        raise ServiceError("there is no champion to measure: run `switchyard demo` first")
    build_bento(settings.releases / champion, settings.home / "bentoml")
    port = deployment.free_port(settings.port)
    process = deployment.start(settings, champion, port)
    try:
        log = deployment.log_of(settings, champion)
        deployment.wait_until_ready(f"http://{settings.host}:{port}", process, log)
        yield port
    finally:
        deployment.stop_process(process.pid)


@contextmanager
def _peer(file: Path, port: int) -> Iterator[Candidate]:
    with tempfile.TemporaryDirectory() as folder:
        url = valkey.start(Path(folder))
        model = str(Path(folder) / "model.ubj")
        command = [sys.executable, str(file)]
        options = ["--redis", url, "--model", model]
        subprocess.run([*command, "seed", *options], check=True)
        process = subprocess.Popen([*command, "serve", *options, "--port", str(port)])
        try:
            _wait_for(port, process)
            yield Candidate(port, "/v1/predict", _of_the_peer)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            valkey.stop(Path(folder))


def _of_the_peer() -> Iterator[bytes]:
    for number in itertools.count():
        body = {
            "transaction_id": f"{os.getpid()}-{number}", "customer_id": number * 7919 % 5_000,
            "terminal_id": number * 104729 % 10_000, "amount": 5 + number % 90,
            "event_timestamp": "2026-03-02T12:00:00Z",
        }  # fmt: skip
        yield json.dumps(body).encode()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    body = json.loads(next(_of_the_peer()))
    for _ in range(300):
        try:
            httpx.post(f"http://127.0.0.1:{port}/v1/predict", json=body).raise_for_status()
        except httpx.TransportError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    raise ServiceError("the peer did not start")

"""Closed-loop load over HTTP/1.1: each connection sends its next request when the last one is answered.

Bare asyncio protocols, since a client library would take more of the two cores than the service. Not here:
load at a constant rate, which needs a generator that knows of scheduled moments.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Load:
    """What came back: latencies in seconds, and answers by status."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile_ms(self, share: float) -> float:
        return float(np.percentile(self.latencies, share) * 1e3)


class _Connection(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, sends again until the time is over."""

    def __init__(self, requests: Iterator[bytes], load: Load, ends: float) -> None:
        self._requests, self._load, self._ends = requests, load, ends
        self._answer = bytearray()
        self._length = -1
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._length < 0:
            head = self._answer.find(b"\r\n\r\n")
            if head < 0:
                return
            self._length = head + 4 + _content_length(bytes(self._answer[:head]))
        if len(self._answer) < self._length:
            return
        now = time.perf_counter()
        self._load.latencies.append(now - self._sent)
        self._load.statuses[int(self._answer[9:12])] += 1
        if now < self._ends:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if time.perf_counter() < self._ends:
            self._load.statuses[0] += 1
        if not self.over.done():
            self.over.set_result(None)

    def _send(self) -> None:
        self._answer.clear()
        self._length = -1
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))


def closed_loop(
    port: int, path: str, bodies: Callable[[], Iterator[bytes]], connections: int, seconds: float
) -> Load:
    """Load ``path`` on 127.0.0.1. ``bodies`` makes an endless iterator that all connections share."""
    return asyncio.run(_run(port, path, bodies(), connections, seconds))


async def _run(
    port: int, path: str, bodies: Iterator[bytes], connections: int, seconds: float
) -> Load:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n".encode()
    requests = (head + b"content-length: %d\r\n\r\n%b" % (len(body), body) for body in bodies)
    load = Load(seconds)
    ends = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: _Connection(requests, load, ends), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.over for _, connection in made))
    return load


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"an answer without content-length: {head!r}")

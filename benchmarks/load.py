"""Closed-loop load over HTTP/1.1: each connection sends its next request when the last one is answered.

Bare sockets and one ``epoll``, since a client library would take more of the two cores than the service.
Here too: the bodies that are sent. Not here: load at a constant rate (``peers/openloop.py``).
"""

from __future__ import annotations

import itertools
import select
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from benchmarks.peers.openloop import DEGRADED

CUSTOMERS = 5_000
TERMINALS = 10_000
AMOUNTS = 90
"""Amounts run from 5 to 94 units of money, in turn."""
BULK = 25
ALLOWED = b'"decision":"allow"'
Bodies = Callable[[], Iterator[bytes]]
_RECEIVE_BYTES = 1 << 18


def transactions(*, int_ids: bool = False, hot_share: float = 0.0) -> Iterator[bytes]:
    """Endless bodies: the very transactions of ``peers/openloop.py``, each with an id of its own."""
    run, quote = uuid.uuid4().hex[:12].encode(), b"" if int_ids else b'"'
    for i in itertools.count():
        terminal = 1 if i * 2654435761 % 1000 < hot_share * 1000 else i * 104729 % TERMINALS
        yield (
            b'{"transaction_id":"%b-%d","customer_id":%b%d%b,"terminal_id":%b%d%b,"amount":%d,'
            b'"event_timestamp":"%bZ"}'
            % (run, i, quote, i * 7919 % CUSTOMERS, quote, quote, terminal, quote, 5 + i % AMOUNTS,
               datetime.now(UTC).isoformat(timespec="microseconds")[:26].encode())
        )  # fmt: skip


def in_bulk(size: int = BULK) -> Iterator[bytes]:
    """The same, ``size`` of them in each body of ``/v1/predict/bulk``."""
    single = transactions()
    while True:
        yield b'{"transactions":[%b]}' % b",".join(itertools.islice(single, size))


def as_argument() -> Iterator[bytes]:
    """The peer's transactions as the one argument of a plain ``@bentoml.api`` method."""
    for body in transactions(int_ids=True):
        yield b'{"transaction":%b}' % body


@dataclass(slots=True)
class Load:
    """What came back: latencies in seconds, answers by status (0: the connection broke), decisions that
    name a rung, decisions 'allow', and the CPU seconds that sending took."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    degraded: int = 0
    allowed: int = 0
    cpu_s: float = 0.0

    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile_ms(self, share: float) -> float:
        return float(np.percentile(self.latencies, share) * 1e3)


def closed_loop(
    port: int,
    path: str,
    bodies: Bodies | None,
    connections: int,
    seconds: float,
) -> Load:
    """Load ``path`` on 127.0.0.1. ``bodies`` makes an endless iterator that all connections share; None
    sends GET."""
    load, requests, began = Load(seconds), _requests(path, bodies), time.process_time()
    lanes = [_Lane(port) for _ in range(connections)]
    with select.epoll() as poll:
        by_number = {lane.number: lane for lane in lanes}
        for lane in lanes:
            poll.register(lane.number, select.EPOLLIN)
            lane.send(next(requests))
        started = time.perf_counter()
        ends = started + seconds
        while by_number:
            for number, _ in poll.poll(1.0) or _timed_out(by_number, ends):
                lane = by_number[number]
                if lane.receive(load) and time.perf_counter() < ends:
                    lane.send(next(requests))
                elif lane.idle:
                    poll.unregister(number)
                    del by_number[number]
                    lane.close()
    load.seconds = max(time.perf_counter() - started, seconds)
    load.cpu_s = time.process_time() - began
    return load


class _Lane:
    """One connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = self._socket.fileno()
        self.idle = True
        self._answer, self._length, self._sent = b"", -1, 0.0

    def send(self, request: bytes) -> None:
        self._answer, self._length, self.idle = b"", -1, False
        self._sent = time.perf_counter()
        self._socket.sendall(request)

    def receive(self, load: Load) -> bool:
        """Take what has come; whether the answer is whole. A broken connection is idle with status 0."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except OSError:
            data = b""
        if not data:
            load.statuses[0] += 1
            self.idle = True
            return False
        answer = self._answer = self._answer + data if self._answer else data
        if self._length < 0:
            self._length = _length_of(answer)
        if self._length < 0 or len(answer) < self._length:
            return False
        load.latencies.append(time.perf_counter() - self._sent)
        load.statuses[int(answer[9:12])] += 1
        load.degraded += answer.count(DEGRADED)
        load.allowed += answer.count(ALLOWED)
        self.idle = True
        return True

    def give_up(self) -> None:
        """Break the connection: it will read as ended."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


def _timed_out(lanes: dict[int, _Lane], ends: float) -> list[tuple[int, int]]:
    """Once the time is over by far, what is still silent counts as broken."""
    if time.perf_counter() < ends + 10:
        return []
    for lane in lanes.values():
        lane.give_up()
    return [(number, 0) for number in lanes]


def _requests(path: str, bodies: Bodies | None) -> Iterator[bytes]:
    host = b"HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    if bodies is None:
        return itertools.repeat(b"GET %b %b\r\n" % (path.encode(), host))
    head = b"POST %b %bcontent-type: application/json\r\ncontent-length: " % (path.encode(), host)
    return (b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in bodies())


def _length_of(answer: bytes) -> int:
    """Bytes of the whole answer, -1 while its head is not all there."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return -1
    head = answer[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        raise ValueError(f"an answer without content-length: {head!r}")
    return end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])

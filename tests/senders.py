"""Clients that send transactions without a pause and know what became of each. No tests.

Raw connections, since it matters where one was lost: before anything was received (refused, or closed by
the server while nothing was under way; a client sends that again without a thought), or after.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.served import make_body


@dataclass
class Sent:
    """What became of all requests: ids answered by status 200, everything else counted by kind.

    'refused': no connection was made. 'idle': the server had closed a kept connection before it read the
    request. 'lost': sent on a new connection, or answered in part. An int is a status that is no 200.
    """

    answered: list[str] = field(default_factory=list)
    releases: Counter[str] = field(default_factory=Counter)
    other: Counter[str | int] = field(default_factory=Counter)


@contextmanager
def sending(port: int, *, kept: int = 6, fresh: int = 3, pause_s: float = 0.0) -> Iterator[Sent]:
    """``kept`` clients with a connection each that is kept alive, ``fresh`` with one for each request, until
    the block ends."""
    sent, stop = Sent(), threading.Event()

    async def clients() -> None:
        numbers = iter(range(1_000_000_000))
        kinds = [True] * kept + [False] * fresh
        await asyncio.gather(*(_client(port, keep, pause_s, numbers, sent, stop) for keep in kinds))

    thread = threading.Thread(target=lambda: asyncio.run(clients()))
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join(timeout=60)


async def _client(
    port: int, keep: bool, pause_s: float, numbers: Iterator[int], sent: Sent, stop: Any
) -> None:
    while not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            sent.other["refused"] += 1
            await asyncio.sleep(0.05)
            continue
        used = False
        while not stop.is_set() and await _ask(reader, writer, used, next(numbers), sent) and keep:
            used = True
            await asyncio.sleep(pause_s)
        writer.close()


async def _ask(reader: Any, writer: Any, used: bool, number: int, sent: Sent) -> bool:
    """Send one and wait; whether the connection may be used again."""
    transaction_id = f"sent-{time.time_ns()}-{number}"
    body = json.dumps(make_body(transaction_id, customer_id=f"c{number % 97}")).encode()
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: switchyard\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    try:
        writer.write(head.encode() + body)
        await writer.drain()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        reply = await reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))
    except asyncio.IncompleteReadError as error:
        sent.other["idle" if used and not error.partial else "lost"] += 1
        return False
    except OSError:
        sent.other["idle" if used else "lost"] += 1
        return False
    status = int(answer.split(" ")[1])
    if status == 200:
        sent.answered.append(transaction_id)
        sent.releases[json.loads(reply)["release"]] += 1
    else:
        sent.other[status] += 1
    return "connection: close" not in answer

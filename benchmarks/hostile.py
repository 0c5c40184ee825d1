"""Ten thousand hostile requests against the real service: no 5xx, no crash, bounded memory.

Statuses are counted by kind of attack; afterwards the same worker still has to decide. Not here: what is sent
(``attacks``).
"""

from __future__ import annotations

import asyncio
import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.attacks import Attack, attacks, valid
from benchmarks.served import Served, service
from benchmarks.world import close_world, make_world
from orchestration import screen
from orchestration.gateway import free_port
from switchyard.errors import SettingsError

ATTACKS = 10_000
SEED = 7
CONNECTIONS = 32
ANSWER_S = 3.0
"""How long an answer may take to a request that is there; some attacks are never answered."""
SLOW_ANSWER_S = 20.0
MOST_GROWTH_MB = 150.0
"""How much more memory a worker may take afterwards than before."""
_HEAD = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


@dataclass
class Outcome:
    """What came back: how often each status (0: nothing) by kind, and what must not have been."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    failures: list[str] = field(default_factory=list)
    attacks: int = 0

    def took(self, attack: Attack, found: list[int]) -> None:
        """Count the answers to an attack."""
        self.attacks += 1
        self.statuses[attack.kind].update(found or [0])
        for status in found:
            if status >= 500 and status != 503:
                self.failures.append(f"{attack.kind}: {status} to {attack.parts[0][:300]!r}")

    @property
    def totals(self) -> Counter[int]:
        return sum(self.statuses.values(), Counter())


def assail(
    port: int,
    sent: Iterable[Attack],
    connections: int = CONNECTIONS,
    advance: Callable[[int], None] = lambda _done: None,
) -> Outcome:
    """Send all of ``sent`` to the service on ``port``, ``connections`` at a time."""
    return asyncio.run(_assail(port, iter(sent), connections, advance))


async def _assail(port: int, sent: Any, connections: int, advance: Callable[[], None]) -> Outcome:
    outcome = Outcome()

    async def attacker() -> None:
        for attack in sent:
            outcome.took(attack, await _attempt(port, attack))
            advance(outcome.attacks)

    await asyncio.gather(*(attacker() for _ in range(connections)))
    return outcome


async def _attempt(port: int, attack: Attack) -> list[int]:
    """The statuses of all answers to it."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return []
    received = bytearray()
    listening = asyncio.create_task(_listen(reader, received, attack.answers))
    try:
        for part in attack.parts:
            writer.write(part)
            await writer.drain()
            if attack.pause_s and not listening.done():
                await asyncio.sleep(attack.pause_s)
        if not attack.hangs_up:
            await asyncio.wait_for(listening, SLOW_ANSWER_S if attack.slow else ANSWER_S)
    except (TimeoutError, OSError):
        await asyncio.sleep(0)
    finally:
        listening.cancel()
        writer.close()
        await asyncio.gather(listening, return_exceptions=True)
    return statuses_in(bytes(received))


async def _listen(reader: asyncio.StreamReader, received: bytearray, answers: int) -> None:
    while len(statuses_in(bytes(received))) < answers:
        more = await reader.read(65_536)
        if not more:
            return
        received += more


def statuses_in(received: bytes) -> list[int]:
    """Final statuses of the whole answers in what was received.

    >>> statuses_in(b"HTTP/1.1 100 Continue\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
    [200]
    """
    found = []
    while (head := _HEAD.match(received)) and (end := received.find(b"\r\n\r\n")) >= 0:
        status = int(head.group(1))
        if status >= 200:
            found.append(status)
        length = _LENGTH.search(received, 0, end + 2)
        received = received[end + 4 + (int(length.group(1)) if length else 0) :]
    return found


def memory_mb(workers: list[psutil.Process]) -> float:
    """Memory that the workers have to themselves, in MB."""
    return float(round(sum(w.memory_full_info().uss for w in workers) / 1e6, 1))


def still_decides(url: str) -> bool:
    """Whether an honest transaction gets its decision."""
    body = valid(random.Random()) | {"transaction_id": f"honest-{random.getrandbits(64):x}"}
    answer = httpx.post(f"{url}/v1/predict", json=body, timeout=30)
    return answer.status_code == 200 and "decision" in answer.json()


def run(
    console: Any = None, *, quick: bool = False, folder: Path | None = None, **source: Any
) -> dict[str, Any]:
    """Statuses in all and by kind of attack, memory before and after; ``failed`` is what must not be.

    Raises SettingsError for options of a ``source``: the service is one of a world of its own.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this attacks a world of its own; leave out {', '.join(given)}")
    count = ATTACKS // 20 if quick else ATTACKS
    with tempfile.TemporaryDirectory(prefix="switchyard-hostile-") as temporary:
        world = make_world(folder or Path(temporary) / "home")
        try:
            with service(world, free_port(world.settings.port)) as served, bar(console) as advance:
                return _attacked(served, count, advance)
        finally:
            close_world(world)


def _attacked(served: Served, count: int, advance: Callable[[int], None]) -> dict[str, Any]:
    still_decides(served.url)
    workers = served.workers()
    before = memory_mb(workers)
    outcome = assail(served.port, attacks(count, SEED), advance=advance)
    failed = outcome.failures[:20]
    if not still_decides(served.url):
        failed.append("afterwards an honest transaction got no decision")
    after = memory_mb([w for w in workers if w.is_running()])
    if [w.pid for w in served.workers()] != [w.pid for w in workers]:
        failed.append("a worker died")
    if after - before > MOST_GROWTH_MB:
        failed.append(f"memory grew from {before} to {after} MB")
    return {
        "requests": count,
        "statuses": _counts(outcome.totals),
        "by_kind": {kind: _counts(found) for kind, found in sorted(outcome.statuses.items())},
        "memory_mb": {"before": before, "after": after},
        "failed": failed,
    }


def _counts(statuses: Counter[int]) -> dict[str, int]:
    """By status; what got no answer was cut short by its sender, or is answered by nobody."""
    return {str(status) if status else "none": n for status, n in sorted(statuses.items())}


@contextmanager
def bar(console: Any) -> Iterator[Callable[[int], None]]:
    """Progress over all attacks, where there is a console to show it on."""
    if console is None:
        yield lambda _done: None
        return
    with screen.bar(console) as advance:
        yield lambda done: advance("hostile requests", done, ATTACKS)

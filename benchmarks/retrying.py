"""A client as a payment system has it: constant arrivals, and the same id again until there is an answer.

Run as a program of its own, it prints one JSON line for each transaction. Not here: what the answers are
held against (``faults``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from subprocess import PIPE, Popen

import aiohttp

from benchmarks.demo import ROOT
from benchmarks.load import transactions

ATTEMPT_S = 1.0
PAUSE_S = 0.1


@dataclass(slots=True)
class Sent:
    """One transaction's way: answered with a decision, or not; ``troubles`` are its attempts that failed,
    by status or error."""

    transaction_id: str
    sent_at: float
    answered_after_s: float | None = None
    decision_id: str | None = None
    degraded: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


async def run(url: str, rate: float, seconds: float, patience_s: float) -> list[Sent]:
    """Send ``rate`` transactions a second for ``seconds`` or until SIGTERM, each for at most ``patience_s``, 0: once."""
    connector = aiohttp.TCPConnector(limit=512)
    timeout = aiohttp.ClientTimeout(total=ATTEMPT_S)
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, enough.set)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        start, tasks = time.perf_counter(), []
        bodies = transactions()
        for i in range(int(rate * seconds)):
            if (wait := start + i / rate - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            if enough.is_set():
                break
            tasks.append(asyncio.ensure_future(_settle(session, url, next(bodies), patience_s)))
        return list(await asyncio.gather(*tasks))


async def _settle(session: aiohttp.ClientSession, url: str, body: bytes, patience_s: float) -> Sent:
    sent = Sent(json.loads(body)["transaction_id"], time.time())
    started = time.perf_counter()
    headers = {"content-type": "application/json"}
    while not sent.troubles or time.perf_counter() - started < patience_s:
        try:
            async with session.post(url, data=body, headers=headers) as reply:
                answer = await reply.read()
            if reply.status == 200:
                decision = json.loads(answer)
                sent.answered_after_s = time.perf_counter() - started
                sent.decision_id, sent.degraded = decision["decision_id"], decision["degraded"]
                return sent
            sent.troubles.append(str(reply.status))
            if 400 <= reply.status < 500 and reply.status != 429:
                return sent
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            sent.troubles.append(type(error).__name__)
        await asyncio.sleep(PAUSE_S)
    return sent


class Client:
    """The client as a process that runs while something happens to the service."""

    def __init__(self, url: str, rate: float, seconds: float, patience_s: float) -> None:
        options = [url, str(rate), str(seconds), str(patience_s)]
        command = [sys.executable, "-m", __name__, *options]
        self._process = Popen(command, stdout=PIPE, text=True, cwd=ROOT)

    def end(self) -> list[Sent]:
        """Have it send no more; what became of every transaction."""
        self._process.terminate()
        return self.outcome()

    def outcome(self) -> list[Sent]:
        """Wait for its end; what became of every transaction."""
        said, _ = self._process.communicate()
        return list(_read(said))


def _read(said: str) -> Iterator[Sent]:
    for line in said.splitlines():
        yield Sent(**json.loads(line))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("url")
    for name in ("rate", "seconds", "patience_s"):
        p.add_argument(name, type=float)
    a = p.parse_args()
    for sent in asyncio.run(run(a.url, a.rate, a.seconds, a.patience_s)):
        print(json.dumps(asdict(sent)))


if __name__ == "__main__":
    main()

"""Constant-arrival load for a scoring service: coordinated omission can't hide a stall.

Requests leave on a fixed schedule whether or not earlier ones have come back, and latency counts from
the scheduled moment. One process sends about 1,500 requests/s on one core of a small machine.

    python -m benchmarks.peers.openloop URL RATE SECONDS [--int-ids] [--hot-terminal SHARE] [--key TOKEN]

Prints one JSON object: rate, sent, bad (by status or error), degraded (replies that name a rung), p50, p95,
p99 and max in ms, and its own CPU seconds. ``--int-ids`` suits ``naive_fastapi``; ``--hot-terminal 0.1``
sends a tenth of all to one terminal.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import aiohttp

DEGRADED = b'"degraded":["'


def transaction(i: int, int_ids: bool, hot_share: float) -> dict[str, Any]:
    """Request ``i``: 5,000 customers and 10,000 terminals in turn, the time now, an id of its own."""
    terminal = 1 if (i * 2654435761 % 1000) < hot_share * 1000 else i * 104729 % 10_000
    customer = i * 7919 % 5_000
    return {
        "transaction_id": f"o{time.time_ns()}-{i}",
        "customer_id": customer if int_ids else str(customer),
        "terminal_id": terminal if int_ids else str(terminal),
        "amount": 5 + i % 90,
        "event_timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }


async def run(a: argparse.Namespace) -> dict[str, Any]:
    """Send all requests, wait for all answers; the figures."""
    latencies: list[float] = []
    bad: Counter[str] = Counter()
    degraded = 0

    async def send(session: aiohttp.ClientSession, i: int, due: float) -> None:
        nonlocal degraded
        try:
            async with session.post(a.url, json=transaction(i, a.int_ids, a.hot_terminal)) as reply:
                degraded += DEGRADED in await reply.read()
                if reply.status != 200:
                    bad[str(reply.status)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            bad[type(error).__name__] += 1
        latencies.append(time.perf_counter() - due)

    headers = {"authorization": f"Bearer {a.key}"} if a.key else {}
    total = int(a.rate * a.seconds)
    connector = aiohttp.TCPConnector(limit=256)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        start, tasks = time.perf_counter() + 0.2, []
        for i in range(total):
            due = start + i / a.rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.ensure_future(send(session, i, due)))
        await asyncio.gather(*tasks)
    counts = {"rate": a.rate, "sent": total, "bad": dict(bad), "degraded": degraded}
    return counts | percentiles_ms(latencies) | {"cpu_s": round(time.process_time(), 2)}


def percentiles_ms(latencies: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest of latencies in seconds, in milliseconds."""
    ordered = sorted(latencies)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3, 2)

    return {"p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": at(1)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("url")
    p.add_argument("rate", type=float)
    p.add_argument("seconds", type=float)
    p.add_argument("--int-ids", action="store_true")
    p.add_argument("--hot-terminal", type=float, default=0.0)
    p.add_argument("--key")
    print(json.dumps(asyncio.run(run(p.parse_args()))))


if __name__ == "__main__":
    main()

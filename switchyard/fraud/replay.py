"""Replay: past transactions through the running service, then every journalled vector recomputed.

Transactions leave in event time, a share of them late and a share twice; verdicts 'fraud' leave when they
arrived; profiles of a day go online when the replay's event time passes 02:00 of the next, while
transactions keep coming. Here: the stream and its sending. Not here: recomputing (``recompute``).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa

from switchyard.errors import ServiceError
from switchyard.fraud.bodies import label_body, transaction_body
from switchyard.fraud.columns import PROFILE_AVAILABLE_HOUR
from switchyard.fraud.events import LABEL_DELAY_DAYS, fraud_verdicts
from switchyard.fraud.online import cold_store_of
from switchyard.fraud.recompute import Recomputed, recompute_journal
from switchyard.fraud.sync import sync_profiles
from switchyard.lake import Lake, days_between
from switchyard.serving.online_store import OnlineStore
from switchyard.settings import Settings

LATEST = timedelta(minutes=10)
ASKED_AGAIN = 5
"""Times that a request is sent again that was answered with 503: not now. It has the same id, so it counts once."""
ASKED_AGAIN_S = 0.5
Trust = ssl.SSLContext | bool
Advance = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What to send: days ``start`` to ``end``, both included. Shares are fractions from 0 to 1."""

    start: date
    end: date
    rate: float | None = None
    connections: int = 16
    repeat: float = 0.0
    late: float = 0.0
    limit: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Sending:
    """One request of the stream: when it leaves (event time, microseconds), where to, what."""

    leaves_us: int
    order: int
    path: str = field(compare=False)
    body: dict[str, Any] = field(compare=False)


@dataclass(slots=True)
class Replayed:
    """What came out. ``differences`` counts journalled feature values that differ when recomputed."""

    transactions: int
    repeated: int
    late: int
    labels: int
    syncs: int
    statuses: dict[str, int]
    seconds: float
    decisions_per_second: float
    p50_ms: float
    p99_ms: float
    rows: int
    differences: int
    stale_profile_share: float
    late_event_share: float
    simultaneous_share: float
    examples: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def replay(
    settings: Settings,
    url: str,
    plan: ReplayPlan,
    store: OnlineStore,
    advance: Advance | None = None,
    trust: Trust = True,
) -> Replayed:
    """Send the plan's days to the service at ``url``, then recompute what its journal says of them.

    ``trust``: how its certificate is verified, if it has one.
    The days must be in the lake, with profiles. Raises ServiceError if a request is not answered with
    200, or a decision is not in the journal.
    """
    lake = Lake(settings.lake)
    stream, counts = stream_of(lake, settings, plan)
    told = advance or (lambda _what, _position, _total: None)
    cold = cold_store_of(settings.cold_store_url, settings.cold_store)
    sender = Sender((url, trust), plan, lambda day: sync_profiles(lake, store, day, cold), told)
    started = time.perf_counter()
    sender.send(stream, sync_times(lake, plan))
    seconds = time.perf_counter() - started
    told("recomputing every journalled vector", 0, 1)
    checked = recompute_journal(settings, lake, _span_us(plan))
    told("recomputed", 1, 1)
    return _replayed(sender, counts, seconds, checked)


def stream_of(
    lake: Lake, settings: Settings, plan: ReplayPlan
) -> tuple[list[Sending], Counter[str]]:
    """The requests of the plan in the order they leave, and how many are repeated, late or verdicts."""
    rows = lake.read("transactions", plan.start, plan.end)
    rows = rows.slice(0, plan.limit) if plan.limit else rows
    rng = np.random.default_rng(plan.seed)
    event_us = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    late = rng.random(rows.num_rows) < plan.late
    leaves = event_us + np.where(
        late, rng.integers(1, LATEST // timedelta(microseconds=1), rows.num_rows), 0
    )
    again = np.flatnonzero(rng.random(rows.num_rows) < plan.repeat)
    bodies = [transaction_body(row) for row in rows.to_pylist()]
    stream = [Sending(int(leaves[i]), i, "/v1/predict", body) for i, body in enumerate(bodies)]
    stream += [
        Sending(
            int(leaves[i] + rng.integers(0, 60_000_000)), len(bodies) + k, "/v1/predict", bodies[i]
        )
        for k, i in enumerate(again)
    ]
    last_us = int(event_us[-1]) if rows.num_rows else 0
    labels = _verdicts(lake, plan, last_us)
    stream += [
        Sending(us, len(stream) + k, "/v1/labels", body) for k, (us, body) in enumerate(labels)
    ]
    counts = Counter(
        transactions=len(bodies), repeated=len(again), late=int(late.sum()), labels=len(labels)
    )
    return sorted(stream), counts


def _verdicts(lake: Lake, plan: ReplayPlan, last_us: int) -> list[tuple[int, dict[str, Any]]]:
    """Verdicts 'fraud' that arrive while the plan's transactions run."""
    first_us, _ = _span_us(plan)
    labels = lake.read("labels", plan.start - timedelta(days=LABEL_DELAY_DAYS), plan.end)
    found = []
    for row in fraud_verdicts(labels).to_pylist():
        if first_us <= (us := _us(row["label_available_at"])) < last_us:
            found.append((us, label_body(row)))
    return found


def sync_times(lake: Lake, plan: ReplayPlan) -> list[tuple[int, date]]:
    """When each day's profiles go online (microseconds): 02:00 of the day after."""
    days = days_between(plan.start - timedelta(days=1), plan.end - timedelta(days=1))
    hour = timedelta(days=1, hours=PROFILE_AVAILABLE_HOUR)
    return [
        (_us(datetime(d.year, d.month, d.day, tzinfo=UTC) + hour), d)
        for d in days
        if lake.has("customer_profiles", d)
    ]


class Sender:
    """Sends streams over a few connections and puts profiles online as event time passes 02:00."""

    def __init__(
        self, where: tuple[str, Trust], plan: ReplayPlan, sync: Callable[[date], int], told: Advance
    ) -> None:
        self._url, self._trust = where
        self._plan = plan
        self._sync = sync
        self._told = told
        self._running_sync: asyncio.Future[int] | None = None
        self.statuses: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.syncs = 0

    def send(self, stream: list[Sending], syncs: list[tuple[int, date]]) -> None:
        """Send it in its order, each of ``syncs`` once its time has come. Raises ServiceError if a request is
        not answered with 200."""
        asyncio.run(self._run(stream, list(syncs)))
        if refused := {status: n for status, n in self.statuses.items() if status != "200"}:
            raise ServiceError(f"not every request was answered with 200: {refused}")

    async def _run(self, stream: list[Sending], syncs: list[tuple[int, date]]) -> None:
        queue: asyncio.Queue[Sending | None] = asyncio.Queue(maxsize=2 * self._plan.connections)
        connector = aiohttp.TCPConnector(limit=self._plan.connections, ssl=self._trust)
        async with aiohttp.ClientSession(self._url, connector=connector) as session:
            workers = [
                asyncio.create_task(self._work(session, queue))
                for _ in range(self._plan.connections)
            ]
            try:
                await self._feed(stream, queue, syncs)
                for _ in workers:
                    await queue.put(None)
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
        if self._running_sync:
            await self._running_sync
            self._running_sync = None

    async def _feed(
        self,
        stream: list[Sending],
        queue: asyncio.Queue[Sending | None],
        syncs: list[tuple[int, date]],
    ) -> None:
        started = time.perf_counter()
        for position, sending in enumerate(stream):
            while syncs and sending.leaves_us >= syncs[0][0]:
                await self._start_sync(syncs.pop(0)[1])
            if self._plan.rate:
                await asyncio.sleep(
                    max(0.0, started + position / self._plan.rate - time.perf_counter())
                )
            await queue.put(sending)
            if position % 200 == 0:
                day = datetime.fromtimestamp(sending.leaves_us / 1e6, UTC)
                self._told(f"replaying {day:%Y-%m-%d %H:%M}", position, len(stream))

    async def _start_sync(self, day: date) -> None:
        """One sync at a time: the next night waits for the last."""
        if self._running_sync:
            await self._running_sync
        loop = asyncio.get_running_loop()
        self._running_sync = loop.run_in_executor(None, self._sync, day)
        self.syncs += 1

    async def _work(
        self, session: aiohttp.ClientSession, queue: asyncio.Queue[Sending | None]
    ) -> None:
        while (sending := await queue.get()) is not None:
            started = time.perf_counter()
            status = await _answered(session, sending)
            for _ in range(ASKED_AGAIN):
                if status != "503":
                    break
                await asyncio.sleep(ASKED_AGAIN_S)
                status = await _answered(session, sending)
            self.statuses[status] += 1
            self.latencies_ms.append((time.perf_counter() - started) * 1e3)


async def _answered(session: aiohttp.ClientSession, sending: Sending) -> str:
    """The status that it was answered with, or the name of what went wrong on the way."""
    try:
        async with session.post(sending.path, json=sending.body) as reply:
            await reply.read()
            return str(reply.status)
    except aiohttp.ClientError as error:
        return type(error).__name__


def _replayed(
    sender: Sender, counts: Counter[str], seconds: float, checked: Recomputed
) -> Replayed:
    if not sender.latencies_ms:
        raise ServiceError("nothing was sent: the plan's days hold no transactions")
    if checked.rows < counts["transactions"]:
        raise ServiceError(
            f"{counts['transactions']} transactions were answered, but only {checked.rows} of the plan's "
            "days are in the journal with a vector"
        )
    p50, p99 = np.percentile(sender.latencies_ms, [50, 99])
    return Replayed(
        transactions=counts["transactions"],
        repeated=counts["repeated"],
        late=counts["late"],
        labels=counts["labels"],
        syncs=sender.syncs,
        statuses=dict(sender.statuses),
        seconds=round(seconds, 2),
        decisions_per_second=round(len(sender.latencies_ms) / seconds, 1),
        p50_ms=round(float(p50), 2),
        p99_ms=round(float(p99), 2),
        rows=checked.rows,
        differences=len(checked.differences),
        stale_profile_share=checked.stale_share,
        late_event_share=checked.late_share,
        simultaneous_share=checked.simultaneous_share,
        examples=[str(d) for d in checked.differences[:5]],
    )


def _span_us(plan: ReplayPlan) -> tuple[int, int]:
    """First and one past the last microsecond of the plan's days."""
    first = datetime(plan.start.year, plan.start.month, plan.start.day, tzinfo=UTC)
    past = datetime(plan.end.year, plan.end.month, plan.end.day, tzinfo=UTC) + timedelta(days=1)
    return _us(first), _us(past)


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

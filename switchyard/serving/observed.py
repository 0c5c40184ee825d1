"""Figures that are looked up when somebody asks for them: releases, journal, store memory, cost.

Each function makes a source: called with what was counted it gives figures of this moment. Sources are
called in a thread of their own and may touch disk or network. Not here: what is counted per decision (``metrics``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from switchyard.learning.drift import SCORE_EDGES
from switchyard.serving.lineup import Lineup
from switchyard.serving.metrics import (
    DECISIONS,
    PROFILE_SYNCED,
    SERVED_SECONDS,
    Family,
    bin_names,
    series,
)
from switchyard.serving.segments import opened_us, segments

RELEASE = Family("switchyard_release_info", "gauge", "Releases that serve", ("release", "role"))
REFERENCE = Family(
    "switchyard_score_reference_share",
    "gauge",
    "Share of scores in each bin when the champion was evaluated",
    ("release", "bin"),
)
JOURNAL_BYTES = Family("switchyard_journal_bytes", "gauge", "Size of all journal segments")
JOURNAL_LAG = Family(
    "switchyard_journal_lag_seconds",
    "gauge",
    "Age of the oldest segment that is not compacted into the lake",
)
PROFILE_AGE = Family(
    "switchyard_profile_age_seconds",
    "gauge",
    "Age of the newest profiles, in event time",
    ("view",),
)
STORE_UP = Family("switchyard_store_up", "gauge", "1 where the online store answers, else 0")
STORE_MEMORY = Family(
    "switchyard_store_memory_bytes", "gauge", "Memory of the online store", ("of",)
)
PRICE = Family("switchyard_price_per_hour", "gauge", "Configured price of a worker-hour")
COST = Family(
    "switchyard_cost_per_thousand_decisions",
    "gauge",
    "Price of the workers' hours for a thousand decisions, since the service started",
)
OBSERVED = (
    RELEASE, REFERENCE, JOURNAL_BYTES, JOURNAL_LAG, PROFILE_AGE, STORE_UP, STORE_MEMORY, PRICE, COST,
)  # fmt: skip
STORE_PAUSE_S = 10.0
"""The store is asked for its memory at most so often."""
STORE_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of a family; figures of one family come one after another."""

    family: Family
    labels: tuple[str, ...]
    value: float


Counted = Mapping[str, float]
"""What all workers counted, by series (``metrics.total_of``)."""
Source = Callable[[Counted], Iterator[Figure]]


def releases(lineup: Lineup) -> Source:
    """Who is champion, who was before and who is on trial, and what the champion's scores looked like at its evaluation."""

    def look(_counted: Counted) -> Iterator[Figure]:
        standing = lineup.standing
        roles = {
            "champion": standing.champion,
            "previous": standing.previous,
            "challenger": standing.challenger,
        }
        for role, release in roles.items():
            if release is not None:
                yield Figure(RELEASE, (release.id, role), 1.0)
        manifest = getattr(standing.champion, "manifest", {})
        for name, share in reference_shares(manifest).items():
            yield Figure(REFERENCE, (standing.champion.id, name), share)

    return look


def reference_shares(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Share of the release's scores in each bin; none where it counted in other bins, or not at all."""
    scores = manifest.get("metrics", {}).get("scores", {})
    if scores.get("edges") != list(SCORE_EDGES):
        return {}
    return dict(zip(bin_names(SCORE_EDGES), scores["shares"], strict=True))


def journal(
    folder: Path,
    compacted: Callable[[], Container[str]] = frozenset,
    clock: Callable[[], float] = time.time,
) -> Source:
    """Size of the journal, and how far its compaction lags behind ``clock`` (seconds since 1970).

    ``compacted`` gives the names of the segments that are in the lake.
    """

    def look(_counted: Counted) -> Iterator[Figure]:
        files = segments(folder)
        yield Figure(JOURNAL_BYTES, (), float(sum(map(_size, files))))
        done = compacted()
        opened = [opened_us(file) / 1e6 for file in files if file.name not in done]
        yield Figure(JOURNAL_LAG, (), max(clock() - min(opened), 0.0) if opened else 0.0)

    return look


def store(url: str, clock: Callable[[], float] = time.monotonic) -> Source:
    """Whether the online store answers and how full it is, asked at most every STORE_PAUSE_S seconds.

    A store without a limit of its own is held against its machine's memory.
    """
    known: list[Figure] = []
    asked = -STORE_PAUSE_S

    def look(_counted: Counted) -> Iterator[Figure]:
        nonlocal known, asked
        if clock() - asked >= STORE_PAUSE_S:
            asked, known = clock(), _memory_of(url)
        yield from known

    return look


def profiles(clock: Callable[[], float] = time.time) -> Source:
    """How old the newest profiles are at ``clock`` (seconds since 1970), by view."""

    def look(counted: Counted) -> Iterator[Figure]:
        start = f"{PROFILE_SYNCED.name}\t"
        for name, moment in counted.items():
            if name.startswith(start):
                yield Figure(PROFILE_AGE, (name.split("\t")[1],), clock() - moment)

    return look


def cost(price_per_hour: float) -> Source:
    """What a thousand decisions cost at ``price_per_hour`` for each worker; nothing without a price."""

    def look(counted: Counted) -> Iterator[Figure]:
        if price_per_hour <= 0:
            return
        yield Figure(PRICE, (), price_per_hour)
        decisions = sum(v for name, v in counted.items() if name.startswith(f"{DECISIONS.name}\t"))
        hours = counted.get(series(SERVED_SECONDS, ()), 0.0) / 3600
        if decisions:
            yield Figure(COST, (), price_per_hour * hours / decisions * 1000)

    return look


def _memory_of(url: str) -> list[Figure]:
    client = redis.Redis.from_url(url, socket_timeout=STORE_TIMEOUT_S, retry=Retry(NoBackoff(), 0))
    try:
        said: Any = client.info("memory")
    except (redis.RedisError, OSError):
        return [Figure(STORE_UP, (), 0.0)]
    finally:
        client.close()
    most = said.get("maxmemory") or said.get("total_system_memory") or 0
    return [
        Figure(STORE_UP, (), 1.0),
        Figure(STORE_MEMORY, ("used",), float(said["used_memory"])),
        Figure(STORE_MEMORY, ("max",), float(most)),
    ]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # compacted and gone since it was listed
        return 0

"""The daily skew check at size: 100,000 decisions without a difference, then one feature computed an hour late.

Simulated days are decided in event time by two engines on one online store, with late and repeated transactions and
verdicts, profiles synced each night; after each day the daily check runs, as in production, on what was journalled
since. The next days are decided by engines of which one errs. Not here: HTTP (``switchyard replay`` goes that way).
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.world import noise_around
from switchyard.errors import SettingsError
from switchyard.fraud.columns import FEATURE_SERVICE, FEATURES, names
from switchyard.fraud.features import code_hash
from switchyard.fraud.landing import land_raw, validate_days
from switchyard.fraud.money import minor_units
from switchyard.fraud.online import PROJECT, VIEWS, FraudDomain, FraudReader, online_store_of
from switchyard.fraud.replay import ReplayPlan, Sending, stream_of, sync_times
from switchyard.fraud.requests import Parser, Transaction
from switchyard.fraud.skew import measure_skew
from switchyard.fraud.sliding import HOUR_US
from switchyard.fraud.sources import source_of
from switchyard.fraud.sync import sync_activity, sync_profiles
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake, days_between
from switchyard.learning.calibration import Calibration
from switchyard.learning.day_reports import DayReport
from switchyard.learning.models import GradientBoosting, LogisticRegression
from switchyard.learning.release import Release, write_release
from switchyard.learning.thresholds import Thresholds
from switchyard.serving import valkey
from switchyard.serving.commands import Commands
from switchyard.serving.domain import Assembled
from switchyard.serving.engine import Asked, Engine
from switchyard.serving.hot_store import HotStore
from switchyard.serving.journal import journal_of, wall_clock_us
from switchyard.serving.replies import Answer
from switchyard.serving.trip import Trip
from switchyard.settings import Settings, load_settings

DECISIONS = 100_000
QUICK_DECISIONS = 6_000
PER_DAY = 5_100
QUICK_PER_DAY = 600
LEAD_DAYS = 31
AT_ONCE = 32
"""Requests that wait together, half of them at each engine."""
LATE_FEATURE = "customer_tx_count_1h"


class AnHourLate(FraudDomain):
    """One feature is computed as if it were an hour ago; all else, and the journal's word of it, is right."""

    def assemble(self, requests: Sequence[Transaction], trip: Trip | None) -> Assembled:
        right = super().assemble(requests, trip)
        before = [
            msgspec.structs.replace(r, event_timestamp_us=r.event_timestamp_us - HOUR_US)
            for r in requests
        ]
        column = names(FEATURES).index(LATE_FEATURE)
        right.vectors[:, column] = super().assemble(before, trip).vectors[:, column]
        return right


def run(
    console: Any = None, *, quick: bool = False, folder: Path | None = None, **source: Any
) -> dict[str, Any]:
    """Differences of the right engines' decisions (0 is wanted), and what is said of the seeded skew.

    Raises SettingsError for options of a ``source``: the world is the benchmark's own.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures a world of its own; leave out {', '.join(given)}")
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    with tempfile.TemporaryDirectory(prefix="switchyard-skew-") as temporary:
        home = folder or Path(temporary) / "home"
        per_day = QUICK_PER_DAY if quick else PER_DAY
        settings = load_settings(
            home=home, transactions_per_day=per_day, customers=per_day, terminals=per_day // 2,
            simulated_days=365,
        )  # fmt: skip
        try:
            return _measured(settings, QUICK_DECISIONS if quick else DECISIONS, told)
        finally:
            valkey.stop(home)


def _measured(settings: Settings, decisions: int, told: Callable[[str], None]) -> dict[str, Any]:
    days = -(-decisions // settings.transactions_per_day) + 2
    first = settings.start_day + timedelta(days=LEAD_DAYS)
    told("simulating the days, their profiles and the activity before them")
    lake = _landed(settings, first, days)
    service = Service(settings, lake, first)
    right, seconds, day = 0, list[float](), first
    differing: list[DayReport] = []
    while right < decisions:
        report, took = service.live_through(day, FraudDomain)
        right += report.verdict.figures["recomputed"]
        seconds.append(took)
        differing += [report] if not report.verdict.passed else []
        told(f"{day}: {report.verdict.reasons[0]}; {took:.1f} s")
        day += timedelta(days=1)
    late, _ = service.live_through(day, AnHourLate)
    told(f"{day}, {LATE_FEATURE} an hour late: {late.verdict.reasons[1]}")
    service.close()
    figures = late.verdict.figures
    named = set(figures["by_feature"])
    shares = ("stale_share", "late_share", "simultaneous_share")
    return {
        "decisions_recomputed": right,
        "days_with_a_difference_or_without_a_verdict": len(differing),
        "why": [why for report in differing for why in report.verdict.reasons][:3],
        "check_s_first_days": round(statistics.median(seconds[:5]), 2),
        "check_s_last_days": round(statistics.median(seconds[-5:]), 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "seeded_feature": LATE_FEATURE,
        "features_named": sorted(named),
        "values_that_differ": figures["differing_values"],
        "decisions_of_that_day": figures["recomputed"],
        "first_difference": figures["differences"][:1],
        **{f"of_that_day_{name}": round(figures[name], 5) for name in shares},
        "failed": [
            *(["a right service has a difference"] if differing else []),
            *([] if named == {LATE_FEATURE} else ["the seeded skew is not named"]),
        ],
    }


def _landed(settings: Settings, first: date, days: int) -> Lake:
    lake, source = Lake(settings.lake), source_of(settings, now=datetime.now(UTC))
    every = days_between(settings.start_day, first + timedelta(days=days))
    land_raw(source, lake, every)
    validate_days(lake, every, now=datetime.now(UTC), currency=settings.currency)
    build_profiles(lake, first - timedelta(days=2), every[-1], created_at=datetime.now(UTC))
    return lake


class Service:
    """Two engines on one store, as two workers; each day has new ones, as after a restart."""

    def __init__(self, settings: Settings, lake: Lake, first: date) -> None:
        self._settings, self._lake = settings, lake
        self._url = valkey.start(settings.home)
        self.store = online_store_of(self._url)
        self.release = any_release(settings)
        midnight = datetime.combine(first, datetime.min.time(), UTC)
        sync_activity(lake, self.store, settings, midnight)
        sync_profiles(lake, self.store, first - timedelta(days=2))

    def live_through(self, day: date, domain: type[FraudDomain]) -> tuple[DayReport, float]:
        """Decide the day's transactions; the report that the check gives of it, and the check's seconds."""
        plan = ReplayPlan(day, day, repeat=0.01, late=0.01, seed=day.toordinal())
        stream, _ = stream_of(self._lake, self._settings, plan)
        self.decide(stream, sync_times(self._lake, plan), domain)
        started = time.perf_counter()
        report, *others = measure_skew(self._settings, self._lake, day)
        took = time.perf_counter() - started
        failed = [other for other in others if not other.verdict.passed]
        return (failed or [report])[0], took

    def decide(
        self,
        stream: list[Sending],
        night: list[tuple[int, date]] = [],  # noqa: B006
        domain: type[FraudDomain] = FraudDomain,
    ) -> None:
        """Send ``stream`` to new engines, with the syncs of the ``night``; their segments are closed then."""
        engines = [self._engine(domain) for _ in range(2)]
        with closing(engines[0]), closing(engines[1]):
            asyncio.run(self._send(engines, stream, night))

    def close(self) -> None:
        self.store.close()

    def _engine(self, domain: type[FraudDomain]) -> Engine[Transaction]:
        units = minor_units(self._settings.currency)
        hot = HotStore(self._url, Commands(PROJECT, VIEWS), budget_s=1.0, needs_epoch=True)
        return Engine(domain(units), hot, journal_of(self._settings), self.release)

    async def _send(
        self,
        engines: list[Engine[Transaction]],
        stream: list[Sending],
        night: list[tuple[int, date]],
    ) -> None:
        domain = FraudDomain(minor_units(self._settings.currency))
        reader = FraudReader(Parser(self._settings.currency, future_limit=None), domain)
        syncs = list(night)
        for path, of_path in groupby(stream, lambda sending: sending.path):
            rest = list(of_path)
            for start in range(0, len(rest), AT_ONCE):
                some = rest[start : start + AT_ONCE]
                while syncs and some[0].leaves_us >= syncs[0][0]:
                    sync_profiles(self._lake, self.store, syncs.pop(0)[1])
                halves = [some[::2], some[1::2]]
                await asyncio.gather(
                    *(_sent(*each, path, reader) for each in zip(engines, halves, strict=True))
                )
        for engine in engines:
            engine.store.close()
        await asyncio.sleep(0)


async def _sent(
    engine: Engine[Transaction], some: Sequence[Sending], path: str, reader: FraudReader
) -> None:
    """To one engine; what another has just now is asked again, as a client would."""
    now = wall_clock_us()
    bodies = [msgspec.json.encode(sending.body) for sending in some]
    if path == "/v1/labels":
        await engine.take_in([reader.label(body, now) for body in bodies])
        return
    asked = [Asked(reader.transaction(b, now), now, time.perf_counter()) for b in bodies]
    while asked:
        answers = await engine.decide(asked)
        asked = [
            a for a, answer in zip(asked, answers, strict=True) if not isinstance(answer, Answer)
        ]


def any_release(settings: Settings) -> Release:
    """Any release will do: what is checked are the vectors."""
    import numpy as np

    columns = names(FEATURES)
    X, y = noise_around(np.random.default_rng(0).lognormal(1, 1, (500, len(columns))), 2_000)
    return write_release(
        settings.releases,
        model=GradientBoosting.train(X, y, columns=columns, params={"rounds": 20, "max_depth": 3}),
        calibration=Calibration(1.0, 0.0),
        baseline=LogisticRegression.train(X, y, columns=columns),
        baseline_calibration=Calibration(1.0, 0.0),
        thresholds=Thresholds(0.5, 0.9),
        feature_service=FEATURE_SERVICE,
        columns=columns,
        code_hash=code_hash(),
        training={"seed": 0},
        metrics={},
    )

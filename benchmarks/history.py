"""Whether a day's work grows with the days before it: each daily step with 60 days in the lake and with 730.

Both homes have the same last days, row for row: the short one's lake holds the last 60 days of the long one's. All 730
days are simulated. Steps are timed in turn, in both homes, again and again; a ratio is of medians. Not here: training,
which is no daily step and reads every day whose label is known.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.skew import Service
from switchyard.errors import SettingsError
from switchyard.fraud.activity import build_activity, snapshot
from switchyard.fraud.batch import score_days
from switchyard.fraud.compaction import compact, marker_of, remove_old
from switchyard.fraud.expectations import validate
from switchyard.fraud.labels import labels_as_of
from switchyard.fraud.landing import land_raw, validate_days
from switchyard.fraud.online import cold_store_of
from switchyard.fraud.raw import Source
from switchyard.fraud.replay import ReplayPlan, Sending, stream_of
from switchyard.fraud.skew import measure_skew
from switchyard.fraud.sources import source_of
from switchyard.fraud.sync import sync_profiles
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake, days_between
from switchyard.learning.day_reports import DayReport, DayReports
from switchyard.learning.policy import Verdict
from switchyard.serving import valkey
from switchyard.settings import Settings, load_settings

SHORT, LONG = 60, 730
PER_DAY = 500
FIRST_DAY = date(2024, 1, 1)
"""So that no day lies ahead of the clock, by which landing refuses what is future."""
WANTED = 1.2
REPEATS = 7
SEGMENTS_A_DAY = 24
"""Closed segments of the journal that a worker leaves in a day: one an hour."""
LOW_MS = 5.0
"""Steps below this are of no account: their ratio is noise, so it is told and not judged."""

Step = Callable[[], object]


def run(
    console: Any = None, *, quick: bool = False, folder: Path | None = None, **source: Any
) -> dict[str, Any]:
    """Milliseconds of each daily step at both histories, and their ratio; at most WANTED is wanted.

    Raises SettingsError for options of a ``source``: the world is the benchmark's own.
    """
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures a world of its own; leave out {', '.join(given)}")
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    with tempfile.TemporaryDirectory(prefix="switchyard-history-") as temporary:
        root = folder or Path(temporary)
        long = 130 if quick else LONG
        told(f"simulating {long} days")
        homes = _homes(root, long)
        try:
            return _measured(homes, long, told)
        finally:
            for home in homes.values():
                home.service.close()
                valkey.stop(home.settings.home)


@dataclass(frozen=True, slots=True)
class _Home:
    settings: Settings
    lake: Lake
    source: Source
    day: date
    service: Service
    stream: list[Sending]


def _measured(homes: dict[int, _Home], long: int, told: Callable[[str], None]) -> dict[str, Any]:
    took: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(REPEATS + 1):  # the first is to warm up
        told(f"round {number} of {REPEATS}")
        order = list(homes.items())
        for days, home in order if number % 2 else reversed(order):
            home.service.decide(_again(home.stream, number))
            for name, step in _steps(home).items():
                started = time.perf_counter()
                step()
                if number:
                    took[name][days].append((time.perf_counter() - started) * 1e3)
    rows = {}
    for name, of_step in took.items():
        short, longer = (statistics.median(of_step[days]) for days in (SHORT, long))
        rows[name] = {
            f"ms_at_{SHORT}": round(short, 1), f"ms_at_{long}": round(longer, 1),
            "ratio": round(longer / short, 2),
        }  # fmt: skip
    whole = [sum(row[f"ms_at_{days}"] for row in rows.values()) for days in (SHORT, long)]
    grows = [
        name
        for name, row in rows.items()
        if row["ratio"] > WANTED and row[f"ms_at_{long}"] > LOW_MS
    ]
    return {
        **rows,
        "all_steps": {f"ms_at_{SHORT}": round(whole[0]), f"ms_at_{long}": round(whole[1]),
                      "ratio": round(whole[1] / whole[0], 2)},
        "failed": [f"{name} grows with history" for name in grows],
    }  # fmt: skip


def _steps(home: _Home) -> dict[str, Step]:
    """A day's work, in its order; each may be done again."""
    settings, lake, day = home.settings, home.lake, home.day
    now = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    reports = DayReports(settings.monitoring)
    return {
        "land": lambda: land_raw(home.source, lake, [day]),
        "validate": lambda: validate_days(lake, [day], now=now, currency=settings.currency),
        "expectations": lambda: validate(lake.read("transactions", day)),
        "profiles": lambda: build_profiles(lake, day, day, created_at=now),
        "activity_windows": lambda: build_activity(lake, day, day),
        "sync_profiles": lambda: _sync(home),
        "activity_snapshot": lambda: snapshot(lake, now),
        "batch_scores": lambda: score_days(lake, home.service.release, [day]),
        "labels_as_of_a_week": lambda: labels_as_of(lake, day - timedelta(days=6), day, now),
        "compaction": lambda: compact(settings.journal, lake),
        "removal_of_segments": lambda: remove_old(settings.journal, now - timedelta(days=3650)),
        "skew": lambda: measure_skew(settings, lake, day),
        "newest_report": lambda: reports.newest("skew"),
        "sensor_and_schedules": _ticks(home),
    }


def _sync(home: _Home) -> None:
    settings = home.settings
    cold = cold_store_of(settings.cold_store_url, settings.cold_store)
    sync_profiles(home.lake, home.service.store, home.day, cold)
    cold.close()


def _ticks(home: _Home) -> Step:
    """The sensor of new days and the daily schedules, evaluated as the daemon does."""
    import dagster as dg

    from orchestration.definitions import build_definitions

    defs = build_definitions(home.settings)
    sensor = defs.resolve_sensor_def("on_new_day")
    names = ("nightly_profiles", "daily_monitoring", "daily_batch_scores")
    schedules = [defs.resolve_schedule_def(name) for name in names]
    at = datetime.combine(home.day + timedelta(days=1), datetime.min.time(), UTC)

    def tick() -> None:
        resources = {"lake": home.lake, "source": home.source}
        with dg.build_sensor_context(resources=resources, definitions=defs) as context:
            sensor.evaluate_tick(context)
        for schedule in schedules:
            with dg.build_schedule_context(scheduled_execution_time=at) as context:
                schedule.evaluate_tick(context)

    return tick


# ---------------------------------------------------------------- the homes


def _homes(root: Path, long: int) -> dict[int, _Home]:
    """The long home, and the short one whose lake holds the newest files of it."""
    settings = {days: _settings(root / f"history-{days}", long) for days in (SHORT, long)}
    lake = Lake(settings[long].lake)
    day = _last_day(settings[long], long)
    if not lake.has("activity_windows", day):
        _fill(settings[long], lake, day)
    first = day - timedelta(days=SHORT - 1)
    for file in lake.root.glob("*/*.parquet"):
        if date.fromisoformat(file.stem) >= first:
            copy = settings[SHORT].lake / file.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    return {days: _home(settings[days], days, day) for days in (SHORT, long)}


def _settings(home: Path, long: int) -> Settings:
    """Of one world of ``long`` days."""
    return load_settings(
        home=home, transactions_per_day=PER_DAY, customers=PER_DAY, terminals=PER_DAY // 2,
        simulated_days=long, first_day=FIRST_DAY,
    )  # fmt: skip


def _last_day(settings: Settings, long: int) -> date:
    return settings.start_day + timedelta(days=long - 1)


def _fill(settings: Settings, lake: Lake, day: date) -> None:
    """Every daily table of every day, by the code that fills it."""
    source, now = source_of(settings, now=datetime.now(UTC)), datetime.now(UTC)
    every = days_between(settings.start_day, day)
    land_raw(source, lake, every)
    validate_days(lake, every, now=now, currency=settings.currency)
    build_profiles(lake, every[0], day, created_at=now)
    build_activity(lake, every[0], day)


def _home(settings: Settings, days: int, day: date) -> _Home:
    lake = Lake(settings.lake)
    source = source_of(settings, now=datetime.now(UTC))
    service = Service(settings, lake, day)
    stream, _ = stream_of(lake, settings, ReplayPlan(day, day))
    home = _Home(settings, lake, source, day, service, stream)
    service.decide(_again(stream, -1))
    measure_skew(settings, lake, day)
    _age(home, days)
    return home


def _age(home: _Home, days: int) -> None:
    """What the days before left: segments for as long as they are kept, decisions and reports of every day."""
    settings, lake = home.settings, home.lake
    compact(settings.journal, lake)
    newest = min(settings.journal.glob("*.journal"))
    opened, _, rest = newest.name.partition("-")
    for number in range(1, SEGMENTS_A_DAY * min(days, settings.journal_days)):
        at = int(opened) - number * 86_400_000_000 // SEGMENTS_A_DAY
        older = newest.with_name(f"{at:016d}-{rest}")
        older.write_bytes(b"")
        marker_of(older).touch()
    (decided,) = lake.days("decisions")
    for back in range(1, days):
        received = lake.path("decisions", decided - timedelta(days=back))
        os.link(lake.path("decisions", decided), received)
        report = DayReport("skew", home.day - timedelta(days=back), Verdict(True, ("",), {}))
        DayReports(settings.monitoring).save(report)


def _again(stream: list[Sending], number: int) -> list[Sending]:
    """The decisions of the stream under ids of their own."""
    return [
        replace(s, body=s.body | {"transaction_id": f"{s.body['transaction_id']}-{number}"})
        for s in stream
        if s.path == "/v1/predict"
    ]

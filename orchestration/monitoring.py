"""Monitoring on demand: the levels of a window of days, each by its one function, and a page of each day.

Here: which function a level has. Not here: what a level measures (``switchyard.fraud``), assets and checks
(``assets.fraud.monitoring``), which do the same for partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from assets.fraud.monitoring.data import champion_of
from orchestration.home import exports
from switchyard.errors import LakeError
from switchyard.fraud.compaction import compact
from switchyard.fraud.data_drift import measure_data
from switchyard.fraud.online import online_store_of
from switchyard.fraud.performance import measure_model
from switchyard.fraud.skew import measure_skew
from switchyard.fraud.system_health import measure_system
from switchyard.lake import Lake, days_between
from switchyard.learning.day_pages import write_page
from switchyard.learning.day_reports import DayReport, DayReports, Level
from switchyard.settings import Settings

Measure = Callable[[Settings, Lake, date, date], list[DayReport]]


def _data(settings: Settings, lake: Lake, first: date, last: date) -> list[DayReport]:
    return measure_data(settings, lake, first, last, champion=champion_of(settings))


def _system(settings: Settings, lake: Lake, first: date, last: date) -> list[DayReport]:
    store = online_store_of(exports(settings)["SWITCHYARD_REDIS_URL"])
    return measure_system(settings, lake, first, last, store=store)


def _model(settings: Settings, lake: Lake, first: date, last: date) -> list[DayReport]:
    return [measure_model(settings, lake, day) for day in days_between(first, last)]


def _skew(settings: Settings, lake: Lake, first: date, last: date) -> list[DayReport]:
    return [measure_skew(settings, lake, day)[0] for day in days_between(first, last)]


LEVELS: dict[Level, Measure] = {"data": _data, "model": _model, "system": _system, "skew": _skew}
"""What measures a level from a first to a last day."""


@dataclass(frozen=True, slots=True)
class Monitored:
    """The reports of a window, by day and level, and the page of its newest day, if there is a report."""

    reports: list[DayReport]
    page: Path | None


def monitor(
    settings: Settings, levels: Sequence[Level], first: date | None, last: date | None
) -> Monitored:
    """Measure ``levels`` from ``first`` to ``last``, by default the newest landed day.

    Raises LakeError if no day has landed and none is given.
    """
    lake = Lake(settings.lake)
    newest = last or first or max(lake.days("transactions"), default=None)
    if newest is None:
        raise LakeError(f"no day has landed below {lake.root} yet; name days by --from and --to")
    found = [
        report
        for level in levels
        for report in LEVELS[level](settings, lake, first or newest, newest)
    ]
    reports = DayReports(settings.monitoring)
    pages = {day: write_page(reports, day) for day in sorted({report.day for report in found})}
    return Monitored(
        sorted(found, key=lambda r: (r.day, r.level)), pages[max(pages)] if pages else None
    )


def watch(settings: Settings) -> DayReport:
    """What of today has been journalled and closed goes into the lake, and today's level 'system' is measured."""
    compact(settings.journal, Lake(settings.lake))
    today = datetime.now(UTC).date()
    return monitor(settings, ["system"], today, today).reports[0]

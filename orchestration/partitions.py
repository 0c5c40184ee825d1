"""Which days there are: one daily partition per UTC day of the source."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg

from switchyard.fraud.raw import Source
from switchyard.settings import Settings

GROWS = timedelta(days=45)
"""A folder whose newest day is no older than this gets new days."""


def days_of(settings: Settings, source: Source, today: date) -> dg.DailyPartitionsDefinition:
    """Days from the source's first to its last; one without end, or that grows, goes on until yesterday."""
    bounds = source.days()
    first, last = bounds if bounds else (settings.start_day, None)
    grows = settings.source == "file" and last is not None and last >= today - GROWS
    end = None if last is None or grows else (last + timedelta(days=1)).isoformat()
    return dg.DailyPartitionsDefinition(start_date=first.isoformat(), end_date=end)

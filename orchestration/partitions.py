"""Which days there are: one daily partition per UTC day of the source."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from switchyard.fraud.raw import Source
from switchyard.settings import Settings


def days_of(settings: Settings, source: Source) -> dg.DailyPartitionsDefinition:
    """Days from the source's first to its last; an unbounded source goes on until today."""
    bounds = source.days()
    first, last = bounds if bounds else (settings.start_day, None)
    end = (last + timedelta(days=1)).isoformat() if last else None
    return dg.DailyPartitionsDefinition(start_date=first.isoformat(), end_date=end)

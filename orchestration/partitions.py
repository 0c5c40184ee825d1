"""Which days there are: one daily partition per UTC day of the source."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from switchyard.fraud.sources import source_of
from switchyard.settings import Settings


def days_of(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Days from the source's first to its last; an unbounded source goes on until today."""
    bounds = source_of(settings).days()
    first, last = bounds if bounds else (settings.start_day, None)
    end = (last + timedelta(days=1)).isoformat() if last else None
    return dg.DailyPartitionsDefinition(start_date=first.isoformat(), end_date=end)

"""The level 'system': how the service did on a day: latency, failed models, degraded and stale shares, freshness.

From the lake's tables of the journal, by the day on which the service received a request, and the online store's own
book-keeping. A request that failed before it was journalled is in no table: ``/metrics`` counts those. Not here:
what is alerted within minutes (``deploy/monitoring``), values that were served wrong (``skew``).
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from switchyard.fraud.columns import PROFILE_AVAILABLE_HOUR
from switchyard.fraud.events import MISSING, Ints, Owner, micros
from switchyard.fraud.sliding import DAY_US, HOUR_US
from switchyard.fraud.windows import TABLE
from switchyard.lake import Lake, days_between
from switchyard.learning.day_reports import DayReport, DayReports
from switchyard.learning.policy import Verdict
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.replies import MODEL_RUNGS
from switchyard.settings import Settings

PERCENTILES = (50, 90, 99, 99.9)
_COLUMNS = ["received_at", "event_timestamp", "latency_ms", "degraded", "variant", "customer_profile_day",
            "terminal_profile_day"]  # fmt: skip


def measure_system(
    settings: Settings, lake: Lake, first: date, last: date, *, store: OnlineStore | None = None
) -> list[DayReport]:
    """Measure and save each day from ``first`` to ``last``. ``store``: the online store, which knows how far each view is
    synced; of the last day alone, since it keeps no past."""
    reports = DayReports(settings.monitoring)
    done = []
    for day in days_between(first, last):
        figures = figures_of(lake, day)
        if store is not None and day == last:
            figures["synced_through"] = _synced(store)
        report = DayReport("system", day, judged(settings, figures))
        reports.save(report)
        done.append(report)
    return done


def figures_of(lake: Lake, day: date) -> dict[str, Any]:
    """What the journal's tables say of the day."""
    figures: dict[str, Any] = {"decisions": 0, "profiles_through": _profiles(lake, day)}
    if lake.has("shadows", day):
        shadows = lake.read("shadows", day, columns=["score"])
        figures["shadow_failed_share"] = shadows["score"].null_count / max(len(shadows), 1)
    rows = lake.read("decisions", day, columns=_COLUMNS) if lake.has("decisions", day) else None
    if rows is None or len(rows) == 0:
        return figures
    latency = rows["latency_ms"].to_numpy()
    rungs = Counter(pc.list_flatten(rows["degraded"]).to_pylist())
    degraded = pc.greater(pc.list_value_length(rows["degraded"]), 0)
    failed = [bool(MODEL_RUNGS & {*steps}) for steps in rows["degraded"].to_pylist()]
    return figures | {
        "decisions": len(rows),
        "by_variant": dict(Counter(rows["variant"].to_pylist())),
        "latency_ms": {f"p{p:g}": float(np.percentile(latency, p)) for p in PERCENTILES},
        "degraded_share": pc.sum(degraded).as_py() / len(rows),
        "by_rung": {rung: n / len(rows) for rung, n in rungs.most_common()},
        "stale_share": rungs["stale_profile"] / len(rows),
        "error_share": sum(failed) / len(rows),
        "profile_age_hours": {owner: _age(rows, owner) for owner in TABLE},
    }


def judged(settings: Settings, figures: dict[str, Any]) -> Verdict:
    """The verdict: each figure beyond its setting is a reason, and a day that is well says what was seen."""
    if not figures["decisions"]:
        return Verdict(True, ("nothing was decided on this day",), figures)
    p99 = figures["latency_ms"]["p99"]
    limits = [
        ("p99 of latency", p99, settings.system_p99_ms, f"{p99:.1f} ms, at most {settings.system_p99_ms:g} ms"),
        *(
            (name, figures[name], limit, f"{figures[name]:.2%}, at most {limit:.2%}")
            for name, limit in (
                ("degraded_share", settings.system_degraded_share),
                ("stale_share", settings.system_stale_share),
                ("error_share", settings.system_error_share),
            )
        ),
        *(
            (f"age of the {owner} profiles served", age["newest"], settings.system_freshness_hours,
             f"{age['newest']:.1f} h, at most {settings.system_freshness_hours:g} h")
            for owner, age in figures["profile_age_hours"].items()
            if age is not None
        ),
    ]  # fmt: skip
    bad = [
        f"{name.replace('_', ' ')} is {told}"
        for name, value, limit, told in limits
        if value > limit
    ]
    missing = [owner for owner, age in figures["profile_age_hours"].items() if age is None]
    bad += [f"no decision saw a {owner} profile" for owner in missing]
    well = (
        f"{figures['decisions']:,} decisions, p99 {p99:.1f} ms, {figures['degraded_share']:.2%} degraded",
    )
    return Verdict(not bad, tuple(bad) or well, figures)


def _age(rows: Any, owner: Owner) -> dict[str, float] | None:
    """Hours between the moment from which a decision's profile counts and the decision's event: the median, and of
    the newest profile seen at the last event; None if no decision saw one."""
    days: Ints = pc.fill_null(rows[f"{owner}_profile_day"], MISSING).to_numpy()
    seen = days != MISSING
    if not seen.any():
        return None
    at = micros(rows["event_timestamp"])[seen]
    counts_from = (days[seen] + 1) * DAY_US + PROFILE_AVAILABLE_HOUR * HOUR_US
    return {
        "median": float(np.median(at - counts_from)) / HOUR_US,
        "newest": float(at.max() - counts_from.max()) / HOUR_US,
    }


def _profiles(lake: Lake, day: date) -> dict[str, str | None]:
    """By view the last day until then whose profiles the lake has."""
    newest = {
        owner: max((d for d in lake.days(table) if d <= day), default=None)
        for owner, table in TABLE.items()
    }
    return {owner: str(found) if found else None for owner, found in newest.items()}


def _synced(store: OnlineStore) -> dict[str, str | None]:
    """By view the moment until which the online store is complete."""
    marks = {view.name: store.synced_through(view.name) for view in store.views}
    return {
        name: str(datetime.fromtimestamp(mark / 1e6, UTC)) if mark is not None else None
        for name, mark in marks.items()
    }

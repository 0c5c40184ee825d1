"""The level 'data': how a day's vectors lie against the weeks that the champion learned from, and what it asks for.

A transaction's vector is the journalled one where the service decided, else what batch scoring computes. The
reference is made once per release, from the last weeks that its training record names, and kept: monitoring needs
no old days afterwards. Not here: PSI and its null (``learning.reference``), when it asks for a retraining
(``learning.drift_policy``), whether vectors are right (``skew``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.errors import InputError
from switchyard.fraud.columns import FEATURES, TRANSACTION, arrow_schema, names
from switchyard.fraud.events import keys_of, micros
from switchyard.fraud.features import vectors_of
from switchyard.fraud.sliding import DAY_US
from switchyard.lake import Lake, days_between, write_parquet, write_text
from switchyard.learning import Floats, evenly
from switchyard.learning.day_reports import DayReport, DayReports
from switchyard.learning.drift import drift_report
from switchyard.learning.drift_policy import DriftPolicy, DriftState
from switchyard.learning.policy import Verdict
from switchyard.learning.reference import ColumnDrift, Reference, reference_of
from switchyard.learning.release import read_manifest
from switchyard.settings import Settings

REFERENCE_DAYS = 28
"""Four weeks: each weekday is held against its own four, and two weeks lie between the days that chance is told by."""
RECEIVED_WITHIN_DAYS = 2
"""A decision lies in the lake under the day it was received: that of its event, or one so near to it."""
CATEGORIES = ("customer_country", "terminal_country", "channel", "merchant_category")
SHOWN_ROWS = 14_000
"""Rows of the reference kept for Evidently's page, evenly spaced."""
PAGES = 7
"""Of a longer window the newest days alone get Evidently's page: one takes seconds."""
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class DayRows:
    """A day's transactions and their vectors float64[n, 50]; ``served`` of them were journalled by the service."""

    transactions: pa.Table
    X: Floats
    served: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the days of a release are held against: the vectors' reference, its last day, the categories known, and
    rows to show."""

    release: str
    reference: Reference
    last: date
    known: Mapping[str, list[str]]
    shown: pa.Table


def measure_data(
    settings: Settings, lake: Lake, first: date, last: date, *, champion: str, pages: int = PAGES
) -> list[DayReport]:
    """Measure and save each day from ``first`` to ``last`` that has transactions and lies behind the reference.

    The newest ``pages`` days get Evidently's page. A day carries on from the report before it, so the same days measured again say the same. Raises LakeError if
    the reference's days are not in the lake and no reference of the champion is kept, ReleaseError without a champion's
    release.
    """
    reports = DayReports(settings.monitoring)
    baseline = baseline_of(settings, lake, champion)
    behind = baseline.last + timedelta(days=1)
    days = [day for day in days_between(max(first, behind), last) if _has(lake, day)]
    done = []
    for i, day in enumerate(days):
        rows = rows_of(lake, day)
        if len(rows.X) == 0:
            continue
        page = reports.path("data", day, ".html") if i >= len(days) - pages else None
        report = judged(settings, baseline, rows, day, reports.before("data", day), page)
        reports.save(report)
        done.append(report)
    return done


def judged(
    settings: Settings,
    baseline: Baseline,
    rows: DayRows,
    day: date,
    before: DayReport | None,
    page: Path | None,
) -> DayReport:
    """The day's report, carried on from the one before it; Evidently's page goes to ``page``, if there is to be one."""
    columns = baseline.reference.compare(rows.X, (day - _EPOCH).days)
    moved = sorted((c for c in columns if columns[c].beyond_chance), key=lambda c: -columns[c].psi)
    state = DriftState.of(before.verdict.figures["state"]) if before else DriftState()
    _, verdict = policy_of(settings).step(
        state, day, moved, reference=baseline.release, features=len(columns)
    )
    theirs = _evidently(baseline, rows, day, page) if page else {}
    by_feature = {
        name: asdict(column) | ({"evidently_psi": theirs[name]} if name in theirs else {})
        for name, column in columns.items()
    }
    figures = {
        "rows": len(rows.X),
        "served": rows.served,
        "alarms": [c for c in moved if columns[c].psi > settings.drift_psi],
        "major": [c for c in moved if columns[c].psi > settings.drift_psi_major],
        "two_sigma": _beyond(columns, 2.0, 3.0),
        "three_sigma": _beyond(columns, 3.0, float("inf")),
        "lost_values": [
            c for c, d in columns.items() if d.missing - d.usually_missing > settings.missing_share
        ],
        "new_categories": new_categories(rows.transactions, baseline.known),
        "by_feature": by_feature,
    }
    return DayReport(
        "data", day, Verdict(verdict.passed, verdict.reasons, verdict.figures | figures)
    )


def policy_of(settings: Settings) -> DriftPolicy:
    """The drift policy as the settings want it."""
    return DriftPolicy(
        ask_share=settings.drift_share,
        keep_share=0.6 * settings.drift_share,
        days_to_ask=settings.drift_days,
        cool_down_days=settings.drift_cool_down_days,
    )


def _beyond(columns: Mapping[str, ColumnDrift], low: float, high: float) -> list[str]:
    """Features whose mean or deviation is off by so many sigmas of chance."""
    sigmas = {c: max(abs(d.mean_sigmas), abs(d.deviation_sigmas)) for c, d in columns.items()}
    return [c for c, off in sigmas.items() if low < off <= high]


def new_categories(
    transactions: pa.Table, known: Mapping[str, list[str]]
) -> dict[str, dict[str, float]]:
    """By column the categories that the reference did not have, each with its share of the day."""
    found: dict[str, dict[str, float]] = {}
    for column in CATEGORIES:
        counts = {
            c["values"]: c["counts"] for c in pc.value_counts(transactions[column]).to_pylist()
        }
        new = {
            v: n / len(transactions)
            for v, n in counts.items()
            if v is not None and v not in known[column]
        }
        if new:
            found[column] = new
    return found


# ---------------------------------------------------------------- rows of a day


def rows_of(lake: Lake, day: date) -> DayRows:
    """The day's transactions with their vectors: journalled where the service decided, else computed. No row if there
    is none. Raises LakeError if a transaction that was not decided on lacks its activity."""
    decided = _decided(lake, day)
    landed = (
        lake.read("transactions", day) if lake.has("transactions", day)
        else arrow_schema(TRANSACTION).empty_table()
    )  # fmt: skip
    if len(decided):
        landed = landed.filter(pc.invert(pc.is_in(keys_of(landed), keys_of(decided))))
    served = _vectors(decided)
    own = decided.select(names(TRANSACTION)).cast(arrow_schema(TRANSACTION))
    X = np.concatenate([served, vectors_of(lake, landed)])
    return DayRows(pa.concat_tables([own, landed.cast(own.schema)]), X, len(decided))


def _has(lake: Lake, day: date) -> bool:
    until = day + timedelta(days=RECEIVED_WITHIN_DAYS)
    return lake.has("transactions", day) or bool(lake.paths("decisions", day, until))


def _decided(lake: Lake, day: date) -> pa.Table:
    """The day's decisions by event time that hold a whole vector, one of each transaction."""
    columns = [*names(TRANSACTION), "vector"]
    paths = lake.paths("decisions", day, day + timedelta(days=RECEIVED_WITHIN_DAYS))
    midnight = (day - _EPOCH).days * DAY_US
    parts = []
    for path in paths:
        rows = pq.read_table(path, columns=columns).replace_schema_metadata(None)
        at = micros(rows["event_timestamp"])
        whole = pc.fill_null(pc.equal(pc.list_value_length(rows["vector"]), len(FEATURES)), False)
        parts.append(
            rows.filter(pc.and_(pa.array((at >= midnight) & (at < midnight + DAY_US)), whole))
        )
    if not parts:
        return pa.schema(
            [*arrow_schema(TRANSACTION), ("vector", pa.list_(pa.float64()))]
        ).empty_table()
    found = pa.concat_tables(parts)
    _, first = np.unique(np.array(keys_of(found).to_pylist(), dtype=str), return_index=True)
    return found.take(np.sort(first))


def _vectors(decided: pa.Table) -> Floats:
    """NaN stands for null, which is how the journal's JSON writes it."""
    flat = pc.list_flatten(decided["vector"]).combine_chunks()
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64).reshape(-1, len(FEATURES))


# ---------------------------------------------------------------- what days are held against


def baseline_of(settings: Settings, lake: Lake, release: str) -> Baseline:
    """The release's baseline: kept in the home, or made of the last weeks of its training record and kept."""
    place = settings.monitoring / "references" / release
    if not place.with_suffix(".json").exists():
        _make(settings, lake, release, place)
    said = json.loads(place.with_suffix(".json").read_text())
    return Baseline(
        release,
        Reference.load(place.with_suffix(".npz")),
        date.fromisoformat(said["last"]),
        said["known"],
        pq.read_table(place.with_suffix(".parquet")),
    )


def _make(settings: Settings, lake: Lake, release: str, place: Path) -> None:
    """Write the three files of a baseline, the one that says that it is whole last."""
    first, last = reference_days(read_manifest(settings.releases / release))
    days = [day for day in days_between(first, last) if lake.has("transactions", day)]
    if len(days) < 2:
        raise InputError(
            f"release {release} was trained on the days until {last}, of which the lake holds {len(days)}; at least "
            f"2 of {first} to {last} are needed to hold other days against: materialize 'transactions' for them"
        )
    tables = [lake.read("transactions", day) for day in days]
    X = np.concatenate([vectors_of(lake, table) for table in tables])
    rows = pa.concat_tables(tables)
    day_of = micros(rows["event_timestamp"]) // DAY_US
    codes = [
        pc.dictionary_encode(rows[key]).combine_chunks().indices.to_numpy().astype(np.int64)
        for key in ("customer_id", "terminal_id")
    ]
    reference = reference_of(X, day_of, codes, names(FEATURES), seed=settings.seed)
    place.parent.mkdir(parents=True, exist_ok=True)
    reference.save(place.with_suffix(".npz"))
    some = evenly(len(X), SHOWN_ROWS)
    shown = {"day": pa.array(day_of[some])} | {
        name: pa.array(X[some, i].astype(np.float32)) for i, name in enumerate(names(FEATURES))
    }
    write_parquet(pa.table(shown), place.with_suffix(".parquet"))
    known = {
        c: sorted(v for v in pc.unique(rows[c]).to_pylist() if v is not None) for c in CATEGORIES
    }
    write_text(json.dumps({"last": str(last), "known": known}), place.with_suffix(".json"))


def reference_days(manifest: Mapping[str, Any]) -> tuple[date, date]:
    """First and last day of the weeks that a release is held against: the last four that it was trained or tested on."""
    split = manifest["training"]["split"]
    last = datetime.fromisoformat(split["test"]["end"]).date() - timedelta(days=1)
    start = datetime.fromisoformat(split["train"]["start"]).date()
    return max(start, last - timedelta(days=REFERENCE_DAYS - 1)), last


def _evidently(baseline: Baseline, rows: DayRows, day: date, page: Path) -> dict[str, float]:
    """Evidently's PSI of each feature against the days that ours is held against; its page is written."""
    import pandas as pd

    held = baseline.reference.weekdays_for((day - _EPOCH).days)
    alike = np.isin(baseline.shown["day"].to_numpy() % len(baseline.reference.counts), held)
    columns = names(FEATURES)
    usual = baseline.shown.filter(pa.array(alike)).select(columns).to_pandas().astype(float)
    report = drift_report(usual, pd.DataFrame(rows.X, columns=columns), columns)
    write_text(report.html, page)
    return report.values

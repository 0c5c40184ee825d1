"""Decisions to resample from: those of a home's journal, or scores that a model of this pipeline gives to the
weeks after its training.

Kept in a folder once made. Not here: what is done with them (``canary``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.errors import SourceError
from switchyard.fraud.backtest import Advance, BacktestPlan, run_backtest
from switchyard.fraud.sources import source_of
from switchyard.lake import Lake, write_parquet
from switchyard.learning import Bools, Floats, Ints
from switchyard.learning.release import read_manifest
from switchyard.learning.thresholds import Thresholds
from switchyard.settings import Settings, load_settings

TEST_DAYS = 42
"""Days that are scored: one week that the promise is made of, and five that the experiments draw from."""
LEAST_DECISIONS = 100_000
JOURNALLED = ("transaction_id", "customer_id", "event_timestamp", "amount_minor", "score", "release",
              "degraded")  # fmt: skip
DAY_US = 86_400_000_000
MODEL_S = 0.4e-3
"""Median time of the model stage where the journal tells none; its spread is log-normal."""
MODEL_SPREAD = 0.6
DEGRADED_SHARE = 0.004
"""Where the journal tells none."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One row per decision, sorted by event time; ``customer`` counts from 0."""

    customer: Ints
    event_us: Ints
    amount_minor: Ints
    score: Floats
    is_fraud: Bools
    degraded: Bools
    model_s: Floats
    review: float
    block: float
    source: str

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.review, self.block)

    def __len__(self) -> int:
        return len(self.score)

    def where(self, mask: Bools) -> Scored:
        """The rows that ``mask`` selects, customers counted anew."""
        taken = {
            f.name: getattr(self, f.name)[mask] if f.name in ROWS else getattr(self, f.name)
            for f in fields(self)
        }
        taken["customer"] = np.unique(taken["customer"], return_inverse=True)[1].astype(np.int64)
        return Scored(**taken)

    def first(self, rows: int) -> Scored:
        """The first rows, customers counted as before."""
        return replace(self, **{name: getattr(self, name)[:rows] for name in ROWS})


ROWS = ("customer", "event_us", "amount_minor", "score", "is_fraud", "degraded", "model_s")


def scored_decisions(folder: Path, advance: Advance, **source: Any) -> Scored:
    """From the home's lake where it has LEAST_DECISIONS compacted ones with their labels, else made in
    ``folder``.

    Raises SourceError if the source does not hold the days for a model and TEST_DAYS after it.
    """
    own = load_settings()
    found = None if any(source.values()) else journalled(own)
    return found if found is not None else _made(load_settings(home=folder, **source), advance)


def journalled(settings: Settings, least: int = LEAST_DECISIONS) -> Scored | None:
    """Decisions of the home's lake that one release scored and that have a verdict; None where fewer than
    ``least``. The journal tells no time of the model stage: it is drawn."""
    lake = Lake(settings.lake)
    days, labelled = lake.days("decisions"), lake.days("labels")
    if not days or not labelled:
        return None
    rows = lake.read("decisions", days[0], days[-1], JOURNALLED)
    rows = rows.filter(pc.is_valid(rows["score"]))
    if len(rows) < least:
        return None
    release = pc.mode(pc.dictionary_encode(rows["release"].combine_chunks()).indices)[0]["mode"]
    release_id = rows["release"].combine_chunks().dictionary_encode().dictionary[release.as_py()]
    rows = rows.filter(pc.equal(rows["release"], release_id))
    degraded = pc.greater(pc.list_value_length(rows["degraded"]), 0)
    rows = rows.drop_columns("degraded").append_column("was_degraded", degraded)
    labels = lake.read("labels", labelled[0], labelled[-1], ["transaction_id", "is_fraud"])
    rows = rows.join(labels, "transaction_id", join_type="inner").sort_by("event_timestamp")
    if len(rows) < least:
        return None
    manifest = read_manifest(settings.releases / release_id.as_py())
    was_degraded = rows["was_degraded"].to_numpy()
    return _scored(rows, manifest["thresholds"], was_degraded, "journal")


def _made(settings: Settings, advance: Advance) -> Scored:
    """The trees of this pipeline on TEST_DAYS after their training; kept in the settings' home."""
    kept = settings.home / f"scored-{settings.source}.parquet"
    if kept.exists():
        return _kept(pq.read_table(kept))
    bounds = source_of(settings).days()
    if bounds is None:
        raise SourceError(f"source '{settings.source}' holds no day to score")
    last: date = bounds[1]
    plan = BacktestPlan(last - timedelta(days=TEST_DAYS + 13), test_days=TEST_DAYS, history_days=28)
    run = run_backtest(settings, plan, advance)
    lake = Lake(next((settings.home / "backtest").iterdir()))
    rows = lake.read("transactions", plan.test_start, plan.last_day)
    labels = lake.read("labels", plan.test_start, plan.last_day, ["transaction_id", "is_fraud"])
    predicted = run.predictions.rename_columns(["transaction_id", "score"])
    predicted = predicted.set_column(
        0, "transaction_id", predicted["transaction_id"].cast(pa.string())
    )
    rows = rows.join(labels, "transaction_id").join(predicted, "transaction_id", join_type="inner")
    rows = rows.sort_by("event_timestamp")
    degraded = np.random.default_rng(settings.seed).random(len(rows)) < DEGRADED_SHARE
    made = _scored(rows, run.fitted.thresholds.record(), degraded, settings.source)
    write_parquet(_table(made), kept)
    return made


def _scored(
    rows: pa.Table, thresholds: Mapping[str, float], degraded: Bools, source: str
) -> Scored:
    rng = np.random.default_rng(0)
    codes = pc.dictionary_encode(rows["customer_id"].combine_chunks()).indices
    event_us = rows["event_timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    return Scored(
        customer=codes.to_numpy(zero_copy_only=False).astype(np.int64),
        event_us=event_us.to_numpy(),
        amount_minor=rows["amount_minor"].to_numpy(),
        score=rows["score"].to_numpy(),
        is_fraud=pc.fill_null(rows["is_fraud"], False).to_numpy(),
        degraded=degraded,
        model_s=MODEL_S * rng.lognormal(0, MODEL_SPREAD, len(rows)),
        source=source,
        **thresholds,
    )


def _table(scored: Scored) -> pa.Table:
    told = {n: str(v) for n, v in asdict(scored).items() if n not in ROWS}
    return pa.table({n: getattr(scored, n) for n in ROWS}).replace_schema_metadata(told)


def _kept(table: pa.Table) -> Scored:
    told = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    return Scored(
        **{n: table[n].to_numpy() for n in ROWS},
        review=float(told["review"]),
        block=float(told["block"]),
        source=told["source"],
    )

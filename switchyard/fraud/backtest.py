"""Backtest: what this pipeline would have scored on a past week, with the labels known at each moment.

The days are landed, profiled and turned into vectors exactly as in production, in a lake of their own;
then the boosted trees are fitted by the protocol's split and score every transaction of the test week.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from switchyard.errors import SourceError
from switchyard.fraud.activity import build_activity
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.dataset import Dataset, dataset_of
from switchyard.fraud.features import code_hash, vectors_of
from switchyard.fraud.labels import labels_as_of
from switchyard.fraud.landing import land_raw, validate_days
from switchyard.fraud.sources import Source, source_of
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake, days_between
from switchyard.learning.fitting import Fitted, fit
from switchyard.learning.models import GradientBoosting
from switchyard.learning.splits import Split, backtest_split
from switchyard.settings import Settings

Advance = Callable[[str, int, int], None]
CONTENTS = ("source", "data", "column_map", "first_day", "currency", "label_delay_days", "seed", "customers",
            "terminals", "transactions_per_day", "simulated_days", "simulated_change_day")  # fmt: skip
"""Settings that decide what the landed days hold."""
_LOADED_AT = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BacktestPlan:
    """The protocol: train, delay gap, test, in days from ``train_start``.

    ``history_days`` is how many days, ending with the training week, the model learns from (None: the
    training days; 0: all there are). Features may use all earlier transactions in either case.
    """

    train_start: date
    train_days: int = 7
    delay_days: int = 7
    test_days: int = 7
    history_days: int | None = None

    @property
    def test_start(self) -> date:
        return self.train_start + timedelta(days=self.train_days + self.delay_days)

    @property
    def last_day(self) -> date:
        """Last day of the test week."""
        return self.test_start + timedelta(days=self.test_days - 1)


@dataclass(frozen=True, slots=True)
class Backtest:
    """``predictions``: TRANSACTION_ID (int64 where the source's ids are integers) and ``score``."""

    predictions: pa.Table
    fitted: Fitted
    figures: dict[str, Any]


def run_backtest(settings: Settings, plan: BacktestPlan, advance: Advance) -> Backtest:
    """Run ``plan`` on the settings' source; landed days are kept in the home and used again.

    Raises SourceError if the source does not hold the plan's days, TrainingError if its training window
    teaches nothing.
    """
    source = source_of(settings)
    bounds = source.days()
    if bounds is None or bounds[0] > plan.train_start or bounds[1] < plan.last_day:
        raise SourceError(
            f"the backtest needs the days {plan.train_start} to {plan.last_day}, but source "
            f"'{source.name}' holds {bounds}"
        )
    lake = Lake(settings.home / "backtest" / _origin(settings)[:12])
    land(source, lake, bounds[0], plan.last_day, settings.currency, advance)
    return backtest(lake, bounds[0], plan, settings, advance)


def _origin(settings: Settings) -> str:
    """SHA-256 of what decides the landed days: the source's settings, its files' sizes and times."""
    named = settings.model_dump(include=set(CONTENTS), mode="json")
    files = sorted(settings.data.rglob("*")) if settings.data and settings.data.is_dir() else []
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(json.dumps([named, stats, code_hash()]).encode()).hexdigest()


def land(
    source: Source, lake: Lake, first: date, last: date, currency: str, advance: Advance
) -> None:
    """Land and validate the source's days ``first`` to ``last`` that the lake lacks.

    Raises SourceError if a day's file can't be read: a backtest with holes would mislead.
    """
    days = days_between(first, last)
    for i, day in enumerate(days):
        advance(f"landing {day}", i, len(days))
        if lake.has("transactions", day):
            continue
        if unreadable := land_raw(source, lake, [day]).unreadable:
            raise SourceError(unreadable[day])
        validate_days(lake, [day], now=datetime.now(UTC), currency=currency)


def backtest(
    lake: Lake, data_start: date, plan: BacktestPlan, settings: Settings, advance: Advance
) -> Backtest:
    """The backtest on landed days: features, split, fit, score."""
    split = backtest_split(
        _midnight(plan.train_start), plan.train_days, plan.delay_days, plan.test_days,
        plan.history_days, data_start=_midnight(data_start),
    )  # fmt: skip
    advance("building profiles", 0, 4)
    first = max(data_start, split.refit.start.date() - timedelta(days=3))
    build_profiles(lake, first, plan.last_day, created_at=_LOADED_AT)
    advance("building activity", 1, 4)
    build_activity(lake, split.refit.start.date(), plan.last_day)
    advance("fitting the model", 2, 4)
    data = _dataset(lake, split)
    fitted = fit(
        GradientBoosting, data.rows(), split, columns=names(FEATURES), seed=settings.seed,
        review_share=settings.review_share, block_precision=settings.block_precision,
    )  # fmt: skip
    advance("scoring the test week", 3, 4)
    test = data.take(split.test.events(data.event_us))
    advance("done", 4, 4)
    figures = {"plan": asdict(plan), "test_rows": len(test), "record": dict(fitted.record)}
    return Backtest(_predictions(test, fitted), fitted, figures)


def _dataset(lake: Lake, split: Split) -> Dataset:
    """Vectors of the training window and of the test week, with the labels known when the test began."""
    start, end = split.refit.start.date(), split.test.end.date() - timedelta(days=1)
    rows = lake.read("transactions", start, end)
    labels = labels_as_of(lake, start, end, split.test.start)
    return dataset_of(rows, labels, vectors_of(lake, rows), split.test.start)


def _predictions(test: Dataset, fitted: Fitted) -> pa.Table:
    ids = test.transaction_id
    with contextlib.suppress(pa.ArrowInvalid):  # ids that are no integers stay as they are
        ids = ids.cast(pa.int64())
    return pa.table({"TRANSACTION_ID": ids, "score": pa.array(np.asarray(fitted.score(test.X)))})


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)

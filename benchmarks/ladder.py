"""What each rung of the two ladders is worth on the Handbook's test weeks: average precision, and how many
transactions it would stop.

Features: profiles that are late, activity as a worker read it five minutes ago, profiles alone, nothing.
Models: the champion of a week earlier, the logistic regression, the rules. Each rung scores the same
transactions; cards whose fraud is known already are left out, as the Handbook's protocol does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import SourceError
from switchyard.fraud.activity import build_activity
from switchyard.fraud.backtest import BacktestPlan, land
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.dataset import dataset_of
from switchyard.fraud.events import (
    CAPACITY,
    KEY,
    MISSING,
    Events,
    Ints,
    Owner,
    events_of,
    fraud_verdicts,
    micros,
    owned,
)
from switchyard.fraud.features import Floats, requests_of, vectors, vectors_of
from switchyard.fraud.rules import rule_on
from switchyard.fraud.sliding import COLUMNS, KEPT_DAYS, replay
from switchyard.fraud.sources import source_of
from switchyard.fraud.windows import build_profiles, profiles_as_of
from switchyard.lake import Lake
from switchyard.learning.fitting import Fitted, fit
from switchyard.learning.metrics import average_precision
from switchyard.learning.models import GradientBoosting, LogisticRegression, Model
from switchyard.learning.splits import backtest_split
from switchyard.settings import Settings, load_settings

TRAIN_STARTS = (date(2018, 7, 4), date(2018, 7, 11), date(2018, 7, 18), date(2018, 7, 25))
HISTORY_DAYS = 28
"""Days, ending with the training week, that each model learns from."""
CACHED_US = 300_000_000
"""The oldest that an activity in a worker's cache may be: so old is each one here."""
DAY_US = 86_400_000_000
WRITTEN = datetime(2000, 1, 1, tzinfo=UTC)

RUNGS = (
    "everything",
    "stale_profile, 1 day",
    "stale_profile, 7 days",
    "cached_features",
    "cold_features",
    "default_features",
    "previous_champion",
    "fallback_logistic",
    "cold_features, fallback_logistic",
    "default_features, fallback_logistic",
    "fallback_rules",
)


def run(
    source: str | None = None,
    data: Path | None = None,
    column_map: Path | None = None,
    *,
    quick: bool = False,
    seed: int | None = None,
    console: Any = None,
) -> dict[str, Any]:
    """Average precision and share stopped by rung: for each test week, and the mean. ``quick``: the last
    week alone.

    Raises SourceError if the source does not hold the weeks.
    """
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    plans = [BacktestPlan(start, history_days=HISTORY_DAYS) for start in TRAIN_STARTS]
    plans = plans[-1:] if quick else plans
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder:
        settings = load_settings(
            home=Path(folder), source=source or "handbook", data=data, column_map=column_map,
            seed=seed,
        )  # fmt: skip
        told("landing the days, their profiles and activity")
        lake = _landed(settings, plans)
        models = _Models(lake, settings)
        weeks = {}
        for plan in plans:
            told(f"training week {plan.train_start}, test week {plan.test_start}")
            weeks[plan.test_start] = worth_by_rung(lake, plan, models.champion, models.logistic)
    figures = {
        name: {rung: _over_weeks(weeks, rung, name) for rung in RUNGS} for name in Worth._fields
    }
    if console is not None:
        console.print(_table(figures))
    return {"seed": settings.seed, "history_days": HISTORY_DAYS, **figures}


class Worth(NamedTuple):
    """``stopped_share`` is that of all transactions that would be reviewed or blocked."""

    average_precision: float
    stopped_share: float


def _over_weeks(weeks: dict[date, dict[str, Worth]], rung: str, name: str) -> dict[str, float]:
    values = {str(start): getattr(week[rung], name) for start, week in weeks.items()}
    return {"mean": float(np.mean(list(values.values()))), **values}


def _landed(settings: Settings, plans: list[BacktestPlan]) -> Lake:
    source = source_of(settings)
    bounds = source.days()
    first = plans[0].train_start - timedelta(days=HISTORY_DAYS + 2 * KEPT_DAYS)
    if bounds is None or bounds[0] > first or bounds[1] < plans[-1].last_day:
        raise SourceError(
            f"the ladders need the days {first} to {plans[-1].last_day}, but source "
            f"'{source.name}' holds {bounds}; give the Handbook's folder by --data"
        )
    lake = Lake(settings.lake)
    land(source, lake, first, plans[-1].last_day, settings.currency, lambda *_: None)
    build_profiles(lake, first, plans[-1].last_day, created_at=WRITTEN)
    build_activity(lake, first, plans[-1].last_day)
    return lake


class _Models:
    """Models by the training week that they end with, each fitted once: one week's champion is the next
    week's previous one."""

    def __init__(self, lake: Lake, settings: Settings) -> None:
        self._lake = lake
        self._settings = settings
        self._fitted: dict[tuple[str, date], Fitted] = {}

    def champion(self, train_start: date) -> Fitted:
        return self._of(GradientBoosting, train_start)

    def logistic(self, train_start: date) -> Fitted:
        return self._of(LogisticRegression, train_start)

    def _of(self, kind: type[Model], train_start: date) -> Fitted:
        named = kind.name, train_start
        if named not in self._fitted:
            self._fitted[named] = self._fit(kind, train_start)
        return self._fitted[named]

    def _fit(self, kind: type[Model], train_start: date) -> Fitted:
        plan = BacktestPlan(train_start, history_days=HISTORY_DAYS)
        split = backtest_split(
            _midnight(train_start), plan.train_days, plan.delay_days, plan.test_days,
            plan.history_days, data_start=_midnight(date(1970, 1, 1)),
        )  # fmt: skip
        days = split.refit.start.date(), split.refit.end.date() - timedelta(days=1)
        rows = self._lake.read("transactions", *days)
        labels = self._lake.read("labels", *days)
        known = dataset_of(rows, labels, vectors_of(self._lake, rows), split.test.start)
        return fit(
            kind, known.rows(), split, columns=names(FEATURES), seed=self._settings.seed,
            review_share=self._settings.review_share,
            block_precision=self._settings.block_precision,
        )  # fmt: skip


Bools = npt.NDArray[np.bool_]
ModelOf = Callable[[date], Fitted]
"""A model by the first day of its training week."""


def worth_by_rung(
    lake: Lake, plan: BacktestPlan, champion: ModelOf, logistic: ModelOf
) -> dict[str, Worth]:
    """What each of RUNGS is worth on the plan's test week; the thresholds are each model's own."""
    week = lake.read("transactions", plan.test_start, plan.last_day)
    fraud, kept = _verdicts(lake, week, plan), _kept(lake, week, plan)
    seen = dict(_seen(lake, week))
    scored = {rung: _scored(champion(plan.train_start), X) for rung, X in seen.items()}
    before, linear = champion(plan.train_start - timedelta(days=7)), logistic(plan.train_start)
    scored["previous_champion"] = _scored(before, seen["everything"])
    scored["fallback_logistic"] = _scored(linear, seen["everything"])
    for rung in ("cold_features", "default_features"):
        scored[f"{rung}, fallback_logistic"] = _scored(linear, seen[rung])
    scored["fallback_rules"] = _by_rules(week)
    return {
        rung: Worth(average_precision(fraud[kept], score[kept]), float(stopped[kept].mean()))
        for rung, (score, stopped) in scored.items()
    }


def _scored(fitted: Fitted, X: Floats) -> tuple[Floats, Bools]:
    """Scores, and which of them review or block."""
    score = fitted.score(X)
    return score, score >= fitted.thresholds.review


def _seen(lake: Lake, week: pa.Table) -> Iterator[tuple[str, Floats]]:
    """The vectors of a test week, as each rung of the feature ladder sees it."""
    current = profiles_as_of(lake, week)
    never = np.full_like(current[0], MISSING), np.full_like(current[1], MISSING)
    nothing = activity_seen(lake, week, None)
    asked = requests_of(week)
    yield "everything", vectors_of(lake, week, current)
    yield "stale_profile, 1 day", vectors_of(lake, week, _profiles_before(lake, week, 1))
    yield "stale_profile, 7 days", vectors_of(lake, week, _profiles_before(lake, week, 7))
    yield "cached_features", vectors(asked, *current, *activity_seen(lake, week, CACHED_US))
    yield "cold_features", vectors(asked, *current, *nothing)
    yield "default_features", vectors(asked, *never, *nothing)


def _profiles_before(lake: Lake, week: pa.Table, days: int) -> tuple[Ints, Ints]:
    """The profiles that were current so many days before: the syncs since then failed."""
    place = week.schema.get_field_index("event_timestamp")
    earlier = pc.subtract(week["event_timestamp"], timedelta(days=days))
    return profiles_as_of(lake, week.set_column(place, week.schema.field(place), earlier))


def activity_seen(lake: Lake, asked: pa.Table, lag_us: int | None) -> tuple[Ints, Ints]:
    """Windows of the transactions ``asked`` if each event is seen ``lag_us`` after it happened (None: never).

    int64[n, 13] and int64[n, 6], in their order; with a lag of 0 those of ``activity_windows``.
    """
    span = pc.min_max(asked["event_timestamp"])
    first, last = (span[end].as_py().date() for end in ("min", "max"))
    past = lake.read("transactions", first - timedelta(days=KEPT_DAYS), last)
    labels = lake.read("labels", first - timedelta(days=2 * KEPT_DAYS), last)
    frauds = fraud_verdicts(labels)
    events = events_of(past, frauds)
    start, end = int(micros(asked["event_timestamp"]).min()), len(past)
    asks = np.flatnonzero(events["event_timestamp"][:end] >= start)
    both = [
        _replayed(*owned(past, frauds, events, owner), asks, lag_us, owner)
        for owner in cast(tuple[Owner, ...], tuple(KEY))
    ]
    return both[0], both[1]


def _replayed(
    keys: pa.ChunkedArray, events: Events, asks: Ints, lag_us: int | None, owner: Owner
) -> Ints:
    """The questions ``asks`` (rows of ``events``) among the events that enter late, key by key."""
    codes = pc.dictionary_encode(keys).combine_chunks().indices.to_numpy().astype(np.int64)
    entering = np.arange(len(events)) if lag_us is not None else np.empty(0, np.int64)
    steps = np.concatenate([events[entering], events[asks]])
    of_key = np.concatenate([codes[entering], codes[asks]])
    rows = np.concatenate([np.full(len(entering), -1), np.arange(len(asks))])
    at = steps["event_timestamp"] + np.where(rows < 0, lag_us or 0, 0)
    order = np.lexsort(
        (rows < 0, at, of_key)
    )  # what is asked and what arrives at once: asked first
    starts = np.concatenate([[0], np.cumsum(np.bincount(of_key, minlength=codes.max() + 1))])
    out = np.empty((len(asks), len(COLUMNS[owner])), np.int64)
    asked = rows[order]
    replay(starts, steps[order], asked, asked < 0, out, owner == "customer", CAPACITY)
    return out


def _verdicts(lake: Lake, week: pa.Table, plan: BacktestPlan) -> npt.NDArray[np.int8]:
    """The truth, whenever it came to be known."""
    labels = lake.read("labels", plan.test_start, plan.last_day)
    blank = np.empty((len(week), 0))
    return dataset_of(week, labels, blank, datetime(9999, 1, 1, tzinfo=UTC)).is_fraud


def _kept(lake: Lake, week: pa.Table, plan: BacktestPlan) -> Bools:
    """Rows whose card had no fraud from the training week on that was known when their day began."""
    labels = lake.read("labels", plan.train_start, plan.last_day)
    frauds = labels.filter(labels["is_fraud"])
    first: dict[str, int] = {}
    moments = micros(frauds["event_timestamp"]).tolist()
    for card, at in zip(frauds["customer_id"].to_pylist(), moments, strict=True):
        first[card] = min(at, first.get(card, at))
    known_until = (micros(week["event_timestamp"]) // DAY_US - plan.delay_days) * DAY_US
    since = np.array([first.get(card, np.iinfo(np.int64).max) for card in week["customer_id"].to_pylist()])  # fmt: skip
    return np.asarray(since >= known_until)


def _by_rules(week: pa.Table) -> tuple[Floats, Bools]:
    """A rank by the rules' decision, then by amount; and what they review."""
    amounts: Floats = week["amount_minor"].to_numpy().astype(np.float64)
    columns = ("amount_minor", "customer_country", "terminal_country")
    reviewed = np.array(
        [
            rule_on(Decimal(amount) / 100, *countries).decision == "review"
            for amount, *countries in zip(
                *(week[name].to_pylist() for name in columns), strict=True
            )
        ]
    )
    return amounts + 1e15 * reviewed, reviewed


def _table(figures: dict[str, dict[str, dict[str, float]]]) -> Any:
    from rich.table import Table

    shown = Table(title="Average precision of each rung, share stopped", title_justify="left")
    for column in ("rung", *figures["average_precision"]["everything"], "stopped"):
        shown.add_column(column.removeprefix("2018-"))
    for rung, values in figures["average_precision"].items():
        stopped = figures["stopped_share"][rung]["mean"]
        shown.add_row(rung, *(f"{value:.3f}" for value in values.values()), f"{stopped:.4f}")
    return shown


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)

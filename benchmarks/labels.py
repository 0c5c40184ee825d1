"""What a week is worth before its verdicts are in: provisional average precision against the matured one.

One simulated world; a model learns from its first weeks, then each of 30 weeks is asked three days after its end, with the
verdicts known by then, and again when all are in. Beside it what one gets who takes the known rows for all of them. Not
here: the estimator (``switchyard.learning.maturity``).
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console

from benchmarks.drift import FIRST, WARM_UP, World, land
from switchyard.errors import SettingsError
from switchyard.fraud.activity import build_activity
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.dataset import dataset_of
from switchyard.fraud.features import vectors_of
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake, days_between
from switchyard.learning import Bools, Floats, Ints
from switchyard.learning.maturity import Arrivals, Arrived
from switchyard.learning.metrics import Ranking
from switchyard.learning.models import GradientBoosting

TRAINED_DAYS = 35
"""From the end of the warm-up on; then as many again until their verdicts tell how long verdicts take."""
WEEKS, QUICK_WEEKS = 30, 4
ASKED_AFTER_DAYS = 3
ROWS, SEED = 5_000, 11
SPAN_DAYS = 28
"""Days whose features are computed at a time: bounds the memory."""
BAR_COVERED, BAR_WIDTH = 0.9, 0.15
_DAY_US = 86_400_000_000
_NEVER = np.iinfo(np.int64).min


class Rows(NamedTuple):
    """Of all days behind the warm-up; ``label_us`` _NEVER where the verdict never comes."""

    score: Floats
    y: Ints
    customer: Ints
    event_us: Ints
    label_us: Ints

    def take(self, mask: Bools) -> Rows:
        return Rows(*(column[mask] for column in self))


def run(
    *,
    quick: bool = False,
    seed: int | None = None,
    console: Console | None = None,
    folder: Path | None = None,
    **source: Any,
) -> dict[str, Any]:
    """Figures by name. Raises SettingsError for a ``source``: the world is simulated."""
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"'bench labels' measures a world of its own; leave out {given}")
    told = console.print if console is not None else lambda _: None
    weeks = QUICK_WEEKS if quick else WEEKS
    first = WARM_UP + 2 * TRAINED_DAYS
    world = World(seed or SEED, ROWS, days=first + 7 * weeks)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-", dir=folder) as spare:
        rows = _scored(Lake(Path(spare)), world, told)
    asked = [_asked(rows, first + 7 * week) for week in range(weeks)]
    return _figures(asked)


def _scored(lake: Lake, world: World, told: Any) -> Rows:
    """Every row behind the warm-up, scored by a model that learned from the first TRAINED_DAYS."""
    days = days_between(FIRST, FIRST + timedelta(days=world.days - 1))
    told(f"simulating {len(days)} days")
    land(lake, world, days)
    build_profiles(lake, days[WARM_UP - 2], days[-1], created_at=datetime(2000, 1, 1, tzinfo=UTC))
    spans = [days[WARM_UP : WARM_UP + TRAINED_DAYS]]
    rest = days[WARM_UP + TRAINED_DAYS :]
    spans += [rest[i : i + SPAN_DAYS] for i in range(0, len(rest), SPAN_DAYS)]
    model, parts = None, []
    for span in spans:
        told(f"features of {span[0]} to {span[-1]}")
        build_activity(lake, span[0], span[-1])
        transactions = lake.read("transactions", span[0], span[-1])
        X = vectors_of(lake, transactions)
        for_good = datetime.combine(days[-1] + timedelta(days=100), time(), UTC)
        data = dataset_of(transactions, lake.read("labels", span[0], span[-1]), X, for_good)
        y = np.maximum(data.is_fraud, 0).astype(np.int64)
        if model is None:
            known = data.is_fraud >= 0
            model = GradientBoosting.train(X[known], y[known], columns=names(FEATURES))
        customer = pa.chunked_array(data.customer_id).cast(pa.string()).to_pandas()
        parts.append(
            Rows(
                score=1 / (1 + np.exp(-model.margin(X))),
                y=y,
                customer=customer.str[1:].astype("int64").to_numpy(),
                event_us=data.event_us,
                label_us=np.where(data.is_fraud >= 0, data.label_us, _NEVER),
            )
        )
    return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class Asked(NamedTuple):
    """A week: what was told, its interval, what the known rows alone say, and what came out."""

    told: float
    low: float
    high: float
    naive: float
    matured: float
    share: float


def _asked(rows: Rows, first: int) -> Asked:
    """Of the week that begins on day ``first`` of the world."""
    begin_us = int(datetime.combine(FIRST, time(), UTC).timestamp() * 1e6) + first * _DAY_US
    now = begin_us + (7 + ASKED_AFTER_DAYS) * _DAY_US
    comes = rows.take(rows.label_us != _NEVER)
    old = comes.take((comes.event_us < now - 35 * _DAY_US) & (comes.event_us >= now - 63 * _DAY_US))
    arrivals = Arrivals.of(old.y, old.label_us - old.event_us)
    week = comes.take((comes.event_us >= begin_us) & (comes.event_us < begin_us + 7 * _DAY_US))
    known = week.take(week.label_us <= now)
    arrived = Arrived.at(known.y, now - known.event_us, known.customer, arrivals)
    ranking = Ranking(known.y, known.score)
    metric = arrived.measure(ranking.average_precision)
    return Asked(
        metric.value,
        metric.low,
        metric.high,
        ranking.average_precision(),
        Ranking(week.y, week.score).average_precision(),
        arrived.share,
    )


def _figures(asked: list[Asked]) -> dict[str, Any]:
    told, low, high, naive, matured, share = (
        np.array(column) for column in zip(*asked, strict=True)
    )
    covered = float(np.mean((low <= matured) & (matured <= high)))
    width = float(np.median(high - low))
    return {
        "weeks": len(asked),
        "covered": covered,
        "covered_reached": covered >= BAR_COVERED,
        "median_width": round(width, 3),
        "width_reached": width <= BAR_WIDTH,
        "share_of_frauds_known_median": round(float(np.median(share)), 3),
        "matured_average_precision_median": round(float(np.median(matured)), 3),
        "mean_error": round(float(np.mean(told - matured)), 4),
        "mean_absolute_error": round(float(np.mean(np.abs(told - matured))), 4),
        "naive_mean_error": round(float(np.mean(naive - matured)), 4),
        "naive_mean_absolute_error": round(float(np.mean(np.abs(naive - matured))), 4),
    }

"""How a change of the world was lived through: average precision as served, day by day, beside a model that was left alone
and one that knew everything.

By every label, also those that nobody knew at the time: this is hindsight, and no part of any decision. Not here: when
something was found or done (``orchestration``), the picture (``learning.pictures``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc

from switchyard.errors import TrainingError
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.features import vectors_of
from switchyard.lake import Lake, days_between
from switchyard.learning import Bools, Floats, Ints
from switchyard.learning.metrics import average_precision
from switchyard.learning.models import GradientBoosting, Model
from switchyard.learning.release import Release
from switchyard.serving.segments import segments, whole_bodies

WINDOW_DAYS = 7
"""The curves show windows of so many days, at the day that ends them."""
TROUGH_DAYS = 14


class _Payment(msgspec.Struct):
    transaction_id: str


class _Decision(msgspec.Struct):
    type: str
    score: float | None = None
    transaction: _Payment | None = None


@dataclass(frozen=True, slots=True)
class Spans:
    """Days: the first served one, the one of the change, the first that the renewed model decided (None: none did), the last."""

    served: date
    change: date
    renewed: date | None
    last: date


@dataclass(frozen=True, slots=True)
class Regime:
    """Average precision of all decisions of each span; ``as_served`` and ``left_alone`` by the last day of each window.

    ``trough``: the two weeks from the change on, or until the renewed model decided. ``after``: since then; ``oracle``: a model
    trained on the days between change and renewal with every label, and ``left_alone_after`` the first champion, on the same days.
    """

    before: float
    trough: float
    after: float | None
    oracle: float | None
    left_alone_after: float | None
    as_served: dict[date, float]
    left_alone: dict[date, float]

    @property
    def share_of_oracle(self) -> float | None:
        return self.after / self.oracle if self.after and self.oracle else None

    def as_dict(self) -> dict[str, Any]:
        told = {n: v for n, v in asdict(self).items() if not isinstance(v, dict)}
        return told | {
            "fell_by": 1 - self.trough / self.before,
            "share_of_oracle": self.share_of_oracle,
        }


@dataclass(frozen=True, slots=True)
class _Days:
    """Every transaction of the days: its day (counted from the first), true verdict, score as served, vector."""

    first: date
    day: Ints
    fraud: Ints
    served: Floats
    X: Floats

    def precision(self, score: Floats, rows: Bools) -> float:
        return average_precision(self.fraud[rows], score[rows])

    def between(self, start: date, end: date) -> Bools:
        """Rows of the days from ``start`` up to, without, ``end``."""
        past: Bools = self.day >= (start - self.first).days
        return past & (self.day < (end - self.first).days)

    def windows(self, score: Floats, last: date) -> dict[date, float]:
        ends = days_between(self.first + timedelta(days=WINDOW_DAYS - 1), last)
        day = timedelta(days=1)
        return {
            e: self.precision(score, self.between(e - (WINDOW_DAYS - 1) * day, e + day))
            for e in ends
        }


def scores_of(journal: Path) -> dict[str, float]:
    """The score that each journalled transaction was decided with, by its id."""
    decode = msgspec.json.Decoder(_Decision).decode
    records = (decode(body) for segment in segments(journal) for body in whole_bodies(segment))
    return {
        r.transaction.transaction_id: r.score
        for r in records
        if r.type == "decision" and r.transaction is not None and r.score is not None
    }


def regime_of(
    lake: Lake, spans: Spans, scores: Mapping[str, float], champion: Release, *, seed: int
) -> Regime:
    """Measure it; ``champion`` is the one that was served first. Raises TrainingError if a transaction has no score."""
    days = _days_of(lake, spans, scores)
    alone = champion.score(days.X)
    past = spans.last + timedelta(days=1)
    trough_end = min(spans.change + timedelta(days=TROUGH_DAYS), spans.renewed or past)
    trough = days.between(spans.change, trough_end)
    after = oracle = left_alone = None
    if spans.renewed and spans.change < spans.renewed <= spans.last:
        rows = days.between(spans.renewed, past)
        knowing = _all_knowing(days, spans.change, spans.renewed, seed).margin(days.X)
        after, oracle, left_alone = (days.precision(s, rows) for s in (days.served, knowing, alone))
    return Regime(
        before=days.precision(days.served, days.between(spans.served, spans.change)),
        trough=days.precision(days.served, trough),
        after=after,
        oracle=oracle,
        left_alone_after=left_alone,
        as_served=days.windows(days.served, spans.last),
        left_alone=days.windows(alone, spans.last),
    )


def _days_of(lake: Lake, spans: Spans, scores: Mapping[str, float]) -> _Days:
    rows = lake.read("transactions", spans.served, spans.last)
    labels = lake.read("labels", spans.served, spans.last)
    place = pc.index_in(rows["transaction_id"], labels["transaction_id"].combine_chunks())
    ids = rows["transaction_id"].to_pylist()
    if missing := [i for i in ids if i not in scores]:
        raise TrainingError(
            f"{len(missing)} of {len(ids)} transactions were not decided, {missing[0]} for one"
        )
    day = rows["event_timestamp"].cast("int64").to_numpy() // 86_400_000_000
    return _Days(
        first=spans.served,
        day=day - (spans.served - date(1970, 1, 1)).days,
        fraud=labels["is_fraud"].take(place).cast("int64").to_numpy(),
        served=np.array([scores[i] for i in ids]),
        X=vectors_of(lake, rows),
    )


def _all_knowing(days: _Days, start: date, end: date, seed: int) -> Model:
    """Trained on the days with every label; the last fifth of them chooses the rounds first."""
    held = end - max((end - start) // 5, timedelta(days=1))
    train, held_out, both = (days.between(*s) for s in ((start, held), (held, end), (start, end)))

    def labelled(rows: Bools) -> tuple[Floats, Floats]:
        return days.X[rows], days.fraud[rows].astype(np.float64)

    columns = names(FEATURES)
    chosen = GradientBoosting.train(
        *labelled(train), columns=columns, seed=seed, validation=labelled(held_out)
    )
    return GradientBoosting.train(
        *labelled(both), columns=columns, seed=seed, params=chosen.settled(None)
    )

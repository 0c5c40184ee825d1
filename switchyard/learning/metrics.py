"""Metrics of scores against verdicts, each with a percentile interval from a bootstrap over entities.

An entity (a customer) is drawn whole, with all its rows, since its rows are not independent. A resample
is a vector of weights over rows, so that one sort serves all of them. Average precision and the card
precision are those of the *Fraud Detection Handbook* (Le Borgne et al., 2022), chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from switchyard.errors import TrainingError
from switchyard.learning import Floats, Ints, Verdicts
from switchyard.learning.calibration import reliability
from switchyard.learning.thresholds import Thresholds

INTERVAL = (2.5, 97.5)
"""Percentiles of the resamples that bound an interval."""
RESAMPLES = 200
TOP_ENTITIES = 100
"""Entities that can be looked into on one day."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A value and the ends of its 95 % interval; NaN where it is not defined (no fraud, no row)."""

    value: float
    low: float
    high: float

    def record(self) -> dict[str, float | None]:
        """For JSON: None where it is not defined."""
        return {name: v if np.isfinite(v) else None for name, v in asdict(self).items()}


class Ranking:
    """Rows sorted once by falling score, ties kept together, for any number of weightings."""

    def __init__(self, y: Verdicts, score: Floats) -> None:
        self.order = np.argsort(-score, kind="stable")
        ranked = score[self.order]
        self.fraud = y[self.order] > 0
        self.ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])

    def _counts(self, weight: Floats | None) -> tuple[Floats, Floats]:
        """Frauds and rows at or above each distinct score."""
        w = np.ones(len(self.order)) if weight is None else weight[self.order]
        return np.cumsum(w * self.fraud)[self.ends], np.cumsum(w)[self.ends]

    def average_precision(self, weight: Floats | None = None) -> float:
        """Sum of precision times the step in recall; NaN without a fraud."""
        frauds, rows = self._counts(weight)
        if len(frauds) == 0 or frauds[-1] <= 0:
            return float("nan")
        precision = np.divide(frauds, rows, out=np.zeros_like(frauds), where=rows > 0)
        return float(np.sum(np.diff(frauds, prepend=0.0) * precision) / frauds[-1])

    def curve(self) -> tuple[Floats, Floats]:
        """Recall and precision at each distinct score, from the highest; recall is NaN without a fraud."""
        frauds, rows = self._counts(None)
        total = frauds[-1] if len(frauds) and frauds[-1] > 0 else np.nan
        return frauds / total, frauds / rows

    def roc_auc(self, weight: Floats | None = None) -> float:
        """Chance that a fraud scores above a genuine row, ties half; NaN if one kind is missing."""
        frauds, rows = self._counts(weight)
        genuine = rows - frauds
        if len(frauds) == 0 or frauds[-1] <= 0 or genuine[-1] <= 0:
            return float("nan")
        above = np.concatenate([[0.0], frauds])
        pairs = np.diff(genuine, prepend=0.0) * (above[1:] + above[:-1]) / 2
        return float(np.sum(pairs) / (frauds[-1] * genuine[-1]))


def average_precision(y: Verdicts, score: Floats, weight: Floats | None = None) -> float:
    """Average precision of scores float64[n]; as scikit-learn's ``average_precision_score``.

    >>> average_precision(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.6, 0.4]))
    0.8333333333333333
    """
    return Ranking(y, score).average_precision(weight)


def roc_auc(y: Verdicts, score: Floats, weight: Floats | None = None) -> float:
    """Area under the ROC curve; as scikit-learn's ``roc_auc_score``."""
    return Ranking(y, score).roc_auc(weight)


def precision_at(y: Verdicts, flagged: Verdicts, weight: Floats | None = None) -> float:
    """Share of frauds among flagged rows (a mask); NaN if none is flagged."""
    w = np.ones(len(y)) if weight is None else weight
    total = float(np.sum(w * flagged))
    return float(np.sum(w * flagged * (y > 0))) / total if total > 0 else float("nan")


def recall_at(y: Verdicts, flagged: Verdicts, weight: Floats | None = None) -> float:
    """Share of flagged rows (a mask) among frauds; NaN if there is no fraud."""
    return precision_at(flagged, y > 0, weight)


def entity_precision_at_k(
    y: Verdicts, score: Floats, entity: Ints, day: Ints, k: int = TOP_ENTITIES
) -> float:
    """Mean over days of the share of truly fraudulent entities among the ``k`` riskiest of the day.

    An entity scores its riskiest row of the day, and once found is not counted again on a later day.
    Fewer than ``k`` entities still count as ``k``. Ties go to the smaller entity. NaN without rows.
    """
    found = EntityRanking(y, score, entity, day).precision(
        np.ones((1, entity.max(initial=-1) + 1)), k
    )
    return float(found[0])


class EntityRanking:
    """Entities ranked within each day, for many weightings at once.

    ``entity`` int64[n] counts from 0 (see :func:`entity_codes`), ``day`` is any integer.
    """

    def __init__(self, y: Verdicts, score: Floats, entity: Ints, day: Ints) -> None:
        order = np.lexsort((entity, -score, day))  # within a day by falling score
        self.days = [
            self._ranked(y[rows], entity[rows])
            for rows in np.split(order, np.flatnonzero(np.diff(day[order])) + 1)
            if len(rows)
        ]

    @staticmethod
    def _ranked(y: Verdicts, entity: Ints) -> tuple[Ints, Floats]:
        """Entities in the order of their best row, and whether each has a fraud that day."""
        names, first, code = np.unique(entity, return_index=True, return_inverse=True)
        fraud = np.bincount(code, y > 0) > 0
        riskiest_first = np.argsort(first)
        return names[riskiest_first], fraud[riskiest_first].astype(np.float64)

    def precision(self, copies: Floats, k: int) -> Floats:
        """float64[b]: the metric in each of ``b`` resamples, ``copies`` float64[b, entities] of each.

        Every copy is an entity of its own, with its rank next to the other copies.
        """
        if not self.days:
            return np.full(len(copies), np.nan)
        left, hits = copies.copy(), np.zeros(len(copies))
        for entity, fraud in self.days:
            here = left[:, entity]
            before = np.cumsum(here, axis=1) - here
            hit = np.clip(k - before, 0.0, here) * fraud
            left[:, entity] -= hit
            hits += hit.sum(axis=1)
        precision: Floats = hits / (k * len(self.days))
        return precision


def entity_codes(entity: Verdicts) -> Ints:
    """Any entity ids as integers from 0, in the ids' order."""
    return np.unique(entity, return_inverse=True)[1].astype(np.int64)


def resamples(entity: Ints, count: int = RESAMPLES, seed: int = 0) -> Iterator[Floats]:
    """``count`` times, how often each entity (coded from 0) is drawn: as many draws as entities."""
    size = int(entity.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield np.bincount(rng.integers(0, size, size), minlength=size).astype(np.float64)


def interval(value: float, resampled: Floats) -> Metric:
    """``value`` with the percentile interval of its resamples, those where it is undefined left out."""
    defined = resampled[~np.isnan(resampled)]
    low, high = np.percentile(defined, INTERVAL) if len(defined) else (np.nan, np.nan)
    return Metric(value, float(low), float(high))


def evaluate(
    y: Verdicts,
    score: Floats,
    *,
    entity: Verdicts,
    day: Ints,
    thresholds: Thresholds,
    k: int = TOP_ENTITIES,
    count: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Metric]:
    """Every metric of scores in [0, 1] on rows whose verdict is known, in a fixed order.

    ``entity`` holds ids of any kind, ``day`` an integer per row. At review counts what is reviewed or
    blocked; ``review_share`` is the share that is left to review. Raises TrainingError without rows.
    """
    if len(y) == 0:
        raise TrainingError(
            "there is no row to evaluate; wait until labels of the window are known"
        )
    code = entity_codes(entity)
    ranking, entities = Ranking(y, score), EntityRanking(y, score, code, day)
    review, block = score >= thresholds.review, score >= thresholds.block
    by_row: dict[str, Callable[[Floats], float]] = {
        "average_precision": ranking.average_precision,
        "roc_auc": ranking.roc_auc,
        "precision_at_review": lambda w: precision_at(y, review, w),
        "recall_at_review": lambda w: recall_at(y, review, w),
        "precision_at_block": lambda w: precision_at(y, block, w),
        "recall_at_block": lambda w: recall_at(y, block, w),
        "review_share": lambda w: float(np.average(review & ~block, weights=w)),
        "calibration_error": lambda w: reliability(y, score, w).error,
    }
    everyone = np.vstack([np.ones(code.max() + 1), *resamples(code, count, seed)])
    drawn = np.array([[of(taken[code]) for of in by_row.values()] for taken in everyone])
    values = dict(zip(by_row, drawn.T, strict=True))
    values[f"entity_precision_at_{k}"] = entities.precision(everyone, k)
    return {name: interval(float(v[0]), v[1:]) for name, v in values.items()}

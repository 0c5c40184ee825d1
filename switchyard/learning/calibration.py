"""From margins to probabilities, and how far these are off.

Platt scaling in log-odds, with Platt's smoothed targets (Platt 1999; fitted as by Lin, Lin and Weng,
*A note on Platt's probabilistic outputs*, 2007). Expected calibration error over ten bins of equal width
(Guo et al., 2017). Not here: which rows are the validation rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from switchyard.errors import TrainingError
from switchyard.learning import Floats, Verdicts

LEAST_SLOPE = 1e-3
"""A model that ranks frauds below the rest is flattened, never turned over; its gates then refuse it."""
BINS = 10


def sigmoid(logits: Floats) -> Floats:
    """Probabilities of log-odds; one value and a million give the same bits, unlike numpy's exp."""
    from scipy.special import expit

    probabilities: Floats = expit(logits)
    return probabilities


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated log-odds are ``slope * margin + offset``; the slope is positive."""

    slope: float
    offset: float

    def __post_init__(self) -> None:
        if not (0 < self.slope < np.inf and abs(self.offset) < np.inf):
            raise TrainingError(
                f"calibration slope {self.slope} and offset {self.offset} are no increasing line; the "
                "slope must be positive and both finite"
            )

    def score(self, margin: Floats) -> Floats:
        """Probabilities float64[n] in [0, 1] of margins float64[n]; monotone."""
        return sigmoid(self.slope * margin + self.offset)

    def contributions(self, raw: Floats) -> Floats:
        """A model's contributions float64[n, k + 1] scaled; a row sums to its calibrated log-odds."""
        scaled: Floats = self.slope * raw
        scaled[:, -1] += self.offset
        return scaled


def fit_calibration(margin: Floats, y: Verdicts, steps: int = 50) -> Calibration:
    """Fit on margins and verdicts of validation rows, by Newton's method with halved steps.

    Raises TrainingError if there are no rows, or margins that are not finite.
    """
    if len(y) == 0 or not np.isfinite(margin).all():
        raise TrainingError(f"{len(y)} validation rows can't calibrate; all margins must be finite")
    frauds = float(np.count_nonzero(y))
    target = np.where(y > 0, (frauds + 1) / (frauds + 2), 1 / (len(y) - frauds + 2))
    centre, scale = float(margin.mean()), float(margin.std()) or 1.0
    slope = max(_slope((margin - centre) / scale, target, steps) / scale, LEAST_SLOPE)
    return Calibration(slope, _offset(slope * margin, target))


def _slope(m: Floats, target: Floats, steps: int) -> float:
    """Slope of least log loss over standardised margins, by Newton's method with halved steps.

    Plain sums, not matrix products: their bits do not depend on a number of threads.
    """
    a, b = 0.0, float(np.log(target.mean() / (1 - target.mean())))
    for _ in range(steps):
        p = sigmoid(a * m + b)
        gap, weight = target - p, p * (1 - p)
        ga, gb = float(np.sum(gap * m)), float(np.sum(gap))
        haa, hab, hbb = (float(np.sum(weight * m**k)) for k in (2, 1, 0))
        determinant = haa * hbb - hab * hab + 1e-9
        da, db = (hbb * ga - hab * gb) / determinant, (haa * gb - hab * ga) / determinant
        before = _loss(a * m + b, target)
        while _loss((a + da) * m + b + db, target) > before and abs(da) + abs(db) > 1e-12:
            da, db = da / 2, db / 2
        a, b = a + da, b + db
        if abs(da) + abs(db) < 1e-10:
            break
    return a


def _loss(logits: Floats, target: Floats) -> float:
    return float(np.sum(np.logaddexp(0, logits) - target * logits))


def _offset(logits: Floats, target: Floats) -> float:
    """The offset at which the mean probability is the mean target, by bisection."""
    low, high = -50.0 - float(logits.max()), 50.0 - float(logits.min())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if sigmoid(logits + middle).mean() < target.mean() else (low, middle)
        )
    return (low + high) / 2


@dataclass(frozen=True, slots=True)
class Reliability:
    """One row per bin of scores: rows in it, their mean score, and their share of frauds.

    Mean and share are NaN in an empty bin.
    """

    rows: Floats
    mean_score: Floats
    fraud_share: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap of score and share, by rows; NaN without rows."""
        held = self.rows > 0
        gaps = np.abs(self.mean_score[held] - self.fraud_share[held])
        return float(np.average(gaps, weights=self.rows[held])) if held.any() else float("nan")


def reliability(
    y: Verdicts, score: Floats, weight: Floats | None = None, bins: int = BINS
) -> Reliability:
    """The reliability table of scores in [0, 1], in ``bins`` bins of equal width.

    >>> reliability(np.array([0, 1]), np.array([0.05, 0.95])).error
    0.050000000000000024
    """
    w: Floats = np.ones(len(score)) if weight is None else weight
    place = np.minimum((score * bins).astype(np.int64), bins - 1)
    rows: Floats = np.bincount(place, w, bins).astype(np.float64)
    safe = np.where(rows > 0, rows, np.nan)
    return Reliability(
        rows, np.bincount(place, w * score, bins) / safe, np.bincount(place, w * y, bins) / safe
    )

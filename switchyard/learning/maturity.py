"""How far the verdicts of a window have arrived, and what its metrics are worth before all have.

A labelled row counts for the rows of its age and kind whose verdict is still to come: its weight is one over the chance that
its own would have arrived by now (Horvitz and Thompson, *A generalization of sampling without replacement from a finite
universe*, JASA 1952). That chance is told by rows old enough for every verdict to have come. Not here: where labels come
from, or what a gate does with an immature window (``policy``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from switchyard.errors import TrainingError
from switchyard.learning import Floats, Ints, Verdicts
from switchyard.learning.metrics import Metric, entity_codes, interval, resamples
from switchyard.learning.policy import Verdict

Statistic = Callable[[Floats], float]
"""Of weights over rows, float64[n]."""

LEAST_CHANCE = 0.02
"""A verdict that comes so early is rarer than this: it counts for 50 rows at most, so that no single one decides."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How long verdicts take, by kind: the sorted delays of rows old enough for all of theirs to have come.

    ``fraud_us`` and ``genuine_us`` int64, microseconds from the transaction to its verdict. They are kept apart, since what
    is found to be fraud is not found as fast as what is cleared.
    """

    fraud_us: Ints
    genuine_us: Ints

    @classmethod
    def of(cls, y: Verdicts, delay_us: Ints) -> Arrivals:
        """From rows that have a verdict, all of them old. Raises TrainingError if one kind is missing."""
        fraud, genuine = np.sort(delay_us[y > 0]), np.sort(delay_us[y <= 0])
        if len(fraud) == 0 or len(genuine) == 0:
            raise TrainingError(
                f"how long verdicts take is told by old ones of both kinds, but there are {len(fraud)} frauds and "
                f"{len(genuine)} others; wait until a first window has matured"
            )
        return cls(fraud, genuine)

    def chance(self, y: Verdicts, age_us: Ints) -> Floats:
        """Chance float64[n] that a row's verdict, if it ever comes, has come at its age.

        >>> days = Arrivals(np.array([1, 2, 3, 4]), np.array([1, 1, 1, 1]))
        >>> days.chance(np.array([1, 0]), np.array([2, 2]))
        array([0.5, 1. ])
        """
        by_kind = [_share_by(delays, age_us) for delays in (self.genuine_us, self.fraud_us)]
        return np.where(y > 0, by_kind[1], by_kind[0])


def _share_by(delays: Ints, age_us: Ints) -> Floats:
    return np.searchsorted(delays, age_us, side="right") / len(delays)


@dataclass(frozen=True, slots=True)
class Arrived:
    """The rows of a window whose verdict is known, each with the number of rows that it stands for.

    ``y``, ``weight`` float64[n], ``entity`` of any kind; ``share``: of the window's frauds, how many have arrived; NaN
    if that can't be told, since none has.
    """

    y: Verdicts
    weight: Floats
    entity: Verdicts
    share: float

    @classmethod
    def at(cls, y: Verdicts, age_us: Ints, entity: Verdicts, arrivals: Arrivals) -> Arrived:
        """Of rows with a verdict and their ages at the moment it is asked."""
        weight = 1 / np.maximum(arrivals.chance(y, age_us), LEAST_CHANCE)
        expected = float(np.sum(weight * (y > 0)))
        share = min(1.0, float(np.sum(y > 0)) / expected) if expected else float("nan")
        return cls(y, weight, entity, share)

    def measure(self, statistic: Statistic, *, seed: int = 0) -> Metric:
        """``statistic`` of weights over the rows, and where it will lie once every verdict is there (95 %).

        The rows that are known remain, so only what is missing adds to the doubt: a resample's distance shrinks by
        the root of the share that is missing, the finite population correction (Cochran, *Sampling Techniques*, 1977,
        2.6).
        """
        missing = 1 - self.share if np.isfinite(self.share) else 1.0
        return self._measured(statistic, missing, seed)

    def measure_beyond(self, statistic: Statistic, *, seed: int = 0) -> Metric:
        """The same with the interval of any such window: what one is compared by with another."""
        return self._measured(statistic, 1.0, seed)

    def _measured(self, statistic: Statistic, missing: float, seed: int) -> Metric:
        """Resamples are of entities, each with all its rows."""
        value = statistic(self.weight)
        code = entity_codes(self.entity)
        drawn = np.array([statistic(self.weight * w[code]) for w in resamples(code, seed=seed)])
        return interval(value, value + np.sqrt(missing) * (drawn - value))


@dataclass(frozen=True, slots=True)
class MaturityPolicy:
    """A window may be judged for good once it ended ``delay_days`` ago and at least ``least_share`` of its verdicts are known.

    Before that its figures are provisional, and no gate promotes on them.
    """

    delay_days: float
    least_share: float = 0.5

    def judge(self, *, days_since_end: float, rows: int, known: int) -> Verdict:
        """Judge a window of ``rows`` rows, the verdict of ``known`` of which has arrived.

        >>> MaturityPolicy(7).judge(days_since_end=3, rows=100, known=60).reasons[0]
        'the window ended 3 days ago, 7 are needed until its verdicts count as arrived'
        """
        share = known / rows if rows else 0.0
        figures = {"days_since_end": days_since_end, "rows": rows, "known_share": share}
        reasons = []
        if days_since_end < self.delay_days:
            reasons.append(
                f"the window ended {days_since_end:g} days ago, {self.delay_days:g} are needed until its verdicts "
                "count as arrived"
            )
        if share < self.least_share:
            reasons.append(
                f"{known} of {rows} verdicts of the window are known, {self.least_share:.0%} are needed"
            )
        told = f"{share:.0%} of {rows} verdicts are known, {days_since_end:g} days after the window's end"
        return Verdict(not reasons, tuple(reasons) or (told,), figures)

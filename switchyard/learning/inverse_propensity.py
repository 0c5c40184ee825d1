"""What a metric would be if every row had a verdict, where only some were let through to get one.

A row that got its chance with propensity e stands for 1 / e rows (Horvitz and Thompson, *A generalization of sampling
without replacement from a finite universe*, JASA 1952); the weights are what the metrics of ``metrics`` take. Not here:
who is let through (``serving.exploration``), verdicts that are only late (``maturity``).
"""

from __future__ import annotations

import numpy as np

from switchyard.learning import Bools, Floats


def inverse_propensity(propensity: Floats, blocked: Bools) -> Floats:
    """Weights float64[n] of decisions: 1 where nothing was left to chance (``propensity`` NaN), 1 / e for a would-be
    block that was let through, 0 for one that was blocked, since those let through stand for it.

    A block that could not have been let through (its amount, the day's budget) has weight 0 as well and nobody stands for
    it: a metric with these weights is one over the other rows.

    >>> inverse_propensity(np.array([np.nan, 0.1, 0.9, np.nan]), np.array([False, False, True, True])).tolist()
    [1.0, 10.0, 0.0, 0.0]
    """
    chance = np.where(np.isnan(propensity), 1.0, propensity)
    return np.where(blocked, 0.0, 1 / chance)

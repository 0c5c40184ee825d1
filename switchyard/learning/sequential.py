"""Tests that may be looked at as often as one likes: the one-sided normal mixture, as an e-value.

The mixture is Robbins' (1970); as a test of a running comparison it is the mixture SPRT of Johari, Koomen, Pekelis
and Walsh, *Peeking at A/B Tests* (KDD 2017), as a boundary it stands in Howard, Ramdas, McAuliffe and Sekhon,
*Time-uniform, nonparametric, nonasymptotic confidence sequences* (Annals of Statistics 49, 2021), section 3.2, and
with an estimated variance in Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, *Time-uniform central limit theory and
asymptotic confidence sequences* (Annals of Statistics 52, 2024). Not here: what is compared (``guardrails``), where
z and its variance come from (``slices``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import log_ndtr

from switchyard.learning import Floats

_LOG_2 = math.log(2)
_NEVER = 2**40
_HALVINGS = 60


def log_evidence(z: Floats, n: Floats, prior: float) -> Floats:
    """Logarithm of the e-value against 'the mean is not above its limit', any shapes that broadcast.

    ``z`` is the estimate's distance above the limit in standard errors after ``n`` decisions. With S = z sqrt(n) the
    e-value is the mean of exp(l S - l^2 n / 2) over l > 0, half-normal with variance 1 / ``prior``:
    2 sqrt(prior / (n + prior)) exp(S^2 / (2 (n + prior))) Phi(S / sqrt(n + prior)). It is sharpest for what can be
    told after some multiples of ``prior`` decisions. Where the limit holds, it ever reaches 1 / alpha with a
    probability of at most alpha (Ville's inequality).

    >>> log_evidence(np.array([0.0, 6.0]), np.array([9_000.0, 9_000.0]), 1_000.0).round(2).tolist()
    [-1.15, 15.74]
    """
    held = n / (n + prior)
    growth = _LOG_2 - 0.5 * np.log1p(n / prior)
    return np.asarray(growth + 0.5 * held * z**2 + log_ndtr(z * np.sqrt(held)), dtype=np.float64)


def critical_z(n: float, prior: float, alpha: float) -> float:
    """How many standard errors above its limit an estimate must lie after ``n`` decisions; so the estimate less so
    many standard errors is the lower end of a confidence sequence of level 1 - ``alpha``.

    >>> round(critical_z(10_000, 1_000, 0.05), 2)
    2.78
    """
    wanted = -math.log(alpha)

    def enough(z: float) -> bool:
        return float(log_evidence(np.array(z), np.array(n), prior)) >= wanted

    high = 1.0
    while not enough(high):
        high *= 2
    return _least(enough, 0.0, high)


def decisions_until(
    effect: float, within: float, *, alpha: float, prior: float, between: float = 0.0
) -> float:
    """The theory's figure: decisions an arm after which the expected z shows an ``effect`` beyond the limit.

    After n decisions the estimate's variance is ``within / n + between``: ``between`` is what stays because
    customers return (the variance of their own means over the number of customers). Infinite where the effect
    can't be shown.

    >>> round(decisions_until(0.01, 0.01, alpha=0.001, prior=1_000))
    2023
    """
    wanted = -math.log(alpha)

    def enough(n: float) -> bool:
        z = effect / math.sqrt(within / n + between)
        return float(log_evidence(np.array(z), np.array(n), prior)) >= wanted

    high = 1.0
    while not (enough(high)) and high < _NEVER:
        high *= 2
    return _least(enough, high / 2, high) if high < _NEVER and effect > 0 else math.inf


def _least(enough: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``enough`` begins to hold between ``low`` and ``high``, at which it does."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high

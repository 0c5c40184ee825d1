"""How many decisions an arm an experiment needs, said before it begins.

The fixed-sample normal formulas (Fleiss, Levin and Paik, *Statistical Methods for Rates and Proportions*, 2003,
chapter 4). Looking at any time costs more: ``sequential.decisions_until`` tells how much.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from switchyard.errors import InputError


def for_proportions(
    base: float, other: float, *, alpha: float = 0.05, power: float = 0.8, design: float = 1.0
) -> int:
    """Decisions in each of two arms that tell the shares ``base`` and ``other`` apart, one-sided.

    ``design`` is the design effect of returning customers: the variance by customer over that of independent
    decisions. Raises InputError for equal shares, or what is no share, level or power.

    >>> for_proportions(0.004, 0.008, alpha=0.05, power=0.8)
    4609
    """
    _check(alpha=alpha, power=power, base=base, other=other)
    variance = base * (1 - base) + other * (1 - other)
    pooled = (base + other) / 2
    apart = abs(other - base)
    spread = _z(1 - alpha) * math.sqrt(2 * pooled * (1 - pooled)) + _z(power) * math.sqrt(variance)
    return _whole(design * spread**2, apart)


def for_means(
    deviation: float, effect: float, *, alpha: float = 0.05, power: float = 0.8, design: float = 1.0
) -> int:
    """Decisions in each of two arms that show a difference ``effect`` of two means, one-sided; ``deviation`` is one
    decision's standard deviation.

    Raises InputError as ``for_proportions`` does.

    >>> for_means(2.0, 0.2)
    1237
    """
    _check(alpha=alpha, power=power)
    return _whole(design * 2 * (deviation * (_z(1 - alpha) + _z(power))) ** 2, effect)


def _whole(spread: float, effect: float) -> int:
    if effect == 0:
        raise InputError("no sample shows an effect of 0; give the smallest one that matters")
    return math.ceil(spread / effect**2)


def _check(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 < value < 1:
            raise InputError(f"{name} is {value}; it must lie between 0 and 1")


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)

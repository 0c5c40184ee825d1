"""A guardrail: one mean of the challenger that may not lie beyond a limit, and the evidence that it does.

The limit is a value, or a multiple of the control's mean plus an allowance; all guardrails have this one shape. The
evidence is an e-value (``sequential``) of the estimate's distance from the limit, its variance taken over
slices of customers (``slices``). Why that stays valid while customers return: once a customer's later decisions add
to a sum that the earlier ones have begun, the sums at two looks are correlated at least as strongly as those of a
Brownian motion at these looks, and of two Gaussian processes with the same variances the more correlated one
crosses a boundary less often (Slepian, *The one-sided barrier problem for Gaussian noise*, 1962). It needs decisions
of a customer that are not negatively correlated. Not here: which guardrails there are (``canary``, ``outcomes``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from switchyard.learning import Floats
from switchyard.learning.sequential import log_evidence
from switchyard.learning.slices import CHALLENGER, CONTROL, Totals


@dataclass(frozen=True, slots=True)
class Mean:
    """Sum of column ``total`` per unit of column ``per``; ``share``: each unit adds 0 or 1, ``log``: logarithms, so
    that what a person reads is their geometric mean."""

    total: str
    per: str
    share: bool = False
    log: bool = False

    def told(self, value: Floats) -> float:
        """The newest of its values, as a person reads it."""
        newest = float(np.atleast_1d(value)[-1])
        return math.exp(newest) if self.log else newest


@dataclass(frozen=True, slots=True)
class Guardrail:
    """The challenger's mean may not lie above ``ratio`` times the control's plus ``allowed``; with ``above`` False,
    not below it. A ratio of 0 leaves the control out: ``allowed`` is the limit. It counts only if each of
    ``besides`` is broken as well: a promise only beyond the control's mean, so that what happens to both arms is
    nobody's fault; a distance from the control only beyond the promise. ``excusable``: what labels show to be right
    breaks nothing. ``says`` names the limit."""

    name: str
    mean: Mean
    says: str
    ratio: float = 0.0
    allowed: float | Floats = 0.0
    above: bool = True
    besides: tuple[Guardrail, ...] = ()
    excusable: bool = False

    def unless_control(self) -> Guardrail:
        """The same, but only beyond the control's mean."""
        control = replace(self, ratio=1.0, allowed=0.0, says="the control's", besides=())
        return replace(self, besides=(*self.besides, control))


@dataclass(frozen=True, slots=True)
class Weighed:
    """Of one guardrail, at each look: how far the challenger's mean lies beyond its limit, that distance's variance,
    and the evidence that it does lie beyond (natural logarithm of the e-value)."""

    guardrail: Guardrail
    mean: Floats
    limit: Floats
    beyond: Floats
    variance: Floats
    log_e: Floats

    def falls(self, alpha: float) -> bool:
        """At the newest look."""
        return float(np.atleast_1d(self.log_e)[-1]) >= -math.log(alpha)

    def record(self) -> dict[str, Any]:
        """For JSON, at the newest look; None where an arm has no unit yet."""
        figures = {
            "mean": self.guardrail.mean.told(self.mean),
            "limit": self.guardrail.mean.told(self.limit),
            "log_e": float(np.atleast_1d(self.log_e)[-1]),
        }
        told = {"name": self.guardrail.name, "limit_is": self.guardrail.says}
        side = {"above": self.guardrail.above}
        return told | side | {n: v if math.isfinite(v) else None for n, v in figures.items()}

    def sentence(self, verb: str) -> str:
        """Name, mean, ``verb``, limit, at the newest look."""
        rail = self.guardrail
        mean, limit = rail.mean.told(self.mean), rail.mean.told(self.limit)
        return f"{rail.name} {mean:.4g} {verb} {rail.says}, {limit:.4g}"

    def reason(self) -> str:
        """Why it fell, in a sentence."""
        side = "is above" if self.guardrail.above else "is below"
        return f"{self.sentence(side)} (evidence e^{float(np.atleast_1d(self.log_e)[-1]):.1f})"


def weigh(guardrail: Guardrail, totals: Totals, clock: str, prior: float) -> Weighed:
    """Weigh a guardrail at every look of ``totals``; column ``clock`` counts the decisions, ``prior`` is that of
    ``log_evidence``. Where an arm has no unit yet, there is no evidence (0).

    The evidence is the weakest of its parts: the lesser of two e-values is one against 'either limit holds'.
    """
    own = _weigh(guardrail, totals, clock, prior)
    log_e = own.log_e
    for other in guardrail.besides:
        log_e = np.minimum(log_e, weigh(other, totals, clock, prior).log_e)
    return replace(own, log_e=log_e)


def _weigh(guardrail: Guardrail, totals: Totals, clock: str, prior: float) -> Weighed:
    """One limit. The slices' residuals are taken from the means that fit best on it (for equal arms: the pooled
    mean), and for shares the variance is at least that of independent decisions, so that nothing seen yet is no
    certainty."""
    with np.errstate(divide="ignore", invalid="ignore"):
        arms = _arms(guardrail, totals)
        mean = arms.y / arms.n
        limit = guardrail.ratio * arms.y_control / arms.n_control if guardrail.ratio else 0.0
        limit = np.asarray(limit + guardrail.allowed * np.ones_like(mean))
        beyond = mean - limit if guardrail.above else limit - mean
        variance = _variance(guardrail, totals, arms)
        z = np.where(beyond == 0, 0.0, beyond / np.sqrt(variance))
        n = _decisions(guardrail, totals, clock)
        found = log_evidence(np.where(np.isfinite(z), z, 0.0), n, prior)
    return Weighed(guardrail, mean, limit, beyond, variance, np.where(np.isfinite(z), found, 0.0))


def weigh_all(
    guardrails: Sequence[Guardrail], totals: Totals, clock: str, prior: float
) -> list[Weighed]:
    return [weigh(guardrail, totals, clock, prior) for guardrail in guardrails]


class _Arms(NamedTuple):
    """Sums and units of both arms, and the means that fit best on the limit."""

    y: Floats
    n: Floats
    y_control: Floats
    n_control: Floats
    expected: Floats
    expected_control: Floats


def _arms(guardrail: Guardrail, totals: Totals) -> _Arms:
    ratio, allowed, mean = guardrail.ratio, guardrail.allowed, guardrail.mean
    y, n = totals.of(CHALLENGER, mean.total), totals.of(CHALLENGER, mean.per)
    y_control, n_control = totals.of(CONTROL, mean.total), totals.of(CONTROL, mean.per)
    control = np.zeros_like(y)
    if ratio:
        control = (y - allowed * n + y_control) / (ratio * n + n_control)
    return _Arms(y, n, y_control, n_control, ratio * control + allowed, control)


def _variance(guardrail: Guardrail, totals: Totals, arms: _Arms) -> Floats:
    """Of the distance between mean and limit: a linear form in the arms' sums, squared over slices."""
    ratio, mean = guardrail.ratio, guardrail.mean
    form = {
        totals.at(CHALLENGER, mean.total): 1 / arms.n,
        totals.at(CHALLENGER, mean.per): -arms.expected / arms.n,
    }
    if ratio:
        form[totals.at(CONTROL, mean.total)] = -ratio / arms.n_control
        form[totals.at(CONTROL, mean.per)] = ratio * arms.expected_control / arms.n_control
    variance = sum(a * b * totals.product(i, j) for i, a in form.items() for j, b in form.items())
    if not mean.share:
        return np.asarray(variance)
    independent = _bernoulli(arms.expected) / arms.n
    if ratio:
        independent = independent + ratio**2 * _bernoulli(arms.expected_control) / arms.n_control
    return np.maximum(variance, independent)


def _decisions(guardrail: Guardrail, totals: Totals, clock: str) -> Floats:
    """Decisions of each arm, if both had as many; the challenger's own where the limit has no control in it."""
    one, other = totals.of(CHALLENGER, clock), totals.of(CONTROL, clock)
    return np.asarray(2 * one * other / (one + other)) if guardrail.ratio else one


def _bernoulli(share: Floats) -> Floats:
    p = np.clip(share, 0.0, 1.0)
    return np.asarray(p * (1 - p))

"""The model ladder: champion, else the release's logistic regression, else rules. Each step down is named.

Here: scores, decisions and reasons of a batch of vectors. Not here: where vectors come from, what is
done with a decision (``engine``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from switchyard.errors import InputError, ReleaseError
from switchyard.serving.domain import Domain, Floats, R
from switchyard.serving.replies import Decision, Reason, Rung

_log = logging.getLogger(__name__)

FAILURES = (ReleaseError, InputError, ValueError, ArithmeticError)
"""What a model that can't score raises; XGBoost's own error is a ValueError."""


class Thresholds(Protocol):
    """Turns a score into a decision."""

    def decide(self, score: float) -> Decision: ...


class Scorer(Protocol):
    """What the engine needs of a release."""

    @property
    def id(self) -> str: ...

    @property
    def thresholds(self) -> Thresholds: ...

    def score(self, X: Floats) -> Floats:
        """Probabilities float64[n] of rows float64[n, k]."""
        ...

    def explain(self, X: Floats) -> Floats:
        """Exact contributions in log-odds, float64[n, k + 1], the base last."""
        ...

    def fallback_score(self, X: Floats) -> Floats:
        """Probabilities of the fallback model, float64[n]."""
        ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """One vector judged. ``score`` is None where rules decided; ``rung`` None where the champion did."""

    score: float | None
    decision: Decision
    reasons: list[Reason]
    rung: Rung | None = None


def judge(
    release: Scorer,
    domain: Domain[R],
    requests: Sequence[R],
    vectors: Floats,
    explained: Callable[[float], None] = lambda _seconds: None,
) -> list[Judgement]:
    """Judge n vectors float64[n, k] on the highest rung that works for all of them.

    ``explained`` is told the seconds that reasons took, where any were needed.
    """
    try:
        return _by_champion(release, domain, vectors, explained)
    except FAILURES as error:
        _log.error("the model of release %s can't score: %s", release.id, error)
    try:
        return _by_fallback(release, vectors)
    except FAILURES as error:
        _log.error("the fallback model of release %s can't score: %s", release.id, error)
    return [_by_rules(domain, request) for request in requests]


def _by_champion(
    release: Scorer, domain: Domain[R], vectors: Floats, explained: Callable[[float], None]
) -> list[Judgement]:
    scores = _finite(release.score(vectors))
    decisions = [release.thresholds.decide(score) for score in scores]
    stopped = [i for i, decision in enumerate(decisions) if decision != "allow"]
    reasons: dict[int, list[Reason]] = {}
    if stopped:
        began = time.perf_counter()
        contributions = release.explain(vectors[stopped])
        for row, i in enumerate(stopped):
            reasons[i] = domain.reasons(vectors[i], contributions[row])
        explained(time.perf_counter() - began)
    return [
        Judgement(score, decision, reasons.get(i, []))
        for i, (score, decision) in enumerate(zip(scores, decisions, strict=True))
    ]


def _by_fallback(release: Scorer, vectors: Floats) -> list[Judgement]:
    return [
        Judgement(score, release.thresholds.decide(score), [], "fallback_logistic")
        for score in _finite(release.fallback_score(vectors))
    ]


def _by_rules(domain: Domain[R], request: R) -> Judgement:
    ruling = domain.rule(request)
    return Judgement(None, ruling.decision, [ruling.reason], "fallback_rules")


def _finite(scores: Floats) -> list[float]:
    if not np.isfinite(scores).all():
        raise ReleaseError("a score is not finite; the model's files or its code are damaged")
    listed: list[float] = scores.tolist()
    return listed

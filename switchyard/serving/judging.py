"""The model ladder: champion, previous champion, the champion's logistic regression, rules. Each step is named.

Here: scores, decisions and reasons of a batch of vectors. A vector that one rung can't judge goes down to the
next by itself; a model that fails again and again is left alone for a while. Not here: where vectors come
from (``domain``, ``ladder``), what is done with a decision (``engine``).
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

import numpy as np

from switchyard.errors import ReleaseError
from switchyard.serving.breaker import Breaker
from switchyard.serving.domain import Domain, Floats, R
from switchyard.serving.replies import Decision, Reason, Rung
from switchyard.serving.sparse_log import SparseLog

ADDITIVITY = 1e-4
"""How far contributions may sum from the score's log-odds."""

_log = logging.getLogger(__name__)


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
    """One vector judged. ``score`` is None where rules decided; ``release`` is the id of the one that really
    judged; ``degraded`` names the rungs stepped on, () where the champion decided and gave its reasons."""

    score: float | None
    decision: Decision
    reasons: list[Reason]
    release: str
    degraded: tuple[Rung, ...] = ()


class ModelLadder(Generic[R]):
    """Judges by the highest rung that works. Never raises, whatever a model does.

    ``previous``: the previous champion, if it is loaded. ``withheld`` counts decisions whose reasons did not
    come about or did not add up. ``clock`` is in monotonic seconds.
    """

    def __init__(
        self,
        champion: Scorer,
        domain: Domain[R],
        previous: Scorer | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.champion = champion
        self.previous = previous
        self.withheld = 0
        self._domain = domain
        self._said = SparseLog(_log, clock)
        self._rungs = [_Model(champion, champion.score, (), Breaker("the champion", clock=clock))]
        if previous is not None:
            breaker = Breaker("the previous champion", clock=clock)
            self._rungs.append(_Model(previous, previous.score, ("previous_champion",), breaker))
        self._rungs.append(
            _Model(
                champion,
                champion.fallback_score,
                ("fallback_logistic",),
                Breaker("the logistic regression", clock=clock),
                explains=False,
            )
        )

    @property
    def breakers(self) -> tuple[Breaker, ...]:
        """One for each model, from the champion down."""
        return tuple(model.breaker for model in self._rungs)

    def warm_up(self) -> None:
        """Run every model once on the domain's example. Raises ReleaseError if the champion can't score."""
        vectors = self._domain.assemble([self._domain.example()], None).vectors
        self.champion.score(vectors)
        self._domain.reasons(vectors[0], self.champion.explain(vectors)[0])
        for model in self._rungs[1:]:
            self._scores(model, vectors)

    def judge(
        self,
        requests: Sequence[R],
        vectors: Floats,
        explained: Callable[[float], None] = lambda _seconds: None,
    ) -> list[Judgement]:
        """Judge n requests by their vectors float64[n, k], in order.

        ``explained`` is told the seconds that reasons took, where any were needed.
        """
        judged: list[Judgement | None] = [None] * len(requests)
        for model in self._rungs:
            rows = [i for i, judgement in enumerate(judged) if judgement is None]
            if not rows:
                break
            self._judge_by(model, rows, vectors, judged, explained)
        return [
            judgement or self._by_rules(request)
            for judgement, request in zip(judged, requests, strict=True)
        ]

    def _judge_by(
        self,
        model: _Model,
        rows: list[int],
        vectors: Floats,
        judged: list[Judgement | None],
        explained: Callable[[float], None],
    ) -> None:
        X = vectors if len(rows) == len(vectors) else vectors[rows]
        scores = self._scores(model, X)
        if scores is None:
            return
        decide = model.release.thresholds.decide
        listed: list[float] = scores.tolist()
        fit = [0.0 <= score <= 1.0 for score in listed]  # also false for NaN
        decisions = [decide(s) if ok else "allow" for s, ok in zip(listed, fit, strict=True)]
        stopped = [i for i, decision in enumerate(decisions) if decision != "allow"]
        reasons: dict[int, list[Reason] | None] = {}
        if stopped and model.explains:
            began = time.perf_counter()
            reasons = self._reasons(model, X, scores, stopped)
            explained(time.perf_counter() - began)
        for i, row in enumerate(rows):
            if not fit[i]:
                continue
            of_row = reasons.get(i, ())
            degraded = model.rungs if of_row is not None else (*model.rungs, _NO_REASONS)
            judged[row] = Judgement(
                listed[i], decisions[i], list(of_row or ()), model.release.id, degraded
            )

    def _scores(self, model: _Model, X: Floats) -> Floats | None:
        """float64[n], None if the model failed; of single rows it may be no probability."""
        if not model.breaker.allows():
            return None
        try:
            scores = np.asarray(model.score(X), dtype=np.float64)
            if scores.shape != (len(X),):
                raise ReleaseError(f"{len(X)} rows got scores of shape {scores.shape}")
            if not np.any((scores >= 0) & (scores <= 1)):
                raise ReleaseError("no score is a probability")
        except Exception as error:  # a model is foreign code; whatever it raises, a decision is due
            model.breaker.failed()
            self._said.error(
                model.breaker.name, "%s of release %s can't score: %s: %s",
                model.breaker.name, model.release.id, type(error).__name__, error,
            )  # fmt: skip
            return None
        model.breaker.succeeded()
        return scores

    def _reasons(
        self, model: _Model, X: Floats, scores: Floats, stopped: list[int]
    ) -> dict[int, list[Reason] | None]:
        """Reasons of the rows ``stopped``, None where they are withheld."""
        try:
            contributions = model.release.explain(X[stopped])
            fine = [_adds_up(row, scores[i]) for row, i in zip(contributions, stopped, strict=True)]
            reasons = {
                i: self._domain.reasons(X[i], row) if ok else None
                for i, row, ok in zip(stopped, contributions, fine, strict=True)
            }
            problem = "" if all(fine) else "the contributions do not sum to the score"
        except Exception as error:  # the decision stands without its reasons
            reasons = dict.fromkeys(stopped)
            problem = f"{type(error).__name__}: {error}"
        if problem:
            self.withheld += sum(of_row is None for of_row in reasons.values())
            self._said.error(
                "reasons", "reasons of release %s are withheld: %s", model.release.id, problem
            )
        return reasons

    def _by_rules(self, request: R) -> Judgement:
        ruling = self._domain.rule(request)
        return Judgement(
            None, ruling.decision, [ruling.reason], self.champion.id, ("fallback_rules",)
        )


_NO_REASONS: Rung = "no_reasons"


@dataclass(frozen=True, slots=True)
class _Model:
    """One rung: how a release scores on it, and the names of the step."""

    release: Scorer
    score: Callable[[Floats], Floats]
    rungs: tuple[Rung, ...]
    breaker: Breaker
    explains: bool = True


def _adds_up(contributions: Floats, score: float) -> bool:
    """Whether contributions sum to the score's log-odds, as exactly as a score can tell them.

    >>> _adds_up(np.array([1.0, -1.0]), 0.5), _adds_up(np.array([1.0, -0.9]), 0.5)
    (True, False)
    """
    if score in (0.0, 1.0):
        return math.isfinite(contributions.sum())
    log_odds = math.log(score) - math.log1p(-score)
    rounding = 4 * sys.float_info.epsilon / (score * (1 - score))
    return bool(abs(contributions.sum() - log_odds) <= ADDITIVITY + rounding)

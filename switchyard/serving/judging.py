"""The model ladder: champion, previous champion, the champion's logistic regression, rules. Each step is named.
A challenger on trial is a rung above all that, for the requests that are its own.

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
from typing import Generic, NamedTuple, Protocol

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


class Judgement(NamedTuple):
    """One vector judged. ``score`` is None where rules decided; ``release`` is the id of the one that really
    judged; ``degraded`` names the rungs stepped on, () where the champion decided and gave its reasons."""

    score: float | None
    decision: Decision
    reasons: list[Reason]
    release: str
    degraded: tuple[Rung, ...] = ()


class ModelLadder(Generic[R]):
    """Judges by the highest rung that works. Never raises, whatever a model does.

    ``previous``: the previous champion, if it is loaded; ``challenger``: the release on trial. ``clock`` is
    in monotonic seconds.
    """

    def __init__(
        self,
        champion: Scorer,
        domain: Domain[R],
        previous: Scorer | None = None,
        *,
        challenger: Scorer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.champion = champion
        self.previous = previous
        self._domain = domain
        self._said = SparseLog(_log, clock)
        self._rungs = [_Model(champion, champion.score, (), Breaker("champion", clock=clock))]
        if previous is not None:
            breaker = Breaker("previous_champion", clock=clock)
            self._rungs.append(_Model(previous, previous.score, ("previous_champion",), breaker))
        self._rungs.append(
            _Model(
                champion,
                champion.fallback_score,
                ("fallback_logistic",),
                Breaker("fallback_logistic", clock=clock),
                explains=False,
            )
        )
        self._trial = None
        if challenger is not None:
            breaker = Breaker("challenger", clock=clock)
            self._trial = _Model(challenger, challenger.score, (), breaker)

    @property
    def breakers(self) -> tuple[Breaker, ...]:
        """One for each model, from the champion down; the challenger's last."""
        models = [*self._rungs, self._trial] if self._trial else self._rungs
        return tuple(model.breaker for model in models)

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
        took: Callable[[float], None] = lambda _seconds: None,
    ) -> list[Judgement]:
        """Judge n requests by their vectors float64[n, k], in order.

        ``took`` is told the seconds that reasons took, where any were needed.
        """
        judged: dict[int, Judgement] = {}
        rows = list(range(len(requests)))
        for model in self._rungs:
            self._judge_by(model, rows, vectors, judged, took)
            if len(judged) == len(requests):
                break
            rows = [row for row in rows if row not in judged]
        return [judged.get(row) or self._by_rules(request) for row, request in enumerate(requests)]

    def judge_on_trial(
        self,
        requests: Sequence[R],
        vectors: Floats,
        took: Callable[[float], None] = lambda _seconds: None,
    ) -> list[Judgement]:
        """``judge``, by the challenger; what it can't judge the champion does, named 'champion_instead'."""
        judged: dict[int, Judgement] = {}
        if self._trial is not None:
            self._judge_by(self._trial, list(range(len(requests))), vectors, judged, took)
        rest = [row for row in range(len(requests)) if row not in judged]
        if rest:
            instead = self.judge([requests[row] for row in rest], vectors[rest], took)
            for row, judgement in zip(rest, instead, strict=True):
                degraded: tuple[Rung, ...] = ("champion_instead", *judgement.degraded)
                judged[row] = judgement._replace(degraded=degraded)
        return [judged[row] for row in range(len(requests))]

    def try_out(self, vectors: Floats) -> list[tuple[float, Decision]]:
        """Scores and decisions of the challenger beside the champion, for n vectors in order. A score that it
        fails to give is NaN, and its decision of no meaning."""
        failed: tuple[float, Decision] = (math.nan, "review")
        if self._trial is None or not (scores := self._scores(self._trial, vectors)):
            return [failed] * len(vectors)
        decide = self._trial.release.thresholds.decide
        return [(s, decide(s)) if 0.0 <= s <= 1.0 else failed for s in scores]

    def _judge_by(
        self,
        model: _Model,
        rows: list[int],
        vectors: Floats,
        judged: dict[int, Judgement],
        took: Callable[[float], None],
    ) -> None:
        """Judge those of ``rows`` that the model gives a probability."""
        X = vectors if len(rows) == len(vectors) else vectors[rows]
        decide, release, rungs = model.release.thresholds.decide, model.release.id, model.rungs
        stopped = []
        for i, score in enumerate(self._scores(model, X)):
            if not 0.0 <= score <= 1.0:  # also NaN
                continue
            decision = decide(score)
            judged[rows[i]] = Judgement(score, decision, [], release, rungs)
            if decision != "allow":
                stopped.append(i)
        if stopped and model.explains:
            began = time.perf_counter()
            of_rows = [judged[rows[i]] for i in stopped]
            explained = self._explained(model.release, X[stopped], of_rows)
            judged.update(zip([rows[i] for i in stopped], explained, strict=True))
            took(time.perf_counter() - began)

    def _scores(self, model: _Model, X: Floats) -> list[float]:
        """n scores, of which single ones may be no probability; none at all if the model failed."""
        if not model.breaker.allows():
            return []
        try:
            scores = model.score(X)
            if np.shape(scores) != (len(X),):
                raise ReleaseError(f"{len(X)} rows got scores of shape {np.shape(scores)}")
            listed: list[float] = scores.tolist()
            if not any(0.0 <= score <= 1.0 for score in listed):
                raise ReleaseError("no score is a probability")
        except Exception as error:  # a model is foreign code; whatever it raises, a decision is due
            model.breaker.failed()
            self._said.error(
                model.breaker.name, "the model '%s' of release %s can't score: %s: %s",
                model.breaker.name, model.release.id, type(error).__name__, error,
            )  # fmt: skip
            return []
        model.breaker.succeeded()
        return listed

    def _explained(
        self, release: Scorer, X: Floats, judgements: list[Judgement]
    ) -> list[Judgement]:
        """The judgements with their reasons, or with 'no_reasons' where these are withheld."""
        try:
            contributions = release.explain(X)
            explained = [
                judgement._replace(reasons=self._domain.reasons(vector, pushes))
                if _adds_up(pushes, judgement.score)
                else _unexplained(judgement)
                for judgement, vector, pushes in zip(judgements, X, contributions, strict=True)
            ]
            problem = "contributions do not sum to the score"
        except Exception as error:  # the decision stands without its reasons
            explained = [_unexplained(judgement) for judgement in judgements]
            problem = f"{type(error).__name__}: {error}"
        if any("no_reasons" in judgement.degraded for judgement in explained):
            self._said.error(
                "reasons", "reasons of release %s are withheld: %s", release.id, problem
            )
        return explained

    def _by_rules(self, request: R) -> Judgement:
        ruling = self._domain.rule(request)
        return Judgement(
            None, ruling.decision, [ruling.reason], self.champion.id, ("fallback_rules",)
        )


@dataclass(frozen=True, slots=True)
class _Model:
    """One rung: how a release scores on it, and the names of the step."""

    release: Scorer
    score: Callable[[Floats], Floats]
    rungs: tuple[Rung, ...]
    breaker: Breaker
    explains: bool = True


def _unexplained(judgement: Judgement) -> Judgement:
    return judgement._replace(degraded=(*judgement.degraded, "no_reasons"))


def _adds_up(contributions: Floats, score: float | None) -> bool:
    """Whether contributions sum to the score's log-odds, as exactly as a score can tell them.

    >>> _adds_up(np.array([1.0, -1.0]), 0.5), _adds_up(np.array([1.0, -0.9]), 0.5)
    (True, False)
    """
    total = float(contributions.sum())
    if score is None or not 0.0 < score < 1.0:
        return math.isfinite(total)
    log_odds = math.log(score) - math.log1p(-score)
    rounding = 4 * sys.float_info.epsilon / (score * (1 - score))
    return abs(total - log_odds) <= ADDITIVITY + rounding

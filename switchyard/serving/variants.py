"""Which release judges which request of a batch, by the plan that stands; and the shadow, which judges afterwards.

Each variant is judged in a call of its own, so that the control is timed exactly as the challenger is. Here: the parts
of a batch, the time of their model stage, the queue of the shadow. Not here: whose turn it is (``assignment``), how a
model is asked and what stands in for it (``judging``), the order of a decision (``engine``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Literal, NamedTuple

import numpy as np

from switchyard.errors import JournalError
from switchyard.serving.assignment import Assignment, Variant
from switchyard.serving.domain import Domain, Floats, R
from switchyard.serving.journal import Journal
from switchyard.serving.judging import Judgement, ModelLadder, Scorer
from switchyard.serving.lineup import Standing
from switchyard.serving.metrics import Sink
from switchyard.serving.replies import Decision
from switchyard.serving.sparse_log import SparseLog

MOST_WAITING = 1_024
"""Vectors that may wait for the shadow; what is beyond is dropped and counted."""
AT_ONCE = 8
"""Vectors that it judges before others have their turn: a fraction of a millisecond."""
PAUSE_S = 0.005
"""By then the replies have gone out, and as a rule a few vectors have come together."""

Judge = Callable[[Sequence[Any], Floats, Callable[[float], None]], list[Judgement]]
Part = Variant | Literal["named"]
"""Whose part of a batch a request is: of a variant, or of the release that it names."""

_log = logging.getLogger(__name__)


class Judged(NamedTuple):
    """A judgement, whose part it was, and the microseconds of the model stage for each request of that part.

    ``propensity``: the chance with which exploration decided so; None where nothing was left to chance."""

    judgement: Judgement
    variant: Part
    model_us: float
    propensity: float | None = None


class Variants(Generic[R]):
    """The releases of one standing, each with its part of the requests. ``metrics`` is told how long each took."""

    def __init__(self, standing: Standing, domain: Domain[R], metrics: Sink) -> None:
        trial = standing.trial
        self.standing = standing
        self.ladder = ModelLadder(
            standing.champion, domain, standing.previous, challenger=standing.challenger
        )
        self.shadows = trial is not None and trial.mode == "shadow"
        """Whether the challenger judges everything once more, afterwards."""
        self.mark = {
            "plan": standing.plan.number if standing.plan else 0,
            "experiment": trial.salt if trial else None,
        }
        """What tells the decisions of one experiment, and of one step of it, from others."""
        self._domain = domain
        self._metrics = metrics
        self._assignment = Assignment(trial)

    def judge(
        self,
        requests: Sequence[R],
        named: Sequence[Scorer | None],
        vectors: Floats,
        explained: Callable[[float], None],
    ) -> list[Judged]:
        """Judge n requests by their vectors float64[n, k], in order: each by the release that it names, or by
        that of its variant. ``explained`` is told the seconds that reasons took."""
        if not self._assignment.splits and all(release is None for release in named):
            return self._timed(self.ladder.judge, "champion", requests, vectors, explained)
        judged: dict[int, Judged] = {}
        for part, rows in self._parts(requests, named):
            own = [requests[row] for row in rows]
            judge = self._judge_of(part, named[rows[0]])
            found = self._timed(judge, part, own, vectors[rows], explained)
            judged |= zip(rows, found, strict=True)
        return [judged[row] for row in range(len(requests))]

    def _parts(
        self, requests: Sequence[R], named: Sequence[Scorer | None]
    ) -> list[tuple[Part, list[int]]]:
        """The rows of each part; those that are compared come before the champion's many."""
        parts: dict[tuple[Part, int], list[int]] = {}
        for row, (request, release) in enumerate(zip(requests, named, strict=True)):
            part: Part = "named"
            if release is None:
                part = self._assignment.variant_of(self._domain.customer(request))
            parts.setdefault((part, id(release)), []).append(row)
        listed = [(part, rows) for (part, _), rows in parts.items()]
        return sorted(listed, key=lambda each: each[0] == "champion")

    def _judge_of(self, part: Part, named: Scorer | None) -> Judge:
        if named is not None:
            return ModelLadder(named, self._domain).judge
        return self.ladder.judge_on_trial if part == "challenger" else self.ladder.judge

    def _timed(
        self,
        judge: Judge,
        part: Part,
        requests: Sequence[R],
        vectors: Floats,
        explained: Callable[[float], None],
    ) -> list[Judged]:
        within = 0.0

        def took(seconds: float) -> None:
            nonlocal within
            within += seconds
            explained(seconds)

        began = time.perf_counter()
        judgements = judge(requests, vectors, took)
        seconds = time.perf_counter() - began - within
        self._metrics.modelled(part, len(requests), seconds)
        model_us = round(seconds * 1e6 / len(requests), 2)
        return [Judged(judgement, part, model_us) for judgement in judgements]


class _Waiting(NamedTuple):
    """A decision that the challenger of ``variants`` is to judge as well, by the same vector."""

    decision_id: str
    received_us: int
    vector: list[float]
    variants: Variants[Any]


class Shadow:
    """Judges decided vectors by the challenger, on the event loop, when nobody waits; each in the journal.

    ``busy`` tells whether somebody waits: then it is the shadow that does, and in the end goes without. It fails
    nobody: a record that can't be written is dropped and counted, as what does not fit the queue is.
    """

    def __init__(self, journal: Journal, metrics: Sink) -> None:
        self.busy: Callable[[], bool] = lambda: False
        self._journal = journal
        self._metrics = metrics
        self._queue: deque[_Waiting] = deque()
        self._next: asyncio.TimerHandle | None = None
        self._said = SparseLog(_log)

    @property
    def waiting(self) -> int:
        """Vectors that are not judged yet."""
        return len(self._queue)

    def offer(
        self, variants: Variants[Any], decisions: Iterable[tuple[str, int, list[float]]]
    ) -> None:
        """Take decided (id, time of receipt, vector); what finds no room is dropped."""
        dropped = 0
        for decision_id, received_us, vector in decisions:
            if len(self._queue) < MOST_WAITING:
                self._queue.append(_Waiting(decision_id, received_us, vector, variants))
            else:
                dropped += 1
        if dropped:
            self._metrics.shadowed("dropped", dropped)
        if self._next is None and self._queue:
            self._later()

    def close(self) -> None:
        """Judge no more; what waits is dropped."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._queue.clear()

    def _later(self) -> None:
        self._next = asyncio.get_running_loop().call_later(PAUSE_S, self._take_turn)

    def _take_turn(self) -> None:
        self._next = None
        if not self.busy():
            self._judge_some()
        if self._queue:
            self._later()

    def _judge_some(self) -> None:
        variants = self._queue[0].variants
        some: list[_Waiting] = []
        while self._queue and len(some) < AT_ONCE and self._queue[0].variants is variants:
            some.append(self._queue.popleft())
        began = time.perf_counter()
        found = variants.ladder.try_out(np.array([each.vector for each in some]))
        seconds = time.perf_counter() - began
        failed = sum(math.isnan(score) for score, _ in found)
        try:
            self._journal.write(_records(some, found, seconds), [None] * len(some))
        except JournalError as error:
            self._said.error("journal", "what the shadow judged is lost: %s", error)
            self._metrics.shadowed("dropped", len(some))
            return
        self._metrics.shadowed("failed", failed)
        self._metrics.shadowed("judged", len(some) - failed)
        self._metrics.modelled("shadow", len(some), seconds)


def _records(
    some: Sequence[_Waiting], found: Sequence[tuple[float, Decision]], seconds: float
) -> list[dict[str, Any]]:
    variants = some[0].variants
    challenger = variants.standing.challenger
    assert challenger is not None, "only a challenger is a shadow"
    return [
        {
            "type": "shadow",
            "decision_id": waiting.decision_id,
            "received_at": waiting.received_us,
            "release": challenger.id,
            "score": None if math.isnan(score) else score,
            "decision": None if math.isnan(score) else decision,
            "model_us": round(seconds * 1e6 / len(some), 2),
            **variants.mark,
        }
        for waiting, (score, decision) in zip(some, found, strict=True)
    ]

"""A canary as its judge remembers it: decisions by arm, added batch by batch, in a state of fixed size.

One state is one experiment, through all its steps: customers keep their arm when the share grows. Not here: what
may not happen (``guardrails``), what follows from it (``rollout``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from switchyard.learning import Bools, Floats, Ints
from switchyard.learning.outcomes import BLOCK, OUTCOMES, REVIEW, Costs, Matured, with_outcomes
from switchyard.learning.promise import TAILS, Promise, log_odds
from switchyard.learning.slices import ARMS, CHALLENGER, CONTROL, NEITHER, Hashes, Slices, mixed

TAIL_COLUMNS = tuple(f"over_{tail:g}" for tail in TAILS)
COLUMNS = (
    "decisions",
    "errors",
    "degraded",
    "reviews",
    "blocks",
    "blocked_customers",
    "timed",
    "log_seconds",
    "scored",
    "log_odds",
    *TAIL_COLUMNS,
)
BLOCKED_BITS = 16
"""An arm remembers the customers it has blocked on the newest day as one bit each of 2 ** BLOCKED_BITS; some thousands of
them fit with few collisions, and a collision is as likely in either arm."""
_HOUR_US = 3_600_000_000
DAY_US = 24 * _HOUR_US


@dataclass(frozen=True, slots=True)
class Decisions:
    """Journalled decisions, one row each, in any order; in shadow a transaction has a row in each arm.

    ``arm`` int64 (``slices``: challenger, control or neither), ``customer`` uint64 hashes of any good kind,
    ``score`` float64 (NaN: none), ``decision`` int64 (0 allow, 1 review, 2 block), ``degraded`` and ``error`` bool
    (``error``: the arm's own model failed, so whatever decided was not it), ``model_s`` float64 seconds of the
    model stage (NaN: none), ``event_us`` int64.
    """

    arm: Ints
    customer: Hashes
    score: Floats
    decision: Ints
    degraded: Bools
    error: Bools
    model_s: Floats
    event_us: Ints


@dataclass(frozen=True, slots=True)
class Step:
    """What share each arm has (0: shadow), since when in event time, and how many decisions the challenger had made
    by then."""

    share: float
    since_us: int | None = None
    decisions: int = 0


@dataclass(frozen=True, slots=True)
class CanaryState:
    """All that is remembered of an experiment; ``edges`` are the challenger's promised ones, ``seen`` counts the
    decisions of all traffic, ``blocked`` bool [2, 2 ** BLOCKED_BITS] marks whom each arm has blocked on ``blocked_day`` (since
    1970)."""

    experiment: str
    edges: tuple[float, ...]
    step: Step
    decisions: Slices
    outcomes: Slices
    blocked: Bools
    blocked_day: int = 0
    seen: int = 0
    first_us: int | None = None
    last_us: int | None = None

    @classmethod
    def begin(cls, experiment: str, promise: Promise, share: float) -> CanaryState:
        """A new experiment, named by its salt; ``share`` 0 is shadow, a share above it another experiment."""
        return cls(
            experiment=experiment,
            edges=promise.edges,
            step=Step(share),
            decisions=Slices.empty(COLUMNS),
            outcomes=Slices.empty(OUTCOMES),
            blocked=nobody_blocked(),
        )

    def plus(self, batch: Decisions) -> CanaryState:
        """This and a batch of decisions, each to be given once; the time it takes depends on the batch alone."""
        if len(batch.arm) == 0:
            return self
        first, last = int(batch.event_us.min()), int(batch.event_us.max())
        begun = first if self.step.since_us is None else self.step.since_us
        newly = newly_blocked(batch, self.blocked, self.blocked_day)
        rows = decision_rows(batch, self.edges, newly)
        blocked, blocked_day = _with_blocked(batch, newly, self.blocked, self.blocked_day)
        return replace(
            self,
            decisions=self.decisions.plus(batch.arm, batch.customer, rows),
            blocked=blocked,
            blocked_day=blocked_day,
            seen=self.seen + self._traffic(batch),
            step=replace(self.step, since_us=begun),
            first_us=first if self.first_us is None else min(first, self.first_us),
            last_us=last if self.last_us is None else max(last, self.last_us),
        )

    def _traffic(self, batch: Decisions) -> int:
        """Transactions in a batch: in shadow both models scored each."""
        shadow = self.step.share == 0
        return int(np.sum(batch.arm != CHALLENGER)) if shadow else len(batch.arm)

    def matured(self, batch: Matured, costs: Costs) -> CanaryState:
        """This and decisions whose labels have matured, each to be given once."""
        return replace(self, outcomes=with_outcomes(self.outcomes, batch, costs))

    def stepped(self, share: float) -> CanaryState:
        """The same experiment at another share, from its newest decision on."""
        return replace(self, step=Step(share, self.last_us, self.count(CHALLENGER)))

    def count(self, arm: int) -> int:
        """Decisions of an arm."""
        return int(self.decisions.totals.of(arm, "decisions"))

    def labelled(self) -> int:
        """Matured decisions of the smaller arm."""
        return int(min(self.outcomes.totals.of(arm, "labelled") for arm in (CHALLENGER, CONTROL)))

    def hours(self) -> float:
        """Event time that the step has lasted."""
        if self.last_us is None or self.step.since_us is None:
            return 0.0
        return (self.last_us - self.step.since_us) / _HOUR_US

    def decisions_per_day(self) -> float | None:
        """Of all traffic; None until a day has passed."""
        if self.last_us is None or self.first_us is None:
            return None
        days = (self.last_us - self.first_us) / (24 * _HOUR_US)
        return self.seen / days if days >= 1 else None

    def to_json(self) -> str:
        """About 150 kB, whatever the experiment's size."""
        parts = {
            n: getattr(self, n)
            for n in ("experiment", "edges", "seen", "first_us", "last_us", "blocked_day")
        }
        return json.dumps(
            parts
            | {
                "step": asdict(self.step),
                "decisions": self.decisions.record(),
                "outcomes": self.outcomes.record(),
                "blocked": np.packbits(self.blocked, axis=1).tobytes().hex(),
            }
        )

    @classmethod
    def of_json(cls, text: str) -> CanaryState:
        """What ``to_json`` wrote. Raises InputError if its columns are not this code's."""
        told: Mapping[str, Any] = json.loads(text)
        return cls(
            experiment=told["experiment"],
            edges=tuple(told["edges"]),
            step=Step(**told["step"]),
            decisions=Slices.of_record(told["decisions"], COLUMNS),
            outcomes=Slices.of_record(told["outcomes"], OUTCOMES),
            blocked=_unpacked(told["blocked"]),
            blocked_day=told["blocked_day"],
            seen=told["seen"],
            first_us=told["first_us"],
            last_us=told["last_us"],
        )


def nobody_blocked() -> Bools:
    return np.zeros((len(ARMS), 2**BLOCKED_BITS), dtype=np.bool_)


def newly_blocked(batch: Decisions, blocked: Bools, blocked_day: int) -> Bools:
    """Which decisions are the first of their day that block their customer in this arm, bool [n]; ``blocked`` are those
    of ``blocked_day`` before.

    Card testing blocks one card fifty times in an hour; counted by customer and day, a change of the rate is seen in a
    tenth of the decisions, and a promise of some days has the same unit as an experiment of weeks.
    """
    blocks = np.flatnonzero((batch.decision == BLOCK) & (batch.arm != NEITHER))
    arm, day, bit = batch.arm[blocks], _day(batch.event_us[blocks]), _bit(batch.customer[blocks])
    fresh = ~((day == blocked_day) & blocked[arm, bit])
    place = (day * len(ARMS) + arm) * 2**BLOCKED_BITS + bit
    newly = np.zeros(len(batch.arm), dtype=np.bool_)
    newly[blocks[fresh][np.unique(place[fresh], return_index=True)[1]]] = True
    return newly


def _with_blocked(
    batch: Decisions, newly: Bools, blocked: Bools, blocked_day: int
) -> tuple[Bools, int]:
    """Whom each arm has blocked on the newest day, and that day."""
    if not newly.any():
        return blocked, blocked_day
    day = _day(batch.event_us)
    newest = max(blocked_day, int(day[newly].max()))
    grown = blocked.copy() if newest == blocked_day else nobody_blocked()
    of_newest = newly & (day == newest)
    grown[batch.arm[of_newest], _bit(batch.customer[of_newest])] = True
    return grown, newest


def _day(event_us: Ints) -> Ints:
    return event_us // DAY_US


def _bit(customer: Hashes) -> Ints:
    return (mixed(customer) >> np.uint64(64 - BLOCKED_BITS)).astype(np.int64)


def _unpacked(text: str) -> Bools:
    packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8).reshape(len(ARMS), -1)
    return np.unpackbits(packed, axis=1).astype(np.bool_)


def decision_rows(batch: Decisions, edges: tuple[float, ...], newly: Bools) -> Floats:
    """float64 [n, len(COLUMNS)]; what has no score, or none of its arm's model, says nothing of scores. ``newly``:
    ``newly_blocked``."""
    scored = ~np.isnan(batch.score) & ~batch.error
    timed = batch.model_s > 0  # false for NaN
    score = np.where(scored, batch.score, 0.5)
    columns = (
        np.ones(len(batch.arm)),
        batch.error,
        batch.degraded,
        batch.decision == REVIEW,
        batch.decision == BLOCK,
        newly,
        timed,
        np.log(np.where(timed, batch.model_s, 1.0)),
        scored,
        log_odds(score),  # 0 where there is none
        *(scored & (score > edge) for edge in edges),
    )
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)

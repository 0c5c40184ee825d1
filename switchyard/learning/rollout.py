"""The judge of a rollout: a typed policy that promotes by a step, holds, or rolls back, with reasons.

All guardrails together, looked at as often as one likes in shadow and through all steps of a canary, fall on a
challenger that keeps within its limits with a probability of at most ``alpha``: each of them is given an equal part of
it, half for the shadow and half for the canary (Bonferroni, so however they depend on each other). Not here: the
tests (``guardrails``, ``sequential``), or who moves the traffic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from switchyard.errors import InputError
from switchyard.learning.canary import TAIL_COLUMNS, CanaryState
from switchyard.learning.guardrails import Guardrail, Mean, Weighed, weigh, weigh_all
from switchyard.learning.metrics import Metric
from switchyard.learning.outcomes import CLOCK, Costs, OutcomeLimits, adjusted, harms, proofs
from switchyard.learning.promise import TAILS, Promise
from switchyard.learning.slices import ARMS, CHALLENGER, Totals

Action = Literal["promote", "hold", "rollback"]
PHASES = 2
"""Shadow and canary, each an experiment of its own."""
OUTCOME_GUARDRAILS = 3
PROMISED = "what the manifest promises"

ERRORS = Mean("errors", "decisions", share=True)
DEGRADED = Mean("degraded", "decisions", share=True)
REVIEWS = Mean("reviews", "decisions", share=True)
BLOCKS = Mean("blocks", "decisions", share=True)
BLOCKED_CUSTOMERS = Mean("blocked_customers", "decisions", share=True)
TIME = Mean("log_seconds", "timed", log=True)
SCORES = Mean("log_odds", "scored")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do, why in sentences, and the figures behind it. ``share``: what the step after a promotion has; 1.0
    is the champion's place."""

    action: Action
    reasons: tuple[str, ...]
    figures: dict[str, Any]
    share: float | None = None


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """Steps, least time and sample of each, and how far the challenger may be from control and promise.

    ``steps`` are the shares of each arm, 0 being shadow. ``prior_decisions`` is where the tests are sharpest
    (``sequential.log_evidence``). Against the control: ``error_ratio`` and ``time_ratio`` are multiples,
    ``degraded_allowed`` points. Against its own promise:
    ``promise_ratio`` for every promised share, in both directions, ``promise_allowed`` log-odds; an interval of the
    promise that reaches farther holds instead. A challenger may differ from the control as it promises to, since
    after a change of the world a good one does; what is beyond the promise counts only beyond the control, too, and
    customers blocked beyond ``block_ratio`` times the control's; and no more once labels show that it blocks as surely
    fraud as the control. ``reviews_per_day`` is what the analysts can do if the challenger
    had all traffic (None: no limit). To 100 % only with ``min_matured`` labelled decisions in each arm, and each
    outcome shown, with ``alpha_proof``, not to be worse than ``outcome_limits``.

    Raises InputError for steps that do not rise or leave no equal control, or a level that is none.
    """

    steps: tuple[float, ...] = (0.0, 0.05, 0.10, 0.20)
    min_hours: float = 24.0
    min_decisions: int = 5_000
    min_matured: int = 20_000
    alpha: float = 0.005
    alpha_proof: float = 0.05
    prior_decisions: float = 1_000.0
    max_error_rate: float = 0.02
    error_ratio: float = 2.0
    time_ratio: float = 1.5
    degraded_allowed: float = 0.005
    block_ratio: float = 1.1
    promise_ratio: float = 1.25
    promise_allowed: float = 0.1
    reviews_per_day: float | None = None
    outcome_limits: OutcomeLimits = field(default_factory=OutcomeLimits)
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        if sorted(set(self.steps)) != list(self.steps) or not self.steps:
            raise InputError(f"steps are {self.steps}; each must be larger than the one before")
        if not (self.steps[0] >= 0 and self.steps[-1] <= 0.5):
            raise InputError(f"steps are {self.steps}; from 0 to 0.5 leaves room for the control")
        for name in ("alpha", "alpha_proof"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")

    def guardrails(
        self, promise: Promise, decisions_per_day: float | None = None
    ) -> list[Guardrail]:
        """Those that need no label; the analysts' capacity among them once the traffic's volume is known."""
        return [
            *self._against_control(),
            *self._against_promise(promise),
            *self._against_capacity(decisions_per_day),
        ]

    def alpha_each(self) -> float:
        """The part of ``alpha`` that one guardrail has in one phase: of those against the control, a rising and a
        falling one for the mean score and each promised share, the customers blocked, the outcomes, and the capacity
        where it is set."""
        promised = 2 * (1 + len(TAILS) + len((REVIEWS, BLOCKS))) + 1
        capacity = self.reviews_per_day is not None
        count = len(self._against_control()) + promised + OUTCOME_GUARDRAILS + capacity
        return self.alpha / (PHASES * count)

    def judge(self, state: CanaryState, promise: Promise) -> Judgement:
        """Judge an experiment as it stands."""
        labelled = adjusted(state.outcomes.totals)
        prior = self.prior_decisions
        rails = self.guardrails(promise, state.decisions_per_day())
        weighed = [
            *weigh_all(rails, state.decisions.totals, "decisions", prior),
            *weigh_all(harms(labelled, self.outcome_limits), labelled, CLOCK, prior),
        ]
        figures = _figures(state, weighed) | {"log_e_needed": -math.log(self.alpha_each())}
        right = self._right(labelled)
        fallen = [w for w in weighed if w.falls(self.alpha_each())]
        if fallen := [w for w in fallen if not (right and w.guardrail.excusable)]:
            worst_first = sorted(fallen, key=lambda w: -float(w.log_e))
            return Judgement("rollback", tuple(w.reason() for w in worst_first), figures)
        if lacking := self._lacking(state):
            return Judgement("hold", lacking, figures)
        following = [step for step in self.steps if step > state.step.share]
        if following:
            told = f"no guardrail fell in {state.hours():.1f} h and {state.count(CHALLENGER)} decisions"
            return Judgement("promote", (told,), figures, following[0])
        shown = weigh_all(proofs(labelled, self.outcome_limits), labelled, CLOCK, prior)
        return self._finally(state, shown, figures)

    def _right(self, labelled: Totals) -> bool:
        """Whether matured labels show that what the challenger blocks is as surely fraud as what the control blocks."""
        precision, *_ = proofs(labelled, self.outcome_limits)
        return weigh(precision, labelled, CLOCK, self.prior_decisions).falls(self.alpha_proof)

    def _against_control(self) -> list[Guardrail]:
        return [
            Guardrail("error rate", ERRORS, "the most allowed", allowed=self.max_error_rate),
            Guardrail(
                "error rate", ERRORS, f"{self.error_ratio} times the control's", self.error_ratio
            ),
            Guardrail("seconds of the model stage", TIME,
                      f"{self.time_ratio} times the control's", 1, math.log(self.time_ratio)),
            Guardrail("degraded share", DEGRADED, f"the control's and {self.degraded_allowed}",
                      1, self.degraded_allowed),
        ]  # fmt: skip

    def _against_promise(self, promise: Promise) -> list[Guardrail]:
        shares = [
            ("block rate", BLOCKS, promise.block),
            ("review rate", REVIEWS, promise.review),
            *(
                (f"share of scores over {edge:.3g}", Mean(column, "scored", share=True), tail)
                for column, edge, tail in zip(
                    TAIL_COLUMNS, promise.edges, promise.tails, strict=True
                )
            ),
        ]
        allowed = self.promise_allowed
        low, high = (
            min(promise.log_odds.low, promise.log_odds.value - allowed),
            max(promise.log_odds.high, promise.log_odds.value + allowed),
        )
        rails = _both_sides("mean log-odds", SCORES, low, high)
        for name, mean, promised in shares:
            rails += _both_sides(name, mean, *self._share_limits(promised))
        return [*rails, self._against_both(promise)]

    def _against_both(self, promise: Promise) -> Guardrail:
        """Customers blocked: beyond a multiple of the control's that allows for what both would have blocked on the promised
        days; where nobody has compared them, beyond a multiple of the control's and beyond what is promised."""
        name = "customers blocked per decision"
        if promise.beside is not None:
            ratio = self.block_ratio * max(1.0, promise.beside.high)
            says = f"{ratio:.3g} times the control's"
            return Guardrail(name, BLOCKED_CUSTOMERS, says, ratio, excusable=True)
        _, high = self._share_limits(promise.blocked_customers)
        promised = Guardrail(name, BLOCKED_CUSTOMERS, PROMISED, allowed=high)
        says = f"{self.block_ratio} times the control's and {PROMISED}"
        return Guardrail(
            name,
            BLOCKED_CUSTOMERS,
            says,
            self.block_ratio,
            besides=(promised,),
            excusable=True,
        )

    def _share_limits(self, promised: Metric) -> tuple[float, float]:
        ratio = self.promise_ratio
        return min(promised.low, promised.value / ratio), max(promised.high, promised.value * ratio)

    def _against_capacity(self, decisions_per_day: float | None) -> list[Guardrail]:
        if self.reviews_per_day is None or not decisions_per_day:
            return []
        most = self.reviews_per_day / decisions_per_day
        says = f"the {self.reviews_per_day:g} reviews a day that the analysts can do"
        return [Guardrail("review rate", REVIEWS, says, allowed=most)]

    def _lacking(self, state: CanaryState) -> tuple[str, ...]:
        """What the step still lacks in time and sample."""
        made = state.count(CHALLENGER) - state.step.decisions
        lacking = []
        if state.hours() < self.min_hours:
            lacking.append(f"{state.hours():.1f} h of {self.min_hours} h at this step")
        if made < self.min_decisions:
            lacking.append(f"{made} of {self.min_decisions} decisions at this step")
        return tuple(lacking)

    def _finally(
        self, state: CanaryState, shown: list[Weighed], figures: dict[str, Any]
    ) -> Judgement:
        """The step to all traffic."""
        figures = figures | {"proof": {w.guardrail.name: float(w.log_e) for w in shown}}
        if state.labelled() < self.min_matured:
            told = f"{state.labelled()} of {self.min_matured} decisions of each arm have a matured label"
            return Judgement("hold", (told,), figures)
        open_yet = [w for w in shown if not w.falls(self.alpha_proof)]
        if open_yet:
            told = "is not yet shown to be no worse than"
            return Judgement("hold", tuple(w.sentence(told) for w in open_yet), figures)
        reasons = tuple(w.sentence("is shown to be no worse than") for w in shown)
        return Judgement("promote", reasons, figures, 1.0)


def _both_sides(name: str, mean: Mean, low: float, high: float) -> list[Guardrail]:
    """A promise is broken beyond either limit, unless the control goes the same way; above it, unless labels show that to
    be right: a fraud wave that goes on rising after the training, and that the control does not see."""
    return [
        Guardrail(name, mean, PROMISED, allowed=high, excusable=True).unless_control(),
        Guardrail(name, mean, PROMISED, allowed=low, above=False).unless_control(),
    ]


def _figures(state: CanaryState, weighed: list[Weighed]) -> dict[str, Any]:
    """Plain numbers: size of the experiment, and each guardrail's mean, limit and evidence."""
    return {
        "share": state.step.share,
        "hours": state.hours(),
        "decisions": {arm: state.count(code) for code, arm in enumerate(ARMS)},
        "labelled": state.labelled(),
        "guardrails": [w.record() for w in weighed],
    }

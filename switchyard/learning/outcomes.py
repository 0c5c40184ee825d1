"""What the decisions of a canary turned out to be worth, once their labels matured.

Precision among blocked, share of frauds stopped, and money lost per decision. The money is compared after CUPED: what
a customer did before the experiment predicts part of it, and that part is taken out of both arms alike (Deng, Xu,
Kohavi and Walker, *Improving the sensitivity of online controlled experiments by utilizing pre-experiment data*,
WSDM 2013). Not here: when a label counts as matured, or what follows (``canary``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from switchyard.learning import Bools, Floats, Ints
from switchyard.learning.guardrails import Guardrail, Mean
from switchyard.learning.slices import CHALLENGER, CONTROL, Hashes, Slices, Totals

BLOCK = 2
REVIEW = 1
"""Codes of the decisions; 0 allows."""
OUTCOMES = (
    "labelled",
    "loss",
    "before",
    "fraud_money",
    "frauds",
    "stopped",
    "blocked",
    "blocked_frauds",
)
CLOCK = "labelled"
ADJUSTED = "loss_adjusted"

PRECISION = Mean("blocked_frauds", "blocked", share=True)
STOPPED = Mean("stopped", "frauds", share=True)
LOSS = Mean(ADJUSTED, "labelled")


@dataclass(frozen=True, slots=True)
class Matured:
    """Decisions whose labels are known for good: one row per decision, in any order.

    ``arm`` int64 (``slices``), ``customer`` uint64 hashes, ``decision`` int64 (0 allow, 1 review, 2 block),
    ``amount_minor`` int64, ``is_fraud`` bool, ``before`` float64: the customer's mean amount per transaction before
    the experiment, in minor units (NaN for a new one).
    """

    arm: Ints
    customer: Hashes
    decision: Ints
    amount_minor: Ints
    is_fraud: Bools
    before: Floats


@dataclass(frozen=True, slots=True)
class Costs:
    """What a decision costs: the amount of an allowed fraud, a review, and a share of a genuine amount blocked."""

    review_minor: float = 300.0
    false_block_share: float = 0.05

    def loss(self, matured: Matured) -> Floats:
        """Minor units lost with each decision, float64 [n]."""
        blocked, reviewed = matured.decision == BLOCK, matured.decision == REVIEW
        missed = matured.amount_minor * (matured.is_fraud & ~blocked & ~reviewed)
        refused = self.false_block_share * matured.amount_minor * (blocked & ~matured.is_fraud)
        return np.asarray(missed + refused + self.review_minor * reviewed, dtype=np.float64)


def outcome_rows(matured: Matured, costs: Costs) -> Floats:
    """float64 [n, len(OUTCOMES)]. A new customer has no ``before``: it counts as 0, and so adds its share to what
    CUPED can't explain."""
    blocked = matured.decision == BLOCK
    columns = (
        np.ones(len(matured.arm)),
        costs.loss(matured),
        np.nan_to_num(matured.before),
        matured.amount_minor * matured.is_fraud,
        matured.is_fraud,
        matured.is_fraud & (blocked | (matured.decision == REVIEW)),
        blocked,
        blocked & matured.is_fraud,
    )
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)


def with_outcomes(slices: Slices, matured: Matured, costs: Costs) -> Slices:
    """The slices of OUTCOMES and these decisions."""
    return slices.plus(matured.arm, matured.customer, outcome_rows(matured, costs))


def adjusted(totals: Totals) -> Totals:
    """Totals of OUTCOMES with ADJUSTED: loss - theta (before - its mean), theta from both arms' residuals over
    slices."""
    sums = {
        c: totals.of(CHALLENGER, c) + totals.of(CONTROL, c) for c in ("labelled", "loss", "before")
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        means = {c: np.nan_to_num(value / sums["labelled"]) for c, value in sums.items()}
        theta = _covariance(totals, means, "loss") / _covariance(totals, means, "before")
    theta = np.where(np.isfinite(theta), theta, 0.0)
    return totals.with_column(
        ADJUSTED,
        {"loss": np.ones(()), "before": -theta, "labelled": theta * means["before"]},
    )


def variance_left(totals: Totals) -> float:
    """Variance of the loss after CUPED as a share of what it was before (totals of one look, with ADJUSTED)."""
    labelled = totals.of(CHALLENGER, CLOCK) + totals.of(CONTROL, CLOCK)
    means = {
        c: (totals.of(CHALLENGER, c) + totals.of(CONTROL, c)) / labelled for c in (ADJUSTED, "loss")
    }
    after, before = (float(_covariance(totals, means, c, c)) for c in means)
    return after / before if before > 0 else 1.0


def _covariance(
    totals: Totals, means: dict[str, Floats], one: str, other: str = "before"
) -> Floats:
    """Sum over slices and arms of the products of two columns' residuals."""
    found = np.zeros(totals.sums.shape[:-1])
    for arm in (CHALLENGER, CONTROL):
        a, b, n = (totals.at(arm, c) for c in (one, other, CLOCK))
        found = found + (
            totals.product(a, b)
            - means[one] * totals.product(n, b)
            - means[other] * totals.product(a, n)
            + means[one] * means[other] * totals.product(n, n)
        )
    return np.asarray(found)


@dataclass(frozen=True, slots=True)
class OutcomeLimits:
    """How much worse than the control's an outcome may be: points of precision among blocked and of frauds stopped,
    and lost money as a share of all the fraud money."""

    precision: float = 0.1
    stopped: float = 0.1
    loss_share: float = 0.1


def harms(totals: Totals, limits: OutcomeLimits) -> tuple[Guardrail, ...]:
    """Guardrails that fall where an outcome is shown to be worse than its limit (totals with ADJUSTED)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        money = sum(totals.of(a, "fraud_money") for a in (0, 1)) / sum(
            totals.of(a, CLOCK) for a in (0, 1)
        )
    return (
        Guardrail("precision among blocked", PRECISION, f"the control's less {limits.precision}",
                  ratio=1, allowed=-limits.precision, above=False),
        Guardrail("share of frauds stopped", STOPPED, f"the control's less {limits.stopped}",
                  ratio=1, allowed=-limits.stopped, above=False),
        Guardrail("money lost per decision", LOSS,
                  f"the control's and {limits.loss_share} of the fraud money",
                  ratio=1, allowed=limits.loss_share * np.asarray(money)),
    )  # fmt: skip


def proofs(totals: Totals, limits: OutcomeLimits) -> tuple[Guardrail, ...]:
    """The other way round: what falls is the assumption that the outcome is worse than its limit."""
    return tuple(replace(harm, above=not harm.above) for harm in harms(totals, limits))

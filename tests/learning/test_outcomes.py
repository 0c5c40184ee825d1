"""Outcomes: losses by hand, and CUPED that takes out what was known before, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from switchyard.learning.guardrails import weigh_all
from switchyard.learning.outcomes import (
    ADJUSTED,
    CLOCK,
    OUTCOMES,
    Costs,
    Matured,
    OutcomeLimits,
    adjusted,
    harms,
    proofs,
    variance_left,
    with_outcomes,
)
from switchyard.learning.slices import CHALLENGER, CONTROL, Slices, Totals
from tests.canaries import make_matured

COSTS = Costs(review_minor=100, false_block_share=0.1)


def totals(matured: Matured) -> Totals:
    return adjusted(with_outcomes(Slices.empty(OUTCOMES), matured, COSTS).totals)


def spending(matured: Matured) -> Matured:
    """Every decision a missed fraud, so that the loss is the amount."""
    return replace(
        matured, is_fraud=np.ones_like(matured.is_fraud), decision=np.zeros_like(matured.decision)
    )


def test_a_missed_fraud_costs_its_amount_a_review_its_price_and_a_false_block_a_share():
    matured = make_matured(
        6,
        arm=np.zeros(6, np.int64),
        customer=np.arange(6, dtype=np.uint64),
        decision=np.array([0, 0, 1, 1, 2, 2]),
        amount_minor=np.full(6, 1_000),
        is_fraud=np.array([False, True, False, True, False, True]),
        before=np.zeros(6),
    )

    assert COSTS.loss(matured).tolist() == [0, 1_000, 100, 100, 100, 0]
    assert totals(matured).of(CHALLENGER, "stopped") == 2


def test_cuped_takes_out_most_of_a_variance_that_was_known_before():
    found = totals(spending(make_matured()))

    assert variance_left(found) < 0.3


def test_cuped_changes_nothing_where_nothing_was_known_before():
    blank = np.full(90_000, np.nan)

    found = totals(spending(make_matured(before=blank)))

    assert variance_left(found) == 1.0
    assert found.of(CONTROL, ADJUSTED) == found.of(CONTROL, "loss")


def test_cuped_keeps_the_total_of_both_arms_and_corrects_an_unlucky_draw():
    matured = spending(make_matured())
    rich_challenger = replace(
        matured, arm=np.where(matured.before > 5_000, 0, 1), before=matured.before
    )

    found = totals(rich_challenger)

    means = [found.of(a, ADJUSTED) / found.of(a, CLOCK) for a in (CHALLENGER, CONTROL)]
    plain = [found.of(a, "loss") / found.of(a, CLOCK) for a in (CHALLENGER, CONTROL)]
    assert plain[0] > 1.5 * plain[1]
    assert abs(means[0] - means[1]) < 0.1 * (plain[0] - plain[1])
    assert sum(found.of(a, ADJUSTED) for a in (0, 1)) == pytest.approx(
        sum(found.of(a, "loss") for a in (0, 1))
    )


def test_equal_arms_are_shown_to_be_no_worse_and_a_blind_challenger_to_be_worse():
    limits = OutcomeLimits(0.1, 0.1, 0.1)
    equal, blind = totals(make_matured()), totals(make_matured(blind=0.5))

    def fallen(rails: tuple, found: Totals, alpha: float) -> list[str]:
        weighed = weigh_all(rails, found, CLOCK, 1_000.0)
        return [w.guardrail.name for w in weighed if w.falls(alpha)]

    assert fallen(harms(equal, limits), equal, 1e-3) == []
    assert len(fallen(proofs(equal, limits), equal, 0.05)) == 3
    assert fallen(harms(blind, limits), blind, 1e-3) == [
        "share of frauds stopped",
        "money lost per decision",
    ]

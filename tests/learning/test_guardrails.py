"""Guardrails: they hold their level while customers return, and fall for what is there."""

from __future__ import annotations

import numpy as np
import pytest

from switchyard.learning.guardrails import Guardrail, Mean, weigh
from switchyard.learning.slices import Slices, Totals, totals_of

PRIOR = 300.0
ALPHA = 0.05
SHARE = Mean("events", "decisions", share=True)
PLAIN = Mean("events", "decisions")
COLUMNS = ("decisions", "events")
SAME = Guardrail("events", PLAIN, "the control's", ratio=1)


def totals(
    events: np.ndarray, customer: np.ndarray, control_events: np.ndarray, control: np.ndarray
) -> Totals:
    arm = np.repeat([0, 1], [len(events), len(control_events)])
    rows = np.column_stack([np.ones(len(arm)), np.concatenate([events, control_events])])
    hashes = np.concatenate([customer, control]).astype(np.uint64)
    return Slices.empty(COLUMNS).plus(arm, hashes, rows).totals


def counted(challenger: int, control: int, n: int = 5_000, customers: int = 5_000) -> Totals:
    """So many events in each arm, of customers that decide in turn."""
    events = [np.arange(n) < count for count in (challenger, control)]
    who = np.arange(n) % customers
    return totals(events[0], who, events[1], who + n)


def falls(guardrail: Guardrail, found: Totals, alpha: float = ALPHA) -> bool:
    return weigh(guardrail, found, "decisions", PRIOR).falls(alpha)


def fallen_without_difference(*, by_customer: bool) -> float:
    """Share of 300 experiments that ever fall: two arms of 100 customers who decide 40 times each, alike but for
    a habit of their own; looked at after every 100 decisions of an arm."""
    rng, looks, customers = np.random.default_rng(1), 40, 100
    fallen = 0
    for _ in range(300):
        habit = rng.standard_normal((2, customers))
        added = habit[:, None, :] + rng.standard_normal((2, looks, customers))
        table = np.zeros((looks, 256, 2, 2))
        if by_customer:  # each look adds a decision of every customer to the customer's slice
            table[:, :customers, :, 0] = 1
            table[:, :customers, :, 1] = added.transpose(1, 2, 0)
        else:  # decisions go anywhere
            for arm in (0, 1):
                place = rng.integers(0, 256, (looks, customers))
                for look in range(looks):
                    np.add.at(table[look, :, arm, 0], place[look], 1)
                    np.add.at(table[look, :, arm, 1], place[look], added[arm, look])
        found = weigh(SAME, totals_of(COLUMNS, np.cumsum(table, axis=0)), "decisions", PRIOR)
        fallen += bool((found.log_e >= -np.log(ALPHA)).any())
    return fallen / 300


def test_returning_customers_do_not_break_the_level():
    assert fallen_without_difference(by_customer=True) < ALPHA


def test_decisions_taken_for_customers_would_break_it():
    assert fallen_without_difference(by_customer=False) > 3 * ALPHA


def test_many_errors_of_one_customer_are_no_evidence_and_of_many_customers_are():
    n = 5_000
    crowd = np.arange(n)
    one_customer = np.where(np.arange(n) < 100, 7, crowd)
    events = np.arange(n) < 100
    none = np.zeros(n)

    assert not falls(SAME, totals(events, one_customer, none, crowd + n))
    assert falls(SAME, totals(events, crowd, none, crowd + n), alpha=1e-6)


def test_a_ratio_is_held_and_broken():
    twice = Guardrail("events", SHARE, "twice the control's", ratio=2)

    assert not falls(twice, counted(200, 100))
    assert falls(twice, counted(400, 100), alpha=1e-6)


def test_a_value_is_held_and_broken_on_either_side():
    at_most = Guardrail("events", SHARE, "2 %", allowed=0.02)
    at_least = Guardrail("events", SHARE, "2 %", allowed=0.02, above=False)

    assert not falls(at_most, counted(100, 0))
    assert falls(at_most, counted(200, 0), alpha=1e-4)
    assert not falls(at_least, counted(100, 0))
    assert falls(at_least, counted(30, 0), alpha=1e-4)


def test_no_event_yet_is_no_certainty_that_there_will_be_none():
    at_least = Guardrail("events", SHARE, "0.1 %", allowed=0.001, above=False)

    assert not falls(at_least, counted(0, 0))
    assert falls(at_least, counted(0, 0, n=100_000, customers=50_000))


def test_what_happens_to_both_arms_breaks_no_promise():
    promise = Guardrail("events", SHARE, "what is promised", allowed=0.02).unless_control()

    assert not falls(promise, counted(400, 390))
    assert falls(promise, counted(400, 90), alpha=1e-4)


def test_a_distance_from_the_control_that_was_promised_is_none():
    promised = Guardrail("events", SHARE, "what is promised", allowed=0.1)
    twice = Guardrail("events", SHARE, "twice the control's", ratio=2, besides=(promised,))

    assert not falls(twice, counted(480, 50))
    assert falls(twice, counted(800, 50), alpha=1e-4)
    assert not falls(twice, counted(800, 500))


def test_without_a_control_yet_there_is_no_evidence():
    nothing = np.zeros(0)

    found = weigh(SAME, totals(np.ones(50), np.arange(50), nothing, nothing), "decisions", PRIOR)

    assert float(found.log_e) == 0.0
    assert found.record()["limit"] is None


def test_the_reason_names_mean_limit_and_evidence():
    found = weigh(
        Guardrail("error rate", SHARE, "twice the control's", ratio=2), counted(400, 100),
        "decisions", PRIOR,
    )  # fmt: skip

    assert found.reason().startswith(
        "error rate 0.08 is above twice the control's, 0.04 (evidence e^"
    )


def test_logarithms_are_told_as_what_they_are_of():
    rail = Guardrail("seconds", Mean("events", "decisions", log=True), "the most", allowed=0.0)
    n = 1_000
    slow = totals(np.full(n, np.log(3.0)), np.arange(n), np.zeros(n), np.arange(n))

    assert weigh(rail, slow, "decisions", PRIOR).record()["mean"] == pytest.approx(3.0)

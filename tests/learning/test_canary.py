"""What a canary remembers: the same whatever the batches, in a state that is as large as before."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from switchyard.learning.canary import CanaryState, Decisions
from switchyard.learning.outcomes import Costs
from switchyard.learning.slices import CHALLENGER, CONTROL, NEITHER
from tests.canaries import HOUR_US, make_decisions, make_matured, make_promise


def part(batch: Decisions, rows: slice) -> Decisions:
    return Decisions(**{f.name: getattr(batch, f.name)[rows] for f in fields(batch)})


def begun() -> CanaryState:
    return CanaryState.begin("salt", make_promise(), 0.05)


def test_batches_make_the_same_state_as_the_whole():
    whole = make_decisions(9_000)
    state = begun()

    for start in range(0, 9_000, 500):
        state = state.plus(part(whole, slice(start, start + 500)))

    at_once = begun().plus(whole)
    assert np.allclose(state.decisions.values, at_once.decisions.values)
    assert np.array_equal(state.blocked, at_once.blocked)
    assert (state.seen, state.first_us, state.last_us) == (9_000, 0, 30 * HOUR_US)
    assert state.count(CHALLENGER) == (whole.arm == CHALLENGER).sum()


def test_json_gives_the_same_state_and_does_not_grow():
    small = begun().plus(make_decisions(3_000))
    large = small.plus(make_decisions(60_000, seed=1)).matured(make_matured(), Costs())

    again = CanaryState.of_json(large.to_json())

    assert again.to_json() == large.to_json()
    assert np.array_equal(again.blocked, large.blocked)
    assert len(large.to_json()) < 300_000


def test_a_customer_counts_as_blocked_once_a_day_in_its_arm_however_often():
    n = 40
    batch = make_decisions(
        n,
        hours=30,
        arm=np.array([CHALLENGER, CONTROL, NEITHER, CHALLENGER] * 10),
        customer=np.array([1, 1, 1, 2] * 10, np.uint64),
        decision=np.full(n, 2),
    )

    state = begun().plus(part(batch, slice(0, 7))).plus(part(batch, slice(7, n)))

    totals = state.decisions.totals
    assert totals.of(CHALLENGER, "blocked_customers") == 2 * 2
    assert totals.of(CONTROL, "blocked_customers") == 2 * 1
    assert totals.of(CHALLENGER, "blocks") == 20


def test_what_another_model_decided_or_none_says_nothing_of_the_scores():
    n = 300
    batch = make_decisions(
        n,
        arm=np.zeros(n, np.int64),
        error=np.arange(n) < 100,
        score=np.where(np.arange(n) >= 250, np.nan, 0.5),
        model_s=np.where(np.arange(n) < 30, np.nan, 1e-3),
    )

    totals = begun().plus(batch).decisions.totals

    assert totals.of(CHALLENGER, "scored") == 150
    assert totals.of(CHALLENGER, "timed") == 270
    assert totals.of(CHALLENGER, "errors") == 100


def test_a_step_counts_its_own_hours_and_the_volume_all_of_them():
    state = begun().plus(make_decisions(3_000, hours=24))

    later = state.stepped(0.1)

    assert state.hours() == 24
    assert later.hours() == 0
    assert later.step.decisions == state.count(CHALLENGER)
    assert later.decisions_per_day() == 3_000


def test_an_empty_batch_changes_nothing():
    state = begun()

    assert state.plus(make_decisions(0)) is state
    assert state.hours() == 0
    assert state.decisions_per_day() is None


def test_in_shadow_a_transaction_counts_once_though_both_arms_scored_it():
    batch = make_decisions(2_000, arm=np.repeat([CHALLENGER, CONTROL], 1_000))

    shadow = CanaryState.begin("salt", make_promise(), 0.0).plus(batch)

    assert shadow.seen == 1_000
    assert begun().plus(batch).seen == 2_000

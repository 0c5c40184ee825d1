"""The canary's benchmark judges as the judge does, and finds what it injects, on small experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.canary import (
    FAULTS,
    LABEL_DELAY_DAYS,
    Bench,
    Expected,
    bench_of,
    by_look,
    draw,
    expected,
    experiment,
    matured,
    observed,
    without_difference,
)
from benchmarks.scored import DAY_US, Scored
from switchyard.learning.canary import COLUMNS
from switchyard.learning.rollout import RolloutPolicy
from switchyard.learning.slices import Slices
from tests.canaries import THRESHOLDS, make_scores

ARM = 4_000


@pytest.fixture(scope="module")
def bench() -> Bench:
    rng = np.random.default_rng(0)
    n = 30_000
    score = make_scores(rng, n)
    scored = Scored(
        customer=rng.integers(0, 1_500, n),
        event_us=np.sort(rng.integers(0, 20 * DAY_US, n)),
        amount_minor=rng.integers(100, 9_000, n),
        score=score,
        is_fraud=rng.random(n) < score,
        degraded=rng.random(n) < 0.004,
        model_s=rng.lognormal(-7, 0.5, n),
        review=THRESHOLDS.review,
        block=THRESHOLDS.block,
        source="test",
    )
    return bench_of(scored, RolloutPolicy(), arm=ARM)


def test_the_last_look_is_what_the_judge_has_summed_up(bench: Bench):
    rng = np.random.default_rng(0)
    arms = draw(bench, rng)
    decisions, _ = observed(bench, arms, "none", rng)

    looks = by_look(arms, COLUMNS, decisions, bench.looks)

    summed = Slices.empty(COLUMNS).plus(arms.arm, arms.customer, decisions).totals
    assert np.allclose(looks.sums[-1], summed.sums)
    assert np.allclose(looks.products[-1], summed.products)
    assert looks.sums[:, 0].tolist() == [bench.every * (i + 1) for i in range(bench.looks)]


def test_each_arm_is_whole_customers_in_order_of_time_cut_at_its_size(bench: Bench):
    arms = draw(bench, np.random.default_rng(0))

    for code in (0, 1):
        rows, customer = arms.row[arms.arm == code], arms.customer[arms.arm == code]
        assert len(rows) == ARM
        assert (np.diff(rows) >= 0).all()
        once = rows[customer == customer[0]]
        assert len(np.unique(bench.drawn.customer[once])) == 1
        assert len(once) == len(np.unique(once)) > 3


def test_a_slow_challenger_is_found_after_some_hundred_decisions(bench: Bench):
    found = [experiment(bench, "model stage 3 times slower", seed) for seed in range(5)]

    assert all(f.decisions is not None and f.decisions <= 500 for f in found)
    assert found[0].guardrail is not None
    theory = expected(bench, "model stage 3 times slower")
    assert theory.guardrail == found[0].guardrail
    assert 50 < theory.decisions < 500


def test_theory_expects_nothing_where_there_is_no_fault(bench: Bench):
    assert expected(bench, "none") == Expected(math.inf, None)


def test_a_label_counts_once_its_day_has_matured(bench: Bench):
    arms = draw(bench, np.random.default_rng(0))

    late = matured(bench, arms)

    event_us = bench.drawn.event_us[arms.row]
    ends = np.array([event_us[arms.look <= look].max() for look in range(bench.looks)])
    counted = late.look < bench.looks
    day = (event_us[counted] // DAY_US).astype(int)
    waited = ends[late.look[counted]] // DAY_US - day
    assert (waited > LABEL_DELAY_DAYS).all()
    before = late.look[counted] - 1
    early = ends[np.maximum(before, 0)] // DAY_US - day
    assert (early[before >= 0] <= LABEL_DELAY_DAYS).all()


def test_no_difference_is_no_reason(bench: Bench):
    found = [without_difference(bench, seed) for seed in range(10)]

    assert [f["policy"].decisions for f in found] == [None] * 10
    assert [f["strict"].decisions for f in found] == [None] * 10


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_of_the_challenger_alone(bench: Bench, fault: str):
    arms = draw(bench, np.random.default_rng(0))
    one, other = (observed(bench, arms, f, np.random.default_rng(1))[0] for f in ("none", fault))

    control = arms.arm == 1
    assert np.array_equal(one[control], other[control])
    assert np.array_equal(one, other) == (fault == "none")

"""Thresholds: no more is left to review than can be, and what is blocked was fraud often enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import TrainingError
from switchyard.learning.thresholds import LEAST_BLOCKED, NOBODY, Thresholds, choose_thresholds


def choose(score: np.ndarray, y: np.ndarray, **overrides: float) -> Thresholds:
    given = {"review_share": 0.1, "block_precision": 0.9} | overrides
    return choose_thresholds(score, y, **given)


def test_a_score_on_a_threshold_is_over_it():
    thresholds = Thresholds(review=0.2, block=0.8)

    assert [thresholds.decide(s) for s in (0.1999, 0.2, 0.7999, 0.8)] == [
        "allow", "review", "review", "block",
    ]  # fmt: skip


def test_as_many_are_left_to_review_as_can_be_reviewed():
    score = np.arange(100) / 100

    nothing_to_block = choose(score, np.zeros(100), review_share=0.1)
    the_top_to_block = choose(score, score >= 0.8, review_share=0.1, block_precision=1.0)

    assert nothing_to_block.review == 0.9
    assert (the_top_to_block.review, the_top_to_block.block) == (0.7, 0.8)


def test_block_is_the_least_score_that_is_precise_enough():
    score = np.arange(100) / 100
    y = (score >= 0.8) & (score != 0.85)

    assert choose(score, y).block == 0.79
    assert choose(score, y, block_precision=0.94).block == 0.8
    assert choose(score, y, review_share=0.001).review == 0.79, "nobody has time to review"


def test_nothing_is_blocked_where_no_score_is_precise_enough():
    score = np.arange(100) / 100

    thresholds = choose(score, np.zeros(100))

    assert thresholds.block == NOBODY
    assert thresholds.decide(1.0) == "review"


def test_a_few_lucky_rows_at_the_top_block_nobody():
    score = np.arange(1000) / 1000
    y = score >= 1 - (LEAST_BLOCKED - 1) / 1000

    assert choose(score, y, block_precision=0.95).block == NOBODY


def test_ties_are_flagged_together_or_not_at_all():
    score = np.array([0.9] * 20 + [0.1] * 80)

    assert choose(score, np.zeros(100), review_share=0.1).review == NOBODY
    assert choose(score, np.zeros(100), review_share=0.2).review == 0.9


@given(
    st.lists(st.tuples(st.sampled_from(np.linspace(0, 1, 9).tolist()), st.booleans()), min_size=1),
    st.floats(0.01, 0.9),
    st.floats(0.1, 0.99),
)
def test_both_promises_hold_on_the_rows_they_were_made_on(
    rows: list[tuple[float, bool]], share: float, precision: float
):
    score, y = np.array([s for s, _ in rows]), np.array([f for _, f in rows])

    chosen = choose(score, y, review_share=share, block_precision=precision)

    assert np.mean((score >= chosen.review) & (score < chosen.block)) <= share
    blocked = score >= chosen.block
    assert not blocked.any() or y[blocked].mean() >= precision
    assert chosen.review <= chosen.block


@pytest.mark.parametrize(("review", "block"), [(0.8, 0.2), (-0.1, 0.5), (0.5, 2.0), (np.nan, 0.5)])
def test_thresholds_out_of_order_are_refused(review: float, block: float):
    with pytest.raises(TrainingError, match="out of order"):
        Thresholds(review, block)


def test_without_rows_there_is_nothing_to_choose_on():
    with pytest.raises(TrainingError, match="without validation rows"):
        choose(np.array([]), np.array([]))

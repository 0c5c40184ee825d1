"""A release that does worse than it promised is found out, by more than chance and not on one bad day."""

from __future__ import annotations

from typing import Any

import numpy as np

from switchyard.learning.drift import score_shares
from switchyard.learning.metrics import Metric
from switchyard.learning.performance import Judged, PerformancePolicy, score_shift
from switchyard.learning.policy import Verdict

PROMISED = Metric(0.70, 0.66, 0.74)


def days_of(*values: float) -> list[Verdict]:
    """The verdicts of days that follow each other, each knowing the one before."""
    verdicts: list[Verdict] = []
    before: dict[str, Any] | None = None
    for value in values:
        found = Metric(value, value - 0.04, value + 0.04)
        verdicts.append(PerformancePolicy().judge(PROMISED, found, before))
        before = verdicts[-1].figures
    return verdicts


def test_two_bad_days_fail_and_two_good_ones_end_it() -> None:
    verdicts = days_of(0.69, 0.40, 0.41, 0.69, 0.68)

    assert [v.passed for v in verdicts] == [True, True, False, False, True]


def test_one_bad_day_is_none() -> None:
    assert all(v.passed for v in days_of(0.69, 0.40, 0.69, 0.40, 0.69))


def test_a_drop_within_chance_passes() -> None:
    assert all(v.passed for v in days_of(0.62, 0.62, 0.62))


def test_a_drop_of_little_weight_passes_however_sure_it_is() -> None:
    sure = Metric(0.68, 0.679, 0.681)
    promised = Metric(0.70, 0.699, 0.701)

    once = PerformancePolicy().judge(promised, sure)

    assert PerformancePolicy().judge(promised, sure, once.figures).passed


def test_scores_that_lie_higher_than_promised_have_a_psi_and_a_divergence() -> None:
    rng = np.random.default_rng(0)
    promised = score_shares(rng.beta(1, 30, 10_000))

    same = score_shift(promised, rng.beta(1, 30, 10_000))
    moved = score_shift(promised, rng.beta(1, 12, 10_000))

    assert same["psi"] < 0.02 < 0.1 < moved["psi"]
    assert moved["kl"] > same["kl"] >= 0


def test_money_and_rates_by_slice_add_up_to_the_whole() -> None:
    judged = Judged(
        y=np.array([1, 1, 0, 0]),
        score=np.array([0.9, 0.1, 0.8, 0.1]),
        decision=np.array([2, 0, 2, 0]),
        amount=np.array([100, 20, 50, 10]),
        weight=np.ones(4),
    )

    slices = judged.slices(["a", "b", "a", None])

    assert judged.outcome()["fraud_money_blocked_minor"] == 100
    assert judged.outcome()["fraud_money_missed_minor"] == 20
    assert judged.outcome()["catch_rate"] == 0.5
    assert set(slices) == {"a", "b", "missing"}
    assert sum(int(o["known"] or 0) for o in slices.values()) == 4

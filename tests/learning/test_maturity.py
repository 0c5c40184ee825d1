"""What a window is worth before its verdicts have arrived, and when it may be judged for good."""

from __future__ import annotations

import numpy as np
import pytest

from switchyard.errors import TrainingError
from switchyard.learning import Floats, Ints
from switchyard.learning.maturity import Arrivals, Arrived, MaturityPolicy
from switchyard.learning.metrics import Ranking

DAY = 86_400_000_000


def make_window(seed: int, rows: int = 8_000) -> tuple[Ints, Floats, Ints, Ints, Ints]:
    """Verdicts, scores, customers, ages at the asking and delays; frauds are found later than others are cleared."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < 0.02).astype(np.int64)
    score = np.clip(rng.normal(0.2 + 0.4 * y, 0.15), 0, 1)
    age = rng.integers(3 * DAY, 10 * DAY, rows)
    delay = (rng.lognormal(np.log(5 + 3 * y), 0.6) * DAY).astype(np.int64)
    return y, score, rng.integers(0, 2_000, rows), age, delay


def average_precision(y: Ints, score: Floats, weight: Floats | None = None) -> float:
    return Ranking(y, score).average_precision(weight)


def test_a_provisional_value_covers_the_matured_one_where_a_plain_one_is_off() -> None:
    past_y, _, _, _, past_delay = make_window(seed=1, rows=100_000)
    arrivals = Arrivals.of(past_y, past_delay)
    covered, shift, plain_shift = [], [], []

    for seed in range(2, 22):
        y, score, customer, age, delay = make_window(seed)
        known = delay <= age
        arrived = Arrived.at(y[known], age[known], customer[known], arrivals)
        metric = arrived.measure(lambda w, y=y, s=score, k=known: average_precision(y[k], s[k], w))
        matured = average_precision(y, score)
        covered.append(metric.low <= matured <= metric.high)
        shift.append(metric.value - matured)
        plain_shift.append(average_precision(y[known], score[known]) - matured)

    assert np.mean(covered) >= 0.85
    assert abs(np.mean(shift)) < 0.02
    assert abs(np.mean(plain_shift)) > 2 * abs(np.mean(shift))


def test_a_window_of_which_everything_is_known_leaves_no_doubt() -> None:
    y, score, customer, age, _ = make_window(seed=5, rows=3_000)
    at_once = Arrivals.of(np.array([0, 1]), np.array([0, 0]))
    arrived = Arrived.at(y, age, customer, at_once)

    metric = arrived.measure(lambda w: average_precision(y, score, w))

    assert metric.low == metric.value == metric.high == pytest.approx(average_precision(y, score))


def test_where_no_fraud_has_arrived_nobody_can_say_how_many_have() -> None:
    week = Arrivals.of(np.array([0, 1]), np.array([DAY, 7 * DAY]))
    arrived = Arrived.at(np.array([0, 0]), np.array([DAY, DAY]), np.array([0, 1]), week)

    metric = arrived.measure(lambda w: float(w[0] / w.sum()))

    assert np.isnan(arrived.share)
    assert metric.low < metric.value < metric.high


def test_without_old_verdicts_of_both_kinds_nobody_can_tell_how_long_they_take() -> None:
    with pytest.raises(TrainingError, match="0 frauds and 2 others"):
        Arrivals.of(np.array([0, 0]), np.array([1, 2]))


@pytest.mark.parametrize(
    ("days", "known", "passed"), [(7.0, 80, True), (6.9, 80, False), (9.0, 49, False)]
)
def test_a_window_is_mature_by_age_and_by_share(days: float, known: int, passed: bool) -> None:
    verdict = MaturityPolicy(7).judge(days_since_end=days, rows=100, known=known)

    assert verdict.passed is passed
    assert verdict.reasons

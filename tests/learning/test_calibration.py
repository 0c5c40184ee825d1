"""Calibration: increasing, near the truth, and honest about how far it is off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from switchyard.errors import TrainingError
from switchyard.learning.calibration import (
    LEAST_SLOPE,
    Calibration,
    fit_calibration,
    reliability,
    sigmoid,
)


def make_margins(n: int = 20_000, slope: float = 1.0, offset: float = -4.0, seed: int = 0):
    """Margins and verdicts whose true log-odds are ``slope * margin + offset``."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 2, n)
    return margin, (rng.random(n) < sigmoid(slope * margin + offset)).astype(np.int64)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, -4.0), (0.3, -2.0), (3.0, -9.0)])
def test_it_finds_the_line_the_verdicts_came_from(slope: float, offset: float):
    found = fit_calibration(*make_margins(60_000, slope, offset))

    assert found.slope == pytest.approx(slope, rel=0.1)
    assert found.offset == pytest.approx(offset, rel=0.1)


def test_it_is_the_line_of_least_log_loss():
    margin, y = make_margins(3_000)
    frauds = y.sum()
    target = np.where(y > 0, (frauds + 1) / (frauds + 2), 1 / (len(y) - frauds + 2))

    def loss(line: np.ndarray) -> float:
        logits = line[0] * margin + line[1]
        return float(np.mean(np.logaddexp(0, logits) - target * logits))

    found, best = fit_calibration(margin, y), minimize(loss, [1.0, -1.0], tol=1e-12)

    assert loss(np.array([found.slope, found.offset])) <= best.fun + 1e-12


@given(st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=1, max_size=40))
def test_scores_rise_with_the_margin_and_stay_in_0_to_1(rows: list[tuple[float, bool]]):
    margin, y = np.array([m for m, _ in rows]), np.array([f for _, f in rows])

    calibration = fit_calibration(margin, y)
    scores = calibration.score(np.sort(margin))

    assert calibration.slope >= LEAST_SLOPE
    assert (np.diff(scores) >= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_model_that_ranks_upside_down_is_flattened_not_turned():
    margin, y = make_margins()

    calibration = fit_calibration(-margin, y)

    assert calibration.slope == LEAST_SLOPE
    assert calibration.score(-margin).mean() == pytest.approx(y.mean(), abs=1e-3)


def test_one_score_alone_has_the_bits_it_has_among_many():
    margin, y = make_margins(1_001)
    calibration = fit_calibration(margin, y)

    together = calibration.score(margin)

    assert all(calibration.score(margin[i : i + 1])[0] == s for i, s in enumerate(together))


def test_contributions_sum_to_the_calibrated_log_odds():
    raw = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 0.5]])
    before = raw.copy()

    scaled = Calibration(2.0, -1.0).contributions(raw)

    assert scaled.sum(axis=1) == pytest.approx(2.0 * raw.sum(axis=1) - 1.0)
    assert np.array_equal(raw, before)


@pytest.mark.parametrize(
    ("slope", "offset"), [(0.0, 0.0), (-1.0, 0.0), (np.nan, 0.0), (1.0, np.inf)]
)
def test_a_line_that_does_not_rise_is_no_calibration(slope: float, offset: float):
    with pytest.raises(TrainingError, match="increasing line"):
        Calibration(slope, offset)


def test_no_rows_or_infinite_margins_calibrate_nothing():
    with pytest.raises(TrainingError, match="0 validation rows"):
        fit_calibration(np.array([]), np.array([]))
    with pytest.raises(TrainingError, match="finite"):
        fit_calibration(np.array([0.0, np.nan]), np.array([0, 1]))


def test_the_expected_calibration_error_is_the_mean_gap_by_rows():
    score = np.array([0.05, 0.05, 0.05, 0.95])
    y = np.array([0, 0, 1, 1])

    table = reliability(y, score)

    assert table.rows.tolist() == [3, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert table.error == pytest.approx((3 * abs(1 / 3 - 0.05) + 1 * 0.05) / 4)


def test_a_weight_of_two_counts_a_row_twice():
    rng = np.random.default_rng(0)
    score, y = rng.random(200), rng.integers(0, 2, 200)
    weight = rng.integers(0, 3, 200).astype(np.float64)
    repeated = np.repeat(np.arange(200), weight.astype(int))

    assert reliability(y, score, weight).error == pytest.approx(
        reliability(y[repeated], score[repeated]).error
    )


def test_a_score_of_exactly_1_is_in_the_last_bin_and_no_rows_have_no_error():
    assert reliability(np.array([1]), np.array([1.0])).rows[-1] == 1
    assert np.isnan(reliability(np.array([]), np.array([])).error)

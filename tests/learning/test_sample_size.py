"""Sample sizes reach the power they promise, and refuse what has no answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from switchyard.errors import InputError
from switchyard.learning.sample_size import for_means, for_proportions

EXPERIMENTS = 20_000


def test_so_many_decisions_show_a_doubled_rate_with_the_power_asked_for():
    n = for_proportions(0.02, 0.04, alpha=0.05, power=0.8)
    rng = np.random.default_rng(0)
    one, other = (rng.binomial(n, p, EXPERIMENTS) / n for p in (0.02, 0.04))
    pooled = (one + other) / 2

    shown = (other - one) / np.sqrt(2 * pooled * (1 - pooled) / n) > norm.isf(0.05)

    assert shown.mean() == pytest.approx(0.8, abs=0.015)


def test_so_many_decisions_show_a_shifted_mean_with_the_power_asked_for():
    n = for_means(3.0, 0.5, alpha=0.01, power=0.9)

    power = norm.sf(norm.isf(0.01) - 0.5 / (3.0 * np.sqrt(2 / n)))

    assert power == pytest.approx(0.9, abs=0.001)


def test_returning_customers_cost_their_design_effect():
    assert for_means(1, 0.1, design=3) == pytest.approx(3 * for_means(1, 0.1), abs=3)


@pytest.mark.parametrize(
    ("base", "other", "alpha", "says"),
    [
        (0.1, 0.1, 0.05, "effect of 0"),
        (0.0, 0.1, 0.05, "base is 0.0"),
        (0.1, 0.2, 1.5, "alpha is 1.5"),
    ],
)
def test_what_no_sample_can_show_is_refused(base: float, other: float, alpha: float, says: str):
    with pytest.raises(InputError, match=says):
        for_proportions(base, other, alpha=alpha)

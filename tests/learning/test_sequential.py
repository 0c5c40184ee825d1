"""The sequential test: its formula is the mixture's integral, it holds its level at every look, and the theory's
figure is what happens."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from switchyard.learning.sequential import critical_z, decisions_until, log_evidence

PRIOR = 100.0
ALPHA = 0.05
WALKS, LENGTH = 3_000, 3_000


@pytest.fixture(scope="module")
def walks() -> np.ndarray:
    """z of random walks without a drift, after 1 to LENGTH steps."""
    steps = np.random.default_rng(0).standard_normal((WALKS, LENGTH)).astype(np.float32)
    return np.cumsum(steps, axis=1) / np.sqrt(np.arange(1, LENGTH + 1))


@pytest.mark.parametrize(("z", "n"), [(0.0, 10), (2.5, 300), (-1.0, 50), (5.0, 4_000)])
def test_the_evidence_is_the_half_normal_mixture_of_likelihood_ratios(z: float, n: int):
    s = z * np.sqrt(n)

    def weighted(rate: float) -> float:
        density = 2 * norm.pdf(rate, scale=1 / np.sqrt(PRIOR))
        return float(np.exp(rate * s - rate**2 * n / 2) * density)

    integral, _ = quad(weighted, 0, 2, limit=200)

    assert float(log_evidence(np.array(z), np.array(float(n)), PRIOR)) == pytest.approx(
        np.log(integral), abs=1e-6
    )


def test_looked_at_after_every_step_it_holds_its_level_and_uses_it(walks: np.ndarray):
    n = np.arange(1.0, LENGTH + 1)

    fallen = (log_evidence(walks, n, PRIOR) >= -np.log(ALPHA)).any(axis=1).mean()

    assert ALPHA / 5 < fallen < ALPHA


def test_a_test_for_one_look_does_not_hold_it(walks: np.ndarray):
    fallen = (walks > norm.isf(ALPHA)).any(axis=1).mean()

    assert fallen > 5 * ALPHA


def test_critical_z_is_where_the_evidence_reaches_the_level():
    z = critical_z(5_000, PRIOR, ALPHA)

    assert float(log_evidence(np.array(z), np.array(5_000.0), PRIOR)) == pytest.approx(
        -np.log(ALPHA), abs=1e-6
    )


def test_half_of_all_experiments_have_found_an_effect_by_the_theory_s_figure(walks: np.ndarray):
    effect = 0.15
    n = np.arange(1.0, LENGTH + 1)
    found = log_evidence(walks + effect * np.sqrt(n), n, PRIOR) >= -np.log(0.001)

    median = np.median(found.argmax(axis=1) + 1)

    theory = decisions_until(effect, 1.0, alpha=0.001, prior=PRIOR)
    assert found.any(axis=1).all()
    assert 0.85 * theory < median < 1.1 * theory


def test_what_returning_customers_hide_is_never_found():
    seen = {"alpha": ALPHA, "prior": PRIOR}

    assert decisions_until(0.01, 1.0, between=1e-3, **seen) == np.inf
    assert decisions_until(0.0, 1.0, **seen) == np.inf
    assert decisions_until(0.5, 1.0, between=1e-3, **seen) > decisions_until(0.5, 1.0, **seen)

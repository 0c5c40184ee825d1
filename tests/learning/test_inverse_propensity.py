"""Blocked transactions never get a verdict; what is let through by chance puts the metrics right."""

from __future__ import annotations

import numpy as np

from switchyard.learning import Floats
from switchyard.learning.inverse_propensity import inverse_propensity
from switchyard.learning.metrics import precision_at, recall_at

SHARE = 0.1
ROWS = 20_000
WORLDS = 200


def test_corrected_recall_and_precision_are_unbiased_where_the_naive_ones_are_not() -> None:
    rng = np.random.default_rng(3)
    found = np.array([_asked_of_a_world(rng) for _ in range(WORLDS)])

    error = found[:, :2] - found[:, 2:4]
    doubt = error.std(axis=0) / np.sqrt(WORLDS)
    naive_error = abs(float((found[:, 4] - found[:, 3]).mean()))

    assert (abs(error.mean(axis=0)) < 3 * doubt + 1e-3).all()
    assert naive_error > 0.2


def _asked_of_a_world(rng: np.random.Generator) -> Floats:
    """Precision among would-be blocks and recall of them: corrected, true; and the naive recall."""
    score = rng.beta(0.3, 3, ROWS)
    y = (rng.random(ROWS) < score).astype(np.int8)
    would_block = score > 0.3
    explored = would_block & (rng.random(ROWS) < SHARE)
    propensity = np.where(would_block, np.where(explored, SHARE, 1 - SHARE), np.nan)
    blocked = would_block & ~explored
    seen = ~blocked
    weight = inverse_propensity(propensity, blocked)
    return np.array(
        [
            precision_at(y[seen], would_block[seen], weight[seen]),
            recall_at(y[seen], would_block[seen], weight[seen]),
            precision_at(y, would_block),
            recall_at(y, would_block),
            recall_at(y[seen], would_block[seen]),
        ]
    )

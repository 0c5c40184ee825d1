"""Small labelled data for the tests of learning: seeded, with missing values, a few per cent frauds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from switchyard.learning import Floats, Ints

COLUMNS = ["amount", "count", "flag", "age_hours", "constant"]


@pytest.fixture(scope="session")
def columns() -> list[str]:
    return list(COLUMNS)


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., tuple[Floats, Ints]]:
    """Rows float64[n, 5] and verdicts; large amounts, flags and young ages make a fraud likelier."""

    def make(n: int = 3_000, seed: int = 1, **overrides: Any) -> tuple[Floats, Ints]:
        rng = np.random.default_rng(seed)
        X = np.column_stack(
            [
                rng.lognormal(3, 1, n),
                rng.poisson(3, n).astype(np.float64),
                (rng.random(n) < 0.1).astype(np.float64),
                np.where(rng.random(n) < 0.7, np.nan, rng.exponential(24, n)),
                np.ones(n),
            ]
        )
        pull = np.log(X[:, 0]) - 3 + 2 * X[:, 2] + 2 * (np.nan_to_num(X[:, 3], nan=99) < 12)
        y = (pull + rng.logistic(0, 0.5, n) > 3.0).astype(np.int64)
        for name, value in overrides.items():
            X[:, COLUMNS.index(name)] = value
        return X, y

    return make

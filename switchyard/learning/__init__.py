"""Splits, models, metrics, thresholds, policies and releases; knows columns only as given lists."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Verdicts: TypeAlias = npt.NDArray[Any]
"""1 for fraud, 0 for none; any number type."""


def evenly(rows: int, most: int) -> Ints:
    """Indices of at most ``most`` of ``rows`` rows, evenly spaced, first and last among them.

    >>> evenly(9, 3).tolist(), evenly(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.linspace(0, rows - 1, min(rows, most)).astype(np.int64)

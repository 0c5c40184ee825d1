"""Splits, models, metrics, thresholds, policies and releases; knows columns only as given lists."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Verdicts: TypeAlias = npt.NDArray[Any]
"""1 for fraud, 0 for none; any number type."""

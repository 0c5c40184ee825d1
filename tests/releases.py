"""Small real releases of the fraud service. Factories only, no tests."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.fraud.columns import FEATURE_SERVICE, FEATURES, names
from switchyard.fraud.features import code_hash
from switchyard.learning.calibration import Calibration
from switchyard.learning.drift import score_shares
from switchyard.learning.models import GradientBoosting, LogisticRegression
from switchyard.learning.promise import promise_of
from switchyard.learning.release import Release, write_release
from switchyard.learning.thresholds import Thresholds

COLUMNS = names(FEATURES)
AS_OF = datetime(2026, 2, 27, tzinfo=UTC)
"""It has learned what was known then."""
SUSPICIOUS_AMOUNT = 900
"""The model has learned that larger amounts, and only these, are frauds."""


def make_release(releases: Path, **overrides: Any) -> Release:
    """A release below ``releases`` whose trees and regression were trained, on little data."""
    X, y = _rows()
    trees = {"rounds": 20, "max_depth": 3, "nthread": 1}
    content: dict[str, Any] = {
        "model": GradientBoosting.train(X, y, columns=COLUMNS, params=trees),
        "calibration": Calibration(1.0, 0.0),
        "baseline": LogisticRegression.train(X, y, columns=COLUMNS),
        "baseline_calibration": Calibration(1.0, 0.0),
        "thresholds": Thresholds(0.3, 0.6),
        "feature_service": FEATURE_SERVICE,
        "columns": COLUMNS,
        "code_hash": code_hash(),
        "training": {"seed": 7, "shipped": {"promise": {"end": AS_OF.isoformat()}}},
        "metrics": _metrics(Thresholds(0.3, 0.6)),
    }
    return write_release(releases, **(content | overrides))


def _metrics(thresholds: Thresholds) -> dict[str, Any]:
    score = np.linspace(0, 1, 100)
    promise = promise_of(
        score, entity=np.arange(100), day=np.zeros(100, np.int64), thresholds=thresholds
    )
    return {"scores": score_shares(score), "promise": promise.record()}


def _rows(n: int = 2_000) -> tuple[Any, Any]:
    rng = np.random.default_rng(7)
    X = rng.uniform(0, 5, (n, len(COLUMNS)))
    X[rng.random(X.shape) < 0.2] = np.nan
    X[:, COLUMNS.index("amount")] = rng.uniform(0, 2 * SUSPICIOUS_AMOUNT, n)
    return X, (X[:, COLUMNS.index("amount")] > SUSPICIOUS_AMOUNT).astype(np.int64)

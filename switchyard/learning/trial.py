"""A trial: a candidate and its baseline on the rows of the test window, with every metric of both.

Here: which rows count and what is measured on them. Not here: the metrics (``metrics``), whether the
candidate passes (``policy``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from switchyard.errors import TrainingError
from switchyard.learning import Floats, Ints
from switchyard.learning.fitting import Fitted, Rows
from switchyard.learning.metrics import Metric, evaluate
from switchyard.learning.splits import Split

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Trial:
    """Test rows with a known verdict, both models' scores on them, and both models' metrics."""

    test: Rows
    validation: Rows
    score: Floats
    baseline_score: Floats
    metrics: Mapping[str, Metric]
    baseline_metrics: Mapping[str, Metric]

    def record(self) -> dict[str, Any]:
        """For JSON: the metrics of the candidate and of the baseline."""
        return {
            "candidate": {name: m.record() for name, m in self.metrics.items()},
            "baseline": {name: m.record() for name, m in self.baseline_metrics.items()},
            "rows": len(self.test.y),
            "frauds": int(self.test.y.sum()),
        }


def trial_of(rows: Rows, split: Split, candidate: Fitted, baseline: Fitted, *, seed: int) -> Trial:
    """Score the test window with both models and measure both, by the candidate's and its own thresholds.

    Raises TrainingError if no verdict of the test window is known.
    """
    test = rows.take(split.test.rows(rows.event_us, rows.label_us) & (rows.y >= 0))
    validation = rows.take(split.validation.rows(rows.event_us, rows.label_us) & (rows.y >= 0))
    if len(test.y) == 0:
        raise TrainingError(
            f"no verdict of the test window {split.test.start:%Y-%m-%d} to "
            f"{split.test.end:%Y-%m-%d} is known yet; wait for labels or move the window"
        )
    score, baseline_score = candidate.score(test.X), baseline.score(test.X)
    return Trial(
        test,
        validation,
        score,
        baseline_score,
        _measured(test, score, candidate, seed),
        _measured(test, baseline_score, baseline, seed),
    )


def days_of(event_us: Ints) -> Ints:
    """Days since 1970 of event times in microseconds."""
    return event_us // _DAY_US


def _measured(test: Rows, score: Floats, fitted: Fitted, seed: int) -> dict[str, Metric]:
    return evaluate(
        test.y, score, entity=test.entity, day=days_of(test.event_us),
        thresholds=fitted.thresholds, seed=seed,
    )  # fmt: skip

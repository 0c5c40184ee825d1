"""How a release does in service: where its scores lie, what its decisions were worth, and whether that is what it promised.

Not here: where decisions and verdicts come from (the use case), or what follows (``retraining``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from switchyard.learning import Floats, Ints, Verdicts
from switchyard.learning.drift import FLOOR, score_shares
from switchyard.learning.metrics import Metric, precision_at, recall_at
from switchyard.learning.policy import Verdict

ALLOW, REVIEW, BLOCK = 0, 1, 2
"""Codes of decisions."""
INTERVAL_SD = 2 * 1.959964
"""Standard deviations that a 95 % interval is wide."""


def score_shift(promised: Mapping[str, Sequence[float]], scores: Floats) -> dict[str, float]:
    """PSI and Kullback-Leibler divergence (in nats, of what is served from what was promised) of scores in the release's
    bins (``drift.score_shares``).

    >>> score_shift(score_shares(np.array([0.1, 0.9])), np.array([0.1, 0.9]))
    {'psi': 0.0, 'kl': 0.0}
    """
    told = np.maximum(np.array(promised["shares"]), FLOOR)
    found = np.maximum(np.array(score_shares(scores)["shares"]), FLOOR)
    ratio = np.log(found / told)
    return {"psi": float(np.sum((found - told) * ratio)), "kl": float(np.sum(found * ratio))}


@dataclass(frozen=True, slots=True)
class Judged:
    """Decisions whose verdict is known, one row each: ``y`` 0 or 1, ``score`` in [0, 1], ``decision`` (codes above),
    ``amount`` in minor units, ``weight``: the rows each stands for (``maturity``)."""

    y: Verdicts
    score: Floats
    decision: Ints
    amount: Ints
    weight: Floats

    def outcome(self) -> dict[str, float | int | None]:
        """What the decisions were worth; rates are None where they are not defined. Money is in minor units."""
        flagged, blocked, fraud = self.decision >= REVIEW, self.decision == BLOCK, self.y > 0
        w = self.weight
        genuine = float(np.sum(w * ~fraud))
        found = {
            "precision_flagged": precision_at(self.y, flagged, w),
            "precision_blocked": precision_at(self.y, blocked, w),
            "catch_rate": recall_at(self.y, flagged, w),
            "false_positive_rate": float(np.sum(w * (flagged & ~fraud))) / genuine
            if genuine
            else float("nan"),
            "calibration_ratio": _ratio(float(np.sum(w * self.score)), float(np.sum(w * fraud))),
        }
        rates = {name: value if np.isfinite(value) else None for name, value in found.items()}
        return rates | {
            "known": len(self.y),
            "frauds": int(fraud.sum()),
            "false_positives": int(np.sum(flagged & ~fraud)),
            "fraud_money_blocked_minor": int(np.sum(self.amount[blocked & fraud])),
            "genuine_money_blocked_minor": int(np.sum(self.amount[blocked & ~fraud])),
            "fraud_money_missed_minor": int(np.sum(self.amount[~flagged & fraud])),
        }

    def slices(self, values: Sequence[str | None]) -> dict[str, dict[str, float | int | None]]:
        """The outcome for each value of a column, the most frequent first; 'missing' for None."""
        named = np.array(["missing" if v is None else v for v in values], dtype=object)
        if len(named) == 0:
            return {}
        found, count = np.unique(named.astype(str), return_counts=True)
        order = np.argsort(-count, kind="stable")
        return {str(found[i]): self._only(named == found[i]).outcome() for i in order}

    def _only(self, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Judged:
        return Judged(
            self.y[rows], self.score[rows], self.decision[rows], self.amount[rows], self.weight[rows]
        )  # fmt: skip


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


@dataclass(frozen=True, slots=True)
class PerformancePolicy:
    """Average precision on a matured window must not fall below what the release reached when it was assessed.

    It counts as below if it is ``least_drop`` of the promised value lower, and by more than ``deviations`` standard
    errors of the difference (both intervals', over customers). ``patience`` days in a row change the verdict, in either
    direction, so that one bad day asks for nothing.
    """

    least_drop: float = 0.05
    deviations: float = 3.0
    patience: int = 2

    def judge(
        self, promised: Metric, found: Metric, before: Mapping[str, Any] | None = None
    ) -> Verdict:
        """``before``: the figures of the same verdict on the day before, of the same release; None: there are none."""
        error = float(np.hypot(_error(promised), _error(found)))
        drop = promised.value - found.value
        needed = max(self.least_drop * promised.value, self.deviations * error)
        below = bool(drop > needed)
        failing = bool(before and before["failing"])
        streak = 1 + (before["streak"] if before and before["below"] == below else 0)
        if below != failing and streak >= self.patience:
            failing = below
        told = (
            f"average precision {found.value:.3f} ({found.low:.3f} to {found.high:.3f}) on the matured window, "
            f"{promised.value:.3f} when it was assessed: {-drop:+.3f}, and {-needed:.3f} is the limit"
        )
        reasons = [told]
        if below and not failing:
            reasons.append(f"below it for {streak} of {self.patience} days")
        if failing and not below:
            reasons.append(f"back above it for {streak} of {self.patience} days")
        figures = {
            "promised": asdict(promised),
            "found": asdict(found),
            "drop": drop,
            "limit": needed,
            "below": below,
            "streak": streak,
            "failing": failing,
        }
        return Verdict(not failing, tuple(reasons), figures)


def _error(metric: Metric) -> float:
    return (metric.high - metric.low) / INTERVAL_SD

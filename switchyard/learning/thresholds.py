"""The two thresholds of a decision, chosen on validation rows by capacity and by precision.

Not here: what a review costs, or rules that hold when there is no model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from switchyard.errors import TrainingError
from switchyard.learning import Floats, Verdicts

Decision = Literal["allow", "review", "block"]
NOBODY = float(np.nextafter(1.0, 2.0))
"""A threshold that no score reaches."""
LEAST_BLOCKED = 10
"""Fewer validation rows than this above a threshold say nothing about its precision."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores from ``review`` on are reviewed, from ``block`` on blocked. Never block below review."""

    review: float
    block: float

    def __post_init__(self) -> None:
        if not 0 <= self.review <= self.block <= NOBODY:
            raise TrainingError(
                f"thresholds review {self.review} and block {self.block} are out of order; "
                f"0 <= review <= block <= {NOBODY} is needed"
            )

    def decide(self, score: float) -> Decision:
        """The decision of one score.

        >>> Thresholds(0.2, 0.8).decide(0.2)
        'review'
        """
        if score >= self.block:
            return "block"
        return "review" if score >= self.review else "allow"

    def record(self) -> dict[str, float]:
        return asdict(self)


def choose_thresholds(
    score: Floats, y: Verdicts, *, review_share: float, block_precision: float
) -> Thresholds:
    """Thresholds on validation scores float64[n] in [0, 1] and their verdicts.

    ``block`` is the least score from which on the rows hold at least ``block_precision`` frauds, counted
    on LEAST_BLOCKED rows or more; ``review`` the least one below it that leaves at most
    ``review_share`` of the rows to review. Where there is no such score, it is NOBODY, or ``block``.
    Raises TrainingError without rows.
    """
    if len(score) == 0:
        raise TrainingError("thresholds can't be chosen without validation rows")
    order = np.argsort(-score, kind="stable")
    ranked, frauds = score[order], np.cumsum(y[order] > 0)
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # ties are flagged together
    flagged = ends + 1
    precise = (frauds[ends] / flagged >= block_precision) & (flagged >= LEAST_BLOCKED)
    block = _least(ranked[ends], precise)
    reviewed = flagged - np.count_nonzero(score >= block)
    review = _least(ranked[ends], reviewed / len(score) <= review_share)
    return Thresholds(min(review, block), block)


def _least(scores: Floats, allowed: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    return float(scores[allowed].min()) if allowed.any() else NOBODY

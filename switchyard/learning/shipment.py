"""What is shipped of a candidate that was assessed: both models fitted again, and what the first one promises.

The gates judged models that knew nothing of the test window. Shipped is what has learned from every label known
since, but of the newest days: on these it promises how its scores lie (docs/decisions/0010). Not here: the fitting
(``fitting``), the windows (``splits``), or the files (``release``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from switchyard.learning import Floats
from switchyard.learning.drift import score_shares
from switchyard.learning.fitting import Fitted, Rows, fit_again
from switchyard.learning.metrics import Metric
from switchyard.learning.promise import Promise, blocked_beside, promise_of
from switchyard.learning.release import Release
from switchyard.learning.splits import Shipping, Split
from switchyard.learning.trial import days_of


@dataclass(frozen=True, slots=True)
class Shipment:
    """Model and fallback as they are shipped, and the rows of the newest days with the model's scores."""

    model: Fitted
    baseline: Fitted
    promise: Promise
    newest: Rows
    score: Floats

    def blocked_beside(self, champion: Release, *, seed: int) -> Metric:
        """Customers blocked on the newest days, as a multiple of the champion's."""
        return blocked_beside(
            self.score >= self.model.thresholds.block,
            champion.score(self.newest.X) >= champion.thresholds.block,
            entity=self.newest.entity,
            day=days_of(self.newest.event_us),
            seed=seed,
        )

    def record(self) -> dict[str, Any]:
        """For a release's metrics: where the scores lie, and the promise."""
        return {"scores": score_shares(self.score), "promise": self.promise.record()}


def known_as_of(manifest: Mapping[str, Any]) -> datetime | None:
    """The moment as of which a release has learned what was known; None if it does not say."""
    shipped = manifest["training"].get("shipped")
    return datetime.fromisoformat(shipped["promise"]["end"]) if shipped else None


def shipment_of(
    rows: Rows,
    split: Split,
    shipping: Shipping,
    assessed: tuple[Fitted, Fitted],
    *,
    columns: Sequence[str],
    seed: int,
    review_share: float,
    block_precision: float,
) -> Shipment:
    """Fit the ``assessed`` model and baseline again and measure the promise; of every row of the newest days,
    labelled or not. Raises TrainingError if a window holds too little."""
    model, baseline = (
        fit_again(
            fitted, rows, split, shipping, columns=columns, review_share=review_share,
            block_precision=block_precision,
        )
        for fitted in assessed
    )  # fmt: skip
    newest = rows.take(shipping.promise.events(rows.event_us))
    score = model.score(newest.X)
    promise = promise_of(
        score, entity=newest.entity, day=days_of(newest.event_us), thresholds=model.thresholds,
        seed=seed,
    )  # fmt: skip
    return Shipment(model, baseline, promise, newest, score)

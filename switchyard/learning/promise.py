"""What a release promises of itself: how its scores lie and how often it reviews and blocks.

Measured when it is made, on the newest days, which it has not learned from; so it is part of the manifest
(``metrics.promise``) and of the id. A time of scoring is no part of it. Not here: holding anyone to it (``guardrails``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from switchyard.errors import ReleaseError, TrainingError
from switchyard.learning import Bools, Floats, Ints, Verdicts
from switchyard.learning.metrics import RESAMPLES, Metric, entity_codes, interval, resamples
from switchyard.learning.thresholds import Thresholds

TAILS = (0.5, 0.1, 0.01)
"""Shares of the decisions whose scores lie over the promised edges."""
CLIP = 1e-6
"""Scores nearer to 0 or 1 count as so near, so that one can't carry a mean of log-odds."""


def log_odds(score: Floats) -> Floats:
    """Log-odds of scores in [0, 1], clipped.

    >>> log_odds(np.array([0.0, 0.5])).round(2).tolist()
    [-13.82, 0.0]
    """
    p = np.clip(score, CLIP, 1 - CLIP)
    return np.asarray(np.log(p / (1 - p)))


@dataclass(frozen=True, slots=True)
class Promise:
    """Mean log-odds of the scores, shares over ``edges`` (one for each of TAILS), shares reviewed and blocked, and
    customers blocked per decision, each counted once a day; each with its 95 % interval over customers."""

    rows: int
    edges: tuple[float, ...]
    log_odds: Metric
    tails: tuple[Metric, ...]
    review: Metric
    block: Metric
    blocked_customers: Metric

    def record(self) -> dict[str, Any]:
        """For JSON, and for a release's content: it depends on the scores alone."""
        return {
            "rows": self.rows,
            "edges": list(self.edges),
            "log_odds": self.log_odds.record(),
            "tails": [tail.record() for tail in self.tails],
            "review": self.review.record(),
            "block": self.block.record(),
            "blocked_customers": self.blocked_customers.record(),
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Promise:
        return cls(
            rows=record["rows"],
            edges=tuple(record["edges"]),
            log_odds=Metric(**record["log_odds"]),
            tails=tuple(Metric(**tail) for tail in record["tails"]),
            review=Metric(**record["review"]),
            block=Metric(**record["block"]),
            blocked_customers=Metric(**record["blocked_customers"]),
        )

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> Promise:
        """Raises ReleaseError if the release was made before there were promises."""
        try:
            return cls.of_record(manifest["metrics"]["promise"])
        except KeyError as error:
            raise ReleaseError(
                f"the manifest of release {manifest.get('id')} promises nothing ({error} is missing), so its "
                "canary can't be judged; make the release anew with this code"
            ) from None


def promise_of(
    score: Floats,
    *,
    entity: Verdicts,
    day: Ints,
    thresholds: Thresholds,
    count: int = RESAMPLES,
    seed: int = 0,
) -> Promise:
    """What scores float64[n] in [0, 1] promise; ``entity`` are the customers' ids of any kind, ``day``
    any integer.

    Raises TrainingError without rows.
    """
    if len(score) == 0:
        raise TrainingError("a release can't promise anything without rows")
    code = entity_codes(entity)
    edges = np.quantile(score, [1 - tail for tail in TAILS], method="inverted_cdf")
    block = score >= thresholds.block
    told = [
        log_odds(score),
        *(score > edge for edge in edges),
        (score >= thresholds.review) & ~block,
        block,
        _first_of_each(code, day, block),
    ]
    sums = np.stack([np.bincount(code, column) for column in [np.ones(len(score)), *told]])
    drawn = np.array([sums @ taken for taken in resamples(code, count, seed)])
    means = drawn[:, 1:] / drawn[:, :1]
    found = [interval(float(np.mean(c)), m) for c, m in zip(told, means.T, strict=True)]
    mean, *tails, reviewed, blocked, customers = found
    return Promise(
        len(score), tuple(edges.tolist()), mean, tuple(tails), reviewed, blocked, customers
    )


def _first_of_each(code: Ints, day: Ints, chosen: Bools) -> Bools:
    """Of the ``chosen`` rows the first of each entity on each day."""
    rows = np.flatnonzero(chosen)
    place = day[rows] * (int(code.max(initial=0)) + 1) + code[rows]
    first = np.zeros(len(code), np.bool_)
    first[rows[np.unique(place, return_index=True)[1]]] = True
    return first

"""What a release promises of itself: how its scores lie and how often it reviews and blocks.

Measured when it is made, on the newest days, which it has not learned from; so it is part of the manifest
(``metrics.promise``) and of the id. A time of scoring is no part of it. Not here: holding anyone to it (``guardrails``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.errors import ReleaseError, TrainingError
from switchyard.lake import write_text
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
    customers blocked per decision, each counted once a day; each with its 95 % interval over customers.

    ``beside`` is no part of the record: the customers blocked as a multiple of those that a champion would have blocked
    on the same days (``blocked_beside``); None where nobody has compared them.
    """

    rows: int
    edges: tuple[float, ...]
    log_odds: Metric
    tails: tuple[Metric, ...]
    review: Metric
    block: Metric
    blocked_customers: Metric
    beside: Metric | None = None

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


def blocked_beside(
    blocks: Bools, champion_blocks: Bools, *, entity: Verdicts, day: Ints, seed: int = 0
) -> Metric:
    """Customers that one model blocks as a multiple of another's on the same rows, counted once a day each; with the
    interval of resamples in which both have the same customers.

    >>> both = np.array([True, False])
    >>> blocked_beside(both, both, entity=np.array([1, 2]), day=np.array([0, 0])).value
    1.0
    """
    code = entity_codes(entity)
    ours, theirs = (
        np.bincount(code, _first_of_each(code, day, chosen)) for chosen in (blocks, champion_blocks)
    )
    drawn = [
        _multiple(float(ours @ taken), float(theirs @ taken))
        for taken in resamples(code, seed=seed)
    ]
    return interval(_multiple(ours.sum(), theirs.sum()), np.array(drawn))


def note_beside(folder: Path, release: str, champion: str, beside: Metric) -> None:
    """Keep a comparison of a release with a champion below ``folder``."""
    told = {"champion": champion, "blocked_customers": beside.record()}
    write_text(json.dumps(told), _beside_file(folder, release))


def read_beside(folder: Path, release: str, champion: str) -> Metric | None:
    """The comparison of the release with this champion; None if there is none."""
    try:
        told = json.loads(_beside_file(folder, release).read_text())
    except FileNotFoundError:
        return None
    return Metric(**told["blocked_customers"]) if told["champion"] == champion else None


def _beside_file(folder: Path, release: str) -> Path:
    return folder / "beside" / f"{release}.json"


def _multiple(ours: float, theirs: float) -> float:
    """One is added to both, so that a champion that blocks nobody has no infinite multiple."""
    return float((ours + 1) / (theirs + 1))


def _first_of_each(code: Ints, day: Ints, chosen: Bools) -> Bools:
    """Of the ``chosen`` rows the first of each entity on each day."""
    rows = np.flatnonzero(chosen)
    place = day[rows] * (int(code.max(initial=0)) + 1) + code[rows]
    first = np.zeros(len(code), np.bool_)
    first[rows[np.unique(place, return_index=True)[1]]] = True
    return first

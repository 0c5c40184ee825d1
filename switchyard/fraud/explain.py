"""The full attribution of one past decision, from the journal and the release it names.

The vector is the journalled one, so the score must come out equal to the bit; if it does not, that is
said, never hidden. Not here: the reasons that a reply carries (``online``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from switchyard.errors import RequestError
from switchyard.fraud.columns import FEATURES
from switchyard.learning import Floats
from switchyard.learning.release import Release, load_release
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.reading import read
from switchyard.serving.replies import Decision

KEPT_RELEASES = 4
"""Releases that an explainer keeps loaded."""
_REASONS = {column.name: column.reason for column in FEATURES}


class ExplainBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which decision to explain: its own id, or its transaction's (the newest decision on it)."""

    decision_id: str | None = None
    transaction_id: str | None = None


class Contribution(msgspec.Struct, frozen=True):
    """How far one feature pushed, in log-odds; ``value`` is null where there was none."""

    feature: str
    value: float | None
    contribution: float
    code: str | None


class Explanation(msgspec.Struct, frozen=True):
    """All contributions of a decision, largest push first; with ``base`` they sum to ``margin``.

    ``equal`` says whether the recomputed score is the journalled one, to the bit; ``by`` names the model.
    """

    decision_id: str
    transaction_id: str
    decision: Decision
    score: float
    recomputed_score: float
    equal: bool
    by: str
    release: str
    base: float
    margin: float
    contributions: list[Contribution]


_decode = msgspec.json.Decoder(ExplainBody).decode


class Explainer:
    """Explains decisions of one journal with the releases below one folder; any thread may ask."""

    def __init__(self, journal: Path, releases: Path) -> None:
        self._decided = DecidedIndex(journal)
        self._load: Callable[[Path], Release] = lru_cache(KEPT_RELEASES)(load_release)
        self._releases = releases

    def answer(self, body: bytes) -> Explanation:
        """What ``/v1/explain`` answers to a body. Raises RequestError, ReleaseError as :meth:`explain`."""
        asked = msgspec.structs.asdict(read(_decode, body))
        given = {name: value for name, value in asked.items() if value}
        if len(given) != 1:
            raise RequestError("the body must name either 'decision_id' or 'transaction_id'")
        return self.explain(**given)

    def explain(
        self, decision_id: str | None = None, transaction_id: str | None = None
    ) -> Explanation:
        """All contributions in log-odds, largest push first, with base and sum.

        Raises RequestError 404 if there is no such decision, 422 if rules made it, ReleaseError if its
        release is gone or damaged.
        """
        record = self._decided.newest(decision_id=decision_id, transaction_id=transaction_id)
        if record is None:
            what = f"decision {decision_id!r}" if decision_id else f"transaction {transaction_id!r}"
            raise RequestError(
                f"no decision is in the journal for the {what}: there was none, its segment is gone "
                "('journal_days'), or its customer was forgotten",
                status=404,
            )
        if record["score"] is None or record["vector"] is None:
            raise RequestError(
                f"decision {record['decision_id']} was made by rules ({record['degraded']}), so it has no "
                f"attribution; its one reason is {record['reasons']}"
            )
        return _explanation(record, self._load(self._releases / record["release"]))


def _explanation(record: dict[str, Any], release: Release) -> Explanation:
    vector = np.array([[np.nan if v is None else v for v in record["vector"]]], dtype=np.float64)
    fallback = "fallback_logistic" in record["degraded"]
    score = float((release.fallback_score if fallback else release.score)(vector)[0])
    pushes = _contributions(release, vector, fallback)
    order = np.argsort(-np.abs(pushes[:-1]), kind="stable")
    return Explanation(
        decision_id=record["decision_id"],
        transaction_id=record["transaction"]["transaction_id"],
        decision=record["decision"],
        score=record["score"],
        recomputed_score=score,
        equal=score == record["score"],
        by=release.baseline.name if fallback else release.model.name,
        release=record["release"],
        base=float(pushes[-1]),
        margin=float(pushes.sum()),
        contributions=[
            Contribution(
                feature=release.columns[i],
                value=None if np.isnan(vector[0, i]) else float(vector[0, i]),
                contribution=float(pushes[i]),
                code=_REASONS.get(release.columns[i]),
            )
            for i in order
        ],
    )


def _contributions(release: Release, vector: Floats, fallback: bool) -> Floats:
    """Contributions in calibrated log-odds float64 [k + 1], the base last, of what made the score."""
    pushes: Floats = (release.fallback_explain if fallback else release.explain)(vector)[0]
    return pushes

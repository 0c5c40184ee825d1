"""The full attribution of one past decision, from the journal and the release it names.

The vector is the journalled one, so the score must come out equal to the bit; if it does not, that is
said, never hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from switchyard.errors import JournalError
from switchyard.fraud.columns import FEATURES
from switchyard.learning import Floats
from switchyard.learning.release import Release, load_release
from switchyard.serving.journal import find_decision
from switchyard.settings import Settings

_REASONS = {column.name: column.reason for column in FEATURES}


def _contributions(release: Release, vector: Floats, fallback: bool) -> Floats:
    """Contributions in calibrated log-odds float64 [k + 1], the base last, of what made the score."""
    if not fallback:
        pushes: Floats = release.explain(vector)[0]
        return pushes
    raw = release.baseline.contributions(vector)
    scaled: Floats = release.baseline_calibration.contributions(raw)[0]
    return scaled


def explain_decision(settings: Settings, decision_id: str) -> dict[str, Any]:
    """All contributions in log-odds, largest push first, with base and sum.

    Raises JournalError if no decision has this id, ReleaseError if its release is gone or damaged.
    """
    record = find_decision(settings.journal, decision_id)
    if record is None:
        raise JournalError(
            f"no decision {decision_id!r} in {settings.journal}; a reply's 'decision_id' names one"
        )
    if record["score"] is None or record["vector"] is None:
        raise JournalError(
            f"decision {decision_id} was made by rules ({record['degraded']}), so it has no attribution; "
            f"its one reason is {record['reasons']}"
        )
    release = load_release(settings.releases / record["release"])
    vector = np.array([[np.nan if v is None else v for v in record["vector"]]], dtype=np.float64)
    fallback = "fallback_logistic" in record["degraded"]
    score = float((release.fallback_score if fallback else release.score)(vector)[0])
    pushes = _contributions(release, vector, fallback)
    order = np.argsort(-np.abs(pushes[:-1]), kind="stable")
    return {
        "decision_id": decision_id,
        "transaction_id": record["transaction"]["transaction_id"],
        "decision": record["decision"],
        "score": record["score"],
        "recomputed_score": score,
        "equal": score == record["score"],
        "by": release.baseline.name if fallback else release.model.name,
        "release": record["release"],
        "base": float(pushes[-1]),
        "margin": float(pushes.sum()),
        "contributions": [
            {
                "feature": release.columns[i],
                "value": None if np.isnan(vector[0, i]) else float(vector[0, i]),
                "contribution": float(pushes[i]),
                "code": _REASONS.get(release.columns[i]),
            }
            for i in order
        ],
    }

"""The full attribution of one past decision, from the journal and the release it names.

The vector is the journalled one, so the score must come out equal to the bit; if it does not, that is
said, never hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from switchyard.errors import JournalError
from switchyard.fraud.columns import FEATURES
from switchyard.learning.release import load_release
from switchyard.serving.journal import find_decision
from switchyard.settings import Settings


def explain_decision(settings: Settings, decision_id: str) -> dict[str, Any]:
    """All contributions in log-odds, largest push first, with base and sum.

    Raises JournalError if no decision has this id, ReleaseError if its release is gone or damaged.
    """
    record = find_decision(settings.journal, decision_id)
    if record is None:
        raise JournalError(
            f"no decision {decision_id!r} in {settings.journal}; a reply's 'decision_id' names one"
        )
    release = load_release(settings.releases / record["release"])
    vector = np.array([[np.nan if v is None else v for v in record["vector"]]], dtype=np.float64)
    pushes = release.explain(vector)[0]
    order = np.argsort(-np.abs(pushes[:-1]), kind="stable")
    return {
        "decision_id": decision_id,
        "transaction_id": record["transaction"]["transaction_id"],
        "decision": record["decision"],
        "score": record["score"],
        "recomputed_score": float(release.score(vector)[0]),
        "equal": float(release.score(vector)[0]) == record["score"],
        "release": record["release"],
        "base": float(pushes[-1]),
        "margin": float(pushes.sum()),
        "contributions": [
            {
                "feature": FEATURES[i].name,
                "value": None if np.isnan(vector[0, i]) else float(vector[0, i]),
                "contribution": float(pushes[i]),
                "code": FEATURES[i].reason,
            }
            for i in order
        ],
    }

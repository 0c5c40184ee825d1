"""The gates between data and release: their names as sentences, and the file that remembers their verdicts.

Each is a blocking check beside the asset it judges; the asset 'release' asks all of them again, since it
can be materialized by itself. Not here: how they judge (``switchyard.learning.policy``).
"""

from pathlib import Path

import dagster as dg

from switchyard.learning.gates import PASSED, note_gates
from switchyard.settings import Settings

DATA_GATES = {
    "vectors_meet_expectations": "Every feature lies in the plausible range of the columns table.",
    "features_resemble_the_window_before": "By Evidently's PSI of the newest week against the week before, "
    "at most half of the features moved.",
    "test_window_has_matured": "The test week ended a label delay ago and at least half of its verdicts are known: "
    "nothing is promoted on a window that is still provisional.",
}
CANDIDATE_GATES = {
    "candidate_holds_its_own": "The candidate's average precision is no worse than the champion's on the "
    "same test rows, or better than the logistic regression's where there is no champion yet.",
    "no_feature_gives_the_verdict_away": "No feature alone reaches a validation AUC over 0.99.",
    "scoring_a_row_is_affordable": "One row costs at most 1.5 times what a booster of 500 trees of depth 6 "
    "costs, timed beside it.",
}
ALL_GATES = (*DATA_GATES, *CANDIDATE_GATES)


def gates_of(settings: Settings) -> Path:
    """The file of the home that remembers what the gates said last."""
    return settings.training / "gates.json"


def noted(settings: Settings, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
    """The same result, remembered."""
    assert result.check_name is not None, "a gate has a name"
    said = PASSED if result.passed else result.description or "no reason given"
    note_gates(gates_of(settings), {result.check_name: said})
    return result

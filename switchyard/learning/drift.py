"""How far columns moved between two windows: decile PSI, and Evidently's report.

The two use different bins and so give different values: never hold one against a limit set for the
other. Not here: what a moved column means for a release (``policy.ResemblancePolicy``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from switchyard.errors import InputError
from switchyard.learning import Floats, evenly

if TYPE_CHECKING:
    import pandas as pd

FLOOR = 1e-4
"""Share that an empty bin counts as, so that the logarithm is finite (Evidently's choice too)."""
APPEARED = float(2 * (1 - FLOOR) * np.log(1 / FLOOR))
"""PSI of a column that was wholly missing in one window and is there in the other."""

SCORE_EDGES = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3,
    0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99,
)  # fmt: skip
"""Upper ends of the bins in which scores are counted, the last one open: fine where nearly all lie."""


def score_shares(scores: Floats) -> dict[str, list[float]]:
    """What a release remembers of its scores: the share in each bin, and the bins' upper ends.

    >>> score_shares(np.array([0.0, 0.0005, 0.3, 1.0]))["shares"][0]
    0.5
    """
    place = np.searchsorted(SCORE_EDGES, scores, side="left")
    counts = np.bincount(place, minlength=len(SCORE_EDGES) + 1)
    return {"edges": list(SCORE_EDGES), "shares": (counts / len(scores)).tolist()}


def psi(reference: Floats, current: Floats, bins: int = 10) -> float:
    """Population stability index of ``current`` against the deciles of ``reference``.

    Missing values are a bin of their own. Raises InputError if a window is empty.

    >>> psi(np.arange(100.0), np.arange(100.0))
    0.0
    """
    if len(reference) == 0 or len(current) == 0:
        raise InputError(f"PSI needs rows in both windows, not {len(reference)} and {len(current)}")
    seen = reference[~np.isnan(reference)]
    inner = np.unique(np.quantile(seen, np.linspace(0, 1, bins + 1)[1:-1])) if len(seen) else seen
    expected, found = (_shares(values, inner) for values in (reference, current))
    return float(np.sum((found - expected) * np.log(found / expected)))


def _shares(values: Floats, inner: Floats) -> Floats:
    """Share of rows in each bin (the last one: missing), at least FLOOR."""
    missing = np.isnan(values)
    place = np.where(missing, len(inner) + 1, np.searchsorted(inner, values, side="right"))
    counts = np.bincount(place, minlength=len(inner) + 2)
    return np.maximum(counts / len(values), FLOOR)


MOST_SHOWN = 12
"""Columns on the page: those that moved most. Drawing one takes Evidently 0.1 s and 100 kB."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Evidently's PSI of each column, and its report on those that moved most, as a web page of its own."""

    values: dict[str, float]
    html: str


def drift_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    columns: Sequence[str],
    *,
    max_rows: int = 20_000,
) -> DriftReport:
    """Evidently's drift of numeric ``columns`` from one window to the next.

    At most ``max_rows`` rows of each window, evenly spaced, are looked at. A column that is wholly
    missing in both windows has 0, in one of them APPEARED; Evidently takes neither, so its page
    leaves them out. Raises InputError if a window is empty.
    """
    if len(reference) == 0 or len(current) == 0:
        raise InputError(
            f"a drift report needs rows in both windows, not {len(reference)} and {len(current)}"
        )
    old, new = (
        frame[list(columns)].iloc[evenly(len(frame), max_rows)] for frame in (reference, current)
    )
    gone_old, gone_new = old.isna().all(), new.isna().all()
    values = {c: APPEARED if gone_old[c] != gone_new[c] else 0.0 for c in columns}
    both = [c for c in columns if not gone_old[c] and not gone_new[c]]
    found, html = _evidently(old[both], new[both]) if both else ({}, "")
    return DriftReport({**values, **found}, html)


def _evidently(reference: pd.DataFrame, current: pd.DataFrame) -> tuple[dict[str, float], str]:
    """PSI of every column by Evidently's own test, and its page on the columns that moved most."""
    from evidently import Report
    from evidently.legacy.calculations.stattests import psi_stat_test
    from evidently.legacy.core import ColumnType
    from evidently.metrics import ValueDrift

    found = {
        c: float(
            psi_stat_test(
                reference[c].dropna(), current[c].dropna(), ColumnType.Numerical, None
            ).drift_score
        )
        for c in reference.columns
    }
    shown = sorted(found, key=found.__getitem__, reverse=True)[:MOST_SHOWN]
    report = Report([ValueDrift(column=c, method="psi") for c in shown])
    snapshot = report.run(current_data=current, reference_data=reference)
    return found, snapshot.get_html_str(as_iframe=False)

"""How far columns moved between two windows: PSI by deciles, and Evidently's report.

The two use different bins and so give different values: never hold one against a limit set for the
other. Not here: what a moved column means for a release (``policy.ResemblancePolicy``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from switchyard.errors import InputError
from switchyard.learning import Floats, Ints, evenly

if TYPE_CHECKING:
    import pandas as pd

FLOOR = 1e-4
"""Share that an empty bin counts as, so that the logarithm is finite (Evidently's choice too)."""
APPEARED = float(2 * (1 - FLOOR) * np.log(1 / FLOOR))
"""PSI of a column that was wholly missing in one window and is there in the other."""

MODERATE, MAJOR = 0.1, 0.2
"""The textbook's limits of PSI: below the first little has changed, above the second a lot (Siddiqi, Credit Risk
Scorecards, chapter 15). They know nothing of the sample: ``reference`` does."""

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


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of one column, made of a reference: its deciles, by themselves each value that a tenth of the rows
    share (most counts are zero), and one for missing values.

    ``edges``: upper ends, each inside its bin; behind the last lie what is larger, and then what is missing.
    """

    edges: Floats

    @classmethod
    def of(cls, reference: Floats, bins: int = 10) -> Bins:
        """Bins of the values float64[n]; NaN is missing.

        >>> Bins.of(np.array([0.0] * 95 + [1.0] * 5)).counts(np.array([0.0, 1.0, 2.0, np.nan])).tolist()
        [0, 1, 2, 1]
        """
        seen = reference[~np.isnan(reference)]
        if not len(seen):
            return cls(seen)
        cuts = np.linspace(0, 1, bins + 1)[1:-1]
        ends, times = np.unique(np.quantile(seen, cuts, method="inverted_cdf"), return_counts=True)
        often = np.array(
            [times[i] > 1 or np.mean(seen == end) * bins >= 1 for i, end in enumerate(ends)]
        )
        return cls(np.unique(np.concatenate([ends, np.nextafter(ends[often], -np.inf)])))

    def __len__(self) -> int:
        return len(self.edges) + 2

    def place(self, values: Floats) -> Ints:
        """The bin of each value, 0 to len - 1."""
        found = np.searchsorted(self.edges, values, side="left")
        return np.where(np.isnan(values), len(self.edges) + 1, found)

    def counts(self, values: Floats) -> Ints:
        """Rows in each bin."""
        return np.bincount(self.place(values), minlength=len(self))


def psi(reference: Floats, current: Floats, bins: int = 10) -> float:
    """Population stability index of ``current`` against the :class:`Bins` of ``reference``.

    Raises InputError if a window is empty.

    >>> psi(np.arange(100.0), np.arange(100.0))
    0.0
    """
    if len(reference) == 0 or len(current) == 0:
        raise InputError(f"PSI needs rows in both windows, not {len(reference)} and {len(current)}")
    made = Bins.of(reference, bins)
    expected, found = (made.counts(values) / len(values) for values in (reference, current))
    return float(stability(expected, found, np.zeros(1, np.int64))[0])


def stability(expected: Floats, found: Floats, starts: Ints) -> Floats:
    """PSI of columns side by side: shares float64[..., bins], the bins of column i from ``starts[i]`` on.

    The sum of (found - expected) * log(found / expected), an empty bin counting as FLOOR.
    """
    a, b = np.maximum(expected, FLOOR), np.maximum(found, FLOOR)
    return np.asarray(np.add.reduceat((b - a) * np.log(b / a), starts, axis=-1))


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

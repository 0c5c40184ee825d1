"""Logistic regression on robustly scaled columns: the baseline, and the fallback of every release.

Saved as JSON whose numbers read back to the bit. Not here: the interface and its checks (``interface``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.lake import write_text
from switchyard.learning import Floats, Verdicts, evenly
from switchyard.learning.interface import (
    Labelled,
    Model,
    checked,
    in_order,
    read_json,
    typed_params,
)

SCALING_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class LogisticParams:
    """``strength`` is scikit-learn's C; ``fill`` the value of a missing column (else its median)."""

    strength: float = 1.0
    clip: float = 8.0
    fill: Mapping[str, float] = field(default_factory=dict)


class LogisticRegression(Model):
    """Linear in columns that are filled, made less skewed, standardised and clipped.

    What is missing also has a weight of its own, one for columns that are always missing together, and
    it counts as a term of the first of them. Terms are summed in column order, so that one row
    and a million give the same bits.
    """

    name = "logistic_regression"
    engine = "switchyard.terms"

    def __init__(
        self, columns: Sequence[str], bias: float, table: Mapping[str, Floats], clip: float
    ):
        self.columns, self.bias, self.clip = tuple(columns), bias, clip
        self.table = dict(table)

    @classmethod
    def train(
        cls,
        X: Floats,
        y: Verdicts,
        *,
        columns: Sequence[str],
        params: Mapping[str, Any] | None = None,
        seed: int = 0,
        validation: Labelled | None = None,
    ) -> LogisticRegression:
        """See :meth:`Model.train`; the solver is exact, so ``seed`` and ``validation`` change nothing."""
        from sklearn.linear_model import LogisticRegression as Solver
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        chosen = typed_params(LogisticParams, params)
        X = checked(X, y, columns)
        model = cls(columns, 0.0, _scaling(X, columns, chosen), chosen.clip)
        scaled, absent = model._design(X)
        marks = _distinct(absent)
        solver = Solver(C=chosen.strength, solver="newton-cholesky", max_iter=100)
        with threadpool_limits(limits=1):  # the bits of a product depend on the number of threads
            solver.fit(np.hstack([scaled, absent[:, marks]]), y)
        model.bias = float(solver.intercept_[0])
        model.table["weight"] = solver.coef_[0, : len(columns)]
        model.table["missing_weight"] = np.zeros(len(columns))
        model.table["missing_weight"][marks] = solver.coef_[0, len(columns) :]
        return model

    def _design(self, X: Floats) -> tuple[Floats, Floats]:
        """Scaled columns and the marks of missing ones, each float64[n, k]."""
        from scipy.special import log1p  # the same bits for one value and for many, unlike numpy's

        t, absent = self.table, np.isnan(X)
        level = np.where(absent, t["fill"], X)
        skewed = level[:, t["log"] > 0]
        level[:, t["log"] > 0] = np.copysign(log1p(np.abs(skewed)), skewed)
        scaled = np.clip((level - t["centre"]) / t["scale"], -self.clip, self.clip)
        return scaled, absent.astype(np.float64)

    def _terms(self, X: Floats, columns: Sequence[str] | None) -> Floats:
        scaled, absent = self._design(in_order(X, columns, self.columns))
        terms: Floats = scaled * self.table["weight"] + absent * self.table["missing_weight"]
        return terms

    def margin(self, X: Floats, columns: Sequence[str] | None = None) -> Floats:
        terms = self._terms(X, columns)
        summed: Floats = np.add.accumulate(terms, axis=1)[:, -1] + self.bias
        return summed

    def contributions(self, X: Floats, columns: Sequence[str] | None = None) -> Floats:
        terms = self._terms(X, columns)
        return np.hstack([terms, np.full((len(terms), 1), self.bias)])

    def settled(self, params: Mapping[str, Any] | None) -> dict[str, Any]:
        return dict(params or {})

    def save(self, folder: Path) -> None:
        content = {
            "columns": self.columns,
            "bias": self.bias,
            "clip": self.clip,
            "table": {name: values.tolist() for name, values in self.table.items()},
        }
        write_text(json.dumps(content, indent=1, allow_nan=False), folder / "model.json")

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> LogisticRegression:
        content = read_json(folder / "model.json", ("columns", "bias", "clip", "table"))
        table = {name: np.array(values) for name, values in content["table"].items()}
        return cls(content["columns"], content["bias"], table, content["clip"])


def _scaling(X: Floats, columns: Sequence[str], params: LogisticParams) -> dict[str, Floats]:
    """For each column its fill, whether its logarithm is less skewed, centre and scale.

    Told by at most SCALING_ROWS rows, evenly spaced.
    """
    rows, sample = [], X[evenly(len(X), SCALING_ROWS)]
    for name, values in zip(columns, sample.T, strict=True):
        seen = values[~np.isnan(values)]
        median = float(np.median(seen)) if len(seen) else 0.0
        fill = float(params.fill.get(name, median))
        filled = np.where(np.isnan(values), fill, values)
        logs = np.copysign(np.log1p(np.abs(filled)), filled)
        log = _skewness(logs) < 0.5 * _skewness(filled)
        level = logs if log else filled
        rows.append((fill, float(log), level.mean(), level.std() or 1.0))
    names = ("fill", "log", "centre", "scale")
    return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))


def _skewness(values: Floats) -> float:
    spread = values.std()
    return float(abs(((values - values.mean()) ** 3).mean()) / spread**3) if spread > 0 else 0.0


def _distinct(marks: Floats) -> list[int]:
    """The columns of ``marks`` that mark something, without those equal to an earlier one."""
    first: dict[bytes, int] = {}
    for i, column in enumerate(marks.T):
        if column.any():
            first.setdefault(np.packbits(column > 0).tobytes(), i)
    return list(first.values())

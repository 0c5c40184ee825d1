"""The gates between evaluation and registration: typed objects that return a verdict with reasons.

A failed gate means a bad model or bad data, never broken code, so nothing is raised for it. There is no
way to force one. Not here: who asks, and what happens on a failure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from switchyard.errors import TrainingError
from switchyard.learning import Floats, Verdicts
from switchyard.learning.interface import Model
from switchyard.learning.metrics import (
    RESAMPLES,
    Ranking,
    entity_codes,
    interval,
    resamples,
    roc_auc,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Passed or not, why in sentences (for a pass too), and the figures behind it."""

    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PromotionPolicy:
    """A challenger must hold its own against the champion, or beat the baseline if there is none.

    Judged by average precision on the same test rows, with a paired bootstrap over entities. Against a
    champion the difference's low end may lie ``max_loss`` below zero; against the baseline, where nothing
    is in service that could get worse, the difference itself must not be below zero. With fewer than ``min_rows`` rows or ``min_frauds`` frauds nothing passes.
    """

    min_rows: int = 1_000
    min_frauds: int = 30
    max_loss: float = 0.02
    resamples: int = RESAMPLES

    def judge(
        self,
        y: Verdicts,
        challenger: Floats,
        *,
        entity: Verdicts,
        champion: Floats | None = None,
        baseline: Floats | None = None,
        seed: int = 0,
    ) -> Verdict:
        """Judge the challenger's scores float64[n] against those of the champion, or of the baseline.

        ``entity`` holds ids of any kind. Raises TrainingError if there is neither rival.
        """
        rival, scores = ("champion", champion) if champion is not None else ("baseline", baseline)
        if scores is None:
            raise TrainingError(
                "a challenger needs a rival: give the champion's scores or a baseline's"
            )
        figures: dict[str, Any] = {"rival": rival, "rows": len(y), "frauds": int(np.sum(y > 0))}
        if thin := self._too_thin(figures["rows"], figures["frauds"]):
            return Verdict(False, thin, figures)
        if not (np.isfinite(challenger).all() and np.isfinite(scores).all()):
            return Verdict(
                False, ("some scores are not finite, so the models can't be compared",), figures
            )
        ours, theirs = Ranking(y, challenger), Ranking(y, scores)
        code = entity_codes(entity)
        drawn = [taken[code] for taken in resamples(code, self.resamples, seed)]
        differences = [ours.average_precision(w) - theirs.average_precision(w) for w in drawn]
        gain = interval(
            ours.average_precision() - theirs.average_precision(), np.array(differences)
        )
        figures |= {
            "average_precision": ours.average_precision(),
            "rival_average_precision": theirs.average_precision(),
            "difference": gain.value,
            "difference_low": gain.low,
            "difference_high": gain.high,
        }
        return self._compared(rival, figures)

    def _too_thin(self, rows: int, frauds: int) -> tuple[str, ...]:
        reasons = []
        if rows < self.min_rows:
            reasons.append(f"{rows} test rows with a known verdict, {self.min_rows} are needed")
        if frauds < self.min_frauds:
            reasons.append(f"{frauds} known frauds in the test, {self.min_frauds} are needed")
        return tuple(reasons)

    def _compared(self, rival: str, figures: dict[str, Any]) -> Verdict:
        difference, low = figures["difference"], figures["difference_low"]
        told = (
            f"average precision {figures['average_precision']:.4f} against the {rival}'s "
            f"{figures['rival_average_precision']:.4f}: {difference:+.4f} "
            f"({low:+.4f} to {figures['difference_high']:+.4f})"
        )
        failures = []
        if rival == "champion" and not low >= -self.max_loss:
            failures.append(f"the low end lies more than {self.max_loss} below zero")
        if rival == "baseline" and not difference >= 0:
            failures.append("it does not reach the baseline")
        return Verdict(not failures, (told, *failures), figures)


@dataclass(frozen=True, slots=True)
class LeakPolicy:
    """No feature alone may tell the verdict: AUC over ``max_auc``, in either direction, is a leak.

    Missing values count as a value of their own, below all others or above them.
    """

    max_auc: float = 0.99

    def judge(self, X: Floats, y: Verdicts, columns: Sequence[str]) -> Verdict:
        """Judge validation rows float64[n, k]; without both kinds of verdicts nothing passes."""
        if len(np.unique(y > 0)) != 2:
            reason = (
                f"{len(y)} validation rows hold {int(np.sum(y > 0))} frauds, so no leak can be seen"
            )
            return Verdict(False, (reason,), {})
        aucs = {name: _alone(X[:, i], y) for i, name in enumerate(columns)}
        leaks = [name for name in columns if aucs[name] > self.max_auc]
        best = max(aucs, key=lambda name: aucs[name])
        reasons = [
            f"'{name}' alone has an AUC of {aucs[name]:.4f}, over {self.max_auc}" for name in leaks
        ]
        told = f"the strongest single feature is '{best}', AUC {aucs[best]:.4f}"
        return Verdict(not leaks, tuple(reasons) or (told,), {"auc": aucs})


def _alone(values: Floats, y: Verdicts) -> float:
    """The best AUC that one column reaches in either direction."""
    found = []
    for missing in (-np.inf, np.inf):
        auc = roc_auc(y, np.where(np.isnan(values), missing, values))
        found += [auc, 1 - auc]
    return max(found)


@dataclass(frozen=True, slots=True)
class ResemblancePolicy:
    """At most ``max_share`` of the features may have moved by more than ``max_psi`` between windows.

    PSI depends on its bins: give values of one engine only (``drift.drift_report``'s, or ``psi``'s).
    """

    max_psi: float = 0.2
    max_share: float = 0.5

    def judge(self, values: Mapping[str, float]) -> Verdict:
        """Judge the PSI of each column; a value that is not finite counts as moved."""
        moved = sorted(
            (c for c, v in values.items() if not v <= self.max_psi), key=lambda c: -values[c]
        )
        share = len(moved) / len(values) if values else 1.0
        figures = {"psi": dict(values), "moved": moved, "share": share}
        if not values:
            return Verdict(False, ("no feature was compared",), figures)
        told = f"{len(moved)} of {len(values)} features have a PSI over {self.max_psi}"
        named = ", ".join(f"{c} {values[c]:.2f}" for c in moved[:5])
        return Verdict(share <= self.max_share, (f"{told}: {named}" if moved else told,), figures)


@dataclass(frozen=True, slots=True)
class ScoringCostPolicy:
    """Scoring one row may cost at most ``max_ratio`` times what a reference model takes.

    Both are timed in turn in this process, so that the machine's speed and load drop out. The verdict
    is never part of a release's content.
    """

    max_ratio: float = 1.5
    repeats: int = 200

    def judge(self, model: Model, X: Floats, reference: Model | None = None) -> Verdict:
        """Time single rows of ``X`` float64[n, k]; the reference is ``reference_model`` by default."""
        if len(X) == 0:
            return Verdict(False, ("there is no row to time the model on",), {})
        pair = (model, reference or reference_model(model.columns))
        threads = [m.threads for m in pair]
        for m in pair:
            m.use_threads(1)  # as online
        rows = [X[i % len(X)][None, :] for i in range(self.repeats)]
        seconds = np.array([[_seconds(m, row) for m in pair] for row in rows])
        for m, before in zip(pair, threads, strict=True):
            m.use_threads(before)
        median_us, reference_us = (1e6 * np.median(seconds, axis=0)).tolist()
        ratio = median_us / reference_us
        figures = {"median_us": median_us, "reference_median_us": reference_us, "ratio": ratio}
        told = (
            f"{median_us:.0f} us a row, {ratio:.2f} times the reference's {reference_us:.0f} us; "
            f"at most {self.max_ratio} is allowed"
        )
        return Verdict(ratio <= self.max_ratio, (told,), figures)


def _seconds(model: Model, row: Floats) -> float:
    begun = time.perf_counter()
    model.margin(row)
    return time.perf_counter() - begun


def reference_model(columns: Sequence[str], *, rounds: int = 500, max_depth: int = 6) -> Model:
    """A booster of full trees on random rows: the yardstick of scoring cost, never of quality."""
    from switchyard.learning.boosting import GradientBoosting

    rng = np.random.default_rng(0)
    X = rng.normal(size=(2_000, len(columns)))
    params = {
        "rounds": rounds,
        "max_depth": max_depth,
        "min_child_weight": 0.0,
        "reg_lambda": 1e-3,
        "subsample": 1.0,
        "colsample_bytree": min(1.0, 10 / len(columns)),
        "max_bin": 32,
        "nthread": 1,
    }
    return GradientBoosting.train(X, rng.integers(0, 2, 2_000), columns=columns, params=params)

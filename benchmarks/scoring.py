"""The tree engine beside XGBoost's own and SHAP's: time of a row, rows per second, largest differences.

500 full trees of depth 6 over 50 columns, and the home's champion where there is one. All peers take turns in
this process on the same rows; XGBoost scores one row on one thread, many on two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from switchyard.learning import Floats
from switchyard.learning.boosting import GradientBoosting
from switchyard.learning.policy import reference_model
from switchyard.learning.release import load_release
from switchyard.learning.trees import compile_trees, read_ensemble
from switchyard.settings import Settings, load_settings

COLUMNS = 50
ROWS = 100_000
SINGLE_ROWS = 300
EXPLAINED_ROWS = 1_000
THREADS = 2
BAR_CONTRIBUTION = 1e-4
ROUNDS = 5
"""Many rows are timed so often, in turn; the best counts."""


def run(
    *, seed: int | None = None, rows: int = ROWS, console: Any = None, **_: Any
) -> dict[str, Any]:
    """Figures by name, those of the home's champion with its prefix; sources say nothing here."""
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    compile_trees()
    told("500 trees of depth 6 over 50 columns")
    full = reference_model([f"c{i}" for i in range(COLUMNS)])
    assert isinstance(full, GradientBoosting)
    figures = _figures(full, rows, seed or 0)
    if champion := _champion(load_settings()):
        told(f"the home's champion, {champion.rounds} trees")
        found = _figures(champion, rows, seed or 0)
        figures |= {f"champion_{name}": value for name, value in found.items()}
    exact = figures["margins_that_differ"] == 0
    apart = figures["largest_difference_to_pred_contribs"]
    return figures | {"reached": exact and apart < BAR_CONTRIBUTION}


def _champion(settings: Settings) -> GradientBoosting | None:
    """The trees of this home's champion; None where it has none."""
    if not settings.releases.exists():
        return None
    from assets.fraud.registry import release_of

    release_id = release_of(settings.mlflow_tracking_uri, "champion")
    model = load_release(settings.releases / release_id).model if release_id else None
    return model if isinstance(model, GradientBoosting) else None


def _figures(model: GradientBoosting, rows: int, seed: int) -> dict[str, Any]:
    """One model: every way to score and to explain it, and how far they are apart."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, len(model.columns)))
    X[rng.random(X.shape) < 0.1] = np.nan
    begun = time.perf_counter()
    trees = read_ensemble(model.content)
    loaded = time.perf_counter() - begun
    return {
        "load_ms": round(1e3 * loaded, 1),
        **_one_row(model, X[:SINGLE_ROWS]),
        **_many_rows(model, X),
        **_explained(model, X[:EXPLAINED_ROWS]),
        "nodes": len(trees.linked.key),
    }


def _one_row(model: GradientBoosting, X: Floats) -> dict[str, Any]:
    import xgboost as xgb

    booster = _booster(model, threads=1)
    ways: dict[str, Callable[[Floats], Any]] = {
        "row_us": model.trees.margin,
        "row_inplace_predict_us": lambda row: booster.inplace_predict(row, predict_type="margin"),
        "row_predict_dmatrix_us": lambda row: booster.predict(
            xgb.DMatrix(row, nthread=1), output_margin=True, validate_features=False
        ),
    }
    return _medians(ways, X)


def _many_rows(model: GradientBoosting, X: Floats) -> dict[str, Any]:
    booster = _booster(model, threads=THREADS)
    ways: dict[str, Callable[[], Floats]] = {
        "rows_per_s": lambda: model.trees.margin(X, THREADS),
        "rows_per_s_one_thread": lambda: model.trees.margin(X),
        "rows_per_s_inplace_predict": lambda: booster.inplace_predict(X, predict_type="margin"),
    }
    seconds = {name: [_seconds(way) for _ in range(ROUNDS)] for name, way in ways.items()}
    apart = np.abs(ways["rows_per_s"]() - ways["rows_per_s_inplace_predict"]())
    return {
        **{name: round(len(X) / min(times)) for name, times in seconds.items()},
        "margins_that_differ": int((apart > 0).sum()),
        "largest_margin_difference": float(apart.max()),
    }


def _explained(model: GradientBoosting, X: Floats) -> dict[str, Any]:
    import shap
    import xgboost as xgb

    booster = _booster(model, threads=1)
    explainer = shap.TreeExplainer(booster)
    ways: dict[str, Callable[[Floats], Any]] = {
        "explain_us": model.trees.contributions,
        "explain_pred_contribs_us": lambda rows: booster.predict(
            xgb.DMatrix(rows, nthread=1), pred_contribs=True, validate_features=False
        ),
        "explain_shap_us": lambda rows: explainer.shap_values(rows, check_additivity=False),
    }
    found = [np.asarray(way(X)) for way in ways.values()]
    return {
        **_medians(ways, X[: SINGLE_ROWS // 10]),
        "largest_difference_to_pred_contribs": float(np.abs(found[0] - found[1]).max()),
        "largest_difference_to_shap": float(np.abs(found[0][:, :-1] - found[2]).max()),
        "largest_gap_to_margin": float(np.abs(found[0].sum(1) - model.trees.margin(X)).max()),
    }


def _booster(model: GradientBoosting, threads: int) -> Any:
    import xgboost as xgb

    booster = xgb.Booster(model_file=bytearray(model.content))
    booster.set_param({"nthread": threads})
    booster.feature_names = None
    return booster


def _medians(ways: dict[str, Callable[[Floats], Any]], X: Floats) -> dict[str, Any]:
    """Median microseconds of one row, the ways taking turns."""
    rows = [X[i : i + 1] for i in range(len(X))]
    times = [[_seconds(partial(way, row)) for way in ways.values()] for row in rows]
    return dict(zip(ways, np.round(1e6 * np.median(times, axis=0), 1).tolist(), strict=True))


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun

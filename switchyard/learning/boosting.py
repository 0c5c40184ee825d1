"""Gradient-boosted trees by XGBoost: the candidate for champion. Saved as UBJSON.

One call, ``inplace_predict``, scores everywhere: online, in batch, in replay and beside an explanation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.errors import ReleaseError
from switchyard.lake import write_text
from switchyard.learning import Floats, Verdicts
from switchyard.learning.interface import (
    Labelled,
    Model,
    checked,
    in_order,
    read_json,
    typed_params,
)


@dataclass(frozen=True, slots=True)
class BoostingParams:
    """XGBoost's, by their XGBoost names; ``early_stopping_rounds`` counts on validation log loss.

    Log loss, not average precision: with a few hundred frauds it is the steadier guide. Rows are not
    reweighted for being rare; that cost average precision and calibration when it was tried.
    """

    rounds: int = 500
    early_stopping_rounds: int = 40
    eta: float = 0.05
    max_depth: int = 6
    min_child_weight: float = 1.0
    subsample: float = 0.8
    colsample_bytree: float = 0.5
    reg_lambda: float = 1.0
    max_bin: int = 128
    nthread: int = 2


class GradientBoosting(Model):
    """Boosted trees by XGBoost's histogram method; exact TreeSHAP contributions."""

    name = "gradient_boosting"
    engine = "xgboost.inplace_predict"

    def __init__(self, columns: Sequence[str], booster: Any, threads: int = 1):
        self.columns, self.booster = tuple(columns), booster
        self.use_threads(threads)

    def use_threads(self, threads: int) -> None:
        super().use_threads(threads)
        self.booster.set_param({"nthread": threads})

    @property
    def rounds(self) -> int:
        return int(self.booster.num_boosted_rounds())

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
    ) -> GradientBoosting:
        """See :meth:`Model.train`; a fixed number of threads keeps the bits off the machine's size."""
        import xgboost as xgb

        chosen = asdict(typed_params(BoostingParams, params))
        rounds, patience = chosen.pop("rounds"), chosen.pop("early_stopping_rounds")
        fixed = {"objective": "binary:logistic", "eval_metric": "logloss", "tree_method": "hist"}
        rows = xgb.QuantileDMatrix(
            checked(X, y, columns), y, feature_names=list(columns), nthread=chosen["nthread"],
            max_bin=chosen["max_bin"],
        )  # fmt: skip
        watched = _watched(validation, columns, chosen["nthread"])
        booster = xgb.train(
            {**fixed, **chosen, "seed": seed}, rows, rounds, evals=watched, verbose_eval=False,
            early_stopping_rounds=patience if watched else None,
        )  # fmt: skip
        kept = booster[: booster.best_iteration + 1] if watched else booster
        return cls(columns, kept, chosen["nthread"])

    def margin(self, X: Floats, columns: Sequence[str] | None = None) -> Floats:
        from xgboost.core import XGBoostError

        rows = in_order(X, columns, self.columns)
        try:
            margins = self.booster.inplace_predict(
                rows, predict_type="margin", validate_features=False
            )
        except XGBoostError as error:
            raise ReleaseError(f"the booster can't score {len(rows)} rows: {error}") from None
        return np.asarray(margins, dtype=np.float64)

    def contributions(self, X: Floats, columns: Sequence[str] | None = None) -> Floats:
        import xgboost as xgb

        rows = xgb.DMatrix(in_order(X, columns, self.columns), feature_names=list(self.columns))
        return np.asarray(self.booster.predict(rows, pred_contribs=True), dtype=np.float64)

    def settled(self, params: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**(params or {}), "rounds": self.rounds}

    def save(self, folder: Path) -> None:
        content = {"columns": self.columns, "rounds": self.rounds}
        write_text(json.dumps(content, indent=1), folder / "model.json")
        self.booster.save_model(folder / "model.ubj")

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> GradientBoosting:
        import xgboost as xgb

        content = read_json(folder / "model.json", ("columns", "rounds"))
        try:
            booster = xgb.Booster(model_file=folder / "model.ubj")
        except (xgb.core.XGBoostError, ValueError) as error:
            raise ReleaseError(f"{folder / 'model.ubj'} is no XGBoost model: {error}") from None
        return cls(content["columns"], booster, threads)


def _watched(
    validation: Labelled | None, columns: Sequence[str], threads: int
) -> list[tuple[Any, str]]:
    """Plain rows: quantised ones take XGBoost several times as long to score after every round."""
    import xgboost as xgb

    if validation is None:
        return []
    X, y = validation
    rows = xgb.DMatrix(checked(X, y, columns), y, feature_names=list(columns), nthread=threads)
    return [(rows, "validation")]

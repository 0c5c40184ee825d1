"""Gradient-boosted trees, trained by XGBoost: the candidate for champion. Saved as XGBoost's UBJSON.

One engine, ``trees``, scores and explains everywhere: online, in batch, in replay, in a picture. Its margins
are XGBoost's to the bit, and it needs no XGBoost to load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
from switchyard.learning.trees import read_ensemble


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
    engine = "switchyard.trees"

    def __init__(self, columns: Sequence[str], content: bytes, threads: int = 1):
        """``content`` is the booster's UBJSON. Raises ReleaseError if it takes other columns."""
        self.columns, self.content, self.threads = tuple(columns), content, threads
        self.trees = read_ensemble(content)
        if self.trees.columns != len(self.columns):
            raise ReleaseError(
                f"the trees take {self.trees.columns} columns; the model names {len(self.columns)}"
            )

    @property
    def rounds(self) -> int:
        return self.trees.rounds

    @cached_property
    def booster(self) -> Any:
        """XGBoost's own view of the model, to look into it: nothing is scored by it."""
        import xgboost as xgb

        return xgb.Booster(model_file=bytearray(self.content))

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
        return cls(columns, bytes(kept.save_raw("ubj")), chosen["nthread"])

    def margin(self, X: Floats, columns: Sequence[str] | None = None) -> Floats:
        return self.trees.margin(in_order(X, columns, self.columns), self.threads)

    def contributions(self, X: Floats, columns: Sequence[str] | None = None) -> Floats:
        return self.trees.contributions(in_order(X, columns, self.columns), self.threads)

    def settled(self, params: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**(params or {}), "rounds": self.rounds}

    def save(self, folder: Path) -> None:
        content = {"columns": self.columns, "rounds": self.rounds}
        write_text(json.dumps(content, indent=1), folder / "model.json")
        (folder / "model.ubj").write_bytes(self.content)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> GradientBoosting:
        described = read_json(folder / "model.json", ("columns", "rounds"))
        path = folder / "model.ubj"
        try:
            return cls(described["columns"], path.read_bytes(), threads)
        except (OSError, ReleaseError) as error:
            raise ReleaseError(f"{path} can't be scored with: {error}") from None


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

"""Fitting one model in time: choose on train and validation, then fit on all that was known.

Here: the phases (the last one for what is shipped) and the files they leave behind. Not here: the windows (``splits``), the models
(``models``), calibration (``calibration``), or what a column means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.errors import TrainingError
from switchyard.lake import write_text
from switchyard.learning import Bools, Floats, Ints, Verdicts
from switchyard.learning.calibration import Calibration, fit_calibration
from switchyard.learning.models import MODELS, Model
from switchyard.learning.splits import Shipping, Split, Window
from switchyard.learning.thresholds import Thresholds, choose_thresholds

LEAST_FRAUDS = 10
"""Fewer known frauds than this in a window teach nothing."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows.

    X float64 [n, k]; y int8 (1 fraud, 0 genuine, -1 not known); event and label times int64 microseconds
    since 1970; ``entity`` the integer that a bootstrap resamples by (the customer).
    """

    X: Floats
    y: Verdicts
    event_us: Ints
    label_us: Ints
    entity: Ints

    def take(self, mask: Bools) -> Rows:
        """The rows that ``mask`` selects."""
        return Rows(
            self.X[mask], self.y[mask], self.event_us[mask], self.label_us[mask], self.entity[mask]
        )

    def labelled(self) -> tuple[Floats, Floats]:
        """X and y as a model takes them."""
        return self.X, self.y.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model with its calibration, thresholds and the record of how it came about."""

    model: Model
    calibration: Calibration
    thresholds: Thresholds
    record: Mapping[str, Any]

    def score(self, X: Floats) -> Floats:
        """Calibrated probabilities float64 [n]."""
        return self.calibration.score(self.model.margin(X))

    def save(self, folder: Path) -> None:
        """Write the model's files, then ``fitted.json``, which says that they are whole."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fitted.json").unlink(missing_ok=True)
        self.model.save(folder)
        content = {
            "kind": self.model.name,
            "calibration": asdict(self.calibration),
            "thresholds": asdict(self.thresholds),
            "record": dict(self.record),
        }
        write_text(json.dumps(content, indent=1), folder / "fitted.json")

    @classmethod
    def load(cls, folder: Path) -> Fitted:
        """Read what ``save`` wrote. Raises TrainingError if no whole model is there."""
        path = folder / "fitted.json"
        if not path.exists():
            raise TrainingError(f"no whole model is in {folder}; materialize '{folder.name}' first")
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            model=MODELS[content["kind"]].load(folder, threads=2),
            calibration=Calibration(**content["calibration"]),
            thresholds=Thresholds(**content["thresholds"]),
            record=content["record"],
        )


def fit(
    kind: type[Model],
    rows: Rows,
    split: Split,
    *,
    columns: Sequence[str],
    seed: int,
    review_share: float,
    block_precision: float,
    params: Mapping[str, Any] | None = None,
) -> Fitted:
    """Choose rounds, calibration and thresholds on train and validation, then fit on ``split.refit``.

    Only labels known by each window's ``known_by`` are used. Raises TrainingError if a window holds
    fewer than LEAST_FRAUDS known frauds, or no genuine transaction.
    """
    train = _known(rows, split.train, "train")
    validation = _known(rows, split.validation, "validation")
    refit = _known(rows, split.refit, "refit")
    chosen = kind.train(
        *train.labelled(),
        columns=columns,
        params=params,
        seed=seed,
        validation=validation.labelled(),
    )
    calibration, thresholds = _measured(chosen, validation, review_share, block_precision)
    settled = chosen.settled(params)
    model = kind.train(*refit.labelled(), columns=columns, params=settled, seed=seed)
    record = {
        "seed": seed,
        "params": settled,
        "split": split.record(),
        "rows": {"train": len(train.y), "validation": len(validation.y), "refit": len(refit.y)},
        "frauds": {
            "train": int(train.y.sum()),
            "validation": int(validation.y.sum()),
            "refit": int(refit.y.sum()),
        },
    }
    return Fitted(model, calibration, thresholds, record)


def fit_again(
    assessed: Fitted,
    rows: Rows,
    split: Split,
    shipping: Shipping,
    *,
    columns: Sequence[str],
    review_share: float,
    block_precision: float,
) -> Fitted:
    """What is shipped once ``assessed`` has passed its gates: the same rounds, fitted on ``shipping.learn``.

    Calibration and thresholds are chosen anew with the assessed model on the test window, which it has not
    learned from. Raises TrainingError as ``fit`` does.
    """
    test, learn = _known(rows, split.test, "test"), _known(rows, shipping.learn, "learn")
    calibration, thresholds = _measured(assessed.model, test, review_share, block_precision)
    seed, params = assessed.record["seed"], assessed.record["params"]
    model = type(assessed.model).train(*learn.labelled(), columns=columns, params=params, seed=seed)
    record = dict(assessed.record) | {
        "shipped": shipping.record() | {"rows": len(learn.y), "frauds": int(learn.y.sum())}
    }
    return Fitted(model, calibration, thresholds, record)


def _measured(
    model: Model, rows: Rows, review_share: float, block_precision: float
) -> tuple[Calibration, Thresholds]:
    """Both chosen on labelled rows that ``model`` has not learned from."""
    margins = model.margin(rows.X)
    calibration = fit_calibration(margins, rows.y)
    thresholds = choose_thresholds(
        calibration.score(margins),
        rows.y,
        review_share=review_share,
        block_precision=block_precision,
    )
    return calibration, thresholds


def _known(rows: Rows, window: Window, name: str) -> Rows:
    """Rows of the window, called ``name``, whose label was known in time."""
    known = rows.take(window.rows(rows.event_us, rows.label_us) & (rows.y >= 0))
    frauds = int(known.y.sum())
    if frauds < LEAST_FRAUDS or frauds == len(known.y):
        raise TrainingError(
            f"the {name} window {window.start:%Y-%m-%d} to {window.end:%Y-%m-%d} holds {len(known.y)} "
            f"known verdicts, {frauds} of them fraud; at least {LEAST_FRAUDS} frauds beside genuine "
            f"transactions are needed, so give it more days"
        )
    return known

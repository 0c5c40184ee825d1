"""The laws that every model passes. A new kind in MODELS is under them by being there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from switchyard.errors import InputError, ReleaseError, TrainingError
from switchyard.learning.calibration import fit_calibration
from switchyard.learning.models import MODELS, Model

PARAMS: dict[str, dict[str, Any]] = {"gradient_boosting": {"rounds": 25, "nthread": 1}}
Make = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module", params=sorted(MODELS))
def kind(request: pytest.FixtureRequest) -> type[Model]:
    return MODELS[request.param]


def train(
    kind: type[Model], X: np.ndarray, y: np.ndarray, columns: list[str], **given: Any
) -> Model:
    return kind.train(X, y, columns=columns, params=PARAMS.get(kind.name), **{"seed": 3} | given)


@pytest.fixture(scope="module")
def model(kind: type[Model], make_rows: Make, columns: list[str]) -> Model:
    return train(kind, *make_rows(), columns)


@pytest.fixture(scope="module")
def rows(make_rows: Make) -> np.ndarray:
    return make_rows(400, seed=2)[0]


def test_it_learns_something(model: Model, make_rows: Make):
    X, y = make_rows(2_000, seed=9)

    assert model.margin(X)[y == 1].mean() > model.margin(X)[y == 0].mean() + 1


def test_neither_training_nor_scoring_changes_its_input(
    kind: type[Model], make_rows: Make, columns: list[str]
):
    X, y = make_rows(500)
    X_before, y_before = X.copy(), y.copy()

    trained = train(kind, X, y, columns, validation=(X, y))
    trained.margin(X)
    trained.contributions(X)

    assert np.array_equal(X, X_before, equal_nan=True)
    assert np.array_equal(y, y_before)


def test_the_order_of_columns_is_irrelevant(model: Model, rows: np.ndarray, columns: list[str]):
    turned = columns[::-1]

    assert np.array_equal(model.margin(rows[:, ::-1], turned), model.margin(rows))
    assert np.array_equal(model.contributions(rows[:, ::-1], turned), model.contributions(rows))


def test_an_unknown_or_missing_column_is_named(model: Model, rows: np.ndarray, columns: list[str]):
    with pytest.raises(InputError, match=r"missing \['amount'\], unknown \['postcode'\]"):
        model.margin(rows, ["postcode", *columns[1:]])
    with pytest.raises(InputError, match=r"takes \(n, 5\)"):
        model.margin(rows[:, :4])


def test_saving_and_loading_keeps_every_bit(model: Model, rows: np.ndarray, tmp_path: Path):
    model.save(tmp_path)

    loaded = type(model).load(tmp_path)

    assert loaded.columns == model.columns
    assert np.array_equal(loaded.margin(rows), model.margin(rows))
    assert np.array_equal(loaded.contributions(rows), model.contributions(rows))


def test_the_same_seed_gives_the_same_files(
    kind: type[Model], make_rows: Make, columns: list[str], tmp_path: Path
):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        train(kind, *make_rows(800), columns, validation=make_rows(300, seed=5)).save(
            tmp_path / name
        )

    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_one_row_alone_scores_as_in_a_batch(model: Model, rows: np.ndarray):
    batch = model.margin(rows)

    assert batch.dtype == np.float64
    assert all(model.margin(rows[i : i + 1])[0] == batch[i] for i in range(len(rows)))
    assert np.array_equal(model.margin(np.asfortranarray(rows)), batch)
    assert np.array_equal(model.margin(np.vstack([rows] * 5)[::-1])[::-1][: len(rows)], batch)


def test_the_number_of_threads_changes_no_bit(model: Model, rows: np.ndarray):
    alone = model.margin(rows)
    before = model.threads

    model.use_threads(2)

    assert np.array_equal(model.margin(rows), alone)
    model.use_threads(before)


def test_contributions_sum_to_the_margin(model: Model, rows: np.ndarray, columns: list[str]):
    contributions = model.contributions(rows)

    assert contributions.shape == (len(rows), len(columns) + 1)
    assert np.allclose(contributions.sum(axis=1), model.margin(rows), atol=1e-4)
    assert len(np.unique(contributions[:, -1])) == 1


def test_calibrated_scores_lie_between_0_and_1(model: Model, make_rows: Make, rows: np.ndarray):
    X, y = make_rows(1_000, seed=4)
    calibration = fit_calibration(model.margin(X), y)

    scores = calibration.score(model.margin(np.vstack([rows, rows * 1e6, -rows * 1e6])))

    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_row_of_nothing_but_missing_values_has_a_finite_margin(model: Model, columns: list[str]):
    assert np.isfinite(model.margin(np.full((1, len(columns)), np.nan))).all()


def test_no_rows_score_as_no_rows(model: Model, columns: list[str]):
    assert model.margin(np.empty((0, len(columns)))).shape == (0,)


def test_one_kind_of_verdict_teaches_nothing(
    kind: type[Model], make_rows: Make, columns: list[str]
):
    X, y = make_rows(200)

    with pytest.raises(TrainingError, match="both 0 and 1"):
        train(kind, X, np.zeros_like(y), columns)
    with pytest.raises(TrainingError, match="both 0 and 1"):
        train(kind, X, np.where(y == 1, 1, -1), columns)
    with pytest.raises(TrainingError, match="both 0 and 1"):
        train(kind, X[:0], y[:0], columns)


def test_what_cannot_be_trained_on_is_named(kind: type[Model], make_rows: Make, columns: list[str]):
    X, y = make_rows(200, amount=np.inf)

    with pytest.raises(TrainingError, match=r"\['amount'\] hold infinities"):
        train(kind, X, y, columns)
    with pytest.raises(TrainingError, match="column names"):
        train(kind, X, y, columns[:4])
    with pytest.raises(TrainingError, match="unknown training parameter"):
        kind.train(X, y, columns=columns, params={"depth": 3})


def test_files_that_are_no_such_model_are_refused(kind: type[Model], model: Model, tmp_path: Path):
    with pytest.raises(ReleaseError, match="no model file"):
        kind.load(tmp_path)
    (tmp_path / "model.json").write_text("{}")

    with pytest.raises(ReleaseError, match="lacks"):
        kind.load(tmp_path)


def test_settled_parameters_train_again(
    kind: type[Model], model: Model, make_rows: Make, columns: list[str]
):
    settled = model.settled(PARAMS.get(kind.name))

    again = kind.train(*make_rows(), columns=columns, params=settled, seed=3)

    X = make_rows(50, seed=8)[0]
    assert np.array_equal(again.margin(X), model.margin(X))

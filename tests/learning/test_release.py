"""Releases: named by their content, whole or not there, and refused when anything in them is not as made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from switchyard.errors import ReleaseError
from switchyard.learning.calibration import Calibration, sigmoid
from switchyard.learning.models import GradientBoosting, LogisticRegression, Model
from switchyard.learning.release import (
    Release,
    content_id,
    load_release,
    read_manifest,
    write_release,
)
from switchyard.learning.thresholds import Thresholds

Make = Callable[..., tuple[np.ndarray, np.ndarray]]
CODE = "c0de" * 16


@pytest.fixture(scope="module")
def models(make_rows: Make, columns: list[str]) -> tuple[Model, Model]:
    X, y = make_rows(1_500)
    boosting = GradientBoosting.train(X, y, columns=columns, params={"rounds": 10, "nthread": 1})
    return boosting, LogisticRegression.train(X, y, columns=columns)


@pytest.fixture
def make_release(
    models: tuple[Model, Model], columns: list[str], tmp_path: Path
) -> Callable[..., Release]:
    def make(folder: str = "releases", **overrides: Any) -> Release:
        content: dict[str, Any] = {
            "model": models[0],
            "calibration": Calibration(1.2, -0.3),
            "baseline": models[1],
            "baseline_calibration": Calibration(0.9, 0.1),
            "thresholds": Thresholds(0.3, 0.8),
            "feature_service": "cards_v1",
            "columns": columns,
            "code_hash": CODE,
            "training": {"seed": 7, "rows": {"train": 1_500}},
            "metrics": {"average_precision": {"value": 0.7, "low": 0.6, "high": None}},
        }
        return write_release(tmp_path / folder, **(content | overrides))

    return make


def test_a_release_read_back_scores_and_explains_to_the_bit(
    make_release: Callable[..., Release],
    models: tuple[Model, Model],
    make_rows: Make,
    columns: list[str],
):
    X = make_rows(300, seed=6)[0]
    made = make_release()

    loaded = load_release(made.folder, computes={CODE})

    assert np.array_equal(loaded.score(X), Calibration(1.2, -0.3).score(models[0].margin(X)))
    assert np.array_equal(
        loaded.fallback_score(X), Calibration(0.9, 0.1).score(models[1].margin(X))
    )
    assert np.allclose(sigmoid(loaded.explain(X).sum(axis=1)), loaded.score(X), atol=1e-5)
    assert loaded.columns == tuple(columns)
    assert loaded.feature_service == "cards_v1"
    assert loaded.thresholds == Thresholds(0.3, 0.8)
    assert loaded.manifest["engine"] == "switchyard.trees"


def test_the_id_is_32_hex_and_names_the_folder(make_release: Callable[..., Release]):
    made = make_release()

    assert len(made.id) == 32
    assert set(made.id) <= set("0123456789abcdef")
    assert made.folder.name == made.id
    assert sorted(p.name for p in made.folder.parent.iterdir()) == [made.id]


def test_the_same_content_has_the_same_id_in_another_store(make_release: Callable[..., Release]):
    assert make_release("here").id == make_release("there").id


def test_writing_the_same_release_again_touches_nothing(make_release: Callable[..., Release]):
    made = make_release()
    before = {p: p.stat().st_mtime_ns for p in made.folder.rglob("*")}

    again = make_release()

    assert again.id == made.id
    assert {p: p.stat().st_mtime_ns for p in made.folder.rglob("*")} == before


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": Thresholds(0.3, 0.81)},
        {"calibration": Calibration(1.2, -0.30000000000000004)},
        {"baseline_calibration": Calibration(0.9, 0.2)},
        {"feature_service": "cards_v2"},
        {"code_hash": "beef" * 16},
        {"training": {"seed": 8, "rows": {"train": 1_500}}},
        {"metrics": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_other_content_has_another_id(
    make_release: Callable[..., Release], change: dict[str, Any]
):
    assert make_release(**change).id != make_release().id


def test_another_model_has_another_id(
    make_release: Callable[..., Release], models: tuple[Model, Model]
):
    assert make_release(model=models[1]).id != make_release().id


@pytest.mark.parametrize("name", ["model/model.ubj", "model/model.json", "baseline/model.json"])
def test_a_damaged_file_is_named_with_both_hashes(make_release: Callable[..., Release], name: str):
    made = make_release()
    path = made.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(
        ReleaseError, match=rf"{name} is damaged: SHA-256 \w{{64}} was expected, \w{{64}} found"
    ):
        load_release(made.folder)
    with pytest.raises(ReleaseError, match="is damaged"):
        make_release()


def test_a_missing_file_is_named(make_release: Callable[..., Release]):
    made = make_release()
    (made.folder / "model/model.ubj").unlink()

    with pytest.raises(ReleaseError, match=r"model\.ubj is missing"):
        load_release(made.folder)


def test_a_manifest_changed_by_hand_is_refused(make_release: Callable[..., Release]):
    made = make_release()
    path = made.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["thresholds"]["review"] = 0.9
    path.write_text(json.dumps(manifest))

    with pytest.raises(ReleaseError, match="is damaged: its content has the id"):
        read_manifest(made.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"id"'])
def test_a_manifest_that_is_none_is_refused(make_release: Callable[..., Release], text: str):
    made = make_release()
    (made.folder / "manifest.json").write_text(text)

    with pytest.raises(ReleaseError, match="is damaged"):
        load_release(made.folder)


def test_a_folder_without_a_release_is_refused(tmp_path: Path):
    with pytest.raises(ReleaseError, match="holds no release"):
        load_release(tmp_path / "nothing")


def test_columns_of_other_code_are_refused(make_release: Callable[..., Release]):
    made = make_release()

    with pytest.raises(ReleaseError, match="can't compute them"):
        load_release(made.folder, computes={"beef" * 16})


def test_rows_of_later_code_are_judged_by_the_columns_that_the_release_knows(
    make_release: Callable[..., Release], make_rows: Make
):
    X = make_rows(50, seed=6)[0]
    wider = np.hstack([X, np.full((len(X), 2), 7.0)])
    made = make_release()

    for judge in (made.score, made.fallback_score, made.explain, made.fallback_explain):
        assert np.array_equal(judge(wider), judge(X))


def test_another_format_is_refused(make_release: Callable[..., Release]):
    made = make_release()
    path = made.folder / "manifest.json"
    manifest = json.loads(path.read_text()) | {"format": 2}
    content = {name: value for name, value in manifest.items() if name != "id"}
    path.write_text(json.dumps(content | {"id": content_id(content)}))

    with pytest.raises(ReleaseError, match="format 2; this code reads 1"):
        load_release(made.folder)


def test_models_of_other_columns_make_no_release(
    make_release: Callable[..., Release], columns: list[str]
):
    with pytest.raises(ReleaseError, match="the model takes"):
        make_release(columns=columns[::-1])


def test_nan_in_a_record_makes_no_release_and_leaves_nothing(
    make_release: Callable[..., Release], tmp_path: Path
):
    with pytest.raises(ReleaseError, match="use null"):
        make_release(metrics={"roc_auc": float("nan")})

    assert list((tmp_path / "releases").iterdir()) == []


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(
    make_release: Callable[..., Release], tmp_path: Path
):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)  # fmt: skip
    releases = tmp_path / "releases"
    living = releases / f".{os.getppid()}.part"
    for part in (releases / f".{dead.stdout.strip()}.part", living):
        part.mkdir(parents=True)
        (part / "model.ubj").write_bytes(b"half")

    made = make_release()

    assert sorted(releases.iterdir()) == sorted([living, made.folder])


def test_a_copied_release_loads_from_where_it_is(
    make_release: Callable[..., Release], tmp_path: Path
):
    made = make_release()
    copy = shutil.copytree(made.folder, tmp_path / "release")

    assert load_release(copy, computes={CODE}).id == made.id

"""What stands between data and release: each gate that fails says why, and nothing passes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from assets.fraud import registry
from assets.fraud.gates import ALL_GATES, gates_of
from orchestration import feast
from orchestration.demo import as_of_config
from orchestration.home import EXPERIMENT
from orchestration.runs import GateClosedError, RunFailedError
from switchyard.fraud.columns import FEATURE_SERVICE, FEATURES, names
from switchyard.fraud.dataset import Dataset
from switchyard.fraud.features import code_hash
from switchyard.learning.calibration import Calibration
from switchyard.learning.fitting import Fitted
from switchyard.learning.gates import PASSED
from switchyard.learning.models import GradientBoosting, LogisticRegression
from switchyard.learning.release import Release, write_release
from tests.homes import Home, in_home

TRAINING_SET = "training_set.parquet"


@pytest.fixture
def trained(home: Home, new_home: Callable[..., Home]) -> Home:
    """A home of the test's own, trained as the shared one was."""
    mine = new_home()
    for name in ("lake", "training"):
        folder = mine.settings.home / name
        shutil.rmtree(folder)
        shutil.copytree(home.settings.home / name, folder)
    return mine


def test_the_small_home_passed_every_gate(home: Home) -> None:
    said = json.loads(gates_of(home.settings).read_text())

    assert home.findings == []
    assert said == dict.fromkeys(ALL_GATES, PASSED)


# ---------------------------------------------------------------- a leak


def leak(home: Home, column: str) -> None:
    """Let a feature tell the verdict."""
    path = home.settings.training / TRAINING_SET
    data = Dataset.load(path)
    X = data.X.copy()
    X[:, names(FEATURES).index(column)] = data.is_fraud
    replace(data, X=X).save(path)


def test_a_leaky_feature_stops_the_release_and_a_later_run_does_not_publish_it_either(
    trained: Home,
) -> None:
    leak(trained, "is_night")

    result = trained.materialize("evaluation", "release")

    said = {e.check_name: e.description for e in result.get_asset_check_evaluations()}
    reason = "'is_night' alone has an AUC of 1.0000, over 0.99"
    assert not result.success
    assert said["no_feature_gives_the_verdict_away"] == reason
    with pytest.raises(RunFailedError, match=f"gives_the_verdict_away failed: {reason}"):
        trained.run("publish")
    assert list(trained.settings.releases.iterdir()) == []


def test_a_model_trained_anew_is_not_published_before_it_was_judged(trained: Home) -> None:
    trained.materialize("logistic_regression")

    with pytest.raises(RunFailedError, match="candidate_holds_its_own was not asked"):
        trained.run("publish")


# ---------------------------------------------------------------- a better champion


def crown(home: Home, release: Release) -> None:
    """Let ``release`` be the champion."""
    uri = home.settings.mlflow_tracking_uri
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(experiment_id=experiment.experiment_id):
        registry.register(mlflow, uri, release.id, release.folder)
    registry.set_alias(uri, "champion", release.id)


def make_clairvoyant(home: Home, **training: Any) -> Release:
    """A release whose trees have seen every verdict, those of the test window too."""
    data = Dataset.load(home.settings.training / TRAINING_SET)
    known = data.is_fraud >= 0
    params: dict[str, Any] = {"rounds": 60, "max_depth": 6, "nthread": 1}
    trees = GradientBoosting.train(
        data.X[known],
        data.is_fraud[known].astype(np.float64),
        columns=names(FEATURES),
        params=params,
    )
    fitted = Fitted.load(home.settings.training / LogisticRegression.name)
    return write_release(
        home.settings.releases,
        model=trees,
        calibration=Calibration(1.0, 0.0),
        baseline=fitted.model,
        baseline_calibration=fitted.calibration,
        thresholds=fitted.thresholds,
        feature_service=FEATURE_SERVICE,
        columns=names(FEATURES),
        code_hash=code_hash(),
        training=training,
        metrics={},
    )


def test_a_model_worse_than_the_champion_is_stopped_and_the_champion_stays(trained: Home) -> None:
    champion = make_clairvoyant(trained)
    crown(trained, champion)

    result = trained.materialize("evaluation", "release")

    (failed,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert failed.check_name == "candidate_holds_its_own"
    assert "against the champion's" in (failed.description or "")
    assert "the low end lies more than 0.02 below zero" in (failed.description or "")
    assert registry.release_of(trained.settings.mlflow_tracking_uri, "champion") == champion.id
    assert [folder.name for folder in trained.settings.releases.iterdir()] == [champion.id]


def test_a_champion_that_has_learned_from_the_test_window_is_no_rival(trained: Home) -> None:
    champion = make_clairvoyant(
        trained, shipped={"promise": {"end": f"{trained.after}T00:00:00+00:00"}}
    )
    crown(trained, champion)

    result = trained.materialize("evaluation")

    (holds,) = [e for e in result.get_asset_check_evaluations() if "holds" in e.check_name]
    assert holds.passed
    assert "against the baseline's" in (holds.description or "")


# ---------------------------------------------------------------- a broken feed


def test_vectors_out_of_range_stop_the_training_and_the_models_stay(trained: Home) -> None:
    for day in trained.lake.days("customer_profiles")[-5:]:
        rows = trained.lake.read("customer_profiles", day)
        place = rows.column_names.index("customer_tx_count_7d")
        negative = pc.negate(rows["customer_tx_count_7d"])
        trained.lake.write("customer_profiles", day,
                           rows.set_column(place, rows.schema.field(place), negative))  # fmt: skip
    before = (trained.settings.training / GradientBoosting.name / "fitted.json").stat()
    with in_home(trained.settings):
        feast.apply(trained.settings)

    with pytest.raises(
        GateClosedError, match=r"vectors_meet_expectations failed: .*customer_tx_count_7d"
    ):
        trained.run("train", config=as_of_config(trained.after))

    after = (trained.settings.training / GradientBoosting.name / "fitted.json").stat()
    assert after.st_mtime_ns == before.st_mtime_ns
    with pytest.raises(RunFailedError, match="vectors_meet_expectations failed"):
        trained.run("publish")


# ---------------------------------------------------------------- verdicts that are late


def test_a_test_week_whose_verdicts_are_late_stops_the_training(trained: Home) -> None:
    for day in trained.lake.days("labels")[-30:]:
        labels = trained.lake.read("labels", day)
        place = labels.column_names.index("label_available_at")
        field = labels.schema.field(place)
        never = pa.nulls(len(labels), field.type)
        trained.lake.write("labels", day, labels.set_column(place, field, never))
    with in_home(trained.settings):
        feast.apply(trained.settings)

    with pytest.raises(
        GateClosedError, match=r"test_window_has_matured failed: 0 of \d+ verdicts of the window"
    ):
        trained.run("train", config=as_of_config(trained.after))

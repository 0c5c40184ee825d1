"""Small releases of a home with all that a promotion asks of them: registered and packed. Factories only, no tests."""

from __future__ import annotations

import mlflow

from assets.fraud import registry
from bentos.fraud.build import build_bento
from orchestration.home import EXPERIMENT
from switchyard.learning.thresholds import Thresholds
from switchyard.settings import Settings
from tests.releases import make_release


def pack(settings: Settings, thresholds: Thresholds) -> str:
    """A release of its own, registered and packed."""
    release = make_release(settings.releases, thresholds=thresholds)
    build_bento(release.folder, settings.home / "bentoml")
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run():
        registry.register(mlflow, settings.mlflow_tracking_uri, release.id, release.folder)
    return release.id

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
    release = enter(settings, thresholds)
    build_bento(settings.releases / release, settings.home / "bentoml")
    return release


def enter(settings: Settings, thresholds: Thresholds) -> str:
    """A release of its own, registered, which may go on trial in a running service."""
    release = make_release(settings.releases, thresholds=thresholds)
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run():
        registry.register(mlflow, settings.mlflow_tracking_uri, release.id, release.folder)
    return release.id

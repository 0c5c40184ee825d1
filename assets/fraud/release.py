"""Stage 'release': what passed the gates becomes files with an id, a version, a Bento, a running service.

Here: the order of these steps. Not here: what a release holds (``switchyard.learning.release``), how a Bento is
built, and how all that names a champion moves as one (behind ``assets.ports.Serving``).
"""

import json
from typing import Any

import dagster as dg

from assets.fraud import registry
from assets.fraud.describe import OWNERS
from assets.fraud.evaluation import EVALUATION
from assets.fraud.gates import ALL_GATES, gates_of
from assets.fraud.training import shipped
from assets.ports import Serving
from switchyard.fraud.columns import FEATURE_SERVICE, FEATURES, names
from switchyard.fraud.features import code_hash
from switchyard.lake import write_text
from switchyard.learning.gates import refuse_unless_passed
from switchyard.learning.models import GradientBoosting, LogisticRegression
from switchyard.learning.promise import note_beside
from switchyard.learning.release import load_release, write_release
from switchyard.learning.shipment import Shipment
from switchyard.settings import Settings

GROUP = "release"
CANDIDATE = "candidate.json"
"""File of the home's training folder that names the release made last."""


def assets() -> list[dg.AssetsDefinition]:
    """The stage's assets."""

    @dg.asset(
        group_name=GROUP,
        deps=["evaluation", LogisticRegression.name, GradientBoosting.name, "training_set"],
        description="The release: model and fallback, fitted again on every label known, thresholds, calibration, "
        "promise and training record as files, named by the hash of their content and of the code that computes their columns.",
        owners=OWNERS,
        kinds={"xgboost", "json"},
    )
    def release(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        refuse_unless_passed(gates_of(settings), ALL_GATES)
        ready = shipped(settings)
        assessed = json.loads((settings.training / EVALUATION).read_text())
        made = write_release(
            settings.releases,
            model=ready.model.model,
            calibration=ready.model.calibration,
            baseline=ready.baseline.model,
            baseline_calibration=ready.baseline.calibration,
            thresholds=ready.model.thresholds,
            feature_service=FEATURE_SERVICE,
            columns=names(FEATURES),
            code_hash=code_hash(),
            training=ready.model.record,
            metrics=assessed | ready.record(),
        )
        _compare(settings, made.id, ready)
        write_text(json.dumps({"release": made.id}) + "\n", settings.training / CANDIDATE)
        return dg.MaterializeResult(
            metadata={
                "release": made.id,
                "folder": dg.MetadataValue.path(str(made.folder)),
                "review_from": made.thresholds.review,
                "block_from": made.thresholds.block,
            }
        )

    @dg.asset(
        group_name=GROUP,
        deps=["release"],
        description="The release as a version of the registered model 'fraud', alias 'challenger' unless it is champion.",
        owners=OWNERS,
        kinds={"mlflow"},
    )
    def registered_model(
        mlflow: dg.ResourceParam[Any], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult:
        release_id, uri = candidate_of(settings), settings.mlflow_tracking_uri
        version = registry.register(mlflow, uri, release_id, settings.releases / release_id)
        if registry.release_of(uri, "champion") != release_id:
            registry.set_alias(uri, "challenger", release_id)
        return dg.MaterializeResult(metadata={"version": version, "release": release_id})

    @dg.asset(
        group_name=GROUP,
        deps=["release"],
        description="The service's code and this one release, its tag being the release's id.",
        owners=OWNERS,
        kinds={"bentoml"},
    )
    def bento(
        settings: dg.ResourceParam[Settings], serving: dg.ResourceParam[Serving]
    ) -> dg.MaterializeResult:
        tag, seconds = serving.build(settings.releases / candidate_of(settings))
        return dg.MaterializeResult(metadata={"tag": tag, "seconds": seconds})

    @dg.asset(
        group_name=GROUP,
        deps=["bento", "registered_model", "online_profiles", "online_activity"],
        description="The Bento answering behind the gateway of this host; the service before it ends only "
        "once this one does. The plan and the alias 'champion' follow, or nothing changes.",
        owners=OWNERS,
        kinds={"bentoml"},
    )
    def deployment(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        serving: dg.ResourceParam[Serving],
    ) -> dg.MaterializeResult:
        moved = serving.promote(
            candidate_of(settings),
            who=f"{context.run.job_name} {context.run.run_id}",
            why="it passed the gates",
            verdict=ALL_GATES,
        )
        return dg.MaterializeResult(
            metadata={
                "url": dg.MetadataValue.url(moved.deployed.url),
                "release": moved.champion,
                "replaced": moved.replaced or "nothing",
                "seconds_until_ready": moved.seconds,
            }
        )

    return [release, registered_model, bento, deployment]


def _compare(settings: Settings, release: str, ready: Shipment) -> None:
    """Note beside the release what it blocks as a multiple of the champion's, for whoever judges its trial; its own content
    depends on no champion."""
    champion = registry.release_of(settings.mlflow_tracking_uri, "champion")
    if champion is None or champion == release:
        return
    rival = load_release(settings.releases / champion)
    if rival.manifest["code_hash"] == code_hash():
        beside = ready.blocked_beside(rival, seed=settings.seed)
        note_beside(settings.rollouts, release, champion, beside)


def candidate_of(settings: Settings) -> str:
    """Id of the release that the asset 'release' made last."""
    release_id: str = json.loads((settings.training / CANDIDATE).read_text())["release"]
    return release_id

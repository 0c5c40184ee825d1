"""Jobs: the stages of the lifecycle as verbs, and the whole of it."""

from __future__ import annotations

import dagster as dg
from dagster_mlflow import end_mlflow_on_run_finished

from orchestration.manual import manual_jobs

STAGES = {
    "ingest": ("transactions",),
    "build_features": ("features",),
    "train": ("training", "evaluation"),
    "publish": ("release",),
    "score_batch": ("batch",),
    "compact_journal": ("journal",),
}
"""Job name -> asset groups it materializes, in the order of the lifecycle."""


def jobs(executor: dg.ExecutorDefinition) -> list[object]:
    """One job per stage, ``run_lifecycle`` for all, ``sync_profiles`` for the night, and a person's own.

    Jobs that log to MLflow carry dagster-mlflow's hook, which ends their run there; a job without anything to
    log would open one.
    """
    tracked = {end_mlflow_on_run_finished}
    by_stage = [
        dg.define_asset_job(
            name,
            dg.AssetSelection.groups(*groups),
            hooks=tracked if {"training", "release"} & {*groups} else None,
            executor_def=executor,
            description=f"Materialize the asset groups {', '.join(groups)}.",
        )
        for name, groups in STAGES.items()
    ]
    landed = dg.AssetSelection.groups("transactions") | dg.AssetSelection.assets(
        "customer_profiles", "terminal_profiles", "activity_windows"
    )
    nightly = landed | dg.AssetSelection.assets("feature_registry", "online_profiles")
    return [
        *by_stage,
        *manual_jobs(executor),
        dg.define_asset_job(
            "land",
            landed,
            executor_def=executor,
            description="Land days and build their features, offline only.",
        ),
        dg.define_asset_job(
            "run_lifecycle",
            dg.AssetSelection.all(),
            hooks=tracked,
            executor_def=executor,
            description="Everything once: raw transactions to a served model and batch scores.",
        ),
        dg.define_asset_job(
            "sync_profiles",
            nightly,
            executor_def=executor,
            description="Land yesterday, build its profiles and put them online.",
        ),
        dg.define_asset_job(
            "retrain",
            dg.AssetSelection.groups("training", "evaluation", "release"),
            hooks=tracked,
            executor_def=executor,
            description="Train on everything whose label is known, pass the gates, release, deploy.",
        ),
    ]

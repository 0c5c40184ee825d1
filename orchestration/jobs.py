"""Jobs: the stages of the lifecycle as verbs, and the whole of it."""

from typing import Literal

import dagster as dg
from dagster_mlflow import end_mlflow_on_run_finished
from pydantic import Field

from assets.ports import Serving
from orchestration import monitoring, rollout, traffic
from orchestration.keeping import keeping_jobs
from orchestration.manual import manual_jobs
from switchyard.settings import Settings

STAGES = {
    "ingest": ("transactions",),
    "build_features": ("features",),
    "train": ("training", "evaluation"),
    "publish": ("release",),
    "score_batch": ("batch",),
    "compact_journal": ("journal",),
    "monitor": ("monitoring",),
}
"""Job name -> asset groups it materializes, in the order of the lifecycle."""


class Wanted(dg.Config):
    """A change of the traffic plan, as ``switchyard traffic`` and PUT /v1/traffic take it."""

    action: Literal["shadow", "canary", "promote", "rollback"]
    who: str = Field(description="Who wants it.")
    why: str = Field(description="Kept in the history.")
    release: str | None = Field(None, description="By id; without one the challenger.")
    share: float | None = Field(None, description="Of the customers, for a canary.")
    number: int | None = Field(None, description="Only if the plan has still this number.")


@dg.op(description="Change the plan; ends when every worker follows it.")
def change_of_traffic(
    context: dg.OpExecutionContext,
    config: Wanted,
    settings: dg.ResourceParam[Settings],
    serving: dg.ResourceParam[Serving],
) -> None:
    serving.recover()  # what a killed process left comes first
    done = traffic.change_traffic(settings, traffic.asked(config.model_dump()))
    serving.recover()  # aliases and record follow
    context.log.info("%s", done.as_dict())
    context.add_output_metadata({k: str(v) for k, v in done.as_dict().items()})


@dg.job(description="Put a release on trial, promote it, or roll it back, with who and why.")
def change_traffic() -> None:
    change_of_traffic()


@dg.op(description="Do what the rollout has come to, and say why.")
def step_of_rollout(
    context: dg.OpExecutionContext,
    settings: dg.ResourceParam[Settings],
    serving: dg.ResourceParam[Serving],
) -> None:
    done = rollout.step(settings, rollout.wall_clock())
    serving.recover()  # aliases and record follow
    context.log.info("%s", done.as_dict())
    context.add_output_metadata({k: str(v) for k, v in done.as_dict().items()})


@dg.job(
    description="A new release into shadow, a larger share, the champion's place, or out: as the judge says."
)
def step_rollout() -> None:
    step_of_rollout()


@dg.op(description="Compact what is closed of the journal, and measure today's level 'system'.")
def watch_of_service(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    verdict = monitoring.watch(settings).verdict
    context.log.info("%s", "; ".join(verdict.reasons))
    context.add_output_metadata({"passed": verdict.passed, "reasons": "; ".join(verdict.reasons)})


@dg.job(description="How the service does today: latency, degraded and stale shares, freshness.")
def watch_service() -> None:
    watch_of_service()


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
        *keeping_jobs(executor),
        change_traffic,
        step_rollout,
        watch_service,
        dg.define_asset_job(
            "land",
            landed,
            executor_def=executor,
            description="Land days and build their features, offline only.",
        ),
        dg.define_asset_job(
            "run_lifecycle",
            dg.AssetSelection.all() - dg.AssetSelection.groups("monitoring"),
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
            dg.AssetSelection.groups("training", "evaluation", "release")
            - dg.AssetSelection.assets("deployment"),
            hooks=tracked,
            executor_def=executor,
            description="Train on everything whose label is known, pass the gates, make the release and its "
            "Bento: the challenger, which the rollout puts on trial.",
        ),
    ]

"""Jobs that a person starts and gives a reason for, promotion and rollback, and one that finishes what a kill left.

Each is a run of Dagster's, so that who, why and what came of it stay on record. Not here: what they do
(``assets.ports.Serving``).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from assets.ports import Moved, Serving
from switchyard.settings import Settings


class Reason(dg.Config):
    """Who wants it, and why."""

    who: str = Field(min_length=1)
    why: str = Field(min_length=1)


class Promotion(Reason):
    """The release that is to decide."""

    release: str


@dg.op(
    description="Build the release's Bento if need be, and let it answer and the release decide."
)
def promote_release(
    context: dg.OpExecutionContext,
    config: Promotion,
    settings: dg.ResourceParam[Settings],
    serving: dg.ResourceParam[Serving],
) -> None:
    serving.build(settings.releases / config.release)
    moved = serving.promote(config.release, who=config.who, why=config.why)
    context.add_output_metadata(_told(moved, config))


@dg.op(description="Let the champion before decide again.")
def roll_back_release(
    context: dg.OpExecutionContext, config: Reason, serving: dg.ResourceParam[Serving]
) -> None:
    moved = serving.roll_back(who=config.who, why=config.why)
    context.add_output_metadata(_told(moved, config))


@dg.op(description="Complete or undo a promotion or rollback whose process was killed.")
def recover_promotion(context: dg.OpExecutionContext, serving: dg.ResourceParam[Serving]) -> None:
    context.log.info(serving.recover() or "there was nothing to finish")


def manual_jobs(executor: dg.ExecutorDefinition) -> list[dg.JobDefinition]:
    """'promote', 'roll_back' and 'finish_promotion'."""
    ops = {
        "promote": promote_release,
        "roll_back": roll_back_release,
        "finish_promotion": recover_promotion,
    }
    return jobs_of(ops, executor)


def jobs_of(
    ops: Mapping[str, dg.OpDefinition], executor: dg.ExecutorDefinition
) -> list[dg.JobDefinition]:
    """A job by name for each op, described as the op is."""
    return [
        dg.JobDefinition(
            name=name,
            description=op.description,
            graph_def=dg.GraphDefinition(name=name, node_defs=[op]),
            executor_def=executor,
        )
        for name, op in ops.items()
    ]


def run_promotion(settings: Settings, release_id: str, *, who: str, why: str) -> None:
    """Run 'promote' in this process. Raises RunFailedError with the reason if nothing came of it."""
    from orchestration.definitions import build_definitions
    from orchestration.runs import run_job

    config = {"promote_release": {"config": {"release": release_id, "who": who, "why": why}}}
    with dg.DagsterInstance.get() as instance:
        run_job(build_definitions(settings), "promote", instance, config={"ops": config})


def _told(moved: Moved, reason: Reason) -> dict[str, Any]:
    return {
        "release": moved.champion,
        "replaced": moved.replaced or "nothing",
        "url": dg.MetadataValue.url(moved.deployed.url),
        "seconds": moved.seconds,
        "who": reason.who,
        "why": reason.why,
    }

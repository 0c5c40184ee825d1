"""Jobs and commands that say how long things are kept: retention, and forgetting one customer.

Here: which releases must stay, and the runs that Dagster has on record, without the customer's id. Not here: what is
removed (``switchyard.fraud.retention``, ``forget``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from assets.fraud import registry
from orchestration import deployment
from orchestration.manual import jobs_of
from orchestration.traffic import history_of
from switchyard.fraud.forget import forget
from switchyard.fraud.forget_requests import Forgotten, audit, waiting
from switchyard.fraud.retention import Old, retain
from switchyard.serving.cold_store import ColdStore
from switchyard.serving.online_store import OnlineStore
from switchyard.settings import Settings

STARTABLE = timedelta(days=7)
"""How long a champion that was replaced can be started again."""


@dataclass(frozen=True)
class Progress:
    """Whom long work tells how far it is: what, how much of it, of how much."""

    advance: Callable[[str, int, int], None] = lambda _what, _done, _of: None


class Retention(dg.Config):
    """What the run may do."""

    dry_run: bool = Field(False, description="Only say what would go.")


class Forgetting(dg.Config):
    """Which request; no customer's id, since a run's configuration is kept."""

    request: str | None = Field(
        None, description="The name that `switchyard forget` gave it; without one all that wait."
    )


@dg.op(description="Remove what is older than the settings keep_*_days say.")
def remove_what_is_old(
    context: dg.OpExecutionContext, config: Retention, settings: dg.ResourceParam[Settings]
) -> None:
    gone = apply_retention(settings, datetime.now(UTC), dry_run=config.dry_run)
    for old in gone:
        context.log.info("%s", old)
    context.add_output_metadata({f"{o.place} {o.what}": o.count for o in gone})


@dg.op(
    description="Take the customers of the waiting requests out of store, journal, lake and files."
)
def forget_one_customer(
    context: dg.OpExecutionContext,
    config: Forgetting,
    settings: dg.ResourceParam[Settings],
    online_store: dg.ResourceParam[OnlineStore],
    cold_store: dg.ResourceParam[ColdStore],
    progress: dg.ResourceParam[Progress],
) -> None:
    for name in [config.request] if config.request else waiting(settings):
        now = datetime.now(UTC)
        advance = _logged(context, progress)
        done = forget(settings, name, online_store, cold_store, now=now, advance=advance)
        context.log.info("%s", done)
        context.add_output_metadata(_told(done))


def _logged(context: dg.OpExecutionContext, progress: Progress) -> Callable[[str, int, int], None]:
    """The progress, each new place in the run's log too."""
    last = ""

    def advance(what: str, done: int, of: int) -> None:
        nonlocal last
        progress.advance(what, done, of)
        if what != last:
            context.log.info("%s", what)
        last = what

    return advance


def keeping_jobs(executor: dg.ExecutorDefinition) -> list[dg.JobDefinition]:
    """'apply_retention' and 'forget_customer'."""
    ops = {"apply_retention": remove_what_is_old, "forget_customer": forget_one_customer}
    return jobs_of(ops, executor)


def apply_retention(settings: Settings, now: datetime, *, dry_run: bool = False) -> list[Old]:
    """Remove from the home what is too old, but nothing that is served, was lately, or is on trial."""
    return retain(settings, now, releases_named(settings, now), dry_run=dry_run)


def releases_named(settings: Settings, now: datetime) -> set[str]:
    """The releases of every plan that held in the last seven days, of the service that answers, and those that
    MLflow's aliases name."""
    plans = history_of(settings)
    before = [p for p in plans if p.when is None or p.when <= now - STARTABLE]
    held = [*before[-1:], *(p for p in plans if p.when is not None and p.when > now - STARTABLE)]
    named = {r for p in held for r in (p.bento, p.champion, p.previous, p.challenger)}
    if settings.mlflow_uri or (settings.home / "mlflow" / "mlflow.db").exists():
        uri = settings.mlflow_tracking_uri
        named |= {registry.release_of(uri, alias) for alias in ("champion", "challenger")}
    service = deployment.named(settings)
    return {name for name in named if name} | ({service.release} if service else set())


def run_forgetting(settings: Settings, name: str, progress: Progress) -> Forgotten:
    """Run 'forget_customer' for one request in this process; raises RunFailedError with the reason if it failed."""
    from orchestration.definitions import build_definitions
    from orchestration.runs import run_job

    config = {"forget_one_customer": {"config": {"request": name}}}
    with dg.DagsterInstance.get() as instance:
        defs = build_definitions(settings, progress=progress)
        run_job(defs, "forget_customer", instance, config={"ops": config})
    return next(done for done in reversed(audit(settings)) if done.tombstone == name)


def _told(done: Forgotten) -> dict[str, Any]:
    counts = {f"{line.place} {line.what}": line.count for line in done.removed}
    return {"request": done.tombstone, "who": done.who, "why": done.why, **counts}

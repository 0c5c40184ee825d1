"""Running Dagster jobs inside this process, with their failures told as findings or as errors.

Here: one call that runs a job over a range of days and reads what its checks said, and what to do about
runs whose process was killed.
"""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import psutil

from switchyard.errors import SwitchyardError

PROCESS_TAG = "switchyard/process"

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Dagster prints every event to stderr; here the caller shows progress itself. The UI has them all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that did not pass."""

    asset: str
    check: str
    severity: str
    description: str


class RunFailedError(SwitchyardError):
    """A step of the run raised; the message names the step and the reason."""


class GateClosedError(SwitchyardError):
    """A blocking check failed: bad data or a bad model, and what was found."""


def run_job(
    defs: dg.Definitions,
    name: str,
    instance: dg.DagsterInstance,
    *,
    days: tuple[date, date] | None = None,
    config: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
) -> list[Finding]:
    """Run job ``name`` in this process over ``days`` (both included); returns failed, unblocking checks.

    Raises GateClosedError when a blocking check failed, RunFailedError when a step raised.
    """
    told = process_tag() | (tags or {})
    if days:
        told["dagster/asset_partition_range_start"] = days[0].isoformat()
        told["dagster/asset_partition_range_end"] = days[1].isoformat()
    result = defs.resolve_job_def(name).execute_in_process(
        instance=instance,
        tags=told,
        run_config={**(config or {}), **_QUIET},
        raise_on_error=False,
    )
    findings = _failed_checks(result)
    if result.success:
        return findings
    if blocking := [f for f in findings if f.severity == "ERROR"]:
        raise GateClosedError(
            "; ".join(f"{f.asset}: {f.check} failed: {f.description}" for f in blocking)
        )
    raise RunFailedError(_reason(result))


def process_tag() -> dict[str, str]:
    """A run tag that names the process the run lives in, so that its death can be seen later."""
    me = psutil.Process()
    name = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time()}
    return {PROCESS_TAG: json.dumps(name)}


def fail_orphaned_runs(instance: dg.DagsterInstance, *, no_daemon_runs: bool) -> list[str]:
    """Mark runs 'failed' whose process is gone; returns their ids.

    A run without the process tag belongs to ``dagster dev``; it is an orphan only if the caller knows
    that none is running (``no_daemon_runs``).
    """
    open_runs = instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    )
    orphans = []
    for run in open_runs:
        tag = run.tags.get(PROCESS_TAG)
        if (tag is None and no_daemon_runs) or (tag is not None and not _lives(json.loads(tag))):
            instance.report_run_failed(run, "The process of this run was killed; run it again.")
            orphans.append(run.run_id)
    return orphans


def _lives(process: dict[str, Any]) -> bool:
    if process["host"] != socket.gethostname():
        return True
    with contextlib.suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(process["pid"]).create_time() - process["started"]) < 1
    return False


def _failed_checks(result: dg.ExecuteInProcessResult) -> list[Finding]:
    return [
        Finding(e.asset_key.to_user_string(), e.check_name, e.severity.value, e.description or "")
        for e in result.get_asset_check_evaluations()
        if not e.passed
    ]


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            cause = error.cause or error if error else None
            said = cause.message.strip() if cause else "no reason given"
            return f"step '{event.step_key}' failed: {said}"
    return "the run failed before its first step"

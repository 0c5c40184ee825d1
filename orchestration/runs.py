"""Running Dagster jobs inside this process, with their failures told as findings or as errors.

Here: one call that runs a job over a range of days and reads what its checks said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg

from orchestration.home import process_tag
from switchyard.errors import SwitchyardError

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
) -> list[Finding]:
    """Run job ``name`` in this process over ``days`` (both included); returns failed, unblocking checks.

    Raises GateClosedError when a blocking check failed, RunFailedError when a step raised.
    """
    tags = dict(process_tag())
    if days:
        tags["dagster/asset_partition_range_start"] = days[0].isoformat()
        tags["dagster/asset_partition_range_end"] = days[1].isoformat()
    result = defs.resolve_job_def(name).execute_in_process(
        instance=instance,
        tags=tags,
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

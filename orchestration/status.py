"""What is champion, how fresh every asset is, whether the parts are healthy. Reads only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from orchestration import deployment
from orchestration.home import EXPERIMENT
from switchyard.serving import valkey
from switchyard.settings import Settings

MODEL = EXPERIMENT
"""Name of the registered model."""


def champion_of(settings: Settings) -> str | None:
    """Release id that MLflow's alias ``champion`` names, or None."""
    return alias_of(settings, "champion")


def alias_of(settings: Settings, alias: str) -> str | None:
    """Release id of the model version that carries ``alias``, or None."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=settings.mlflow_tracking_uri)
    try:
        version = client.get_model_version_by_alias(MODEL, alias)
    except MlflowException:
        return None
    release: str | None = version.tags.get("release")
    return release


def status_of(settings: Settings) -> dict[str, Any]:
    """Everything ``switchyard status`` prints."""
    running = deployment.current(settings)
    return {
        "home": str(settings.home),
        "source": settings.source,
        "champion": champion_of(settings),
        "challenger": alias_of(settings, "challenger"),
        "service": _health(running.url) if running else "not running",
        "serves": f"{running.release} at {running.url}" if running else None,
        "store": "running" if valkey.running(settings.home) else "not running",
        "freshness": freshness(),
    }


def freshness() -> dict[str, str]:
    """Last materialization of every asset that Dagster knows, with its age."""
    now = datetime.now(UTC).timestamp()
    with dg.DagsterInstance.get() as instance:
        events = {
            key.to_user_string(): instance.get_latest_materialization_event(key)
            for key in sorted(instance.all_asset_keys(), key=str)
        }
    return {
        name: f"{datetime.fromtimestamp(e.timestamp, UTC):%Y-%m-%d %H:%M:%S} UTC, "
        f"{(now - e.timestamp) / 3600:.1f} h ago"
        for name, e in events.items()
        if e is not None
    }


def _health(url: str) -> str:
    import httpx

    try:
        answer = httpx.get(f"{url}/readyz", timeout=2)
    except httpx.TransportError as error:
        return f"does not answer: {error}"
    return "ready" if answer.status_code == 200 else f"not ready ({answer.status_code})"

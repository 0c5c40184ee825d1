"""What is champion, how fresh every asset is, whether the parts are healthy. Reads only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from assets.fraud.registry import release_of
from orchestration import deployment
from switchyard.serving import valkey
from switchyard.settings import Settings


def status_of(settings: Settings) -> dict[str, Any]:
    """Everything ``switchyard status`` prints."""
    running = deployment.current(settings)
    return {
        "home": str(settings.home),
        "source": settings.source,
        "champion": release_of(settings.mlflow_tracking_uri, "champion"),
        "challenger": release_of(settings.mlflow_tracking_uri, "challenger"),
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

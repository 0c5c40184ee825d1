"""What is champion, how fresh every asset is, whether the parts are healthy. Reads only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from assets.fraud.registry import release_of
from orchestration import deployment
from orchestration.gateway import Gateway, reaches_service
from orchestration.traffic import described
from switchyard.errors import StoreError
from switchyard.fraud.online import online_store_of
from switchyard.serving import valkey
from switchyard.serving.traffic import decides, mirrored
from switchyard.serving.wire import shown
from switchyard.settings import Settings


def status_of(settings: Settings) -> dict[str, Any]:
    """Everything ``switchyard status`` prints."""
    running = deployment.current(settings)
    return {
        "home": str(settings.home),
        "source": settings.source,
        "champion": release_of(settings.mlflow_tracking_uri, "champion"),
        "challenger": release_of(settings.mlflow_tracking_uri, "challenger"),
        "previous": release_of(settings.mlflow_tracking_uri, "previous"),
        "service": reaches_service(Gateway(settings)) if running else "not running",
        "serves": f"{running.release} at {running.url}" if running else None,
        "decides": decides(settings.home, running.release) if running else None,
        "trial": _trial(settings),
        "store": store_health(settings),
        "freshness": freshness(settings),
    }


def freshness(settings: Settings) -> dict[str, str]:
    """Last materialization of every asset that Dagster knows, with its age."""
    now = datetime.now(UTC).timestamp()
    if not (settings.home / "dagster" / "dagster.yaml").exists():
        return {}
    with dg.DagsterInstance.from_config(str(settings.home / "dagster")) as instance:
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


def _trial(settings: Settings) -> str | None:
    """What the plan has on trial, as the home knows it."""
    plan = mirrored(settings.home)
    if plan is None or plan.challenger is None:
        return None
    return f"{plan.challenger} ({described(plan)['mode']})"


def store_health(settings: Settings) -> str:
    """What the configured or embedded store answers; nothing is started for it."""
    if settings.redis_url is None and not valkey.running(settings.home):
        return "not running"
    url = settings.redis_url or valkey.address_of(settings).url
    try:
        online_store_of(url).ping()
    except StoreError as error:
        return f"does not answer: {error}"
    return f"ready at {shown(url)}"

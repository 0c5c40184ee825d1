"""Resources: what an asset reads and writes through, made for one home.

Here: construction only, each part when a run first needs it. Not here: what the parts do.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg
from dagster_mlflow import mlflow_tracking

from orchestration.feast import FeastFeatureStore
from orchestration.home import EXPERIMENT, exports
from orchestration.keeping import Progress
from orchestration.promotion import LocalServing
from switchyard.fraud.online import cold_store_of, online_store_of
from switchyard.fraud.raw import Source
from switchyard.fraud.sources import source_of
from switchyard.lake import Lake
from switchyard.settings import Settings


def resources(settings: Settings, source: Source, **overrides: object) -> Mapping[str, object]:
    """Every resource by name; ``overrides`` replace single ones (tests, another target)."""

    @dg.resource(
        description="The online store in use: the embedded Valkey or the configured Redis."
    )
    def online_store(_context: dg.InitResourceContext) -> object:
        return online_store_of(exports(settings)["SWITCHYARD_REDIS_URL"])

    @dg.resource(
        description="The files as they are when a run or a tick begins, and what is future then."
    )
    def files(_context: dg.InitResourceContext) -> Source:
        return source_of(settings, now=datetime.now(UTC))

    return {
        "settings": settings,
        "lake": Lake(settings.lake),
        "source": files if settings.source == "file" else source,
        "online_store": online_store,
        "cold_store": cold_store_of(settings.cold_store_url, settings.cold_store),
        "feature_store": FeastFeatureStore(settings),
        "serving": LocalServing(settings),
        "progress": Progress(),
        "mlflow": mlflow_tracking.configured(
            {
                "experiment_name": EXPERIMENT,
                "mlflow_tracking_uri": settings.mlflow_tracking_uri,
            }
        ),
        **overrides,
    }

"""What Feast registers: two entities, their daily profiles as views, and the model's feature service.

Flat, because ``feast apply`` imports every file here by its bare name. Columns, ttl and names come from
``switchyard.fraud``; nothing is typed twice. Not here: how a profile is computed.
"""

import os
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Int64

from switchyard.errors import SettingsError
from switchyard.fraud.columns import (
    CUSTOMER_PROFILE,
    FEATURE_SERVICE,
    PROFILE_TTL_DAYS,
    TERMINAL_PROFILE,
    Column,
)

OWNER = "fraud"


def home() -> str:
    """``SWITCHYARD_HOME``; without it or the store's address Feast would write to folders named $NAME."""
    for name in ("SWITCHYARD_HOME", "SWITCHYARD_FEAST_REDIS"):
        if not os.environ.get(name):
            raise SettingsError(f'{name} is not set; run: eval "$(switchyard env)"')
    return os.environ["SWITCHYARD_HOME"]


def profile(entity: Entity, columns: tuple[Column, ...], meaning: str) -> FeatureView:
    """The view of one entity's daily profiles, with its source in the lake."""
    name = f"{entity.name}_profile"
    source = FileSource(
        name=f"{name}s",
        path=f"{home()}/lake/{name}s",
        file_format=ParquetFormat(),
        timestamp_field="available_at",
        created_timestamp_column="created_at",
        description=f"One row per {entity.name} and day; Parquet, one file per day covered",
        owner=OWNER,
    )
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=timedelta(days=PROFILE_TTL_DAYS),
        schema=[
            Field(name=c.name, dtype=Int64, description=f"{c.meaning} ({c.unit})") for c in columns
        ],
        source=source,
        online=True,
        description=meaning,
        tags={"freshness": "daily", "grain": f"one row per {entity.name} and day"},
        owner=OWNER,
    )


customer = Entity(
    name="customer",
    join_keys=["customer_id"],
    value_type=ValueType.STRING,
    description="The card or account that pays",
    owner=OWNER,
)
terminal = Entity(
    name="terminal",
    join_keys=["terminal_id"],
    value_type=ValueType.STRING,
    description="The terminal or shop that is paid",
    owner=OWNER,
)
customer_profile = profile(
    customer, CUSTOMER_PROFILE, "A card's habit over whole days, as of 02:00 UTC of the day after"
)
terminal_profile = profile(
    terminal, TERMINAL_PROFILE, "A terminal's habit and verdicts over whole days, as of 02:00 UTC"
)
fraud_service = FeatureService(
    name=FEATURE_SERVICE,
    features=[customer_profile, terminal_profile],
    description="Both profiles; the model's vector is computed from them, the activity and the request",
    tags={"model": "fraud"},
    owner=OWNER,
)

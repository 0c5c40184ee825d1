"""Stage 'features': profiles and activity of the days, the Feast registry, and what is online.

The formulas are ``switchyard.fraud.windows`` and ``activity``; this module only moves them.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg

from assets.fraud.describe import OWNERS, AsOf, days_of, schema, tell_rows
from assets.ports import FeatureStore
from switchyard.fraud import activity, sync, windows
from switchyard.fraud.columns import (
    CUSTOMER_ACTIVITY,
    CUSTOMER_PROFILE,
    PROFILE_TTL_DAYS,
    TERMINAL_ACTIVITY,
    TERMINAL_PROFILE,
)
from switchyard.fraud.rebuild import refill_if_lost
from switchyard.lake import Lake
from switchyard.serving.cold_store import ColdStore
from switchyard.serving.journal import wall_clock_us
from switchyard.serving.online_store import OnlineStore
from switchyard.settings import Settings

GROUP = "features"


def assets(days: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The stage's assets; daily ones are partitioned by ``days``."""
    daily = {"partitions_def": days, "backfill_policy": dg.BackfillPolicy.single_run()}

    @dg.multi_asset(
        name="build_profiles",
        group_name=GROUP,
        specs=[
            dg.AssetSpec(
                "customer_profiles",
                deps=["transactions", "labels"],
                description="One row per card and day: integers over the 1, 7 and 30 whole days that end "
                "with that day; available at 02:00 UTC of the next.",
                owners=OWNERS,
                kinds={"parquet", "duckdb", "gold"},
                metadata=schema(CUSTOMER_PROFILE),
            ),
            dg.AssetSpec(
                "terminal_profiles",
                deps=["transactions", "labels"],
                description="One row per terminal and day, verdicts counted by the day they arrived.",
                owners=OWNERS,
                kinds={"parquet", "duckdb", "gold"},
                metadata=schema(TERMINAL_PROFILE),
            ),
        ],
        **daily,
    )
    def profiles(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> Iterator[dg.MaterializeResult]:
        run = days_of(context)
        rows = windows.build_profiles(lake, run[0], run[-1], created_at=datetime.now(UTC))
        for name, count in (
            ("customer_profiles", rows.customer),
            ("terminal_profiles", rows.terminal),
        ):
            yield dg.MaterializeResult(asset_key=name, metadata={"dagster/row_count": count})

    @dg.asset(
        group_name=GROUP,
        deps=["transactions", "labels"],
        description="One row per transaction: what lately happened to its card and its terminal, exact "
        "to the event, itself and ties outside.",
        owners=OWNERS,
        kinds={"parquet", "numba", "gold"},
        metadata=schema(CUSTOMER_ACTIVITY + TERMINAL_ACTIVITY),
        **daily,
    )
    def activity_windows(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> dg.MaterializeResult:
        run = days_of(context)
        rows = activity.build_activity(lake, run[0], run[-1])
        return dg.MaterializeResult(metadata={"dagster/row_count": rows})

    @dg.asset(
        group_name=GROUP,
        deps=["customer_profiles", "terminal_profiles"],
        description="Entities, views and the feature service, registered with Feast.",
        owners=OWNERS,
        kinds={"feast"},
    )
    def feature_registry(
        feature_store: dg.ResourceParam[FeatureStore],
    ) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"registered": feature_store.apply()})

    @dg.asset(
        group_name=GROUP,
        deps=["customer_profiles", "terminal_profiles", "feature_registry"],
        description="The newest profile of every card and terminal in the online store, in Feast's own "
        "format, and a copy in the cold store. A newer day is never replaced; a correction of the same day "
        "arrives.",
        owners=OWNERS,
        kinds={"redis", "feast"},
        **daily,
    )
    def online_profiles(
        context: dg.AssetExecutionContext,
        config: AsOf,
        lake: dg.ResourceParam[Lake],
        online_store: dg.ResourceParam[OnlineStore],
        cold_store: dg.ResourceParam[ColdStore],
        feature_store: dg.ResourceParam[FeatureStore],
    ) -> dg.MaterializeResult:
        now = config.moment(lake) if config.as_of else datetime.now(UTC)
        due = [d for d in days_of(context) if windows.available_at(d) <= now]
        newest = [d for d in due if lake.has("customer_profiles", d)][-PROFILE_TTL_DAYS:]
        rows = {day: sync.sync_profiles(lake, online_store, day, cold_store) for day in newest}
        if not newest:
            return dg.MaterializeResult(
                metadata={"dagster/row_count": 0, "not_due_before": str(now)}
            )
        for view in sync.PROFILES:
            feature_store.tell_materialized(view, _midnight(newest[0]), _midnight(newest[-1], 2))
        tell_rows(context, rows)
        return dg.MaterializeResult(metadata={"dagster/row_count": sum(rows.values())})

    @dg.asset(
        group_name=GROUP,
        deps=["transactions", "labels"],
        description="The activity of every card and terminal in the online store: loaded whole into an "
        "empty store, caught up event by event later.",
        owners=OWNERS,
        kinds={"redis"},
    )
    def online_activity(
        config: AsOf,
        lake: dg.ResourceParam[Lake],
        online_store: dg.ResourceParam[OnlineStore],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        cutoff = config.moment(lake)
        refill_if_lost(settings, online_store, wall_clock_us())
        loaded = sync.sync_activity(lake, online_store, settings, cutoff)
        return dg.MaterializeResult(
            metadata={
                "keys_loaded": loaded.keys,
                "events_caught_up": loaded.events,
                "cutoff": str(cutoff),
            }
        )

    return [profiles, activity_windows, feature_registry, online_profiles, online_activity]


def _midnight(day: date, later_days: int = 0) -> datetime:
    return datetime.combine(day + timedelta(days=later_days), time(), UTC)

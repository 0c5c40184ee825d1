"""Level 'system': how the service did on a day.

The formulas are ``switchyard.fraud.system_health``; this module only runs them.
"""

from collections.abc import Iterator

import dagster as dg

from assets.fraud.describe import OWNERS, days_of
from switchyard.fraud.system_health import measure_system
from switchyard.lake import Lake
from switchyard.serving.online_store import OnlineStore
from switchyard.settings import Settings

CHECK = "service_kept_its_limits"
_SHOWN = ("decisions", "latency_ms", "degraded_share", "stale_share", "error_share", "by_rung",
          "profile_age_hours", "profiles_through", "synced_through")  # fmt: skip


def assets(days: dg.PartitionsDefinition, group: str) -> list[dg.AssetsDefinition]:
    """The level's assets, partitioned by ``days``."""

    @dg.multi_asset(
        name="measure_system",
        group_name=group,
        specs=[
            dg.AssetSpec(
                "system_health",
                deps=["decisions", "shadows", "online_profiles"],
                description="One report per day: latency percentiles, failed models, degraded and stale shares, and "
                "how fresh each view was.",
                owners=OWNERS,
                kinds={"json"},
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset="system_health",
                description="p99, degraded, stale and failed shares and the profiles' age are within the settings.",
            )
        ],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def system_health(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
        online_store: dg.ResourceParam[OnlineStore],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        wanted = days_of(context)
        found = measure_system(settings, lake, wanted[0], wanted[-1], store=online_store)
        metadata = {
            str(r.day): {n: r.verdict.figures[n] for n in _SHOWN if n in r.verdict.figures}
            for r in found
        }
        yield dg.MaterializeResult(asset_key="system_health", metadata=metadata)
        bad = [
            f"{r.day}: {why}" for r in found if not r.verdict.passed for why in r.verdict.reasons
        ]
        yield dg.AssetCheckResult(
            asset_key="system_health",
            check_name=CHECK,
            passed=not bad,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(bad) or None,
        )

    return [system_health]

"""Level 'skew': whether what was served is what the lake and the journal give again.

The formulas are ``switchyard.fraud.skew``; this module only runs them.
"""

from collections.abc import Iterator

import dagster as dg

from assets.fraud.describe import OWNERS, days_of
from switchyard.fraud.skew import measure_skew
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReport
from switchyard.settings import Settings

CHECK = "served_vectors_equal_recomputed_ones"
_SHOWN = ("decisions", "recomputed", "differing_values", "incomplete", "stale_share", "late_share",
          "simultaneous_share", "of_another_version", "by_rung", "by_variant", "by_feature")  # fmt: skip


def assets(days: dg.PartitionsDefinition, group: str) -> list[dg.AssetsDefinition]:
    """The level's assets, partitioned by ``days``."""

    @dg.multi_asset(
        name="measure_skew",
        group_name=group,
        specs=[
            dg.AssetSpec(
                "feature_skew",
                deps=["decisions", "customer_profiles", "terminal_profiles"],
                description="The day's journalled vectors, recomputed and compared value for value; what "
                "came late of earlier days is checked with them.",
                owners=OWNERS,
                kinds={"json"},
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset="feature_skew",
                description="Every value that was served came out again to the bit, and none could not be "
                "judged.",
            )
        ],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def feature_skew(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        by_day = {
            report.day: report
            for day in days_of(context)
            for report in measure_skew(settings, lake, day)
        }
        own = {day: by_day[day].verdict.figures for day in days_of(context)}
        yield dg.MaterializeResult(
            asset_key="feature_skew",
            metadata={day.isoformat(): {n: own[day][n] for n in _SHOWN} for day in own},
        )
        yield _check([by_day[day] for day in sorted(by_day)])

    return [feature_skew]


def _check(reports: list[DayReport]) -> dg.AssetCheckResult:
    """Of all days that were looked at: their own words, those that failed first."""
    told = sorted(reports, key=lambda report: (report.verdict.passed, report.day))
    return dg.AssetCheckResult(
        asset_key="feature_skew",
        check_name=CHECK,
        passed=all(report.verdict.passed for report in reports),
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{r.day}: {why}" for r in told for why in r.verdict.reasons),
    )

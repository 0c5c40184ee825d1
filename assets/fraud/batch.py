"""Stage 'batch': a day's transactions scored from the offline path, into the lake."""

import dagster as dg

from assets.fraud import registry
from assets.fraud.describe import OWNERS, days_of, tell_rows
from switchyard.errors import ReleaseError
from switchyard.fraud.batch import score_days
from switchyard.fraud.compatible import computable
from switchyard.lake import Lake
from switchyard.learning.release import load_release
from switchyard.settings import Settings

GROUP = "batch"


def assets(days: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The stage's assets, partitioned by ``days``."""

    @dg.asset(
        group_name=GROUP,
        deps=["activity_windows", "customer_profiles", "terminal_profiles", "deployment"],
        description="One row per transaction of the day: the champion's score and decision, from the same "
        "vectors that serving computes.",
        owners=OWNERS,
        kinds={"parquet", "xgboost"},
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def batch_scores(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        champion = registry.release_of(settings.mlflow_tracking_uri, "champion")
        if champion is None:
            raise ReleaseError(
                "there is no champion to score with: run the job 'run_lifecycle' first"
            )
        release = load_release(settings.releases / champion, computes=computable(), threads=2)
        rows = score_days(lake, release, days_of(context))
        tell_rows(context, rows)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": sum(rows.values()),
                "release": champion,
                "days_without_transactions": [
                    day.isoformat() for day in days_of(context) if day not in rows
                ],
            }
        )

    return [batch_scores]

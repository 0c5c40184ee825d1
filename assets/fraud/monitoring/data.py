"""Level 'data': the day's vectors against the weeks that the champion learned from.

The formulas are ``switchyard.fraud.data_drift``; this module only runs them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from assets.fraud import registry
from assets.fraud.describe import OWNERS, days_of
from switchyard.errors import ReleaseError
from switchyard.fraud.data_drift import measure_data
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReport, DayReports
from switchyard.settings import Settings

MOVED_SHARE = 0.1
"""Features whose mean or deviation may be off by more than three sigmas at once: by chance a few are."""
NOTHING = "no day was measured: none has transactions and lies behind the champion's reference"
CHECKS = {
    "data_asks_for_no_retraining": "The drift policy has no ask standing: not many features moved for days.",
    "no_feature_moved_far": "No feature's PSI is both over the setting and beyond chance.",
    "means_and_deviations_hold": "At most a tenth of the features have a mean or a deviation off by more than "
    "three sigmas of chance.",
    "no_feature_lost_its_values": "No feature's missing share is more than 5 % (a setting) above the usual.",
    "no_category_is_new": "Countries, channels and merchant categories are among those of the reference.",
}


def assets(days: dg.PartitionsDefinition, group: str) -> list[dg.AssetsDefinition]:
    """The level's assets, partitioned by ``days``."""

    @dg.multi_asset(
        name="measure_data",
        group_name=group,
        specs=[
            dg.AssetSpec(
                "data_drift",
                deps=["decisions", "activity_windows", "customer_profiles", "terminal_profiles"],
                description="One report per day: each feature's PSI with what chance gives, mean, deviation and "
                "missing share against the champion's reference, new categories, and the drift policy's verdict.",
                owners=OWNERS,
                kinds={"evidently", "json"},
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(name, asset="data_drift", description=said)
            for name, said in CHECKS.items()
        ],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def data_drift(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        wanted = days_of(context)
        found = measure_data(settings, lake, wanted[0], wanted[-1], champion=champion_of(settings))
        yield dg.MaterializeResult(asset_key="data_drift", metadata=_metadata(settings, found))
        yield from _checks(found)

    return [data_drift]


def champion_of(settings: Settings) -> str:
    """The champion's release. Raises ReleaseError if there is none, which leaves nothing to hold a day against."""
    champion = registry.release_of(settings.mlflow_tracking_uri, "champion")
    if champion is None:
        raise ReleaseError(
            "there is no champion whose training days could be held against: run the job 'run_lifecycle' first"
        )
    return champion


def _metadata(settings: Settings, found: list[DayReport]) -> dict[str, Any]:
    """Of the newest day the page and the features that moved most; of all days the verdicts."""
    if not found:
        return {"days": 0}
    newest = found[-1]
    by_feature = newest.verdict.figures["by_feature"]
    first = sorted(by_feature, key=lambda name: -by_feature[name]["psi"])[:10]
    lines = [
        "| feature | PSI | by chance up to | Evidently's PSI | missing |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {f['psi']:.4f} | {f['limit']:.4f} | {f.get('evidently_psi', float('nan')):.4f} | "
        f"{f['missing']:.1%} |"
        for name, f in ((name, by_feature[name]) for name in first)
    ]
    page = DayReports(settings.monitoring).path("data", newest.day, ".html")
    return {
        "days": len(found),
        "verdicts": {str(r.day): "; ".join(r.verdict.reasons) for r in found},
        "moved_most": dg.MetadataValue.md("\n".join(lines)),
        "page": dg.MetadataValue.url(page.as_uri()),
    }


def _checks(found: list[DayReport]) -> Iterator[dg.AssetCheckResult]:
    wrong: dict[str, Callable[[dict[str, Any]], object]] = {
        "no_feature_moved_far": lambda f: f["alarms"],
        "means_and_deviations_hold": lambda f: (
            f["three_sigma"] if len(f["three_sigma"]) > MOVED_SHARE * f["features"] else None
        ),
        "no_feature_lost_its_values": lambda f: f["lost_values"],
        "no_category_is_new": lambda f: f["new_categories"],
    }
    asks = [f"{r.day}: {'; '.join(r.verdict.reasons)}" for r in found if not r.verdict.passed]
    well = None if found else NOTHING
    yield _check("data_asks_for_no_retraining", asks, well)
    for name, what in wrong.items():
        said = [f"{r.day}: {bad}" for r in found if (bad := what(r.verdict.figures))]
        yield _check(name, said, well)


def _check(name: str, said: list[str], well: str | None) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key="data_drift",
        check_name=name,
        passed=not said,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(said) or well,
    )

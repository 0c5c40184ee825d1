"""Level 'model': what the champion's decisions turn out to be worth, and where its scores lie.

The formulas are ``switchyard.fraud.performance``; this module only runs and shows them.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.fraud.describe import OWNERS, days_of
from switchyard.fraud.performance import MOST_PSI, measure_model
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReport
from switchyard.settings import Settings

ASSET = "model_performance"
IN_BAND = "matured_performance_is_within_its_band"
AS_PROMISED = "scores_lie_as_promised"


def assets(days: dg.PartitionsDefinition, group: str) -> list[dg.AssetsDefinition]:
    """The level's asset, partitioned by ``days``."""

    @dg.multi_asset(
        name="measure_model",
        group_name=group,
        specs=[
            dg.AssetSpec(
                ASSET,
                deps=["decisions", "labels"],
                description="One report per day: the champion's decisions of the week whose verdicts have matured "
                "(average precision, precision, catch rate, money, slices), a younger week provisionally, and where "
                "the newest week's scores lie.",
                owners=OWNERS,
                kinds={"json"},
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                IN_BAND,
                asset=ASSET,
                description="Average precision of the matured week is not below what the release reached when it "
                "was assessed, by more than chance and by more than a twentieth, for two days.",
            ),
            dg.AssetCheckSpec(
                AS_PROMISED,
                asset=ASSET,
                description="The PSI of the week's scores against the release's promise is at most 0.1.",
            ),
        ],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def model_performance(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        reports = [measure_model(settings, lake, day) for day in days_of(context)]
        newest = reports[-1]
        yield dg.MaterializeResult(asset_key=ASSET, metadata=_metadata(newest))
        yield _in_band(reports)
        yield _as_promised(newest)

    return [model_performance]


def _in_band(reports: list[DayReport]) -> dg.AssetCheckResult:
    failed = [report for report in reports if not report.verdict.passed]
    told = failed or reports[-1:]
    return dg.AssetCheckResult(
        asset_key=ASSET,
        check_name=IN_BAND,
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{r.day}: {'; '.join(r.verdict.reasons)}" for r in told),
        metadata={"days": len(reports), "days_below": len(failed)},
    )


def _as_promised(report: DayReport) -> dg.AssetCheckResult:
    psi = report.verdict.figures.get("scores", {}).get("psi")
    said = "no scores to compare" if psi is None else f"PSI {psi:.3f}, {MOST_PSI} is the limit"
    return dg.AssetCheckResult(
        asset_key=ASSET,
        check_name=AS_PROMISED,
        passed=psi is None or psi <= MOST_PSI,
        severity=dg.AssetCheckSeverity.WARN,
        description=said,
    )


def _metadata(report: DayReport) -> dict[str, Any]:
    figures = report.verdict.figures
    told: dict[str, Any] = {
        "day": str(report.day),
        "says": "; ".join(report.verdict.reasons),
        "decisions": figures["decisions"],
    }
    if "release" in figures:
        told["release"] = figures["release"]
    if "performance" in figures:
        told["average_precision"] = figures["performance"]["found"]["value"]
    young = figures.get("provisional", {})
    if young.get("told"):
        metric = young["average_precision"]
        told["provisional_average_precision"] = (
            f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"
        )
    if matured := figures.get("matured"):
        told["slices"] = dg.MetadataValue.md(_slices(matured["slices"]))
    if reasons := figures.get("reasons"):
        told["reasons"] = dg.MetadataValue.json(reasons)
    return told


def _slices(slices: dict[str, dict[str, dict[str, Any]]]) -> str:
    lines = [
        "| slice | known | frauds | precision | catch rate |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {column} {value} | {o['known']} | {o['frauds']} | {_share(o['precision_flagged'])} | "
        f"{_share(o['catch_rate'])} |"
        for column, values in slices.items()
        for value, o in values.items()
    ]
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

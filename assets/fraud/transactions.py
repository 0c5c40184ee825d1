"""Stage 'transactions': what the source holds, landed by day, validated, bad rows set aside.

A bad row is quarantined with its reason; a bad file fails its own day and no other. Both are findings
about data and appear as checks; an exception in here means broken code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pyarrow as pa

from assets.fraud.describe import OWNERS, days_of, schema, tell_rows
from switchyard.errors import SourceError
from switchyard.fraud import expectations
from switchyard.fraud.columns import LABEL, TRANSACTION
from switchyard.fraud.ingest import ingest, labels_of
from switchyard.fraud.sources import Source
from switchyard.lake import Lake
from switchyard.settings import Settings

GROUP = "transactions"
REPEAT_DAYS = 35
"""An id seen within so many days is a repeat."""


def assets(days: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The stage's assets, partitioned by ``days``."""
    daily = {"partitions_def": days, "backfill_policy": dg.BackfillPolicy.single_run()}

    @dg.multi_asset(
        name="land_transactions",
        group_name=GROUP,
        specs=[
            dg.AssetSpec(
                "raw_transactions",
                description="One row per transaction as the source gave it, with file and row; "
                "nothing parsed, nothing dropped.",
                owners=OWNERS,
                kinds={"parquet", "bronze"},
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "every_file_is_readable",
                asset="raw_transactions",
                description="Every day's file could be read as transactions.",
                blocking=True,
            )
        ],
        **daily,
    )
    def raw_transactions(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        source: dg.ResourceParam[Source],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        rows: dict[date, int] = {}
        unreadable: dict[str, str] = {}
        for day in days_of(context):
            try:
                raw = source.read(day)
            except SourceError as error:
                unreadable[day.isoformat()] = str(error)
                lake.drop("raw_transactions", day)
                continue
            lake.write("raw_transactions", day, raw.transactions)
            lake.write("raw_labels", day, raw.labels)
            rows[day] = raw.transactions.num_rows
        tell_rows(context, rows)
        yield dg.MaterializeResult(
            asset_key="raw_transactions",
            metadata={"dagster/row_count": sum(rows.values()), "unreadable": unreadable},
        )
        yield _readable(rows, unreadable)

    @dg.multi_asset(
        name="ingest_transactions",
        group_name=GROUP,
        specs=[
            dg.AssetSpec(
                "transactions",
                deps=["raw_transactions"],
                description="One row per valid transaction, sorted by event time; money as integers, "
                "time in UTC.",
                owners=OWNERS,
                kinds={"parquet", "silver"},
                metadata=schema(TRANSACTION),
            ),
            dg.AssetSpec(
                "quarantine",
                deps=["raw_transactions"],
                description="One row per transaction that was set aside, as it came, with the reason.",
                owners=OWNERS,
                kinds={"parquet"},
            ),
            dg.AssetSpec(
                "labels",
                deps=["raw_transactions"],
                description="One row per transaction's verdict, filed under the transaction's day; it "
                "does not exist before label_available_at.",
                owners=OWNERS,
                kinds={"parquet", "silver"},
                metadata=schema(LABEL),
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "transactions_meet_expectations",
                asset="transactions",
                description="The Great Expectations suite generated from the columns table holds.",
                blocking=True,
            ),
            dg.AssetCheckSpec(
                "few_rows_are_quarantined",
                asset="quarantine",
                description="At most 1 % of the rows were set aside.",
            ),
        ],
        **daily,
    )
    def transactions(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        clean, bad, reasons = _ingest_days(context, lake, settings)
        for name, rows in (("transactions", clean), ("quarantine", bad), ("labels", clean)):
            tell_rows(context, rows, asset=name)
        counts = {"dagster/row_count": sum(clean.values())}
        yield dg.MaterializeResult(asset_key="transactions", metadata=counts)
        yield dg.MaterializeResult(
            asset_key="quarantine",
            metadata={"dagster/row_count": sum(bad.values()), "reasons": reasons},
        )
        yield dg.MaterializeResult(asset_key="labels", metadata=counts)
        yield _meets_expectations(lake, sorted(clean))
        yield _few_quarantined(sum(clean.values()), sum(bad.values()), reasons)

    return [raw_transactions, transactions]


def _readable(rows: dict[date, int], unreadable: dict[str, str]) -> dg.AssetCheckResult:
    """Blocks what is downstream only if no day of the run could be read."""
    return dg.AssetCheckResult(
        asset_key="raw_transactions",
        check_name="every_file_is_readable",
        passed=not unreadable,
        severity=dg.AssetCheckSeverity.WARN if rows else dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{day}: {why}" for day, why in unreadable.items()) or None,
        metadata={"days_read": len(rows), "days_unreadable": len(unreadable)},
    )


def _ingest_days(
    context: dg.AssetExecutionContext, lake: Lake, settings: Settings
) -> tuple[dict[date, int], dict[date, int], dict[str, int]]:
    """Validate each landed day; returns clean and quarantined rows by day, and counts by reason."""
    clean: dict[date, int] = {}
    bad: dict[date, int] = {}
    reasons: dict[str, int] = {}
    for day in days_of(context):
        if not lake.has("raw_transactions", day):
            for table in ("transactions", "quarantine", "labels"):
                lake.drop(table, day)
            continue
        result = ingest(
            lake.read("raw_transactions", day),
            day,
            seen=_ids_before(lake, day),
            now=datetime.now(UTC),
            currency=settings.currency,
        )
        lake.write("transactions", day, result.clean)
        lake.write("quarantine", day, result.quarantined)
        lake.write("labels", day, labels_of(result.clean, lake.read("raw_labels", day)))
        clean[day], bad[day] = result.clean.num_rows, result.quarantined.num_rows
        for entry in result.quarantined["reason"].value_counts().to_pylist():
            reasons[entry["values"]] = reasons.get(entry["values"], 0) + entry["counts"]
    return clean, bad, reasons


def _ids_before(lake: Lake, day: date) -> pa.ChunkedArray:
    """Ids of the days before ``day`` within which an id must not come again."""
    start, end = day - timedelta(days=REPEAT_DAYS), day - timedelta(days=1)
    if not lake.paths("transactions", start, end):
        return pa.chunked_array([], type=pa.string())
    return lake.read("transactions", start, end, ["transaction_id"])["transaction_id"]


def _meets_expectations(lake: Lake, days: Sequence[date]) -> dg.AssetCheckResult:
    if not days:
        return dg.AssetCheckResult(
            asset_key="transactions",
            check_name="transactions_meet_expectations",
            passed=False,
            description="no day of this run could be ingested: raw_transactions has none of them",
        )
    results = expectations.validate(lake.read("transactions", days[0], days[-1]))
    failed = [r for r in results if not r.success]
    return dg.AssetCheckResult(
        asset_key="transactions",
        check_name="transactions_meet_expectations",
        passed=not failed,
        description="; ".join(
            f"{r.column}: {r.expectation} fails for {r.unexpected_count} rows" for r in failed
        )
        or None,
        metadata={"expectations": len(results), "failed": len(failed)},
    )


def _few_quarantined(clean: int, bad: int, reasons: dict[str, int]) -> dg.AssetCheckResult:
    share = bad / max(1, clean + bad)
    return dg.AssetCheckResult(
        asset_key="quarantine",
        check_name="few_rows_are_quarantined",
        passed=share <= 0.01,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{bad} of {clean + bad} rows were set aside",
        metadata={"share": share, "reasons": reasons},
    )

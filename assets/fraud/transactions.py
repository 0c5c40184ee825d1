"""Stage 'transactions': what the source holds, landed by day, validated, bad rows set aside.

A bad row is quarantined with its reason; a bad file fails its own day and no other. Both are findings
about data and appear as checks; an exception in here means broken code.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime

import dagster as dg

from assets.fraud.describe import OWNERS, days_of, schema, tell_rows
from switchyard.fraud import expectations
from switchyard.fraud.columns import LABEL, TRANSACTION
from switchyard.fraud.landing import REPEAT_DAYS, Landed, Validated, land_raw, validate_days
from switchyard.fraud.raw import Source
from switchyard.lake import Lake
from switchyard.settings import Settings

GROUP = "transactions"
QUARANTINE_LIMIT = 0.01
"""Share of rows set aside above which somebody should look."""


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
        landed = land_raw(source, lake, days_of(context))
        tell_rows(context, landed.rows)
        yield dg.MaterializeResult(
            asset_key="raw_transactions",
            metadata={"dagster/row_count": sum(landed.rows.values())},
        )
        yield _readable(landed)

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
        found = validate_days(
            lake, days_of(context), now=datetime.now(UTC), currency=settings.currency
        )
        for name, rows in (
            ("transactions", found.clean),
            ("quarantine", found.quarantined),
            ("labels", found.clean),
        ):
            tell_rows(context, rows, asset=name)
            yield dg.MaterializeResult(
                asset_key=name, metadata={"dagster/row_count": sum(rows.values())}
            )
        yield _meets_expectations(lake, sorted(found.clean))
        yield _few_quarantined(found)

    return [raw_transactions, transactions]


def _readable(landed: Landed) -> dg.AssetCheckResult:
    """Blocks what is downstream only if no day of the run could be read."""
    severity = dg.AssetCheckSeverity.WARN if landed.rows else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        asset_key="raw_transactions",
        check_name="every_file_is_readable",
        passed=not landed.unreadable,
        severity=severity,
        description="; ".join(f"{day}: {why}" for day, why in landed.unreadable.items()) or None,
        metadata={"days_read": len(landed.rows), "days_unreadable": len(landed.unreadable)},
    )


def _meets_expectations(lake: Lake, days: Sequence[date]) -> dg.AssetCheckResult:
    if not days:
        return dg.AssetCheckResult(
            asset_key="transactions",
            check_name="transactions_meet_expectations",
            passed=False,
            description="no day of this run is landed: materialize 'raw_transactions' for it first",
        )
    results = [
        result
        for first, last in _spans(days)
        for result in expectations.validate(lake.read("transactions", first, last))
    ]
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


def _spans(days: Sequence[date]) -> list[tuple[date, date]]:
    """First and last day of pieces within which an id is unique.

    >>> _spans([date(2026, 1, 1), date(2026, 1, 3), date(2026, 2, 5)])
    [(datetime.date(2026, 1, 1), datetime.date(2026, 1, 3)), (datetime.date(2026, 2, 5), datetime.date(2026, 2, 5))]
    """
    spans: list[tuple[date, date]] = []
    for day in days:
        if spans and (day - spans[-1][0]).days < REPEAT_DAYS:
            spans[-1] = spans[-1][0], day
        else:
            spans.append((day, day))
    return spans


def _few_quarantined(found: Validated) -> dg.AssetCheckResult:
    bad = sum(found.quarantined.values())
    rows = bad + sum(found.clean.values())
    share = bad / max(1, rows)
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.reasons.most_common())
    return dg.AssetCheckResult(
        asset_key="quarantine",
        check_name="few_rows_are_quarantined",
        passed=share <= QUARANTINE_LIMIT,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{bad} of {rows} rows were set aside{': ' + reasons if reasons else ''}",
        metadata={"share": share, "reasons": dict(found.reasons)},
    )

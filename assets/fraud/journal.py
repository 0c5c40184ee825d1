"""Stage 'journal': what the service journalled, as tables of the lake.

The formulas are ``switchyard.fraud.compaction``; this module only runs them.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pyarrow as pa

from assets.fraud.describe import OWNERS
from switchyard.fraud.compaction import SCHEMAS, compact, remove_old
from switchyard.lake import Lake
from switchyard.settings import Settings

GROUP = "journal"
_SAYS = {
    "decisions": "One row per journalled decision, by the day it was asked for: its transaction, vector as "
    "served, score, reasons and what was degraded.",
    "shadows": "One row per decision that the challenger in shadow judged as well, by the day it was asked for.",
    "served_events": "One row per transaction that was taken in without a decision, by the day it came.",
    "label_ledger": "One row per verdict that did not come with the transactions (investigators, chargeback files), by "
    "the day of its transaction; a correction is a later row.",
}


def assets() -> list[dg.AssetsDefinition]:
    """The stage's assets: all tables in one step, since a segment goes into all or none."""

    @dg.multi_asset(
        name="journal_tables",
        group_name=GROUP,
        specs=[
            dg.AssetSpec(
                name,
                deps=["deployment"],
                description=_SAYS[name],
                owners=OWNERS,
                kinds={"parquet"},
                metadata=_columns(schema),
            )
            for name, schema in SCHEMAS.items()
        ],
    )
    def journal_tables(
        lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.MaterializeResult]:
        done = compact(settings.journal, lake)
        oldest = datetime.now(UTC) - timedelta(days=settings.journal_days)
        removed = remove_old(settings.journal, oldest)
        for name, rows in done.rows.items():
            yield dg.MaterializeResult(
                asset_key=name,
                metadata={
                    "dagster/row_count": rows,
                    "segments_compacted": done.segments,
                    "segments_removed": removed,
                },
            )

    return [journal_tables]


def _columns(fields: Iterable[pa.Field]) -> dict[str, object]:
    """The table's columns with type and meaning; the transaction's and the label's are told in their own
    tables."""
    described = [
        dg.TableColumn(
            field.name,
            str(field.type),
            description=field.metadata[b"says"].decode() if field.metadata else None,
        )
        for field in fields
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=described)}

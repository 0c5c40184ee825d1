"""How the fraud assets present themselves in Dagster: owners, schemas from the column tables, pictures.

And the one run-time knob that stages share. Not here: anything that computes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg
from pydantic import Field

from switchyard.fraud.columns import Column
from switchyard.lake import Lake

OWNERS = ["team:fraud-ml"]


def schema(columns: Iterable[Column], *more: dg.TableColumn) -> dict[str, object]:
    """Definition metadata: the table's columns with type, unit and meaning."""
    described = [
        dg.TableColumn(c.name, c.type, description=f"{c.meaning} [{c.unit}]") for c in columns
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=[*more, *described])}


def picture(png: bytes, alt: str) -> dg.MetadataValue:
    """A PNG that the Dagster UI shows inline."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """The days this run covers, oldest first."""
    return sorted(date.fromisoformat(key) for key in context.partition_keys)


def tell_rows(
    context: dg.AssetExecutionContext, rows: dict[date, int], asset: str | None = None
) -> None:
    """Row counts by day, shown beside each partition."""
    for day, count in rows.items():
        context.add_asset_metadata(
            {"dagster/partition_row_count": count},
            asset_key=asset,
            partition_key=day.isoformat(),
        )


class AsOf(dg.Config):
    """The moment a run pretends it is."""

    as_of: str | None = Field(
        default=None,
        description="Day (YYYY-MM-DD) at whose midnight UTC the run stands; default: after the last day landed.",
    )

    def moment(self, lake: Lake) -> datetime:
        """Midnight UTC of ``as_of``, or of the day after the last landed one."""
        if self.as_of:
            day = date.fromisoformat(self.as_of)
        else:
            day = lake.days("transactions")[-1] + timedelta(days=1)
        return datetime.combine(day, time(), UTC)

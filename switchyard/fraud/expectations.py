"""Expectations on a table, generated from the columns table and run by Great Expectations.

Here: which expectation a column's row means, and their results as plain objects. Not here: the columns
(``columns``), what a failed expectation stops (the asset's check).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from switchyard.fraud.columns import CHANNELS, TRANSACTION, Column

UNIQUE = ("transaction_id",)
CLOSED_SETS: dict[str, tuple[str, ...]] = {"channel": CHANNELS}


@dataclass(frozen=True, slots=True)
class Expected:
    """One expectation's outcome; ``unexpected_count`` is how many rows speak against it."""

    expectation: str
    column: str
    success: bool
    observed: str
    unexpected_count: int


def suite_of(columns: Sequence[Column], name: str) -> Any:
    """Great Expectations' suite of the columns: nulls, ranges, closed sets and unique ids."""
    import great_expectations as gx

    return gx.ExpectationSuite(name=name, expectations=[e for c in columns for e in _of(c)])


def validate(table: pa.Table, columns: Sequence[Column] = TRANSACTION) -> list[Expected]:
    """Every expectation of ``columns`` on ``table`` (which may hold further columns), in their order."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read by the library at import
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    frame = table.select([c.name for c in columns]).to_pandas()
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    report = batch.validate(suite_of(columns, "columns"), result_format="BASIC")
    place = {c.name: i for i, c in enumerate(columns)}
    results = [_expected(result) for result in report.results]
    return sorted(results, key=lambda r: (place[r.column], r.expectation))


def _of(column: Column) -> list[Any]:
    from great_expectations import expectations as gxe

    found: list[Any] = []
    if not column.nullable:
        found.append(gxe.ExpectColumnValuesToNotBeNull(column=column.name))
    if column.low is not None or column.high is not None:
        found.append(
            gxe.ExpectColumnValuesToBeBetween(
                column=column.name, min_value=column.low, max_value=column.high
            )
        )
    if column.name in CLOSED_SETS:
        found.append(
            gxe.ExpectColumnValuesToBeInSet(
                column=column.name, value_set=list(CLOSED_SETS[column.name])
            )
        )
    if column.name in UNIQUE:
        found.append(gxe.ExpectColumnValuesToBeUnique(column=column.name))
    return found


def _expected(result: Any) -> Expected:
    config, outcome = result.expectation_config, result.result
    return Expected(
        expectation=config.type,
        column=config.kwargs["column"],
        success=bool(result.success),
        observed=str(outcome.get("partial_unexpected_list", ""))[:200],
        unexpected_count=int(outcome.get("unexpected_count", 0)),
    )

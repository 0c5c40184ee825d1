"""Expectations: a Great Expectations suite made from the columns table, and what a table makes of it.

Nobody writes an expectation by hand: type, null, range, set and pattern stand in ``columns``. Rows that
could be told apart as bad are quarantined before (``ingest``); a failure here means the rest is wrong too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from switchyard.fraud.columns import CHANNELS, FEATURES, TRANSACTION, Column, Type, names
from switchyard.fraud.countries import COUNTRIES
from switchyard.fraud.money import CURRENCIES

_PANDAS: dict[Type, str] = {
    "string": "str",
    "int64": "int64",
    "float64": "float64",
    "bool": "bool",
    "timestamp": "Timestamp",
}
_SETS: dict[str, list[str]] = {
    "one of CHANNELS": list(CHANNELS),
    "ISO 3166 alpha-2": sorted(COUNTRIES),
    "ISO 4217": sorted(CURRENCIES),
}
_PATTERNS = {"ISO 18245, 4 digits": r"^[0-9]{4}$"}
_UNIQUE = "transaction_id"


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """What one expectation found. ``column`` is empty for one about the whole table.

    ``observed`` says in words what was there instead (empty on success); ``unexpected_count`` is a number
    of rows, 0 where the expectation is not about single rows.
    """

    expectation: str
    column: str
    success: bool
    observed: str
    unexpected_count: int


def suite_of(columns: tuple[Column, ...], name: str = "columns") -> Any:
    """A ``great_expectations.ExpectationSuite`` of everything that ``columns`` say about a table."""
    _silence()
    import great_expectations as gx

    return gx.ExpectationSuite(name=name, expectations=list(_expectations(columns)))


def validate(table: pa.Table, columns: tuple[Column, ...] = TRANSACTION) -> list[ExpectationResult]:
    """What ``table`` makes of the suite of ``columns``, sorted by column and expectation.

    Columns that ``table`` holds besides are left alone. FEATURES are float64 all of them.
    """
    _silence()
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("table")
    definition = asset.add_batch_definition_whole_dataframe("whole")
    batch = definition.get_batch({"dataframe": _frame(table, columns)})
    found = batch.validate(suite_of(columns), result_format="BASIC")
    results = [_result(result) for result in found.results]
    return sorted(results, key=lambda r: (r.column, r.expectation))


def _silence() -> None:
    """Great Expectations reports its use over the network unless told not to before its import."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")


def _expectations(columns: tuple[Column, ...]) -> Iterator[Any]:
    from great_expectations import expectations as gxe

    yield gxe.ExpectTableColumnsToMatchSet(column_set=names(columns), exact_match=True)
    for column in columns:
        name = column.name
        kind = _PANDAS["float64" if columns == FEATURES else column.type]
        yield gxe.ExpectColumnValuesToBeOfType(column=name, type_=kind)
        if not column.nullable:
            yield gxe.ExpectColumnValuesToNotBeNull(column=name)
        if column.low is not None or column.high is not None:
            yield gxe.ExpectColumnValuesToBeBetween(
                column=name, min_value=column.low, max_value=column.high
            )
        if column.unit in _SETS:
            yield gxe.ExpectColumnValuesToBeInSet(column=name, value_set=_SETS[column.unit])
        if column.unit in _PATTERNS:
            yield gxe.ExpectColumnValuesToMatchRegex(column=name, regex=_PATTERNS[column.unit])
        if name == _UNIQUE:
            yield gxe.ExpectColumnValuesToBeUnique(column=name)


def _frame(table: pa.Table, columns: tuple[Column, ...]) -> pd.DataFrame:
    """The columns that are there, in pandas' types that have a null and are known without a look inside."""
    nullable: dict[pa.DataType, Any] = {
        pa.string(): pd.StringDtype("pyarrow"),
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    series = {}
    for name in names(columns):
        if name in table.column_names:
            column = table[name]
            plain = column.null_count == 0 and not pa.types.is_string(column.type)
            series[name] = column.to_pandas(types_mapper=None if plain else nullable.get)
    return pd.DataFrame(series)


def _result(found: Any) -> ExpectationResult:
    result = found.result or {}
    observed = "" if found.success else _observed(found, result)
    return ExpectationResult(
        expectation=found.expectation_config.type.removeprefix("expect_"),
        column=str(found.expectation_config.kwargs.get("column", "")),
        success=bool(found.success),
        observed=observed,
        unexpected_count=int(result.get("unexpected_count") or 0),
    )


def _observed(found: Any, result: dict[str, Any]) -> str:
    if found.expectation_config.type.endswith("not_be_null") and result:
        return "null"
    if examples := result.get("partial_unexpected_list"):
        return "such as " + ", ".join(map(repr, list(dict.fromkeys(map(str, examples)))[:3]))
    if "observed_value" in result:
        return str(result["observed_value"])
    return "the column is missing, or holds what can't be compared"

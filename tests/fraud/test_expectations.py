"""The suite made from the columns table: what is clean passes, each kind of flaw fails at its column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from switchyard.fraud.columns import (
    CUSTOMER_ACTIVITY,
    FEATURES,
    LABEL,
    MAX_AMOUNT_MINOR,
    TRANSACTION,
    names,
)
from switchyard.fraud.expectations import ExpectationResult, suite_of, validate
from switchyard.fraud.ingest import ingest
from switchyard.fraud.simulate import Simulator, SimulatorConfig

DAY = date(2026, 1, 5)
pytestmark = [  # great_expectations imports two modules that Python 3.11 deprecates
    pytest.mark.filterwarnings("ignore:module 'sre_constants' is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:module 'sre_parse' is deprecated:DeprecationWarning"),
]


def make_clean() -> pa.Table:
    world = Simulator(SimulatorConfig(customers=200, terminals=80, transactions_per_day=300))
    nothing = pa.array([], pa.string())
    now = datetime(2026, 1, 7, tzinfo=UTC)
    return ingest(world.day(DAY).transactions, DAY, seen=nothing, now=now, currency="EUR").clean


def changed(name: str, first: object) -> pa.Table:
    """The clean table with another value in the first row of one column."""
    table = make_clean()
    column = table[name]
    values = pa.array([first, *column[1:].to_pylist()], column.type)
    return table.set_column(
        table.column_names.index(name), pa.field(name, column.type), pa.chunked_array([values])
    )


def failures(results: list[ExpectationResult]) -> list[tuple[str, str, int]]:
    return [(r.column, r.expectation, r.unexpected_count) for r in results if not r.success]


def test_what_ingest_lets_through_meets_every_expectation() -> None:
    results = validate(make_clean())

    assert failures(results) == []
    assert {r.column for r in results} == {"", *names(TRANSACTION)}


def test_columns_that_are_null_throughout_meet_them_too() -> None:
    table = make_clean()
    for column in TRANSACTION:
        if column.nullable:
            at = table.column_names.index(column.name)
            table = table.set_column(at, column.name, pa.nulls(table.num_rows, pa.string()))

    assert failures(validate(table)) == []


@pytest.mark.parametrize(
    ("name", "value", "expectation"),
    [
        ("customer_id", None, "column_values_to_not_be_null"),
        ("transaction_id", "20260105-000001", "column_values_to_be_unique"),
        ("amount_minor", -1, "column_values_to_be_between"),
        ("amount_minor", MAX_AMOUNT_MINOR + 1, "column_values_to_be_between"),
        ("channel", "fax", "column_values_to_be_in_set"),
        ("terminal_country", "XX", "column_values_to_be_in_set"),
        ("currency", "EURO", "column_values_to_be_in_set"),
        ("merchant_category", "54a1", "column_values_to_match_regex"),
    ],
)
def test_a_flaw_fails_its_expectation_with_the_rows_counted(
    name: str, value: object, expectation: str
) -> None:
    results = validate(changed(name, value))

    rows = 2 if expectation.endswith("unique") else 1
    assert failures(results) == [(name, expectation, rows)]
    [failed] = [r for r in results if not r.success]
    assert ("null" if value is None else f"such as '{value}'") in failed.observed


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        ("amount_minor", lambda column: column.cast(pa.float64())),
        ("event_timestamp", lambda column: column.cast(pa.string())),
        ("customer_id", lambda column: pa.array(range(len(column)))),
    ],
)
def test_another_type_fails(
    name: str, convert: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> None:
    table = make_clean()
    table = table.set_column(table.column_names.index(name), name, convert(table[name]))

    assert (name, "column_values_to_be_of_type", 0) in failures(validate(table))


def test_a_missing_column_fails_and_a_further_one_is_left_alone() -> None:
    table = make_clean().drop_columns(["channel"])
    table = table.append_column("more", pa.array(np.arange(table.num_rows)))

    failed = failures(validate(table))

    assert ("", "table_columns_to_match_set", 0) in failed
    assert {column for column, _, _ in failed} == {"", "channel"}


def test_labels_and_activity_have_their_suites() -> None:
    labels = Simulator(SimulatorConfig(customers=50, transactions_per_day=60)).day(DAY).labels
    activity = pa.table(
        {
            c.name: pa.array([1, None] if c.nullable else [1, 0], pa.int64())
            for c in CUSTOMER_ACTIVITY
        }
    )

    assert failures(validate(labels, LABEL)) == []
    assert failures(validate(activity, CUSTOMER_ACTIVITY)) == []


def test_vectors_are_floats_in_their_ranges() -> None:
    vectors = pa.table({c.name: [0.5, 1.0] for c in FEATURES})
    at = names(FEATURES).index("hour")
    wrong = vectors.set_column(at, "hour", pa.array([25.0, 1.0]))
    unknown = vectors.set_column(at, "hour", pa.array([None, 1.0], pa.float64()))

    assert failures(validate(vectors, FEATURES)) == []
    assert failures(validate(wrong, FEATURES)) == [("hour", "column_values_to_be_between", 1)]
    assert failures(validate(unknown, FEATURES)) == [("hour", "column_values_to_not_be_null", 1)]


def test_the_suite_says_what_the_columns_say() -> None:
    suite = suite_of(TRANSACTION)

    said = {
        (e.expectation_type.removeprefix("expect_"), e.configuration.kwargs.get("column"))
        for e in suite.expectations
    }
    assert ("column_values_to_not_be_null", "terminal_id") in said
    assert ("column_values_to_not_be_null", "device_id") not in said
    assert ("column_values_to_be_unique", "transaction_id") in said
    assert ("column_values_to_be_in_set", "channel") in said

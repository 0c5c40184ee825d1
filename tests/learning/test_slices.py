"""Sums by slice: batches add up, a customer stays in its slice, and JSON gives the same bits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from switchyard.errors import InputError
from switchyard.learning.slices import CHALLENGER, CONTROL, NEITHER, SLICES, Slices, slice_of

N = 3_000


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    values = rng.integers(-5, 9, (N, 2)).astype(np.float64)
    return rng.integers(0, 3, N), rng.integers(0, 2**63, N, dtype=np.uint64), values


def test_batches_in_any_order_add_up_to_the_whole(rows: tuple[np.ndarray, ...]):
    arm, customer, values = rows
    whole = Slices.empty(("a", "b")).plus(arm, customer, values)

    parts = Slices.empty(("a", "b"))
    for part in (slice(1_000, None), slice(0, 1_000)):
        parts = parts.plus(arm[part], customer[part], values[part])

    assert np.array_equal(whole.values, parts.values)
    assert whole.totals.of(CONTROL, "b") == values[arm == CONTROL, 1].sum()
    assert whole.values.sum() == values[arm != NEITHER].sum()


def test_customers_spread_evenly_and_independently_of_the_last_bits():
    even = slice_of(np.arange(0, 2 * 25_600, 2, dtype=np.uint64))

    counts = np.bincount(even, minlength=SLICES)

    assert len(counts) == SLICES
    assert ((counts - 100) ** 2 / 100).sum() < 350  # chi-square with 255 degrees of freedom


def test_a_further_column_is_the_weighted_sum_of_others_and_so_are_its_products(
    rows: tuple[np.ndarray, ...],
):
    arm, customer, values = rows
    both = np.column_stack([values, 3 * values[:, 0] - values[:, 1]])
    direct = Slices.empty(("a", "b", "c")).plus(arm, customer, both).totals

    made = Slices.empty(("a", "b")).plus(arm, customer, values).totals
    made = made.with_column("c", {"a": np.array(3.0), "b": np.array(-1.0)})

    assert made.columns == direct.columns
    assert np.allclose(made.sums, direct.sums)
    assert np.allclose(made.products, direct.products)


def test_json_gives_the_same_bits(rows: tuple[np.ndarray, ...]):
    kept = Slices.empty(("a", "b")).plus(*rows[:2], rows[2] / 7)

    again = Slices.of_record(json.loads(json.dumps(kept.record())), ("a", "b"))

    assert np.array_equal(again.values, kept.values)


def test_sums_of_other_columns_are_refused_by_name():
    record = Slices.empty(("a", "b")).record()

    with pytest.raises(InputError, match=r"\['a', 'b'\].*\['a', 'c'\]"):
        Slices.of_record(record, ("a", "c"))


def test_products_are_those_of_the_slices_sums(rows: tuple[np.ndarray, ...]):
    totals = (kept := Slices.empty(("a", "b")).plus(*rows)).totals

    found = totals.product(totals.at(CHALLENGER, "a"), totals.at(CONTROL, "b"))

    assert found == pytest.approx(
        np.sum(kept.values[:, CHALLENGER, 0] * kept.values[:, CONTROL, 1])
    )

"""Drift: nothing moved gives nothing, a shift is seen, missing values count."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from switchyard.errors import InputError
from switchyard.learning.drift import APPEARED, drift_report, psi


def test_psi_is_zero_for_the_same_values_and_grows_with_the_shift():
    values = np.random.default_rng(0).normal(size=5_000)

    shifts = [psi(values, values + shift) for shift in (0.0, 0.1, 0.5, 2.0)]

    assert shifts[0] == 0.0
    assert shifts == sorted(shifts)
    assert shifts[1] < 0.1 < 0.2 < shifts[2]


def test_psi_equals_its_formula_on_two_bins():
    reference, current = np.array([0.0] * 50 + [1.0] * 50), np.array([0.0] * 20 + [1.0] * 80)

    assert psi(reference, current, bins=2) == pytest.approx(
        (0.2 - 0.5) * np.log(0.2 / 0.5) + (0.8 - 0.5) * np.log(0.8 / 0.5)
    )


def test_missing_values_are_a_bin_of_their_own():
    full = np.arange(1_000.0)
    half = np.where(full % 2 == 0, np.nan, full)

    assert psi(full, half) > 1
    assert psi(half, half) == 0.0
    assert psi(np.full(10, np.nan), np.ones(10)) == pytest.approx(APPEARED)


def test_a_rare_value_has_a_bin_of_its_own():
    seldom, often = np.zeros(1_000), np.zeros(1_000)
    seldom[:20], often[:200] = 1.0, 1.0

    assert psi(seldom, often) > 0.3
    assert psi(1 - seldom, 1 - often) == pytest.approx(psi(seldom, often))


def test_psi_of_an_empty_window_is_refused():
    with pytest.raises(InputError, match="0 and 3"):
        psi(np.array([]), np.ones(3))


def test_psi_changes_neither_window():
    reference, current = np.array([3.0, 1.0, np.nan]), np.array([2.0, np.nan, 0.0])
    before = reference.copy(), current.copy()

    psi(reference, current)

    assert np.array_equal(reference, before[0], equal_nan=True)
    assert np.array_equal(current, before[1], equal_nan=True)


# Evidently imports, through its own server, what litestar and numpy have deprecated.
@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning:evidently.legacy")
@pytest.mark.filterwarnings("ignore:Use of deprecated class 'DependencyKwarg':DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Call to deprecated function 'Dependency':DeprecationWarning")
def test_evidently_reports_the_column_that_moved_and_takes_empty_ones():
    rng = np.random.default_rng(0)
    reference = pd.DataFrame({"still": rng.normal(size=800), "moved": rng.normal(size=800)})
    reference = reference.assign(gone=np.nan, appeared=np.nan)
    current = pd.DataFrame({"still": rng.normal(size=600), "moved": rng.normal(2, 1, 600)})
    current = current.assign(gone=np.nan, appeared=1.0)

    report = drift_report(reference, current, list(reference.columns), max_rows=500)

    assert list(report.values) == ["still", "moved", "gone", "appeared"]
    assert report.values["still"] < 0.2 < 1 < report.values["moved"]
    assert report.values["gone"] == 0.0
    assert report.values["appeared"] == APPEARED
    assert "moved" in report.html
    assert report.html.lstrip().startswith("<")


@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning:evidently.legacy")
@pytest.mark.filterwarnings("ignore:Use of deprecated class 'DependencyKwarg':DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Call to deprecated function 'Dependency':DeprecationWarning")
def test_the_values_are_those_of_evidentlys_own_report():
    from evidently import Report
    from evidently.metrics import ValueDrift

    rng = np.random.default_rng(0)
    columns = [f"c{i}" for i in range(15)]
    reference = pd.DataFrame({c: rng.normal(size=400) for c in columns})
    current = pd.DataFrame({c: rng.normal(i / 9, 1, 300) for i, c in enumerate(columns)})
    current.iloc[::7, 3] = np.nan

    report = drift_report(reference, current, columns)

    whole = Report([ValueDrift(column=c, method="psi") for c in columns]).run(current, reference)
    said = {m["config"]["column"]: float(m["value"]) for m in whole.dict()["metrics"]}
    assert report.values == said
    assert "c14" in report.html


def test_a_report_on_an_empty_window_is_refused():
    rows = pd.DataFrame({"a": [1.0]})

    with pytest.raises(InputError, match="1 and 0"):
        drift_report(rows, rows[:0], ["a"])

"""A day's report comes back as it was saved, and a broken one says so."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from switchyard.errors import InputError
from switchyard.learning.day_reports import DayReport, DayReports
from switchyard.learning.policy import Verdict

DAY = date(2026, 3, 1)


def test_the_newest_report_is_that_of_the_latest_day(tmp_path: Path) -> None:
    reports = DayReports(tmp_path)
    moved = DayReport("data", DAY, Verdict(False, ("'hour' moved",), {"psi": {"hour": 0.4}}))
    reports.save(moved)
    reports.save(DayReport("data", date(2026, 2, 28), Verdict(True, (), {})))

    assert reports.newest("data") == moved
    assert reports.newest("model") is None


def test_a_file_that_is_no_report_is_named(tmp_path: Path) -> None:
    reports = DayReports(tmp_path)
    path = reports.path("skew", DAY)
    path.parent.mkdir()
    path.write_text("{}")

    with pytest.raises(InputError, match=r"2026-03-01\.json is no report"):
        reports.load("skew", DAY)


def test_a_figure_that_is_not_finite_is_refused_and_the_report_before_it_stays(
    tmp_path: Path,
) -> None:
    reports = DayReports(tmp_path)
    good = DayReport("model", DAY, Verdict(True, (), {"psi": 0.1}))
    reports.save(good)

    with pytest.raises(InputError, match="of the level 'model' is not written"):
        reports.save(DayReport("model", DAY, Verdict(True, (), {"psi": float("nan")})))

    assert reports.load("model", DAY) == good

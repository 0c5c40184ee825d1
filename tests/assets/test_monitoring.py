"""Monitoring as assets and as a command: the same reports, from a home whose champion serves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from assets.fraud.monitoring import data, system
from orchestration.monitoring import LEVELS, monitor, watch
from switchyard.learning.day_reports import DayReports
from tests.homes import Home, in_home


@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning:evidently.legacy")
@pytest.mark.filterwarnings("ignore:Use of deprecated class 'DependencyKwarg':DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Call to deprecated function 'Dependency':DeprecationWarning")
def test_a_days_assets_save_reports_link_their_page_and_check_them(served_home: Home) -> None:
    home = served_home

    result = home.materialize("data_drift", "system_health", days=[home.after])

    assert result.success
    reports = DayReports(home.settings.monitoring)
    saved = reports.load("data", home.after)
    assert saved is not None
    assert saved.verdict.figures["rows"] > 100
    assert reports.load("system", home.after) is not None
    evaluated = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert set(evaluated) == {*data.CHECKS, system.CHECK}
    assert evaluated["data_asks_for_no_retraining"].passed
    assert evaluated["no_category_is_new"].passed
    assert {e.severity for e in evaluated.values()} == {dg.AssetCheckSeverity.WARN}
    page = reports.path("data", home.after, ".html")
    metadata = result.asset_materializations_for_node("measure_data")[0].metadata
    assert metadata["page"].value == page.as_uri()
    assert "<html" in page.read_text()


def test_checks_that_had_no_day_to_look_at_say_so(served_home: Home) -> None:
    learned = served_home.after - timedelta(days=8)

    result = served_home.materialize("data_drift", days=[learned])

    said = {e.description for e in result.get_asset_check_evaluations()}
    assert said == {
        "no day was measured: none has transactions and lies behind the champion's reference"
    }


def test_the_command_says_the_same_and_a_page_of_the_day_links_the_levels(
    served_home: Home,
) -> None:
    home = served_home
    reports = DayReports(home.settings.monitoring)

    with in_home(home.settings):
        done = monitor(home.settings, [*LEVELS], None, None)

    assert [(r.day, r.level) for r in done.reports] == [
        (home.after, level) for level in sorted(LEVELS)
    ]
    assert reports.load("data", home.after) == done.reports[0]
    assert done.page is not None
    text = done.page.read_text()
    assert f"data/{home.after}.html" in text
    assert "nothing was decided on this day" in text or "decisions, p99" in text


def test_the_lifecycle_judges_none_of_the_days_it_learns_from(home: Home) -> None:
    def assets_of(job: str) -> set[str]:
        keys = home.defs.resolve_job_def(job).asset_layer.executable_asset_keys
        return {key.to_user_string() for key in keys}

    assert {"data_drift", "system_health"} <= assets_of("monitor")
    assert assets_of("run_lifecycle").isdisjoint(assets_of("monitor"))


def test_the_watch_of_today_needs_no_champion_and_no_decision(
    new_home: Callable[..., Home],
) -> None:
    settings = new_home().settings

    with in_home(settings):
        report = watch(settings)

    assert (report.level, report.day) == ("system", datetime.now(UTC).date())
    assert report.verdict.passed
    assert set(report.verdict.figures["synced_through"]) == {"customer_profile", "terminal_profile"}

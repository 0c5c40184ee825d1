"""When to train anew: each trigger starts for its own reason, and says in words why it does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from switchyard.learning.day_reports import DayReport, Level
from switchyard.learning.policy import Verdict
from switchyard.learning.retraining import RetrainingPolicy, Situation, Trial, Trigger

DAY = date(2026, 3, 18)
NOW = datetime(2026, 3, 19, 6, tzinfo=UTC)
POLICY = RetrainingPolicy(rest_days=3, least_labels=1_000, least_frauds=50)
OLD = Trial("an old one", NOW - timedelta(days=9))


def report(passed: bool = False, level: Level = "data", **figures: Any) -> DayReport:
    return DayReport(level, DAY, Verdict(passed, ("5 of 50 features moved",), figures))


def situation(**overrides: Any) -> Situation:
    """The newest training is ten days old, nothing is under way, and the data moved."""
    told = {"now": NOW, "trained": NOW - timedelta(days=10), "report": report(), "began": DAY,
            "new_frauds": 60}  # fmt: skip
    return Situation(**(told | overrides))


def test_drift_with_enough_frauds_known_of_the_new_days_starts_one_and_names_what_it_answers():
    found = POLICY.judge("drift", situation())

    assert found.start
    assert found.because == "report of 2026-03-18: 5 of 50 features moved"
    assert found.ask == "2026-03-18"


def test_drift_waits_until_there_is_something_to_learn():
    found = POLICY.judge("drift", situation(new_frauds=49))

    assert not found.start
    assert "49 of 50 frauds are known of the days since 2026-03-18, too few" in found.because


def test_matured_performance_has_its_labels_already():
    assert POLICY.judge("performance", situation(new_frauds=0)).start


def test_what_still_stands_is_asked_for_once():
    standing = situation(report=report(asked_on="2026-03-12"))

    first = POLICY.judge("drift", standing)
    again = POLICY.judge("drift", replace(standing, answered=first.ask))

    assert (first.start, first.ask) == (True, "2026-03-12")
    assert not again.start
    assert again.because.endswith("a training was started for it (2026-03-12)")


@pytest.mark.parametrize("trigger", ["drift", "performance"])
def test_without_a_report_or_with_a_good_one_nothing_starts(trigger: Trigger):
    none = POLICY.judge(trigger, situation(report=None))
    good = POLICY.judge(trigger, situation(report=report(passed=True)))

    assert (none.start, none.because) == (False, "there is no report yet")
    assert (good.start, good.because) == (False, "report of 2026-03-18: 5 of 50 features moved")


def test_what_goes_on_failing_asks_again_after_two_weeks():
    asks = [
        POLICY.judge("performance", situation(began=DAY - timedelta(days=days))).ask
        for days in (0, 5, 13, 14, 20)
    ]

    assert asks == ["2026-03-18", "2026-03-13", "2026-03-05", "2026-03-18", "2026-03-12"]


def test_a_release_that_was_trained_since_it_began_goes_on_with_its_trial():
    began = DAY - timedelta(days=6)

    found = POLICY.judge(
        "performance", situation(began=began, trial=Trial("a newer one", NOW - timedelta(days=4)))
    )

    asked_for = POLICY.judge("performance", situation(trial=replace(OLD, answers=True)))

    assert not found.start
    assert found.because.endswith("is on trial")
    assert not asked_for.start


def test_new_labels_start_one_past_their_count():
    few = POLICY.judge("labels", situation(new_labels=999))

    assert not few.start
    assert few.because == "999 verdicts became known since the newest training, of 1,000"
    assert POLICY.judge("labels", situation(new_labels=1_000)).start


@pytest.mark.parametrize("trigger", ["drift", "performance", "labels", "schedule"])
def test_no_trigger_is_answered_twice_for_the_same(trigger: Trigger):
    full = situation(new_labels=5_000)
    first = POLICY.judge(trigger, full)

    again = POLICY.judge(trigger, replace(full, answered=first.ask))

    assert first.start
    assert "a training was started for it" in again.because
    assert not again.start


@pytest.mark.parametrize("trigger", ["drift", "performance", "labels", "schedule"])
def test_nobody_starts_one_beside_another_or_soon_after_one(trigger: Trigger):
    full = situation(new_labels=5_000)
    busy = POLICY.judge(trigger, replace(full, under_way="run 7 of 'retrain' has not ended"))
    soon = POLICY.judge(trigger, replace(full, trained=NOW - timedelta(days=2)))

    assert POLICY.judge(trigger, full).start
    assert not busy.start
    assert busy.because.endswith("; but run 7 of 'retrain' has not ended")
    assert not soon.start
    assert "the newest training is as of 2026-03-17, less than" in soon.because


def test_the_schedule_waits_for_a_week_where_drift_waits_for_three_days():
    earlier = situation(trained=NOW - timedelta(days=4))

    assert POLICY.judge("drift", earlier).start
    assert "less than 7 days ago" in POLICY.judge("schedule", earlier).because


@pytest.mark.parametrize("trigger", ["labels", "schedule"])
def test_while_a_release_is_on_trial_the_others_wait(trigger: Trigger):
    found = POLICY.judge(trigger, situation(new_labels=5_000, trial=OLD))

    assert not found.start
    assert "release an old one, trained as of 2026-03-10, is on trial" in found.because


@pytest.mark.parametrize("trigger", ["drift", "performance"])
def test_a_release_on_trial_that_knows_nothing_of_the_change_is_replaced(trigger: Trigger):
    newer = Trial("a newer one", NOW)

    old = POLICY.judge(trigger, situation(trial=OLD))
    knows = POLICY.judge(trigger, situation(trial=newer))

    assert (old.start, old.instead_of) == (True, "an old one")
    assert "knows nothing of it" in old.because
    assert not knows.start


def test_a_home_that_has_never_trained_is_not_held_back_by_rest():
    assert POLICY.judge("schedule", situation(trained=None)).start

"""Splits: windows never overlap, and a label that was not known in time is never in one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import TrainingError
from switchyard.learning.splits import (
    NEVER_KNOWN,
    Split,
    Window,
    backtest_split,
    lifecycle_split,
    microseconds,
)

START = datetime(2018, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAY_US = 86_400_000_000


def make_split(**overrides: int) -> Split:
    given = {"days": 60, "label_delay_days": 7, "test_days": 7} | overrides
    return lifecycle_split(
        START, START + given["days"] * DAY, given["label_delay_days"], given["test_days"]
    )


def hourly(days: int, delay_days: float) -> tuple[np.ndarray, np.ndarray]:
    """Event times, one an hour from START, and label times ``delay_days`` later."""
    events = microseconds(START) + np.arange(days * 24, dtype=np.int64) * 3_600_000_000
    return events, events + int(delay_days * DAY_US)


def test_a_lifecycle_split_is_train_gap_validation_test_in_time_order():
    split = make_split(days=60)

    assert split.test == Window(START + 46 * DAY, START + 53 * DAY, known_by=START + 60 * DAY)
    assert (split.validation.start, split.validation.end) == (START + 39 * DAY, START + 46 * DAY)
    assert (split.train.start, split.train.end) == (START, START + 32 * DAY)
    assert split.delay_gap == 7 * DAY


@given(
    days=st.integers(1, 120),
    delay=st.integers(0, 10),
    test_days=st.integers(1, 10),
    label_delay=st.floats(0, 40),
)
def test_windows_never_overlap_and_honour_label_time(
    days: int, delay: int, test_days: int, label_delay: float
):
    events, labels = hourly(days, label_delay)
    try:
        split = make_split(days=days, label_delay_days=delay, test_days=test_days)
    except TrainingError:
        assert days <= 2 * delay + 2 * test_days
        return

    chosen = [w.rows(events, labels) for w in (split.train, split.validation, split.test)]

    assert np.sum(chosen, axis=0).max(initial=0) <= 1
    assert (labels[chosen[0]] < microseconds(split.validation.start)).all()
    refit = split.refit.rows(events, labels)
    assert (labels[refit] < microseconds(split.test.start)).all()
    assert not (refit & split.test.events(events)).any()
    assert (refit | ~chosen[0]).all(), "what was trained on is in the refit too"


def test_a_label_known_exactly_at_the_moment_is_not_yet_known():
    window = Window(START, START + DAY, known_by=START + 8 * DAY)
    event = np.array([microseconds(START)] * 3)
    label = microseconds(START + 8 * DAY) + np.array([-1, 0, 1])

    assert window.rows(event, label).tolist() == [True, False, False]


def test_a_row_without_a_label_is_in_no_window_of_known_rows():
    window = Window(START, START + DAY, known_by=START + 99 * DAY)
    event = np.array([microseconds(START)])

    assert window.events(event).tolist() == [True]
    assert window.rows(event, np.array([NEVER_KNOWN])).tolist() == [False]


def test_the_handbooks_backtest_week_trains_on_its_own_week():
    split = backtest_split(datetime(2018, 7, 25, tzinfo=UTC), 7, 7, 7, data_start=START)

    assert split.test.start == datetime(2018, 8, 8, tzinfo=UTC)
    assert split.refit == Window(
        datetime(2018, 7, 25, tzinfo=UTC), datetime(2018, 8, 1, tzinfo=UTC), split.test.start
    )
    assert split.validation.start == datetime(2018, 7, 30, tzinfo=UTC)
    assert split.delay_gap == timedelta(0)


def test_a_long_history_puts_a_gap_before_the_last_training_week():
    train_start = datetime(2018, 7, 25, tzinfo=UTC)

    split = backtest_split(train_start, 7, 7, 7, 0, data_start=START)

    assert split.refit.start == START
    assert (split.validation.start, split.validation.end) == (train_start, train_start + 7 * DAY)
    assert split.delay_gap == 7 * DAY
    assert split.train.known_by == split.validation.start


@pytest.mark.parametrize(
    ("history", "days"), [(None, 7), (7, 7), (14, 14), (30, 30), (9999, 122), (0, 122)]
)
def test_history_days_end_with_the_training_week(history: int | None, days: int):
    split = backtest_split(datetime(2018, 7, 25, tzinfo=UTC), 7, 7, 7, history, data_start=START)

    assert split.refit.end == datetime(2018, 8, 1, tzinfo=UTC)
    assert split.refit.end - split.refit.start == days * DAY


@pytest.mark.parametrize("history", [None, 0, 14])
def test_no_row_of_the_delay_week_is_ever_trained_on(history: int | None):
    events, labels = hourly(136, 0)
    split = backtest_split(datetime(2018, 7, 25, tzinfo=UTC), 7, 7, 7, history, data_start=START)
    gap = Window(split.refit.end, split.test.start, split.test.start).events(events)

    for window in (split.train, split.validation, split.refit):
        assert not (window.rows(events, labels) & gap).any()


def test_too_little_history_is_refused_with_what_is_needed():
    with pytest.raises(TrainingError, match="28 days"):
        make_split(days=28)
    with pytest.raises(TrainingError, match="history"):
        backtest_split(START, 2, 7, 7, data_start=START)


def test_windows_out_of_order_are_refused():
    split = make_split()

    with pytest.raises(TrainingError, match="in this order"):
        replace(split, train=split.test)
    with pytest.raises(TrainingError, match="knows more"):
        replace(split, refit=replace(split.refit, known_by=split.test.end))


def test_a_naive_moment_is_refused():
    with pytest.raises(TrainingError, match="time zone"):
        microseconds(datetime(2018, 4, 1))


def test_the_record_tells_every_window():
    record = make_split().record()

    assert set(record) == {"train", "validation", "refit", "test", "delay_gap_days"}
    assert record["delay_gap_days"] == 7.0

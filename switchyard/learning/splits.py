"""Splits in time order: train, delay gap, validation, test; then what is shipped learns from the newest, too.

A label enters only once it was known.

Not here: any random split, and any reading of a clock: every moment is an argument. The protocol of
``backtest_split`` is that of the *Fraud Detection Handbook* (Le Borgne et al., 2022), chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from switchyard.errors import TrainingError
from switchyard.learning import Bools, Ints

NEVER_KNOWN = np.iinfo(np.int64).min
"""Label time of a row whose label is not known (the integer behind NaT)."""
LONG_HISTORY_DAYS = 28
"""From this much history on, the validation week stands behind a gap as long as the label delay."""
SHORT_VALIDATION_DAYS = 2
"""With less history, validation is its last two days, without a gap."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """``moment`` as int64 microseconds since 1970-01-01 UTC. Raises TrainingError if it is naive.

    >>> microseconds(datetime(1970, 1, 2, tzinfo=UTC))
    86400000000
    """
    if moment.tzinfo is None:
        raise TrainingError(f"{moment} has no time zone; a split needs aware datetimes, in UTC")
    return (moment - _EPOCH) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class Window:
    """The rows with start <= event < end whose label was known before ``known_by``."""

    start: datetime
    end: datetime
    known_by: datetime

    def events(self, event_us: Ints) -> Bools:
        """Rows of the window, labelled or not, as a mask over their event times (microseconds)."""
        inside: Bools = event_us >= microseconds(self.start)
        return inside & (event_us < microseconds(self.end))

    def rows(self, event_us: Ints, label_us: Ints) -> Bools:
        """Rows of the window whose label counts; ``label_us`` is NEVER_KNOWN where there is none."""
        known: Bools = (label_us != NEVER_KNOWN) & (label_us < microseconds(self.known_by))
        return self.events(event_us) & known

    def record(self) -> dict[str, str]:
        """The window for a training record, as ISO 8601."""
        return {
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "known_by": self.known_by.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Split:
    """Four windows. Rounds, calibration and thresholds are chosen on ``train`` and ``validation``;
    then the model is trained again on ``refit``, every label that was known when ``test`` began: it is assessed on ``test``.

    Raises TrainingError if the windows are empty or out of order.
    """

    train: Window
    validation: Window
    refit: Window
    test: Window

    def __post_init__(self) -> None:
        t, v, r, test = self.train, self.validation, self.refit, self.test
        moments = (t.start, t.end, v.start, v.end, test.start, test.end)
        spans = (t, v, r, test)
        if list(moments) != sorted(moments) or any(w.start >= w.end for w in spans):
            raise TrainingError(
                f"a split needs train, validation and test in this order and none empty, but train is "
                f"{t.start} to {t.end}, validation {v.start} to {v.end}, test {test.start} to {test.end}; "
                "give it more days of history"
            )
        if r.end > test.start or r.known_by > test.start:
            raise TrainingError(
                f"the refit window knows more than the start of the test, {test.start}"
            )

    @property
    def delay_gap(self) -> timedelta:
        """From the end of training to the start of validation."""
        return self.validation.start - self.train.end

    def record(self) -> dict[str, dict[str, str] | float]:
        """All windows and the gap, for a training record."""
        return {
            "train": self.train.record(),
            "validation": self.validation.record(),
            "refit": self.refit.record(),
            "test": self.test.record(),
            "delay_gap_days": self.delay_gap / timedelta(days=1),
        }


def lifecycle_split(
    start: datetime, as_of: datetime, label_delay_days: int, test_days: int
) -> Split:
    """The split of a regular training at ``as_of``, on rows that begin at ``start``.

    ``test`` is the newest ``test_days`` that end ``label_delay_days`` before ``as_of``, validation the
    ``test_days`` before it, and training ends a delay before validation. Models learn from labels known
    when validation (at last: when the test) began; validation and test are judged with the labels
    known at ``as_of``. Raises TrainingError if nothing is left to train on.
    """
    delay, length = timedelta(days=label_delay_days), timedelta(days=test_days)
    test = Window(as_of - delay - length, as_of - delay, known_by=as_of)
    validation = Window(test.start - length, test.start, known_by=as_of)
    train_end = validation.start - delay
    if start >= train_end:
        needed = 2 * label_delay_days + 2 * test_days
        raise TrainingError(
            f"no day is left to train on: data starts {start}, training would end {train_end}; "
            f"test, validation and two label delays before {as_of} take {needed} days, so give more"
        )
    return Split(
        train=Window(start, train_end, known_by=validation.start),
        validation=validation,
        refit=Window(start, test.start, known_by=test.start),
        test=test,
    )


@dataclass(frozen=True, slots=True)
class Shipping:
    """What a model that was assessed is fitted again on before it is shipped, ``learn``, and the newest days, on
    which it promises how its scores lie: it has learned from none of them."""

    learn: Window
    promise: Window

    def record(self) -> dict[str, dict[str, str]]:
        """Both windows, for a training record."""
        return {"learn": self.learn.record(), "promise": self.promise.record()}


def shipping_of(start: datetime, as_of: datetime, promise_days: int) -> Shipping:
    """Every label known at ``as_of`` of the rows from ``start`` on, but of the newest ``promise_days``.

    Raises TrainingError if nothing is left to learn from.
    """
    newest = as_of - timedelta(days=promise_days)
    if start >= newest:
        raise TrainingError(
            f"no day is left to learn from: rows begin {start}, and the {promise_days} days before "
            f"{as_of} are for the promise; give it more days of history"
        )
    return Shipping(Window(start, newest, known_by=as_of), Window(newest, as_of, known_by=as_of))


def backtest_split(
    train_start: datetime,
    train_days: int,
    delay_days: int,
    test_days: int,
    history_days: int | None = None,
    *,
    data_start: datetime,
) -> Split:
    """The split of a backtest: what a training at the start of the test could have known.

    The test starts ``train_days + delay_days`` after ``train_start``. Training uses the training days
    (``history_days=None``), or that many days ending with them (0: all since ``data_start``), and only
    labels known when the test starts. With LONG_HISTORY_DAYS or more, validation is the last training
    week behind a gap of ``delay_days``; with less, the last SHORT_VALIDATION_DAYS without a gap.
    Raises TrainingError if nothing is left to train on.
    """
    train_end = train_start + timedelta(days=train_days)
    test_start = train_end + timedelta(days=delay_days)
    wanted = train_days if history_days is None else history_days
    oldest = data_start if wanted == 0 else train_end - timedelta(days=wanted)
    start = max(data_start, oldest)
    long = train_end - start >= timedelta(days=LONG_HISTORY_DAYS)
    validation_start = train_end - timedelta(days=7 if long else SHORT_VALIDATION_DAYS)
    choose_end = validation_start - timedelta(days=delay_days if long else 0)
    if start >= choose_end:
        raise TrainingError(
            f"no day is left to train on: history from {start} to {train_end} holds no more than its "
            f"validation from {validation_start}; move --train-start later or give more history days"
        )
    return Split(
        train=Window(start, choose_end, known_by=validation_start if long else test_start),
        validation=Window(validation_start, train_end, known_by=test_start),
        refit=Window(start, train_end, known_by=test_start),
        test=Window(test_start, test_start + timedelta(days=test_days), known_by=test_start),
    )

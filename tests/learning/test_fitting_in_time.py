"""Fitting uses what was known in time and nothing else: flipping any other label changes no bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from switchyard.errors import TrainingError
from switchyard.learning.fitting import Fitted, Rows, fit
from switchyard.learning.models import LogisticRegression
from switchyard.learning.splits import Split, lifecycle_split, microseconds

START = datetime(2026, 1, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=40)
DAY_US = 86_400_000_000


@pytest.fixture
def rows(make_rows: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Rows:
    X, y = make_rows(4_000)
    rng = np.random.default_rng(0)
    event = microseconds(START) + np.sort(rng.integers(0, 40 * DAY_US, len(y)))
    delay = (rng.exponential(5, len(y)) * DAY_US).astype(np.int64)
    return Rows(X, y, event, event + delay, rng.integers(0, 200, len(y)))


@pytest.fixture
def split() -> Split:
    return lifecycle_split(START, AS_OF, label_delay_days=5, test_days=5)


def fitted(rows: Rows, split: Split, columns: list[str]) -> Fitted:
    return fit(
        LogisticRegression,
        rows,
        split,
        columns=columns,
        seed=1,
        review_share=0.05,
        block_precision=0.8,
    )


def test_labels_not_known_in_time_change_no_model_calibration_or_threshold(
    rows: Rows, split: Split, columns: list[str]
):
    windows = (split.train, split.validation, split.refit)
    used = np.any([w.rows(rows.event_us, rows.label_us) for w in windows], axis=0)
    flipped = replace(rows, y=np.where(used, rows.y, 1 - rows.y))

    one, other = fitted(rows, split, columns), fitted(flipped, split, columns)

    assert 500 < (~used).sum() < len(used) - 500
    assert np.array_equal(one.score(rows.X), other.score(rows.X))
    assert one.thresholds == other.thresholds
    assert one.record == other.record


def test_a_label_known_in_time_does_change_the_model(rows: Rows, split: Split, columns: list[str]):
    used = split.refit.rows(rows.event_us, rows.label_us)
    flipped = replace(rows, y=np.where(used & (rows.event_us % 10 == 0), 1 - rows.y, rows.y))

    assert not np.array_equal(
        fitted(rows, split, columns).score(rows.X), fitted(flipped, split, columns).score(rows.X)
    )


def test_a_window_without_frauds_is_refused_by_name(rows: Rows, split: Split, columns: list[str]):
    honest = replace(rows, y=np.where(split.validation.events(rows.event_us), 0, rows.y))

    with pytest.raises(TrainingError, match="validation window"):
        fitted(honest, split, columns)

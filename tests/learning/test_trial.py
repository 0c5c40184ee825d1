"""A trial measures both models on the labelled rows, and promises of all of the window's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from switchyard.learning.fitting import Rows, fit
from switchyard.learning.models import LogisticRegression
from switchyard.learning.promise import Promise
from switchyard.learning.splits import lifecycle_split, microseconds
from switchyard.learning.trial import trial_of

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000


def test_the_promise_is_of_every_decision_of_the_window_labelled_or_not(
    make_rows: Callable[..., tuple[np.ndarray, np.ndarray]], columns: list[str]
):
    X, y = make_rows(4_000)
    rng = np.random.default_rng(0)
    event = microseconds(START) + np.sort(rng.integers(0, 40 * DAY_US, len(y)))
    rows = Rows(X, y, event, event + DAY_US, rng.integers(0, 200, len(y)))
    split = lifecycle_split(START, START + timedelta(days=40), label_delay_days=5, test_days=5)
    model = fit(LogisticRegression, rows, split, columns=columns, seed=1, review_share=0.05,
                block_precision=0.8)  # fmt: skip
    hidden = replace(rows, y=np.where(np.arange(len(y)) % 2 == 0, -1, y))

    trial = trial_of(hidden, split, model, model, seed=1)

    window = split.test.events(rows.event_us)
    promise = Promise.of_record(json.loads(json.dumps(trial.record()))["promise"])
    assert promise.rows == window.sum() > 1.5 * len(trial.test.y)
    assert promise.block.value == np.mean(model.score(X[window]) >= model.thresholds.block)

"""A promise holds what the scores were, the same bits each time, and is found again in a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from switchyard.errors import ReleaseError, TrainingError
from switchyard.learning.promise import (
    TAILS,
    Promise,
    blocked_beside,
    note_beside,
    promise_of,
    read_beside,
)
from switchyard.learning.release import read_manifest
from switchyard.learning.thresholds import Thresholds
from tests.releases import make_release

THRESHOLDS = Thresholds(0.8, 0.95)


def promised(score: np.ndarray, customers: int = 500) -> Promise:
    n = len(score)
    return promise_of(
        score, entity=np.arange(n) % customers, day=np.zeros(n, np.int64), thresholds=THRESHOLDS
    )


def test_it_tells_the_shares_reviewed_blocked_and_over_each_edge():
    promise = promised(np.random.default_rng(0).permutation(np.linspace(0, 1, 10_000)))

    assert promise.review.value == pytest.approx(0.15, abs=1e-3)
    assert promise.block.value == pytest.approx(0.05, abs=1e-3)
    assert [t.value for t in promise.tails] == pytest.approx(TAILS, abs=1e-3)
    assert promise.block.low < 0.05 < promise.block.high


def test_a_customer_counts_as_blocked_once_a_day():
    score = np.concatenate([np.full(60, 0.99), np.full(940, 0.1)])
    entity = np.concatenate([np.repeat(np.arange(20), 3), np.arange(940)])

    one, two = (
        promise_of(score, entity=entity, day=day, thresholds=THRESHOLDS)
        for day in (np.zeros(1_000, np.int64), np.arange(1_000) % 3)
    )

    assert one.block.value == pytest.approx(0.06)
    assert one.blocked_customers.value == pytest.approx(0.02)
    assert 0.01 < one.blocked_customers.low < 0.02 < one.blocked_customers.high < 0.03
    assert two.blocked_customers.value == pytest.approx(0.06)


def test_fewer_customers_promise_less_exactly():
    score = np.repeat(np.random.default_rng(0).random(500), 20)
    entity = np.repeat(np.arange(500), 20)

    apart, together = (
        promise_of(score, entity=e, day=np.zeros(10_000, np.int64), thresholds=THRESHOLDS)
        for e in (np.arange(10_000), entity)
    )

    assert together.block.high - together.block.low > 3 * (apart.block.high - apart.block.low)


def test_the_same_scores_promise_the_same_bits():
    score = np.random.default_rng(0).random(1_000)

    assert json.dumps(promised(score).record()) == json.dumps(promised(score).record())


def test_it_is_read_from_the_manifest_of_a_release(tmp_path: Path):
    release = make_release(tmp_path)

    promise = Promise.of_manifest(read_manifest(release.folder))

    assert promise.rows == 100
    assert Promise.of_record(json.loads(json.dumps(promise.record()))) == promise


def test_a_release_that_promises_nothing_is_refused_by_name():
    with pytest.raises(ReleaseError, match="release abc promises nothing"):
        Promise.of_manifest({"id": "abc", "metrics": {}})


def test_nothing_is_promised_without_rows():
    with pytest.raises(TrainingError, match="without rows"):
        promised(np.zeros(0))


def test_blocks_beside_a_champion_are_compared_on_the_same_customers_and_kept_for_this_champion(
    tmp_path: Path,
):
    rng = np.random.default_rng(1)
    customer, day = rng.integers(0, 400, 5_000), rng.integers(0, 2, 5_000)
    champion = rng.random(5_000) < 0.02
    twice = champion | (rng.random(5_000) < 0.02)

    same = blocked_beside(champion, champion, entity=customer, day=day)
    more = blocked_beside(twice, champion, entity=customer, day=day)
    note_beside(tmp_path, "new", "old", more)

    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)
    assert 1.4 < more.low < more.value < more.high
    assert read_beside(tmp_path, "new", "old") == more
    assert read_beside(tmp_path, "new", "another") is None
    assert read_beside(tmp_path, "newer", "old") is None

"""The collector: what was there is not looked at again, and neither is what made a collection long."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from switchyard.serving.collector import Collector


@pytest.fixture
def pauses() -> list[tuple[int, float]]:
    return []


@pytest.fixture
def collector(pauses: list[tuple[int, float]]) -> Iterator[Collector]:
    collector = Collector(lambda generation, seconds: pauses.append((generation, seconds)))
    yield collector
    collector.close()
    gc.unfreeze()


def test_what_is_there_at_the_start_is_set_aside(collector: Collector) -> None:
    mine = [[i] for i in range(1_000)]

    collector.begin()

    assert not any(each is mine for each in gc.get_objects())


def test_each_collection_is_measured_until_the_end(
    collector: Collector, pauses: list[tuple[int, float]]
) -> None:
    collector.begin()
    gc.collect(0)
    gc.collect(2)

    assert [generation for generation, _ in pauses[-2:]] == [0, 2]
    assert all(seconds > 0 for _, seconds in pauses)


def test_what_made_a_full_collection_long_is_set_aside_too(collector: Collector) -> None:
    collector.begin()
    grown = [[i] for i in range(1_000_000)]
    gc.collect()
    looked_at = len(gc.get_objects())

    collector.relieve()

    assert len(grown) <= looked_at
    assert len(gc.get_objects()) < 100_000


def test_a_short_collection_sets_nothing_aside(collector: Collector) -> None:
    collector.begin()
    frozen = gc.get_freeze_count()
    kept = [[i] for i in range(10)]
    gc.collect()

    collector.relieve()

    assert len(kept) == 10
    assert gc.get_freeze_count() <= frozen

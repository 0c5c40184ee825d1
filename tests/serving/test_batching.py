"""What waits together is handled together, nothing waits to be together, and a fault stays with its batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from switchyard.errors import JournalError
from switchyard.serving.batching import MAX_BATCH, Batcher, GoOn


def test_a_lone_request_is_handled_alone_and_at_once() -> None:
    batches: list[int] = []

    async def handle(items: Sequence[int], go_on: GoOn) -> list[int]:
        batches.append(len(items))
        return [2 * item for item in items]

    async def one_after_the_other() -> list[int]:
        return [(await batcher.submit([n]))[0] for n in range(3)]

    batcher = Batcher(handle)

    assert asyncio.run(one_after_the_other()) == [0, 2, 4]
    assert batches == [1, 1, 1]


def test_requests_that_arrive_while_one_is_handled_go_together_up_to_the_limit() -> None:
    batches: list[list[int]] = []
    free = asyncio.Event()

    async def handle(items: Sequence[int], go_on: GoOn) -> list[int]:
        batches.append(list(items))
        await free.wait()
        return [2 * item for item in items]

    async def all_at_once() -> list[int]:
        first = batcher.submit([0])
        await asyncio.sleep(0.01)
        others = [batcher.submit([n]) for n in range(1, 50)]
        others.append(batcher.submit(range(50, 100)))
        assert batcher.waiting == 99
        free.set()
        return [answer for found in await asyncio.gather(first, *others) for answer in found]

    batcher = Batcher(handle)
    answers = asyncio.run(all_at_once())

    assert MAX_BATCH == 32
    assert answers == [2 * n for n in range(100)]
    assert [len(batch) for batch in batches] == [1, 32, 32, 32, 3]
    assert [n for batch in batches for n in batch] == list(range(100))


def test_a_fault_reaches_the_callers_of_its_batch_and_the_next_is_handled() -> None:
    async def handle(items: Sequence[int], go_on: GoOn) -> list[int]:
        if 13 in items:
            raise JournalError("no space")
        return list(items)

    async def three() -> list[int]:
        with pytest.raises(JournalError, match="no space"):
            await batcher.submit([13])
        return [(await batcher.submit([n]))[0] for n in (1, 2)]

    batcher = Batcher(handle)

    assert asyncio.run(three()) == [1, 2]


def test_a_caller_that_went_away_does_not_disturb_the_others() -> None:
    free = asyncio.Event()

    async def handle(items: Sequence[int], go_on: GoOn) -> list[int]:
        await free.wait()
        return list(items)

    async def one_leaves() -> int:
        leaving, staying = batcher.submit([1]), batcher.submit([2])
        await asyncio.sleep(0.01)
        leaving.cancel()
        free.set()
        return (await staying)[0]

    batcher = Batcher(handle)

    assert asyncio.run(one_leaves()) == 2


def test_a_batch_that_only_waits_lets_the_next_one_begin_and_answers_when_it_is_done() -> None:
    said: list[str] = []
    stored = asyncio.Event()

    async def handle(items: Sequence[int], go_on: GoOn) -> list[int]:
        said.append(f"begin {items[0]}")
        if items[0] == 0:
            go_on()
            await stored.wait()
        said.append(f"end {items[0]}")
        return list(items)

    async def two() -> list[int]:
        first = batcher.submit([0])
        await asyncio.sleep(0.01)
        second = await batcher.submit([1])
        stored.set()
        return [*await first, *second]

    batcher = Batcher(handle)

    assert asyncio.run(two()) == [0, 1]
    assert said == ["begin 0", "begin 1", "end 1", "end 0"]


def test_giving_up_a_turn_twice_starts_one_batch_alone() -> None:
    at_work, most = 0, 0

    async def handle(items: Sequence[int], go_on: GoOn) -> list[int]:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        go_on()
        go_on()
        await asyncio.sleep(0)
        go_on()
        return list(items)

    async def many() -> list[int]:
        found = await asyncio.gather(*(batcher.submit([n]) for n in range(10)))
        return [answer for (answer,) in found]

    batcher = Batcher(handle, limit=20)

    assert asyncio.run(many()) == list(range(10))
    assert most == 1


def test_a_fault_in_one_batch_of_many_answers_is_told_and_the_others_are_handled() -> None:
    handled: list[int] = []

    async def handle(items: Sequence[int], go_on: GoOn) -> list[int]:
        handled.extend(items)
        if 0 in items:
            raise JournalError("no space")
        return list(items)

    async def five() -> None:
        with pytest.raises(JournalError, match="no space"):
            await batcher.submit(range(5))
        await batcher.submit([5])

    batcher = Batcher(handle, limit=2)
    asyncio.run(five())

    assert handled == list(range(6))

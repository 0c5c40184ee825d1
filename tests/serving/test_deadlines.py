"""A body that trickles in is cut off; one that arrives is not, nor is anything but the reading."""

from __future__ import annotations

import asyncio

import pytest

from switchyard.errors import RequestError
from switchyard.serving.deadlines import BodyDeadline


async def at_once() -> bytes:
    return b"{}"


async def never() -> bytes:
    await asyncio.Event().wait()
    return b""


async def trickling() -> bytes:
    """A part every 10 ms, without end: no single wait is long."""
    while True:
        await asyncio.sleep(0.01)


def make_deadline(patience_s: float = 0.1) -> BodyDeadline:
    return BodyDeadline(asyncio.get_running_loop().time, patience_s)


@pytest.mark.parametrize("reading", [never, trickling])
def test_a_body_that_does_not_arrive_in_time_is_a_408_and_its_task_lives_on(
    reading: object,
) -> None:
    async def read() -> tuple[int, bytes]:
        with pytest.raises(RequestError, match="did not arrive") as caught:
            await make_deadline().within(reading())  # type: ignore[operator]
        await asyncio.sleep(0)
        return caught.value.status, await at_once()

    assert asyncio.run(read()) == (408, b"{}")


def test_a_body_that_arrives_is_read_and_what_comes_after_it_may_take_its_time() -> None:
    async def read() -> bytes:
        body = await make_deadline().within(at_once())
        await asyncio.sleep(0.3)
        return body

    assert asyncio.run(read()) == b"{}"


def test_only_the_late_one_of_many_is_cut_off() -> None:
    async def read() -> list[object]:
        deadline = make_deadline()
        several = (deadline.within(never()), *(deadline.within(at_once()) for _ in range(5)))
        return await asyncio.gather(*several, return_exceptions=True)

    late, *others = asyncio.run(read())

    assert isinstance(late, RequestError)
    assert others == [b"{}"] * 5


def test_a_cancelled_request_stays_cancelled() -> None:
    async def read() -> None:
        task = asyncio.create_task(make_deadline(60.0).within(never()))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(read())

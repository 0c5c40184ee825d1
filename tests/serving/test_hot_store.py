"""The service's way to the store, on a real Valkey: in time or not at all, and back after a fault."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from switchyard.errors import StoreError
from switchyard.fraud.online import VIEWS
from switchyard.serving.commands import Commands
from switchyard.serving.hot_store import HotStore
from switchyard.serving.scripts import SCRIPTS
from switchyard.serving.trip import Append, Claim, Reply, Wanted
from tests.loops import run

RECORD = bytes(48)
ANSWER = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@pytest.fixture
def store(store_url: str, project: str) -> HotStore:
    return HotStore(store_url, Commands(project, VIEWS), budget_s=2.0)


@contextlib.asynccontextmanager
async def somebody_else(path: str, answer: bytes | None) -> AsyncIterator[None]:
    """A server that says ``answer`` to whatever it is sent, or nothing."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while await reader.read(65536):
                if answer is not None:
                    writer.write(answer)

    async with await asyncio.start_unix_server(talk, path):
        yield


def test_what_was_written_is_read(store: HotStore) -> None:
    async def there_and_back() -> tuple[list[int], bytes]:
        written = await store.write([Append("customer", "c1", RECORD)])
        trip = await store.read([Wanted(("c1", "s1"))])
        return written.numbers, trip.activity[0][0]

    numbers, blob = run(store, there_and_back())

    assert numbers == [1]
    assert len(blob) == 16 + 48


def test_many_trips_at_once_get_their_own_answers(store: HotStore) -> None:
    async def all_at_once() -> list[bytes]:
        for n in range(50):
            await store.write([], [Reply(f"t{n}", b"d" * 16, b"{%d}" % n)])
        wanted = [
            [Wanted(("c", "s"), Claim(f"t{n}", b"x" * 16, b"d" * 16))] * (n % 3 + 1)
            for n in range(50)
        ]
        trips = await asyncio.gather(*map(store.read, wanted))
        return [claim.reply for trip in trips if (claim := trip.claims[0])]

    assert run(store, all_at_once()) == [b"{%d}" % n for n in range(50)]


def test_a_store_that_forgot_its_scripts_gets_them_again(store: HotStore, store_url: str) -> None:
    async def forget_between() -> list[int]:
        await store.write([Append("customer", "c1", RECORD)])
        with redis.Redis.from_url(store_url) as client:
            client.script_flush()
        return (await store.write([Append("customer", "c2", RECORD)])).numbers

    assert run(store, forget_between()) == [1]


def test_a_connection_that_was_closed_is_made_anew(store: HotStore, store_url: str) -> None:
    async def close_between() -> None:
        await store.ping()
        with redis.Redis.from_url(store_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0.05)
        await store.ping()

    run(store, close_between())


def test_nobody_there_is_said(project: str, tmp_path: object) -> None:
    store = HotStore(f"unix://{tmp_path}/nobody.sock", Commands(project, VIEWS))

    with pytest.raises(StoreError, match="is it running"):
        run(store, store.ping())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "did not answer in time"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Redis protocol"),
        (b"+OK\r\n" * 50, "no Redis protocol"),
        (b"-LOADING reading the data back\r\n" * len(SCRIPTS), "LOADING"),
    ],
)
def test_a_store_that_is_frozen_or_answers_garbage_is_an_error_in_time(
    project: str, tmp_path: object, answer: bytes | None, said: str
) -> None:
    path = f"{tmp_path}/odd.sock"
    patience = 5.0 if answer else 0.5  # only the frozen one is waited for to the end
    store = HotStore(f"unix://{path}", Commands(project, VIEWS), budget_s=patience)

    async def ask_twice() -> None:
        async with somebody_else(path, answer):
            for _ in range(2):
                with pytest.raises(StoreError, match=said):
                    await store.read([Wanted(("c1", "s1"))])
            store.close()
            await asyncio.sleep(0.01)

    run(store, ask_twice())


def test_a_password_and_a_database_of_the_url_are_used(tmp_path: object, project: str) -> None:
    path = f"{tmp_path}/recorded.sock"
    heard: list[bytes] = []

    async def listen() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                heard.append(await reader.read(65536))

        async with await asyncio.start_unix_server(talk, path):
            with pytest.raises(StoreError):
                await store.ping()

    store = HotStore(f"unix://me:se%40cret@{path}?db=3", Commands(project, VIEWS), budget_s=0.2)
    run(store, listen())

    assert heard[0].startswith(
        b"*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$7\r\nse@cret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
    )


def test_an_answer_that_arrived_while_the_process_was_held_up_still_counts(
    store_url: str, project: str
) -> None:
    store = HotStore(store_url, Commands(project, VIEWS), budget_s=0.3)

    async def held_up() -> int:
        await store.write([Append("customer", "c1", RECORD)])
        asked = asyncio.ensure_future(store.read([Wanted(("c1", "s1"))]))
        await asyncio.sleep(0)
        time.sleep(0.5)  # the answer comes, and nobody is there to read it
        return len((await asked).activity[0][0])

    assert run(store, held_up()) == 16 + 48


def test_an_answer_that_comes_too_late_is_passed_over_and_the_connection_stays(
    project: str, tmp_path: object
) -> None:
    path, connections = f"{tmp_path}/slow.sock", []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with contextlib.closing(writer):
            while asked := await reader.read(65536):
                if b"SCRIPT" in asked:
                    writer.write(b"+OK\r\n" * asked.count(b"SCRIPT"))
                elif b"slow" in asked:
                    await asyncio.sleep(0.6)
                    writer.write(b"+late\r\n")
                else:
                    writer.write(b"$3\r\nnow\r\n")

    store = HotStore(f"unix://{path}", Commands(project, VIEWS), budget_s=0.3)

    async def ask() -> object:
        async with await asyncio.start_unix_server(talk, path):
            with pytest.raises(StoreError, match="did not answer in time"):
                await store.get(b"slow")
            await asyncio.sleep(0.5)
            found = await store.get(b"quick")
            store.close()
            await asyncio.sleep(0.01)
            return found

    assert run(store, ask()) == b"now"
    assert len(connections) == 1


def test_a_connection_that_takes_longer_than_a_trip_is_there_for_the_next_one(
    project: str, tmp_path: object
) -> None:
    path = f"{tmp_path}/greets-slowly.sock"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while asked := await reader.read(65536):
                if b"SCRIPT" in asked:
                    await asyncio.sleep(0.5)
                    writer.write(b"+OK\r\n" * asked.count(b"SCRIPT"))
                else:
                    writer.write(b"+PONG\r\n")

    store = HotStore(f"unix://{path}", Commands(project, VIEWS), budget_s=0.2)

    async def ask() -> None:
        async with await asyncio.start_unix_server(talk, path):
            with pytest.raises(StoreError):
                await store.ping()
            await asyncio.sleep(0.5)
            await store.ping()
            store.close()
            await asyncio.sleep(0.01)

    run(store, ask())

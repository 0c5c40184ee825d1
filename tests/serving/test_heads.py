"""Heads of requests, on a real uvicorn: what is too long, too slow or no HTTP is refused in the one shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
import uvloop

from switchyard.serving.headers import SECURITY_HEADERS
from switchyard.serving.heads import bound_heads

MOST, PATIENCE_S = 2_000, 0.3


async def hello(scope: Any, _receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await asyncio.sleep(0.1 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"2")]})  # fmt: skip
    await send({"type": "http.response.body", "body": b"hi"})


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """One to a server whose heads are bounded."""
    config = uvicorn.Config(hello, port=0, http="httptools", lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    bound_heads(server, MOST, PATIENCE_S)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await server.shutdown()


def answer_to(*parts: bytes) -> bytes:
    """All that comes back until the server ends the connection; a tenth of a second between the parts."""

    async def send() -> bytes:
        async with connection() as (reader, writer):
            listening = asyncio.create_task(all_from(reader))
            with suppress(ConnectionError):  # the answer came before the last part
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.1 if len(parts) > 1 else 0)
            return await asyncio.wait_for(listening, timeout=10)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the service runs on
        return runner.run(send())


async def all_from(reader: asyncio.StreamReader) -> bytes:
    received = b""
    with suppress(ConnectionError):
        while more := await reader.read(65_536):
            received += more
    return received


def request(headers: bytes = b"", end: bytes = b"connection: close\r\n\r\n") -> bytes:
    return b"GET / HTTP/1.1\r\nhost: a\r\n" + headers + end


def test_a_head_of_ordinary_length_is_answered_also_the_next_one_of_the_connection() -> None:
    headers = b"x: %b\r\n" % (b"y" * (MOST - 200))

    answer = answer_to(request(headers, b"\r\n"), request(headers, b"\r\n"), request(headers))

    assert answer.count(b"200 OK") == 3


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nx: " + b"y" * 5_000,
        b"GET /" + b"a" * 5_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1_000,
        b"\r\n" * 2_000,
    ],
    ids=["one header", "the path", "many headers", "empty lines"],
)
def test_a_head_without_end_is_refused_and_the_connection_ended(head: bytes) -> None:
    answer = answer_to(head)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert_in_the_one_shape(answer)


@pytest.mark.parametrize("after", [b"", request(end=b"\r\n")], ids=["at first", "after an answer"])
def test_a_head_that_trickles_in_is_refused(after: bytes) -> None:
    drip = [b"x: y\r\n"] * 9

    answer = answer_to(after + b"GET / HTTP/1.1\r\n", *drip)

    assert b"HTTP/1.1 408 " in answer
    assert_in_the_one_shape(answer[answer.index(b"HTTP/1.1 408 ") :])


def test_a_connection_that_says_nothing_is_ended_without_a_word() -> None:
    assert answer_to() == b""


def test_what_is_no_http_is_refused_in_the_one_shape() -> None:
    answer = answer_to(b"\x16\x03\x01\x02\x00\x01\x00")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert_in_the_one_shape(answer)


def test_an_answer_that_has_nowhere_to_go_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    slow = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n"

    answer = answer_to(slow * 3 + b"garbage\r\n\r\n", b"")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "Exception" not in caplog.text


def assert_in_the_one_shape(answer: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert set(json.loads(body)["error"]) == {"code", "message", "field"}
    assert b"content-length: %d" % len(body) in head
    for name, value in SECURITY_HEADERS:
        assert b"%b: %b" % (name, value) in head

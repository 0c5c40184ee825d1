"""Security headers: on every answer once, whoever made it, and no banner."""

from __future__ import annotations

import asyncio
from typing import Any

from switchyard.serving.headers import SECURITY_HEADERS, SecureHeaders


async def banner(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"Server", b"uvicorn"), (b"Cache-Control", b"max-age=9"), (b"content-type", b"a/b")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def answered(app: Any, kind: str = "http") -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(SecureHeaders(app)({"type": kind}, None, send))  # type: ignore[arg-type]
    return sent


def test_an_answer_of_another_layer_gets_them_once_and_loses_its_banner() -> None:
    start, body = answered(banner)

    assert start["headers"] == [(b"content-type", b"a/b"), *SECURITY_HEADERS]
    assert body["body"] == b"{}"


def test_what_is_no_request_passes_untouched() -> None:
    assert answered(banner, "lifespan")[0]["headers"][0] == (b"Server", b"uvicorn")

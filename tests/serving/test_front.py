"""The front door: the routes, the probes, and nothing of what the server would serve beside them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from switchyard.serving.front import Front
from switchyard.serving.headers import SECURITY_HEADERS


def says(word: str) -> Any:
    """An application that answers with that word and a banner."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"server", b"uvicorn"), (b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": word.encode()})
        else:
            await send({"type": word})

    return app


FRONT = Front(says("server"), {"/v1/predict": says("predict"), "/v1/jobs/": says("job")})


def ask(app: Any, path: str = "/", kind: str = "http") -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "method": "GET", "headers": []}
    asyncio.run(app(scope, None, send))
    return sent


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/v1/predict", b"predict"),
        ("/v1/jobs/j1", b"job"),
        ("/livez", b"server"),
        ("/readyz", b"server"),
        ("/healthz", b"server"),
    ],
)
def test_routes_and_probes_are_answered(path: str, word: bytes) -> None:
    assert ask(FRONT, path)[1]["body"] == word


@pytest.mark.parametrize(
    "path",
    ["/", "/docs.json", "/schema.json", "/static_content/app.js", "/v1/predict/", "/v1/jobs",
     "/v1/jobs/j1/more", "//v1/predict", "/v1/../livez", "/metrics", "livez", ""],
)  # fmt: skip
def test_anything_else_is_a_404_in_the_one_shape(path: str) -> None:
    start, body = ask(FRONT, path)

    assert start["status"] == 404
    assert json.loads(body["body"])["error"]["code"] == "not_found"
    assert set(SECURITY_HEADERS) <= set(start["headers"])


def test_probes_have_the_security_headers_and_no_banner() -> None:
    start = ask(FRONT, "/livez")[0]

    assert start["headers"] == [(b"content-type", b"text/plain"), *SECURITY_HEADERS]


def test_a_start_reaches_the_server_and_a_websocket_is_closed() -> None:
    assert ask(FRONT, kind="lifespan") == [{"type": "server"}]
    assert ask(FRONT, "/v1/predict", kind="websocket") == [{"type": "websocket.close"}]

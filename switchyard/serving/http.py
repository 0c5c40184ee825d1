"""The edge of the decision service: one route is a body read within bounds, a key checked, one answer.

Plain ASGI, so that any server can carry it. Here: bodies, keys, statuses. Not here: what a body means
(the use case parses it) and what is answered (``engine``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from switchyard.errors import (
    JournalError,
    ReleaseError,
    RequestError,
    StoreError,
    SwitchyardError,
)
from switchyard.serving.keys import ApiKeys, Role, is_loopback
from switchyard.serving.replies import Answer, error_answer

MAX_BODY_BYTES = 64 * 1024
"""Longest body of a single request."""

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Handle = Callable[[bytes], Awaitable[Answer]]

_log = logging.getLogger(__name__)
_JSON = (b"content-type", b"application/json")


class Post(NamedTuple):
    """A path that takes a POST: what answers a body, who may send one, and how long it may be."""

    path: str
    handle: Handle
    role: Role
    limit: int = MAX_BODY_BYTES


class Front:
    """ASGI middleware: paths in ``routes`` are answered here, before anything else the server does."""

    def __init__(self, app: Application, routes: Mapping[str, Application]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        await (route or self._app)(scope, receive, send)


class Endpoint:
    """One POST route as an ASGI application: ``await handle(body)`` for callers that may have it.

    ``answered`` is told path, status and seconds of each answer.
    """

    def __init__(
        self,
        post: Post,
        keys: ApiKeys,
        answered: Callable[[str, int, float], None] = lambda _path, _status, _seconds: None,
    ) -> None:
        self._post = post
        self._keys = keys
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        answer = await self._answer(scope, receive)
        self._answered(scope["path"], answer.status, time.perf_counter() - started)
        await respond(send, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        try:
            self._admit(scope)
            return await self._post.handle(await read_body(scope, receive, self._post.limit))
        except FAILURES as error:
            return refused(error)
        except Exception:  # the entry point: the caller gets the one error shape, the log the trace
            _log.exception("%s failed", scope["path"])
            return error_answer(RequestError("the service failed; its log says why", status=500))

    def _admit(self, scope: Scope) -> None:
        if scope["method"] != "POST":
            raise RequestError(f"{self._post.path} takes POST, not {scope['method']}", status=405)
        if self._keys.hashed:
            self._keys.check(header(scope, b"authorization"), self._post.role)
        elif (server := scope.get("server")) and not is_loopback(server[0]):
            raise RequestError("off loopback this service needs API keys, it has none", status=403)


FAILURES = (RequestError, JournalError, StoreError, ReleaseError)
"""What answering a request raises on purpose."""


def refused(error: SwitchyardError) -> Answer:
    """What a request that ended in one of FAILURES is answered; what the service could not do goes to
    the log."""
    if isinstance(error, RequestError):
        return error_answer(error)
    _log.error("%s", error)
    words = str(error) if isinstance(error, ReleaseError) else _UNAVAILABLE
    return error_answer(RequestError(words, status=503))


_UNAVAILABLE = "this can't be recorded just now, so it was not decided or taken in; send it again"


def header(scope: Scope, name: bytes) -> bytes | None:
    """The value of the first header of that (lower-case) name."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value for key, value in headers if key == name), None)


async def read_body(scope: Scope, receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body. Raises RequestError 413 beyond ``limit`` bytes, however they are sent."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError("the body ended too soon", status=400)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


async def respond(send: Send, answer: Answer) -> None:
    length = (b"content-length", str(len(answer.body)).encode())
    await send({"type": "http.response.start", "status": answer.status, "headers": [_JSON, length]})
    await send({"type": "http.response.body", "body": answer.body})


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is longer than {limit} bytes", status=413)

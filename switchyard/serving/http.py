"""The edge of the decision service: one route is a key checked, a body read within bounds, one answer.

Plain ASGI, so that any server can carry it. Here: bodies, keys, statuses. Not here: which paths there are
(``front``), what a body means (the use case parses it), what is answered (``engine``).
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Literal, NamedTuple

from switchyard.errors import (
    JournalError,
    ReleaseError,
    RequestError,
    StoreError,
    SwitchyardError,
)
from switchyard.serving.deadlines import BodyDeadline
from switchyard.serving.headers import SECURITY_HEADERS
from switchyard.serving.keys import ApiKeys, Role, is_loopback
from switchyard.serving.limits import RateLimit, Room
from switchyard.serving.replies import Answer, error_answer

MAX_BODY_BYTES = 64 * 1024
"""Longest body of a single request."""

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Handle = Callable[[bytes], Awaitable[Answer]]
Answered = Callable[[str, int, float], None]
"""Told path, status and seconds of each answer."""

_log = logging.getLogger(__name__)


class Post(NamedTuple):
    """A path that takes a body: what answers it, who may send one, and how long it may be.

    ``method`` is PUT for a body that says how something is to be. ``asked`` answers a body that came with a query string (None: this path takes no parameters);
    ``weight`` says how many requests a body counts as.
    """

    path: str
    handle: Handle
    role: Role
    limit: int = MAX_BODY_BYTES
    asked: Callable[[bytes, bytes], Awaitable[Answer]] | None = None
    weight: Callable[[bytes], int] | None = None
    method: Literal["POST", "PUT"] = "POST"


class Get(NamedTuple):
    """A path that takes a GET: what answers its last part, and who may ask (role None: whoever has a key).

    ``secret`` False: anybody may ask.
    """

    path: str
    handle: Callable[[str], Awaitable[Answer]]
    role: Role | None = None
    secret: bool = True


class Bounds(NamedTuple):
    """What all routes of a worker share: how much it holds, how long a body may take, a rate per key."""

    room: Room
    deadline: BodyDeadline
    rate: RateLimit | None = None


def _nobody(_path: str, _status: int, _seconds: float) -> None:
    """Told of answers where nobody counts them."""


class _Route(ABC):
    """One route as an ASGI application. Whatever goes wrong, the caller gets one answer."""

    method: str

    @property
    def methods(self) -> tuple[str, ...]:
        """What it is asked with."""
        return (self.method,)

    def __init__(self, path: str, answered: Answered) -> None:
        self._path, self._answered = path, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        answer = await self._answer(scope, receive)
        self._answered(self._path, answer.status, time.perf_counter() - started)
        await respond(send, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != self.method:
            return _wrong_method(self._path, self.methods)
        try:
            return await self._handled(scope, receive)
        except FAILURES as error:
            return refused(error)
        except Exception:  # the entry point: the caller gets the one error shape, the log the trace
            _log.exception("%s failed", self._path)
            return error_answer(RequestError("the service failed; its log says why", status=500))

    @abstractmethod
    async def _handled(self, scope: Scope, receive: Receive) -> Answer:
        """The answer. Raises what is in FAILURES."""


class Endpoint(_Route):
    """A route that takes a body: ``await handle(body)`` for callers that may have it, within ``bounds``."""

    def __init__(
        self, post: Post, keys: ApiKeys, answered: Answered = _nobody, *, bounds: Bounds
    ) -> None:
        super().__init__(post.path, answered)
        self.method = post.method
        self._post, self._keys, self._bounds = post, keys, bounds

    async def _handled(self, scope: Scope, receive: Receive) -> Answer:
        post, (room, deadline, rate) = self._post, self._bounds
        key = admit(scope, self._keys, post.role)
        if rate is not None and post.weight is None:
            rate.admit(key)
        expected = expected_size(dict(scope["headers"]), post.limit)
        room.hold(expected)
        try:
            body = await deadline.within(read_body(receive, post.limit))
            if rate is not None and post.weight is not None:
                rate.admit(key, post.weight(body))
            room.enter()
            try:
                return await self._answered_by(body, scope.get("query_string", b""))
            finally:
                room.leave()
        finally:
            room.free(expected)

    def _answered_by(self, body: bytes, query: bytes) -> Awaitable[Answer]:
        if not query:
            return self._post.handle(body)
        if self._post.asked is None:
            raise RequestError(f"{self._path} takes no parameters; all is in the body")
        return self._post.asked(body, query)


class Lookup(_Route):
    """A GET route: ``await handle(last part of the path)`` for callers that may have it."""

    method = "GET"

    def __init__(
        self,
        get: Get,
        keys: ApiKeys,
        answered: Answered = _nobody,
        rate: RateLimit | None = None,
    ) -> None:
        super().__init__(get.path, answered)
        self._get, self._keys, self._rate = get, keys, rate

    async def _handled(self, scope: Scope, receive: Receive) -> Answer:
        if self._get.secret:
            key = admit(scope, self._keys, self._get.role)
            if self._rate is not None:
                self._rate.admit(key)
        return await self._get.handle(scope["path"].rpartition("/")[2])


class ByMethod:
    """A path that is looked at with one method and changed with another: a route for each."""

    def __init__(self, *routes: Endpoint | Lookup) -> None:
        self._routes = {route.method: route for route in routes}

    @property
    def methods(self) -> tuple[str, ...]:
        """What it is asked with."""
        return tuple(self._routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["method"])
        if route is None:
            await respond(send, _wrong_method(scope["path"], self.methods))
        else:
            await route(scope, receive, send)


def admit(scope: Scope, keys: ApiKeys, role: Role | None) -> int:
    """Which key the request has, if that may do what ``role`` may (None: any key will do).

    Raises RequestError 401, or 403: also for everybody off loopback where there are no keys.
    """
    if not keys.hashed and (server := scope.get("server")) and not is_loopback(server[0]):
        raise RequestError("off loopback this service needs API keys, it has none", status=403)
    return keys.check(header(scope, b"authorization"), role) if keys.hashed else 0


FAILURES = (RequestError, JournalError, StoreError, ReleaseError)
"""What answering a request raises on purpose."""


def refused(error: SwitchyardError) -> Answer:
    """What a request that ended in one of FAILURES is answered; the log says it, too."""
    if isinstance(error, RequestError):
        _log.warning(_REFUSED.get(error.status, "a request was refused: %s"), error)
        return error_answer(error)
    _log.error("%s", error)
    words = str(error) if isinstance(error, ReleaseError) else _UNAVAILABLE
    return error_answer(RequestError(words, status=503))


_REFUSED = {
    status: f"a request was refused with {status}: %s"
    for status in (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 503)
}
"""A message for each status, since the log writes each message only once in a while."""
_UNAVAILABLE = "this can't be recorded just now, so it was not decided or taken in; send it again"


def header(scope: Scope, name: bytes) -> bytes | None:
    """The value of the first header of that (lower-case) name."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value for key, value in headers if key == name), None)


def expected_size(headers: Mapping[bytes, bytes], limit: int) -> int:
    """Bytes that the body may have, from the head of the request: what it declares, else ``limit``.

    Raises RequestError: 413 if it declares more than ``limit``, 415 if it declares anything but JSON, 403
    for what a browser sends on behalf of some page: a service on the loopback is in every page's reach.
    """
    if b"origin" in headers:
        raise RequestError("requests from web pages are not answered here", status=403)
    kind = headers.get(b"content-type")
    if kind is not None and kind.partition(b";")[0].strip().lower() != b"application/json":
        raise RequestError("the body must be JSON: 'content-type: application/json'", status=415)
    declared = headers.get(b"content-length")
    if declared is None or not declared.isdigit():
        return limit
    if len(declared) > 12 or int(declared) > limit:
        raise _too_large(limit)
    return int(declared)


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises RequestError 413 beyond ``limit`` bytes, however they are sent."""
    message = await receive()
    if not message.get("more_body", False) and message["type"] == "http.request":
        whole: bytes = message.get("body", b"")
        if len(whole) > limit:
            raise _too_large(limit)
        return whole
    body = bytearray(message.get("body", b""))
    while message.get("more_body", False):
        if len(body) > limit:
            raise _too_large(limit)
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise RequestError("the body ended too soon", status=400)
    if len(body) > limit:
        raise _too_large(limit)
    return bytes(body)


async def respond(send: Send, answer: Answer) -> None:
    """Send the answer, with the headers that all have."""
    of_body = (b"content-type", answer.media), (b"content-length", b"%d" % len(answer.body))
    headers = [*of_body, *answer.headers, *SECURITY_HEADERS]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _wrong_method(path: str, methods: Sequence[str]) -> Answer:
    said = " and ".join(methods)
    answer = error_answer(RequestError(f"{path} takes {said} alone", status=405))
    return Answer(405, answer.body, ((b"allow", ", ".join(methods).encode()),))


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is longer than {limit} bytes", status=413)

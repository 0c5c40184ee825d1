"""Bounds on the head of a request: how long it may be, how long it may take. The HTTP server has neither.

It keeps whatever headers are sent, and waits for their end for ever. This makes of its protocol class one that
refuses both, in the one error shape, and answers what is no HTTP in that shape too. Not here: bodies
(``http``, ``deadlines``).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from switchyard.errors import RequestError
from switchyard.serving.headers import SECURITY_HEADERS
from switchyard.serving.replies import error_answer
from switchyard.serving.uvicorn_server import Server

MAX_HEAD_BYTES = 32 * 1024
"""Longest head: request line and headers. One that arrives in a single piece may be a little longer."""
HEAD_DEADLINE_S = 5.0
"""Longest time that a head may take, from the connection or its first byte on."""


def bound_heads(
    server: Server, most_bytes: int = MAX_HEAD_BYTES, patience_s: float = HEAD_DEADLINE_S
) -> None:
    """Bound the heads on all connections that ``server`` accepts from now on."""
    server.config.http_protocol_class = _bounded(
        server.config.http_protocol_class, most_bytes, patience_s
    )


def _bounded(protocol: Any, most_bytes: int, patience_s: float) -> Any:
    """``protocol`` (uvicorn's, for httptools) with bounds on heads."""

    class BoundedHeads(protocol):  # type: ignore[misc]
        """A connection. ``_since`` is when the head began that is being read, None while none is;
        ``_answering`` the request that is being answered, while further ones may wait behind it."""

        _since: float | None
        _head_bytes = 0
        _answering: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._since = self.loop.time()
            self._look_out = self.loop.call_later(patience_s, self._look)

        def connection_lost(self, error: Exception | None) -> None:
            self._look_out.cancel()
            self._hang_up()
            super().connection_lost(error)

        def data_received(self, data: bytes) -> None:
            if self._since is not None:
                self._head_bytes += len(data)
            super().data_received(data)
            if self._since is not None and self._head_bytes > most_bytes:
                words = f"the head of the request is longer than {most_bytes} bytes"
                self._refuse(RequestError(words, status=431))

        def on_message_begin(self) -> None:
            if self._since is None:
                self._since = self.loop.time()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._since, self._head_bytes = None, 0
            super().on_headers_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(RequestError("the request is not HTTP/1.1", status=400))

        def _look(self) -> None:
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            late = self._since is not None and self.loop.time() - self._since >= patience_s
            if late and self._head_bytes:
                words = f"the head of the request did not arrive within {patience_s:.0f} s"
                self._refuse(RequestError(words, status=408))
            elif late:
                self.transport.close()
            else:
                self._look_out = self.loop.call_later(patience_s, self._look)

        def _refuse(self, error: RequestError) -> None:
            if self.transport.is_closing():
                return
            self.transport.write(raw_answer(error))
            self.transport.close()
            self._hang_up()

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._answering = cycle
            super()._start_asgi_task(cycle, app)

        def _hang_up(self) -> None:
            """An answer has nowhere to go any more; the server itself tells only the newest request so."""
            if self._answering is not None and not self._answering.response_complete:
                self._answering.disconnected = True

    return BoundedHeads


def raw_answer(error: RequestError) -> bytes:
    """The answer to a request that can't be read, as HTTP/1.1 that ends the connection."""
    answer = error_answer(error)
    status = HTTPStatus(error.status)
    headers = (
        (b"content-type", answer.media),
        (b"content-length", b"%d" % len(answer.body)),
        (b"connection", b"close"),
        *SECURITY_HEADERS,
    )
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, status.phrase.encode(), lines, answer.body)

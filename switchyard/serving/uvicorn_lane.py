"""A shorter way through uvicorn for what most requests are: a body that has all come, an answer in one piece.

ASGI's messages for these cost as much as a third of a decision: a task that waits for what is there, headers
checked by two patterns each and written by themselves. Here: both ends, for uvicorn's own request alone;
whatever is out of the ordinary goes by ASGI. Not here: what is answered (``http``).
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Any

from switchyard.serving.headers import SECURITY_HEADERS, Receive, Send

_UVICORNS = ("uvicorn.protocols.http.httptools_impl", "RequestResponseCycle")


def body_at_hand(receive: Receive) -> bytes | None:
    """The whole body; None if it has not all come, or nobody knows."""
    cycle = _cycle(receive)
    if cycle is None or cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue:
        return None
    body, cycle.body = bytes(cycle.body), bytearray()
    return body


def sent_at_once(send: Send, status: int, media: bytes, body: bytes) -> bool:
    """Whether the answer was sent: with these headers, the server's own and SECURITY_HEADERS."""
    cycle = _cycle(send)
    if (
        cycle is None
        or cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or not cycle.keep_alive
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    own = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers])
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(
        b"%b%b%bcontent-length: %d\r\n\r\n%b"
        % (_status_line(status), own, _same_for_all(media), len(body), body)
    )
    cycle.message_event.set()
    cycle.on_response()
    return True


def _cycle(method: Any) -> Any:
    """The request that ``receive`` or ``send`` belongs to, if it is uvicorn's."""
    cycle: Any = getattr(method, "__self__", None)
    kind: Any = type(cycle)
    return cycle if _is_uvicorns(kind) else None


@lru_cache(maxsize=16)
def _is_uvicorns(kind: Any) -> bool:
    return (kind.__module__, kind.__qualname__) == _UVICORNS


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())


@lru_cache(maxsize=16)
def _same_for_all(media: bytes) -> bytes:
    headers = ((b"content-type", media), *SECURITY_HEADERS)
    return b"".join(b"%b: %b\r\n" % header for header in headers)

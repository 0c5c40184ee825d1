"""Headers of every answer that keep a browser, a cache or a curious client from making more of it.

Nothing here is a page: nothing may be run, framed, guessed at or kept. Source: OWASP's REST security cheat
sheet. Here: the headers, and an ASGI layer that adds them to answers of others. Not here: statuses, keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_OURS = frozenset(name for name, _ in SECURITY_HEADERS)
_BANNERS = frozenset((b"server", b"x-powered-by"))


class SecureHeaders:
    """Every answer of ``app`` with SECURITY_HEADERS, each once, and without a server's banner."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": secured(message.get("headers", ()))}
            await send(message)

        await self._app(scope, receive, send_secured)


def secured(headers: Any) -> list[tuple[bytes, bytes]]:
    """``headers`` with the ones of this module in place of any like them.

    >>> secured([(b"Server", b"uvicorn"), (b"content-length", b"2")])[0]
    (b'content-length', b'2')
    """
    left_out = _OURS | _BANNERS
    kept = [(name, value) for name, value in headers if name.lower() not in left_out]
    return [*kept, *SECURITY_HEADERS]

"""The front door: which paths there are at all, before anything else that the server does.

Everything the service answers is in its table of routes, and in the OpenAPI document; beside them only the
probes of the server that carries it, which tell nothing and are open to all. What else that server would serve
(its own pages, schemas and documents) is a 404 here. Not here: what a route does (``http``).
"""

from __future__ import annotations

from collections.abc import Mapping

from switchyard.errors import RequestError
from switchyard.serving.headers import SecureHeaders
from switchyard.serving.http import Application, Receive, Scope, Send, respond
from switchyard.serving.replies import error_answer

PROBES = frozenset(("/livez", "/readyz", "/healthz"))
"""Paths of the server itself, open to anybody: an orchestrator's probes have no key."""
_NOT_FOUND = RequestError(
    "there is no such path; GET /openapi.json lists those there are", status=404
)


class Front:
    """ASGI middleware around the server's own ``app``: paths in ``routes``, the probes, and nothing else.

    A route whose path ends in '/' answers every path with one part behind it.
    """

    def __init__(self, app: Application, routes: Mapping[str, Application]) -> None:
        self._app, self._probes, self._routes = app, SecureHeaders(app), routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await (self._routes.get(scope["path"]) or self._other(scope))(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close"})
        else:
            await self._app(scope, receive, send)

    def _other(self, scope: Scope) -> Application:
        path: str = scope["path"]
        if path in PROBES:
            return self._probes
        return self._routes.get(path[: path.rfind("/") + 1]) or _not_found


async def _not_found(_scope: Scope, _receive: Receive, send: Send) -> None:
    await respond(send, error_answer(_NOT_FOUND))

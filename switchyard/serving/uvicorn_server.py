"""The HTTP server (uvicorn) in which this worker runs, found by the signal handler that is its method.

Here: finding it, and being asked before whatever it serves. Not here: its end (``drain``).
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any, Protocol

from switchyard.errors import ServiceError
from switchyard.serving.front import Front
from switchyard.serving.http import Application


class Server(Protocol):
    """What is needed of uvicorn's ``Server``."""

    config: Any
    server_state: Any

    def handle_exit(self, sig: int, frame: FrameType | None) -> None: ...


def running_server() -> Server:
    """The server whose method handles SIGTERM. Raises ServiceError where none does."""
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not all(hasattr(server, name) for name in ("config", "server_state", "handle_exit")):
        raise ServiceError("a worker runs in uvicorn alone, as `bentoml serve` starts it")
    found: Server = server
    return found


def go_in_front(server: Server, routes: Mapping[str, Application]) -> None:
    """Connections made from now on are asked for ``routes`` before the served application is.

    What BentoML puts around its own leaves a timer behind for each request. At a thousand requests per
    second these are most of what the garbage collector has to look at: 50,000 objects, 11 ms each time.
    """
    server.config.loaded_app = Front(server.config.loaded_app, routes)

"""How a worker ends: it goes on for a moment, ending each connection after its answer, and then closes.

A connection that is kept alive can't be closed by the server without a race: the client may just be
sending. Told ``connection: close`` with an answer, the client closes it. Not here: the server's own
shutdown, which then waits for every request that it has begun.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from types import FrameType

from switchyard.serving.uvicorn_server import Server

_log = logging.getLogger(__name__)
_CLOSE = (b"connection", b"close")


class Drain:
    """Puts ``linger_s`` seconds between SIGTERM and the end of ``server``; made on the loop that runs it."""

    def __init__(self, server: Server, linger_s: float) -> None:
        self._server = server
        self._linger_s = linger_s
        self._loop = asyncio.get_running_loop()
        self.begun = False
        """Whether this worker is about to end; it is then no longer ready, and still answers."""

    def install(self) -> None:
        """Take over SIGTERM from the server. In the main thread only."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def begin(self, sig: int = signal.SIGTERM) -> None:
        """Begin to end; a second time: end now."""
        if self.begun:
            self._server.handle_exit(sig, None)
            return
        self.begun = True
        _log.info("ending: %.1f s for those who are still connected", self._linger_s)
        self._server.config.encoded_headers.append(_CLOSE)
        state = self._server.server_state
        state.default_headers = [*state.default_headers, _CLOSE]
        self._loop.call_later(self._linger_s, self._server.handle_exit, sig, None)

    def _on_signal(self, sig: int, _frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self.begin, sig)


def on_hangup(reload: Callable[[], None]) -> None:
    """Call ``reload`` on this loop at each SIGHUP."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)

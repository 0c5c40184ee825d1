"""A real web server and a real SMTP server that keep what they are sent. Factories only, no tests."""

from __future__ import annotations

import email
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message as Mail
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.homes import free_port


class Hook:
    """A webhook: answers ``status`` to all, with a body without end if it is ``endless``."""

    def __init__(self) -> None:
        self.status = 200
        self.endless = False
        self.got: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/very-secret-path"

    def texts(self) -> list[str]:
        return [one["text"] for one in self.got]

    def states(self) -> list[str]:
        return [one["state"] for one in self.got]


@contextmanager
def hook() -> Iterator[Hook]:
    """A webhook that listens."""
    kept = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if kept.status == 200:
                kept.got.append(json.loads(body))
                kept.keys.append(self.headers["idempotency-key"])
            self.send_response(kept.status)
            self.send_header("content-length", "9999999999" if kept.endless else "0")
            self.end_headers()
            with suppress(ConnectionError):
                while kept.endless:
                    self.wfile.write(b"x" * 65_536)

        def log_message(self, *_arguments: object) -> None:
            """Tests keep what arrives."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()


class Mailbox:
    """The mails of an SMTP server, which refuses recipients at ``nobody``."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.port = 0

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: object
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        self.mails.append(email.message_from_bytes(cast(bytes, envelope.original_content)))
        return "250 OK"


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """An SMTP server that listens, without TLS."""
    kept = Mailbox()
    kept.port = free_port()
    server = Controller(kept, hostname="127.0.0.1", port=kept.port)  # type: ignore[no-untyped-call]
    server.start()  # type: ignore[no-untyped-call]
    try:
        yield kept
    finally:
        server.stop()  # type: ignore[no-untyped-call]

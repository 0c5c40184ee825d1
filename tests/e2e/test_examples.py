"""The examples that people copy do what they say, against the real Bento."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from examples.client import FraudClient
from tests.served import PROJECT, Served, make_body

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_client_example_gets_a_decision(served: Served) -> None:
    command = [sys.executable, str(PROJECT / "examples" / "client.py"), str(served.client.base_url)]

    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    assert re.match(r"(allow|review|block) 0?\.?\d", said)


def test_the_client_gets_the_same_decision_when_it_asks_again(served: Served) -> None:
    body = make_body("by-the-client")

    with FraudClient(str(served.client.base_url)) as client:
        assert client.decide(body) == client.decide(body)
        with pytest.raises(httpx.HTTPStatusError, match="409"):
            client.decide(body | {"amount": "1.00"})


def test_the_curl_example_of_the_readme_gets_a_decision(served: Served) -> None:
    example = re.search(
        r"```\n(curl -s http://127\.0\.0\.1:3000/v1/predict .*?)```", README, re.DOTALL
    )
    assert example, "README.md has no curl example of POST /v1/predict"

    script = example.group(1).replace("127.0.0.1:3000", f"127.0.0.1:{served.port}")
    said = subprocess.run(
        ["bash", "-c", script], check=True, capture_output=True, timeout=60
    ).stdout

    assert json.loads(said)["transaction_id"] == "t-1"


def test_the_client_asks_again_while_the_service_is_overloaded_or_away() -> None:
    with answering(503, None, 429, 200) as (url, seen), FraudClient(url) as client:
        decision = client.decide({"transaction_id": "t"})

    assert decision == {"decision": "allow"}
    assert seen == [{"transaction_id": "t"}] * 4


def test_the_client_gives_up_in_time_and_at_once_where_asking_again_is_no_use() -> None:
    for status, tries in ((503, range(2, 50)), (422, range(1, 2))):
        with answering(*[status] * 50) as (url, seen), FraudClient(url, patience_s=0.3) as client:
            with pytest.raises(httpx.HTTPStatusError, match=str(status)):
                client.decide({})

            assert len(seen) in tries


@contextmanager
def answering(*statuses: int | None) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers with those statuses in turn (None: hangs up), and what it was sent."""
    left, seen = list(statuses), list[Any]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            status = left.pop(0)
            if status is not None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b'{"decision": "allow"}')

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()

"""The load generators count what really came back, and send what they say."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import wrk
from benchmarks.load import CUSTOMERS, TERMINALS, closed_loop, in_bulk, transactions

DECISION = b'{"decision":"allow","degraded":[]}'
DEGRADED = b'{"decision":"review","degraded":["cold_features"]}'


class _Answers(BaseHTTPRequestHandler):
    """Every fourth decision degraded; 503 where the body says so."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count()

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"]))
        body = DEGRADED if next(self.numbers) % 4 == 0 else DECISION
        self.send_response(503 if asked == b"refuse" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output stays clean."""


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_answers_rungs_and_latencies_are_counted(port: int) -> None:
    found = closed_loop(port, "/v1/predict", transactions, 3, 0.2)

    answers = found.statuses[200]
    assert set(found.statuses) == {200}
    assert len(found.latencies) == answers > 4
    assert abs(found.degraded - answers / 4) <= 1
    assert found.degraded + found.allowed == answers


def test_another_status_is_not_taken_for_success(port: int) -> None:
    found = closed_loop(port, "/v1/predict", lambda: itertools.repeat(b"refuse"), 1, 0.1)

    assert set(found.statuses) == {503}


def test_every_transaction_has_an_id_of_its_own_and_all_keys_take_their_turn() -> None:
    sent = [json.loads(body) for body in itertools.islice(transactions(), TERMINALS)]
    others = [json.loads(body) for body in itertools.islice(transactions(), 10)]

    assert len({body["transaction_id"] for body in sent + others}) == TERMINALS + 10
    assert len({body["customer_id"] for body in sent}) == CUSTOMERS
    assert len({body["terminal_id"] for body in sent}) == TERMINALS


def test_a_hot_terminal_gets_its_share() -> None:
    bodies = itertools.islice(transactions(hot_share=0.1), 20_000)

    hot = sum(json.loads(body)["terminal_id"] == "1" for body in bodies)

    assert 0.09 < hot / 20_000 < 0.11


def test_a_bulk_body_holds_many_transactions() -> None:
    body = json.loads(next(in_bulk(25)))

    assert len({each["transaction_id"] for each in body["transactions"]}) == 25


def test_what_wrk_printed_is_read() -> None:
    said = (
        "    99%    1.25s\n  Socket errors: connect 0, read 2, write 0, timeout 0\n"
        "  Non-2xx or 3xx responses: 3\nRequests/sec:   1500.25\n"
    )

    assert wrk.read(said) == {"per_second": 1500.25, "p99_ms": 1250.0, "bad": 5}

"""What the fault harness is made of tells the truth: the client, the proxy, the counting."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks import retrying
from benchmarks.faults import counts, decisions_by_transaction
from benchmarks.retrying import Sent
from benchmarks.store_proxy import SLOW_S, proxied, tell
from switchyard.serving import valkey
from switchyard.serving.journal import Journal


class _SecondTime(BaseHTTPRequestHandler):
    """503 to the first try of each transaction, a decision to the second; one is never decided."""

    protocol_version = "HTTP/1.1"
    tries: Counter[str]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["transaction_id"]
        self.tries[asked] += 1
        decided = self.tries[asked] > 1 and not asked.endswith("-0")
        body = json.dumps({"decision_id": f"d-{asked}", "degraded": ["cold_features"]}).encode()
        self.send_response(200 if decided else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output stays clean."""


@pytest.fixture
def url() -> Iterator[str]:
    _SecondTime.tries = Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _SecondTime)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/predict"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def store_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("store")
    valkey.start(home)
    yield home
    valkey.stop(home)


def test_the_client_asks_with_the_same_id_until_it_is_answered_or_out_of_patience(url: str) -> None:
    outcome = asyncio.run(retrying.run(url, rate=50, seconds=0.1, patience_s=0.5))

    never, *answered = outcome
    assert never.decision_id is None
    assert set(never.troubles) == {"503"}
    assert [s.decision_id for s in answered] == [f"d-{s.transaction_id}" for s in answered]
    assert all(s.troubles == ["503"] and s.degraded == ["cold_features"] for s in answered)


def test_the_proxy_is_slow_or_talks_garbage_when_told(store_home: Path, tmp_path: Path) -> None:
    listen = tmp_path / "p.sock"
    never = Retry(NoBackoff(), 0)
    with proxied(listen, valkey.socket_path(store_home)) as proxy:
        with redis.Redis(unix_socket_path=str(listen), retry=never) as client:
            assert client.ping()
        tell(proxy, "slow")
        hasty = redis.Redis(unix_socket_path=str(listen), socket_timeout=SLOW_S / 5, retry=never)
        with hasty, pytest.raises(redis.TimeoutError):
            hasty.ping()
        tell(proxy, "garbage")
        asked = redis.Redis(unix_socket_path=str(listen), socket_timeout=2.0, retry=never)
        with asked, pytest.raises((redis.RedisError, ValueError, AssertionError)):
            assert asked.ping() is True


def test_failed_lost_and_double_are_told_apart(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append([_decision("once", "1"), _decision("twice", "2"), _decision("twice", "3")])
    outcome = [
        _sent("once", "1"), _sent("twice", "2"), _sent("nowhere", "4"), _sent("silence", None),
    ]  # fmt: skip

    decided = decisions_by_transaction(tmp_path, {sent.transaction_id for sent in outcome})
    found = counts(outcome, decided)

    assert (found["sent"], found["failed"], found["lost"], found["double"]) == (4, 1, 1, 1)


def test_a_client_without_patience_left_is_no_answer() -> None:
    assert counts([_sent("silence", None)], {})["failed"] == 1


def _sent(transaction_id: str, decision_id: str | None) -> Sent:
    after = None if decision_id is None else 0.01
    return Sent(transaction_id, 0.0, after, decision_id)


def _decision(transaction_id: str, decision_id: str) -> dict[str, object]:
    transaction = {"transaction_id": transaction_id}
    return {"type": "decision", "decision_id": decision_id, "transaction": transaction}

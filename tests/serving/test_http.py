"""The edge: keys, bounds and the one error shape, driven as any ASGI server would."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from switchyard.errors import JournalError, RequestError, SettingsError
from switchyard.serving.deadlines import BodyDeadline
from switchyard.serving.headers import SECURITY_HEADERS
from switchyard.serving.http import MAX_BODY_BYTES, Bounds, Endpoint, Get, Lookup, Post
from switchyard.serving.keys import ApiKeys
from switchyard.serving.limits import RateLimit, Room
from switchyard.serving.replies import Answer


def hashed(role: str, key: str) -> str:
    return f"{role}:{hashlib.sha256(key.encode()).hexdigest()}"


KEYS = ApiKeys.parse(
    f"{hashed('score', 'alpha')}, {hashed('label', 'beta')},{hashed('admin', 'root')}"
)

OPEN = ApiKeys()
ALPHA = {"authorization": "Bearer alpha"}


async def echo(body: bytes) -> Answer:
    return Answer(200, body)


async def exchange(endpoint: Any, chunks: list[bytes] | None, **scope: Any) -> list[Any]:
    """What is sent for one request; ``chunks`` None: its body never comes."""
    messages = [
        {"type": "http.request", "body": chunk, "more_body": i + 1 < len(chunks or ())}
        for i, chunk in enumerate(chunks or ())
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        if chunks is None:
            await asyncio.Event().wait()
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": [],
             "server": ("127.0.0.1", 3000), "query_string": b""}  # fmt: skip
    await endpoint(whole | scope, receive, send)
    return sent


def call(
    endpoint: Any,
    chunks: list[bytes],
    *,
    headers: dict[str, str] | None = None,
    server: str = "127.0.0.1",
    **scope: Any,
) -> tuple[int, Any]:
    """One request; status and decoded body of the answer."""
    sent_headers = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
    start, body = asyncio.run(
        exchange(endpoint, chunks, headers=sent_headers, server=(server, 3000), **scope)
    )
    return start["status"], json.loads(body["body"])


def make_bounds(**overrides: Any) -> Bounds:
    return Bounds(Room(100), BodyDeadline(time.monotonic))._replace(**overrides)


def make_endpoint(
    keys: ApiKeys = OPEN, handle: Any = echo, *, bounds: Bounds | None = None, **post: Any
) -> Endpoint:
    chosen = Post("/v1/predict", handle, "score")._replace(**post)
    return Endpoint(chosen, keys, bounds=bounds or make_bounds())


def test_a_body_in_several_chunks_arrives_whole() -> None:
    assert call(make_endpoint(), [b'{"a"', b":", b"1}"]) == (200, {"a": 1})


@pytest.mark.parametrize(
    ("chunks", "headers"),
    [
        ([b"x" * (MAX_BODY_BYTES + 1)], {}),
        ([b"x" * 1000] * 66, {}),
        ([b"{}"], {"content-length": str(MAX_BODY_BYTES + 1)}),
    ],
    ids=["in one piece", "in chunks", "declared"],
)
def test_a_body_beyond_the_bound_is_a_413(chunks: list[bytes], headers: dict[str, str]) -> None:
    status, body = call(make_endpoint(), chunks, headers=headers)

    assert status == 413
    assert body["error"]["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic alpha", 401),
        ("Bearer beta", 403),
        ("Bearer alpha", 200),
        ("bearer alpha", 200),
        ("Bearer root", 200),
    ],
)
def test_a_key_opens_what_its_role_may_do(authorization: str | None, status: int) -> None:
    headers = {"authorization": authorization} if authorization else {}

    answered, body = call(make_endpoint(KEYS), [b"{}"], headers=headers)

    assert answered == status
    assert "alpha" not in json.dumps(body)


def test_off_loopback_nothing_is_answered_without_keys() -> None:
    assert call(make_endpoint(), [b"{}"], server="192.0.2.1")[0] == 403
    assert call(make_endpoint(), [b"{}"], server="127.0.0.1")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_an_open_address_without_keys_is_refused_with_what_to_do(host: str) -> None:
    with pytest.raises(SettingsError, match="SWITCHYARD_API_KEYS"):
        ApiKeys().refuse_open_address(host)

    KEYS.refuse_open_address(host)
    ApiKeys().refuse_open_address("127.0.0.1")


@pytest.mark.parametrize("text", ["alpha", "score:zz", "boss:" + "0" * 64, "score:" + "0" * 62])
def test_a_setting_that_is_no_list_of_keys_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(SettingsError, match="role:sha256hex") as caught:
        ApiKeys.parse(text)

    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "status", "field"),
    [
        (RequestError("amount is negative", field="amount"), 422, "amount"),
        (RequestError("known", status=409, field="transaction_id"), 409, "transaction_id"),
        (JournalError("disk full"), 503, None),
        (RuntimeError("a defect"), 500, None),
    ],
)
def test_every_failure_has_the_one_error_shape(
    error: Exception, status: int, field: str | None
) -> None:
    async def fail(_body: bytes) -> Answer:
        raise error

    answered, body = call(make_endpoint(handle=fail), [b"{}"])

    assert answered == status
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field"}
    assert body["error"]["field"] == field
    assert "disk full" not in json.dumps(body)


def test_a_path_that_takes_a_post_says_so_to_other_methods() -> None:
    status, body = call(make_endpoint(KEYS), [b""], method="GET")

    assert status == 405
    assert body["error"]["message"] == "/v1/predict takes POST alone"


def test_an_answer_has_the_security_headers_and_a_refusal_of_a_method_the_right_one() -> None:
    fine, wrong = (start_of(make_endpoint(), method) for method in ("POST", "PUT"))

    for start in (fine, wrong):
        assert set(SECURITY_HEADERS) <= set(start["headers"])
        names = [name for name, _ in start["headers"]]
        assert len(names) == len(set(names))
    assert (b"allow", b"POST") in wrong["headers"]


def start_of(endpoint: Any, method: str) -> Any:
    """How the answer to a request begins."""
    return asyncio.run(exchange(endpoint, [b"{}"], method=method))[0]


def test_a_body_that_does_not_arrive_is_a_408_that_ends_the_connection() -> None:
    deadline = BodyDeadline(time.monotonic, patience_s=0.05)

    start, _ = asyncio.run(exchange(make_endpoint(bounds=make_bounds(deadline=deadline)), None))

    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]


def test_beyond_its_rate_a_key_gets_429_and_a_bulk_counts_as_many(tmp_path: Path) -> None:
    with RateLimit(tmp_path, 3, len(KEYS.hashed), lambda: 1_000.0) as rate:
        bounds = make_bounds(rate=rate)
        single = make_endpoint(KEYS, bounds=bounds)
        bulk = make_endpoint(KEYS, bounds=bounds, weight=lambda _body: 2)

        alpha = [call(e, [b"{}"], headers=ALPHA)[0] for e in (single, bulk, single)]
        root = call(single, [b"{}"], headers={"authorization": "Bearer root"})[0]

    assert alpha == [200, 200, 429]
    assert root == 200


def test_beyond_what_may_wait_a_request_gets_503_and_nothing_stays_counted() -> None:
    room = Room(1)
    inner: list[int] = []

    async def ask_again(_body: bytes) -> Answer:
        start, _ = await exchange(make_endpoint(bounds=make_bounds(room=room)), [b"{}"])
        inner.append(start["status"])
        return Answer(200, b"{}")

    status, _ = call(make_endpoint(handle=ask_again, bounds=make_bounds(room=room)), [b"{}"])

    assert (status, inner) == (200, [503])
    assert (room.waiting, room.held_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": "application/json"}, 200),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json", "origin": "http://example.org"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_a_body_that_is_said_to_be_no_json_or_comes_from_a_page_is_refused(
    headers: dict[str, str], status: int
) -> None:
    assert call(make_endpoint(), [b"{}"], headers=headers)[0] == status


def test_a_query_is_answered_where_parameters_are_taken_and_refused_elsewhere() -> None:
    async def asked(_body: bytes, query: bytes) -> Answer:
        return Answer(200, json.dumps(query.decode()).encode())

    taking, plain = make_endpoint(asked=asked), make_endpoint()

    assert call(taking, [b"{}"], query_string=b"release=1") == (200, "release=1")
    assert call(taking, [b"{}"]) == (200, {})
    assert call(plain, [b"{}"], query_string=b"a=b")[0] == 422


def test_a_get_is_answered_with_the_last_part_of_its_path() -> None:
    async def part(text: str) -> Answer:
        return Answer(200, json.dumps(text).encode())

    lookup = Lookup(Get("/v1/jobs/", part, "score"), KEYS)
    figures, told = (
        Lookup(Get("/metrics", part), KEYS),
        Lookup(Get("/openapi.json", part, secret=False), KEYS),
    )

    found = call(lookup, [b""], method="GET", path="/v1/jobs/j1", headers=ALPHA)
    nameless = call(lookup, [b""], method="GET", path="/v1/jobs/j1")
    posted = call(lookup, [b""], method="POST", path="/v1/jobs/j1", headers=ALPHA)

    assert (found, nameless[0], posted[0]) == ((200, "j1"), 401, 405)
    beta = {"authorization": "Bearer beta"}
    assert call(lookup, [b""], method="GET", headers=beta)[0] == 403
    assert call(figures, [b""], method="GET", headers=beta)[0] == 200
    assert call(figures, [b""], method="GET")[0] == 401
    assert call(told, [b""], method="GET")[0] == 200

"""The edge: keys, bounds and the one error shape, driven as any ASGI server would."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest

from switchyard.errors import JournalError, RequestError, SettingsError
from switchyard.serving.http import MAX_BODY_BYTES, Endpoint, Front, Post
from switchyard.serving.keys import ApiKeys
from switchyard.serving.replies import Answer


def hashed(role: str, key: str) -> str:
    return f"{role}:{hashlib.sha256(key.encode()).hexdigest()}"


KEYS = ApiKeys.parse(
    f"{hashed('score', 'alpha')}, {hashed('label', 'beta')},{hashed('admin', 'root')}"
)


async def echo(body: bytes) -> Answer:
    return Answer(200, body)


def call(
    endpoint: Endpoint,
    chunks: list[bytes],
    *,
    headers: dict[str, str] | None = None,
    server: str = "127.0.0.1",
    method: str = "POST",
) -> tuple[int, Any]:
    """One request; status and decoded body of the answer."""
    messages = [
        {"type": "http.request", "body": chunk, "more_body": i + 1 < len(chunks)}
        for i, chunk in enumerate(chunks)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": "/v1/predict",
        "server": (server, 3000),
        "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
    }
    asyncio.run(endpoint(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def endpoint_with(keys: ApiKeys) -> Endpoint:
    return Endpoint(Post("/v1/predict", echo, "score"), keys)


def test_a_body_in_several_chunks_arrives_whole() -> None:
    assert call(endpoint_with(ApiKeys()), [b'{"a"', b":", b"1}"]) == (200, {"a": 1})


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
    status, body = call(endpoint_with(ApiKeys()), chunks, headers=headers)

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

    answered, body = call(endpoint_with(KEYS), [b"{}"], headers=headers)

    assert answered == status
    assert "alpha" not in json.dumps(body)


def test_off_loopback_nothing_is_answered_without_keys() -> None:
    assert call(endpoint_with(ApiKeys()), [b"{}"], server="192.0.2.1")[0] == 403
    assert call(endpoint_with(ApiKeys()), [b"{}"], server="127.0.0.1")[0] == 200


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

    answered, body = call(Endpoint(Post("/v1/predict", fail, "score"), ApiKeys()), [b"{}"])

    assert answered == status
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field"}
    assert body["error"]["field"] == field
    assert "disk full" not in json.dumps(body)


def test_a_path_that_takes_a_post_says_so_to_other_methods() -> None:
    endpoint = Endpoint(Post("/v1/predict", echo, "score"), ApiKeys())

    status, body = call(endpoint, [b""], method="GET")

    assert status == 405
    assert body["error"]["message"] == "/v1/predict takes POST, not GET"


def test_only_known_paths_are_answered_in_front_of_the_server() -> None:
    asked: list[str] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        asked.append("server")

    async def route(scope: Any, receive: Any, send: Any) -> None:
        asked.append("route")

    front = Front(server, {"/v1/predict": route})
    for scope in (
        {"type": "http", "path": "/v1/predict"},
        {"type": "http", "path": "/"},
        {"type": "lifespan"},
    ):
        asyncio.run(front(scope, None, None))  # type: ignore[arg-type]

    assert asked == ["route", "server", "server"]

"""Keys and rates on the real Bento with two workers: who may do what, and how often over both."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.served import Packed, Served, make_body, serving

RATE = 25
SENDERS = 8


def setting(**roles: str) -> str:
    return ",".join(f"{r}:{hashlib.sha256(key.encode()).hexdigest()}" for key, r in roles.items())


@pytest.fixture(scope="module")
def guarded(packed: Packed) -> Iterator[Served]:
    keys = setting(alpha="score", beta="score", gamma="label", root="admin")
    variables = {
        "SWITCHYARD_API_KEYS": keys,
        "SWITCHYARD_RATE_LIMIT_PER_S": str(RATE),
        "SWITCHYARD_WORKERS": "2",
    }
    with serving(packed, **variables) as served:
        yield served


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("POST", "/v1/predict", {None: 401, "unknown": 401, "gamma": 403, "root": 422}),
        ("POST", "/v1/labels", {None: 401, "alpha": 403, "gamma": 422, "root": 422}),
        ("POST", "/v1/batch_predict", {None: 401, "gamma": 403, "root": 422}),
        ("GET", "/v1/jobs/j1", {None: 401, "gamma": 403, "root": 404}),
        ("GET", "/v1/traffic", {None: 401, "gamma": 403, "root": 200}),
        ("PUT", "/v1/traffic", {None: 401, "gamma": 403, "root": 422}),
        ("GET", "/metrics", {None: 401, "unknown": 401, "gamma": 200}),
        ("GET", "/openapi.json", {None: 200}),
        ("GET", "/readyz", {None: 200}),
        ("GET", "/schema.json", {None: 404, "root": 404}),
    ],
)
def test_a_key_opens_what_its_role_may_do(
    guarded: Served, method: str, path: str, statuses: dict[str | None, int]
) -> None:
    for key, status in statuses.items():
        headers = bearer(key) if key else {}
        content = None if method == "GET" else b"{}"

        answer = guarded.client.request(method, path, headers=headers, content=content)

        assert answer.status_code == status, (key, answer.text)
        assert key is None or key not in answer.text


def test_a_rate_holds_over_all_workers_and_leaves_other_keys_alone(guarded: Served) -> None:
    url = f"http://127.0.0.1:{guarded.port}"

    def send(sender: int) -> Counter[int]:
        found: Counter[int] = Counter()
        with httpx.Client(base_url=url, headers=bearer("alpha"), timeout=30) as client:
            for n in range(20):
                answer = client.post("/v1/predict", json=make_body(f"rate-{sender}-{n}"))
                found[answer.status_code] += 1
                assert answer.status_code == 200 or answer.headers["retry-after"] == "1"
        return found

    started = time.time()
    with ThreadPoolExecutor(SENDERS) as pool:
        found = sum(pool.map(send, range(SENDERS)), Counter())
    seconds = time.time() - started
    other = guarded.client.post("/v1/predict", json=make_body("by-beta"), headers=bearer("beta"))

    assert found.keys() <= {200, 429}
    assert RATE <= found[200] <= RATE * (seconds + 1) + SENDERS
    assert other.status_code == 200

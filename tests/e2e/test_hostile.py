"""Hostile requests against the real Bento: what the OpenAPI document promises holds, and nothing breaks.

``switchyard bench hostile`` sends 10,000 of the kinds that are tried here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from benchmarks.attacks import Attack, attacks, request
from benchmarks.hostile import assail, memory_mb, still_decides
from switchyard.fraud.openapi import document
from tests.served import Served

EXAMPLES = 10
SCHEMA = schemathesis.openapi.from_dict(document())
PATHS = [
    (path, method, mode)
    for path, of in document()["paths"].items()
    for method, operation in of.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.keys() & {"parameters", "requestBody"}
]
HELD = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
        "response_schema_conformance", "unsupported_method")  # fmt: skip
IN_PARTS = "/v1/predict/bulk"
"""Refuses what is wrong in a part of its body within its answer, not as a whole."""

load_all_checks()


@pytest.mark.parametrize(("path", "method", "mode"), PATHS)
def test_every_answer_is_one_that_the_openapi_document_promises(
    served: Served, path: str, method: str, mode: GenerationMode
) -> None:
    operation = SCHEMA[path][method]
    held = HELD if path == IN_PARTS else (*HELD, "negative_data_rejection")
    checks = CHECKS.get_by_names(list(held))

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    def answered(case: Any) -> None:
        case.call_and_validate(base_url=str(served.client.base_url), checks=checks)

    answered()


def test_hundreds_of_hostile_requests_break_nothing(served: Served) -> None:
    url = str(served.client.base_url)
    assert still_decides(url)
    workers = served.workers()
    before = memory_mb(workers)

    outcome = assail(served.port, attacks(600, seed=11, slow_share=0.01))

    assert outcome.failures == []
    assert still_decides(url)
    assert [w.pid for w in served.workers()] == [w.pid for w in workers]
    assert memory_mb(workers) < before + 100
    assert outcome.statuses["10 MB"].keys() <= {413, 0}
    assert outcome.statuses["slow body"].keys() <= {408}
    assert outcome.statuses["header flood"].keys() <= {200, 431}


def test_a_head_without_end_is_cut_off(served: Served) -> None:
    endless = Attack("endless head", (b"GET / HTTP/1.1\r\n", *[b"x: " + b"y" * 65_536] * 200))

    outcome = assail(served.port, [endless] * 3)

    assert outcome.totals.keys() <= {431, 0}


def test_a_page_in_a_browser_and_another_content_type_are_refused(served: Served) -> None:
    body = b'{"transaction_id": "from-a-page"}'

    page = served.client.post("/v1/predict", content=body, headers={"origin": "http://example.org"})
    text = served.client.post("/v1/predict", content=body, headers={"content-type": "text/plain"})

    assert (page.status_code, text.status_code) == (403, 415)


def test_what_is_pipelined_is_answered_in_order(served: Served) -> None:
    many = b"".join(request(b"{}" if n % 2 else b"{") for n in range(10))

    outcome = assail(served.port, [Attack("pipelined", (many,), answers=10)])

    assert outcome.totals == Counter({400: 5, 422: 5})


def test_a_message_that_quotes_what_was_sent_is_bounded_and_keeps_no_key(served: Served) -> None:
    key = "secret-key-of-somebody"
    body = {"transaction_id": "t", "currency": "X" * 50_000}

    answer = served.client.post(
        "/v1/predict", json=body, headers={"authorization": f"Bearer {key}"}
    )

    assert answer.status_code == 422
    assert len(answer.content) < 2_000
    assert key not in answer.text

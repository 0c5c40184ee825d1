"""The Bento over HTTP: built from a real release, served by plain ``bentoml serve``, drained by SIGTERM."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import subprocess
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import redis

from bentos.fraud.build import build_bento, built_from, source_hash
from switchyard.errors import ReleaseError
from switchyard.fraud.columns import FEATURES
from switchyard.fraud.compaction import compact
from switchyard.fraud.labels import LEDGER, labels_as_of
from switchyard.lake import Lake
from switchyard.serving import valkey
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.headers import SECURITY_HEADERS
from switchyard.serving.segments import read_journal
from switchyard.serving.turnover import turn_over
from tests.homes import free_port
from tests.releases import SUSPICIOUS_AMOUNT
from tests.served import (
    MARK,
    START_S,
    Packed,
    Served,
    bento_folder,
    environment,
    make_body,
    serve_command,
)

# ---------------------------------------------------------------- what is built


def test_a_release_has_one_bento_and_building_it_again_is_no_work(
    packed: Packed,
) -> None:
    home, release_folder, tag = packed.home, packed.release_folder, packed.tag
    info = bento_folder(home, tag) / "bento.yaml"
    built_at = info.stat().st_mtime_ns

    assert build_bento(release_folder, home / "bentoml") == tag == f"fraud:{release_folder.name}"
    assert info.stat().st_mtime_ns == built_at
    assert not list((home / "bentoml").glob(".building-*"))


def test_a_bento_of_other_source_is_built_anew(packed: Packed, tmp_path: Path) -> None:
    release_folder = packed.release_folder
    info = bento_folder(tmp_path, build_bento(release_folder, tmp_path / "bentoml")) / "bento.yaml"
    info.write_text(info.read_text().replace(source_hash(), "of-an-older-engine"))

    build_bento(release_folder, tmp_path / "bentoml")

    assert built_from(tmp_path / "bentoml", release_folder.name) == source_hash()


def test_a_damaged_release_is_not_built(packed: Packed, tmp_path: Path) -> None:
    release_folder = packed.release_folder
    damaged = shutil.copytree(release_folder, tmp_path / release_folder.name)
    (damaged / "model" / "model.ubj").write_bytes(b"no trees")

    with pytest.raises(ReleaseError, match=r"model\.ubj is damaged"):
        build_bento(damaged, tmp_path / "bentoml")

    assert not (tmp_path / "bentoml").exists()


# ---------------------------------------------------------------- what is answered


def test_a_decision_is_in_the_journal_when_its_reply_arrives(served: Served) -> None:
    answer = served.client.post("/v1/predict", json=make_body("first"))

    reply = answer.json()
    record = DecidedIndex(served.journal).newest(decision_id=reply["decision_id"])
    assert answer.status_code == 200
    assert record is not None
    assert {name: record[name] for name in ("score", "decision", "release")} == {
        name: reply[name] for name in ("score", "decision", "release")
    }
    assert reply["release"] == served.release_folder.name
    assert list(reply) == [
        "decision_id", "transaction_id", "score", "decision", "reasons", "release", "variant",
        "degraded", "latency_ms",
    ]  # fmt: skip
    assert 0 < reply["latency_ms"] < 10_000


def test_a_suspicious_amount_is_blocked_with_reasons(served: Served) -> None:
    body = make_body("large", amount=str(2 * SUSPICIOUS_AMOUNT))

    reply = served.client.post("/v1/predict", json=body).json()

    assert reply["decision"] == "block"
    assert reply["reasons"][0]["code"] == "LARGE_AMOUNT"


def test_the_same_id_gets_the_same_reply_and_another_body_is_refused_by_the_copied_code(
    served: Served,
) -> None:
    body = make_body("again")

    first = served.client.post("/v1/predict", json=body)
    same = served.client.post("/v1/predict", json=dict(reversed(body.items())) | {"amount": 57.16})
    other = served.client.post("/v1/predict", json=body | {"amount": "57.17"})

    assert first.content == same.content
    assert other.status_code == 409
    assert other.json()["error"]["code"] == MARK


def test_a_decision_is_explained_over_http(served: Served) -> None:
    reply = served.client.post("/v1/predict", json=make_body("explained")).json()

    found = served.client.post("/v1/explain", json={"decision_id": reply["decision_id"]})
    unknown = served.client.post("/v1/explain", json={"decision_id": "unknown"})

    assert found.status_code == 200, found.text
    assert (found.json()["score"], found.json()["equal"]) == (reply["score"], True)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")


def test_the_openapi_document_names_every_path_that_takes_a_post(served: Served) -> None:
    told = served.client.get("/openapi.json").json()

    for path in ("/v1/predict", "/v1/predict/bulk", "/v1/explain", "/v1/events", "/v1/labels"):
        assert served.client.post(path, content=b"{").status_code == 400
        assert "400" in told["paths"][path]["post"]["responses"]
    assert served.client.post("/v1/other", content=b"{}").status_code == 404


def test_the_release_of_a_request_may_be_named_if_it_is_loaded(served: Served) -> None:
    own, other = served.release_folder.name, "0a" * 16

    named = served.client.post(f"/v1/predict?release={own}", json=make_body("named"))
    unknown = served.client.post(f"/v1/predict?release={other}", json=make_body("unknown-release"))

    assert (named.status_code, named.json()["release"]) == (200, own)
    assert (unknown.status_code, own in unknown.json()["error"]["message"]) == (404, True)


def test_a_batch_job_scores_a_file_and_tells_how_far_it_is(served: Served) -> None:
    folder = served.home / "batch"
    rows = {c.name: [0.0, 1.0] for c in FEATURES} | {"transaction_id": ["a", "b"]}
    pq.write_table(pa.table(rows), folder / "in.parquet")
    uris = {"input_uri": (folder / "in.parquet").as_uri(), "output_uri": f"{folder}/out.parquet"}

    accepted = served.client.post("/v1/batch_predict", json=uris)
    outside = served.client.post("/v1/batch_predict", json=uris | {"output_uri": "/etc/out"})
    told = wait_for_job(served, accepted.json()["job_id"])

    assert (accepted.status_code, outside.status_code) == (202, 403)
    assert (told["status"], told["rows"], told["share"]) == ("done", 2, 1.0), told
    assert pq.read_table(folder / "out.parquet")["transaction_id"].to_pylist() == ["a", "b"]
    assert served.client.get("/v1/jobs/unknown").status_code == 404


def wait_for_job(served: Served, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        told: dict[str, Any] = served.client.get(f"/v1/jobs/{job_id}").json()
        if told["status"] in ("done", "failed"):
            return told
        time.sleep(0.1)
    pytest.fail(f"the job took too long: {told}")


@pytest.mark.parametrize("path", ["/", "/docs.json", "/schema.json", "/v1/predict", "/livez"])
def test_every_answer_has_the_security_headers_and_no_page_of_the_server_is_open(
    served: Served, path: str
) -> None:
    answer = served.client.get(path)

    for name, value in SECURITY_HEADERS:
        assert answer.headers.get_list(name.decode()) == [value.decode()]
    assert "server" not in answer.headers
    assert answer.status_code == {"/livez": 200, "/v1/predict": 405}.get(path, 404)


def test_a_store_that_was_emptied_is_filled_from_the_journal_and_nothing_is_decided_twice(
    served: Served,
) -> None:
    bodies = [make_body("before the loss"), make_body("meanwhile")]
    before = served.client.post("/v1/predict", json=bodies[0]).json()
    with redis.Redis.from_url(valkey.start(served.home)) as client:
        client.flushall()
    meanwhile = served.client.post("/v1/predict", json=bodies[1]).json()

    deadline = time.monotonic() + START_S
    numbers = itertools.count()
    while time.monotonic() < deadline:
        reply = served.client.post("/v1/predict", json=make_body(f"after {next(numbers)}")).json()
        closed = 'breaker_state{of="online_store"} 0' in served.client.get("/metrics").text
        ready = served.client.get("/readyz").status_code == 200
        if reply["degraded"] == [] and ready and closed:
            break
        time.sleep(0.05)

    assert reply["degraded"] == []
    assert served.client.post("/v1/predict", json=bodies[0]).json() == before
    assert served.client.post("/v1/predict", json=bodies[1]).json() == meanwhile


def test_many_are_decided_in_bulk_over_http(served: Served) -> None:
    bodies = [make_body(f"bulk-{n}") for n in range(25)]

    answer = served.client.post("/v1/predict/bulk", json={"transactions": bodies})

    results = answer.json()["results"]
    assert [r["answer"]["transaction_id"] for r in results] == [f"bulk-{n}" for n in range(25)]
    assert {r["status"] for r in results} == {200}


def test_an_unknown_card_gets_the_defaults(served: Served) -> None:
    body = make_body("unknown", customer_id="nobody", terminal_id="nowhere")

    reply = served.client.post("/v1/predict", json=body).json()

    record = DecidedIndex(served.journal).newest(decision_id=reply["decision_id"])
    assert record is not None
    assert reply["degraded"] == []
    for column, value in zip(FEATURES, record["vector"], strict=True):
        if column.freshness == "daily":
            assert value == column.default


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        (b"{", 400, None),
        (b"x" * 70_000, 413, None),
        (json.dumps(make_body("bad", amount=-1)).encode(), 422, "amount"),
        (json.dumps(make_body("bad", colour="red")).encode(), 422, "colour"),
        (b"{}", 422, "transaction_id"),
    ],
)
def test_a_bad_body_is_refused_in_the_one_error_shape(
    served: Served, content: bytes, status: int, field: str | None
) -> None:
    answer = served.client.post("/v1/predict", content=content)

    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "field"}
    assert answer.json()["error"]["field"] == field


def test_an_event_and_a_verdict_count_in_the_next_decision(served: Served) -> None:
    keys = {"customer_id": "c2", "terminal_id": "s2"}
    label = make_body("seen", **keys) | {"is_fraud": True}
    label = {k: v for k, v in label.items() if k not in ("amount", "channel")}

    event = served.client.post("/v1/events", json=make_body("seen", **keys))
    verdict = served.client.post("/v1/labels", json=label)
    reply = served.client.post("/v1/predict", json=make_body("next", **keys)).json()

    record = DecidedIndex(served.journal).newest(decision_id=reply["decision_id"])
    assert record is not None
    vector = {c.name: v for c, v in zip(FEATURES, record["vector"], strict=True)}
    assert (event.status_code, verdict.status_code) == (200, 200)
    assert (vector["customer_tx_count_1min"], vector["customer_fraud_label_count_30d"]) == (1, 1)
    assert record["terminal_seq_seen"] == 2


def test_a_verdict_reaches_the_label_ledger_and_a_correction_is_a_second_row(
    served: Served, tmp_path: Path
) -> None:
    label = make_body("judged", customer_id="c7") | {"is_fraud": True}
    label = {k: v for k, v in label.items() if k not in ("amount", "channel")}
    for is_fraud in (True, True, False):
        answer = served.client.post("/v1/labels", json=label | {"is_fraud": is_fraud})
        assert answer.status_code == 200
    lake = Lake(tmp_path)

    turn_over(served.journal)
    compact(served.journal, lake)

    day = date.fromisoformat(label["event_timestamp"][:10])
    told = lake.read(LEDGER, day).filter(pc.field("customer_id") == "c7").to_pylist()
    first, second = sorted(row["label_available_at"] for row in told)
    assert [row["source"] for row in told] == ["investigator"] * 2
    for moment, is_fraud in ((first, True), (second, False)):
        known = labels_as_of(lake, day, day, moment).to_pylist()
        assert [r["is_fraud"] for r in known if r["transaction_id"] == "judged"] == [is_fraud]


def test_health_and_metrics_answer_and_a_wrong_method_is_refused(served: Served) -> None:
    metrics = served.client.get("/metrics").text
    wrong = served.client.get("/v1/predict")

    assert served.client.get("/livez").status_code == 200
    assert re.search(r'switchyard_answers_total\{route="/v1/predict",status="409"\} 1', metrics)
    for of in ("online_store", "cold_store", "champion", "fallback_logistic"):
        assert re.search(rf'switchyard_breaker_state\{{of="{of}"\}} 0', metrics)
    assert 'switchyard_decisions_total{decision="block",variant="champion"} 1.0' in metrics
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")


# ---------------------------------------------------------------- what does not start


def test_a_damaged_release_or_an_open_address_without_keys_does_not_start(
    packed: Packed, tmp_path: Path
) -> None:
    home, tag = packed.home, packed.tag
    damaged = tmp_path / "bentoml"
    shutil.copytree(home / "bentoml" / "bentos", damaged / "bentos")
    (damaged / "bentos" / tag.replace(":", "/") / "src/release/model/model.ubj").unlink()
    env = environment(home)

    starts = [
        subprocess.Popen(command, env=env | more, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        for command, more in (
            (serve_command(tag, free_port()), {"BENTOML_HOME": str(damaged)}),
            (serve_command(tag, free_port(), "--host", "0.0.0.0"), {}),
        )
    ]
    damage, exposure = [start.communicate(timeout=START_S)[1] for start in starts]

    assert all(start.returncode not in (0, None) for start in starts)
    assert re.search(r"does not start: .*model\.ubj is missing", damage)
    assert re.search(r"does not start: .*SWITCHYARD_API_KEYS", exposure)


# ---------------------------------------------------------------- how it ends (last: it ends the service)


def test_on_sigterm_every_decision_that_was_made_is_answered_and_the_process_ends(
    served: Served,
) -> None:
    """A connection that the worker had not taken up is reset by the kernel: that one was not decided."""
    answered: list[str] = []

    def send(sender: int) -> None:
        for n in range(1_000_000):
            body = make_body(f"drain-{sender}-{n}")
            try:
                reply = httpx.post(f"{served.client.base_url}/v1/predict", json=body, timeout=10)
            except httpx.TransportError:
                return
            answered.append(reply.json()["transaction_id"])

    senders = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for sender in senders:
        sender.start()
    while len(answered) < 20:
        time.sleep(0.01)
    served.process.send_signal(signal.SIGTERM)
    for sender in senders:
        sender.join(timeout=30)

    assert served.process.wait(timeout=30) == 0
    records = [r for r in read_journal(served.journal) if r["type"] == "decision"]
    decided = [r["transaction"]["transaction_id"] for r in records]
    assert sorted(answered) == sorted(i for i in decided if i.startswith("drain-"))

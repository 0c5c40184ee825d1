"""The running service: bodies in from many tasks, each answered with its own decision."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from switchyard.errors import JournalError, RequestError, StoreError
from switchyard.fraud.explain import Explainer
from switchyard.fraud.online import VIEWS, FraudDomain, FraudReader
from switchyard.fraud.requests import Parser
from switchyard.learning.release import Release
from switchyard.serving.commands import Commands
from switchyard.serving.engine import Engine
from switchyard.serving.hot_store import HotStore
from switchyard.serving.journal import Journal
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.replies import Answer
from switchyard.serving.segments import read_journal
from switchyard.serving.service import DecisionService
from switchyard.serving.trip import Claim, Wanted
from tests import loops

NOON_US = 1_772_366_400_000_000
READER = FraudReader(Parser("EUR", future_limit=timedelta(minutes=5)), FraudDomain(100))


@pytest.fixture
def make_service(
    tmp_path: Path, store_url: str, project: str, release: Release
) -> Iterator[Callable[..., DecisionService]]:
    made: list[DecisionService] = []

    def make(**overrides: Any) -> DecisionService:
        parts = {
            "store": HotStore(store_url, Commands(project, VIEWS), budget_s=1.0),
            "journal": Journal(tmp_path / "journal"),
            "release": release,
        }
        engine = Engine(FraudDomain(100), **(parts | overrides))
        explainer = Explainer(tmp_path / "journal", release.folder.parent)
        made.append(DecisionService(engine, READER, lambda: NOON_US, explainer.answer))
        return made[-1]

    yield make
    for service in made:
        service.close()


def body(number: int = 1, **overrides: Any) -> bytes:
    content = {
        "transaction_id": f"t{number}",
        "customer_id": f"c{number % 7}",
        "terminal_id": f"s{number % 3}",
        "amount": number,
        "event_timestamp": "2026-03-01T12:00:00Z",
    }
    return json.dumps(content | overrides).encode()


def test_many_at_once_are_each_answered_with_their_own_decision_and_journalled(
    make_service: Callable[..., DecisionService], tmp_path: Path
) -> None:
    service = make_service()

    async def all_at_once() -> list[Answer]:
        return await asyncio.gather(*(service.predict(body(n)) for n in range(200)))

    answers = loops.run(service.engine.store, all_at_once())

    replies = [json.loads(answer.body) for answer in answers]
    decided = {
        r["decision_id"]: r["transaction"]["transaction_id"]
        for r in read_journal(tmp_path / "journal")
        if r["type"] == "decision"
    }
    assert [r["transaction_id"] for r in replies] == [f"t{n}" for n in range(200)]
    assert {r["decision_id"]: r["transaction_id"] for r in replies} == decided


def test_a_wrong_body_is_refused_before_it_meets_the_others(
    make_service: Callable[..., DecisionService],
) -> None:
    service = make_service()

    async def mixed() -> list[Answer | BaseException]:
        bodies = [body(1), body(2, amount=-1), b"{", body(3)]
        return await asyncio.gather(*map(service.predict, bodies), return_exceptions=True)

    fine, negative, no_json, also_fine = loops.run(service.engine.store, mixed())

    assert isinstance(fine, Answer)
    assert isinstance(also_fine, Answer)
    assert isinstance(negative, RequestError)
    assert negative.field == "amount"
    assert isinstance(no_json, RequestError)
    assert no_json.status == 400


def test_what_another_worker_claimed_and_never_finished_is_decided_when_its_lease_ends(
    make_service: Callable[..., DecisionService], store_url: str, project: str
) -> None:
    service = make_service()
    digest = READER.transaction(body(), NOON_US).digest
    other = OnlineStore(store_url, project, VIEWS)
    other.read([Wanted(("c1", "s1"), Claim("t1", b"a dead worker's ", digest))])

    started = time.monotonic()
    answer = loops.run(service.engine.store, service.predict(body()))

    other.close()
    assert answer.status == 200
    assert 1.5 < time.monotonic() - started < 2.6


def test_events_wait_for_the_store_while_decisions_go_on_without_it(
    make_service: Callable[..., DecisionService], tmp_path: Path
) -> None:
    nowhere = HotStore(f"unix://{tmp_path}/nobody.sock", Commands("x", VIEWS))
    service = make_service(store=nowhere)

    async def both() -> list[Answer | BaseException]:
        return await asyncio.gather(
            service.predict(body(1)), service.event(body(2)), return_exceptions=True
        )

    decided, event = loops.run(service.engine.store, both())

    assert isinstance(decided, Answer)
    assert isinstance(event, StoreError)


def test_a_journal_that_cannot_be_written_stops_decisions_until_it_can(
    make_service: Callable[..., DecisionService], tmp_path: Path
) -> None:
    in_the_way = tmp_path / "in the way"
    in_the_way.write_text("")
    service = make_service(journal=Journal(in_the_way / "journal"))

    with pytest.raises(JournalError):
        loops.run(service.engine.store, service.predict(body(1)))
    in_the_way.unlink()

    assert loops.run(service.engine.store, service.predict(body(2))).status == 200


# bulk


def bulk(*bodies: bytes) -> bytes:
    return b'{"transactions":[%b]}' % b",".join(bodies)


def results(answer: Answer) -> list[tuple[int, Any]]:
    return [(r["status"], r["answer"]) for r in json.loads(answer.body)["results"]]


def test_in_bulk_each_is_answered_as_if_alone_and_in_order(
    make_service: Callable[..., DecisionService], tmp_path: Path
) -> None:
    service = make_service()
    asked = [body(1), body(2, amount=-1), b'"nonsense"', body(3), body(1), body(1, amount=9)]

    async def twice() -> tuple[Answer, Answer]:
        return await service.bulk(bulk(*asked)), await service.predict(body(3))

    together, alone = loops.run(service.engine.store, twice())

    found = results(together)
    assert together.status == 200
    assert [status for status, _ in found] == [200, 422, 422, 200, 200, 409]
    assert found[1][1]["error"]["field"] == "amount"
    assert found[4][1] == found[0][1], "a repeat in the same body gets the first's decision"
    assert found[3][1] == json.loads(alone.body), "and one that comes later, too"
    decided = [r for r in read_journal(tmp_path / "journal") if r["type"] == "decision"]
    assert [r["transaction"]["transaction_id"] for r in decided] == ["t1", "t3"]


def test_a_thousand_are_decided_in_one_body_and_no_more(
    make_service: Callable[..., DecisionService],
) -> None:
    service = make_service()

    answer = loops.run(service.engine.store, service.bulk(bulk(*(body(n) for n in range(1, 1001)))))

    assert [reply["transaction_id"] for _, reply in results(answer)] == [
        f"t{n}" for n in range(1, 1001)
    ]
    with pytest.raises(RequestError) as caught:
        loops.run(service.engine.store, service.bulk(bulk(*(body(n) for n in range(1001)))))
    assert (caught.value.status, caught.value.field) == (422, "transactions")


class OneAtATime(Journal):
    """A journal that notices whoever writes decisions while others are being synced."""

    at_once = False
    _busy = False

    def write(self, records: Sequence[Any], keys: Sequence[Any] | None = None) -> None:
        self.at_once |= self._busy and any(keys or ())
        super().write(records, keys)

    def sync(self) -> None:
        self._busy = True
        time.sleep(0.01)
        super().sync()
        self._busy = False


def test_while_a_batch_waits_for_the_disk_no_other_one_of_a_bulk_writes(
    make_service: Callable[..., DecisionService], tmp_path: Path
) -> None:
    journal = OneAtATime(tmp_path / "synced", fsync=True)
    service = make_service(journal=journal)

    answer = loops.run(service.engine.store, service.bulk(bulk(*(body(n) for n in range(150)))))

    assert [r["status"] for r in json.loads(answer.body)["results"]] == [200] * 150
    assert not journal.at_once


def test_a_journal_that_fails_refuses_each_of_a_bulk_with_503(
    make_service: Callable[..., DecisionService], tmp_path: Path
) -> None:
    in_the_way = tmp_path / "in the way"
    in_the_way.write_text("")
    service = make_service(journal=Journal(in_the_way / "journal"))

    answer = loops.run(service.engine.store, service.bulk(bulk(body(1), body(2))))

    assert [status for status, _ in results(answer)] == [503, 503]


# explain


@pytest.mark.parametrize("by", ["decision_id", "transaction_id"])
def test_a_decision_is_explained_by_its_journalled_vector_and_release(
    make_service: Callable[..., DecisionService], release: Release, by: str
) -> None:
    service = make_service()

    async def decide_and_explain() -> tuple[Answer, Answer]:
        decided = await service.predict(body(1, amount=50_000))
        name = json.loads(decided.body)[by]
        return decided, await service.explain(json.dumps({by: name}).encode())

    decided, explained = (
        json.loads(answer.body) for answer in loops.run(service.engine.store, decide_and_explain())
    )

    assert explained["decision_id"] == decided["decision_id"]
    assert explained["score"] == explained["recomputed_score"] == decided["score"]
    assert explained["equal"] is True
    pushes = [c["contribution"] for c in explained["contributions"]]
    assert len(pushes) == len(release.columns)
    assert pushes == sorted(pushes, key=abs, reverse=True)
    assert abs(sum(pushes) + explained["base"] - explained["margin"]) < 1e-9


# bodies of another shape


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [
        ("/v1/predict/bulk", b"{", 400),
        ("/v1/predict/bulk", b"[]", 422),
        ("/v1/predict/bulk", b'{"transactions":[]}', 422),
        ("/v1/predict/bulk", b'{"transactions":[1],"x":1}', 422),
        ("/v1/explain", b"{", 400),
        ("/v1/explain", b"{}", 422),
        ("/v1/explain", b'{"decision_id":"a","transaction_id":"b"}', 422),
        ("/v1/explain", b'{"decision_id":1}', 422),
        ("/v1/explain", b'{"decision_id":"unknown"}', 404),
        ("/v1/explain", b'{"transaction_id":"unknown"}', 404),
    ],
)
def test_what_cannot_be_answered_is_refused(
    make_service: Callable[..., DecisionService], path: str, sent: bytes, status: int
) -> None:
    handle = {post.path: post.handle for post in make_service().routes()}[path]

    with pytest.raises(RequestError) as caught:
        asyncio.run(handle(sent))

    assert caught.value.status == status

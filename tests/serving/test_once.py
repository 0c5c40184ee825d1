"""One transaction is decided once, also when the store is away, comes back, or a worker dies half-way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from switchyard.fraud.online import VIEWS, FraudDomain
from switchyard.fraud.requests import Transaction
from switchyard.learning.release import Release
from switchyard.serving.claims import BUSY
from switchyard.serving.commands import LEASE_MS, Commands
from switchyard.serving.engine import Asked, Engine
from switchyard.serving.hot_store import HotStore
from switchyard.serving.journal import Journal
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.replies import Answer
from switchyard.serving.segments import read_journal
from switchyard.serving.trip import Claim, Wanted
from tests import loops
from tests.serving.test_engine import ask, make_transaction

MakeWorker = Callable[[str], Engine[Transaction]]


@pytest.fixture
def make_worker(
    tmp_path: Path, store_url: str, project: str, release: Release
) -> Iterator[MakeWorker]:
    """Workers of one host: one journal folder, and the store at the given address."""
    made: list[Engine[Transaction]] = []

    def make(url: str = store_url) -> Engine[Transaction]:
        store = HotStore(url, Commands(project, VIEWS), budget_s=1.0)
        made.append(Engine(FraudDomain(100), store, Journal(tmp_path / "journal"), release))
        return made[-1]

    yield make
    for worker in made:
        worker.journal.close()
        worker.ledger.close()


@pytest.fixture
def nowhere(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/nobody.sock"


def run(worker: Engine[Transaction], *asked: Asked[Transaction]) -> list[Any]:
    return loops.run(worker.store, worker.decide(asked))


def answer(worker: Engine[Transaction], transaction: Transaction) -> Answer:
    (found,) = run(worker, ask(transaction))
    assert isinstance(found, Answer)
    return found


def decisions(worker: Engine[Transaction]) -> int:
    return sum(r["type"] == "decision" for r in read_journal(worker.journal.folder))


def test_without_the_store_the_same_body_gets_the_same_reply_from_every_worker(
    make_worker: MakeWorker, nowhere: str
) -> None:
    first = answer(make_worker(nowhere), make_transaction())

    again = answer(make_worker(nowhere), make_transaction())

    assert first.status == 200
    assert again == first
    assert decisions(make_worker(nowhere)) == 1


def test_without_the_store_another_body_is_a_conflict(
    make_worker: MakeWorker, nowhere: str
) -> None:
    worker = make_worker(nowhere)
    answer(worker, make_transaction())

    assert answer(worker, make_transaction(amount_minor=1)).status == 409
    assert decisions(worker) == 1


def test_what_was_decided_without_the_store_is_not_new_to_it_when_it_is_back(
    make_worker: MakeWorker, nowhere: str, store_url: str
) -> None:
    first = answer(make_worker(nowhere), make_transaction())
    worker = make_worker(store_url)

    assert answer(worker, make_transaction()) == first
    assert answer(worker, make_transaction(amount_minor=1)).status == 409
    assert decisions(worker) == 1


def test_a_claim_that_ran_out_after_its_decision_was_journalled_gets_that_decision(
    make_worker: MakeWorker, nowhere: str, store_url: str, project: str
) -> None:
    """As if a worker had died between its journal and its write trip."""
    transaction = make_transaction()
    with_store = OnlineStore(store_url, project, VIEWS)
    claim = Claim(transaction.transaction_id, bytes(16), transaction.digest)
    with_store.read([Wanted(("c1", "s1"), claim)])
    with_store.close()
    dying = make_worker(nowhere)
    first = answer(dying, transaction)
    dying.ledger.settle([transaction.transaction_id])
    time.sleep(LEASE_MS / 1000 + 0.1)
    worker = make_worker(store_url)

    assert answer(worker, transaction) == first
    assert decisions(worker) == 1
    assert worker.ledger.all_unsettled() == ["t1"]


def test_what_another_process_of_the_host_is_deciding_is_busy_for_this_one(
    make_worker: MakeWorker, store_url: str, tmp_path: Path
) -> None:
    from tests.serving.test_ledger import another_worker, tell

    worker = make_worker(store_url)
    with another_worker(tmp_path / "journal") as other:
        assert tell(other, "ledger.hold('t1')") == "True"
        assert run(worker, ask(make_transaction(1)), ask(make_transaction(2)))[0] is BUSY

        tell(other, "ledger.let_go('t1')")
        assert answer(worker, make_transaction(1)).status == 200

    assert decisions(worker) == 2


def test_a_decision_holds_nothing_once_it_is_answered(
    make_worker: MakeWorker, nowhere: str
) -> None:
    worker = make_worker(nowhere)
    answer(worker, make_transaction())

    assert worker.ledger.hold("t1")


def test_with_fsync_a_decision_is_answered_and_journalled_the_same(
    make_worker: MakeWorker, nowhere: str, tmp_path: Path
) -> None:
    worker = make_worker(nowhere)
    worker.journal = Journal(tmp_path / "journal", fsync=True)

    body = msgspec.json.decode(answer(worker, make_transaction()).body)

    worker.journal.close()
    (record,) = read_journal(tmp_path / "journal")
    assert record["decision_id"] == body["decision_id"]


def test_without_the_store_what_is_known_and_what_is_new_may_wait_together(
    make_worker: MakeWorker, nowhere: str
) -> None:
    worker = make_worker(nowhere)
    first = answer(worker, make_transaction(1))

    known, new = run(worker, ask(make_transaction(1)), ask(make_transaction(2)))

    assert known == first
    assert new.status == 200
    assert decisions(worker) == 2

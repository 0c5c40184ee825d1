"""What a decision leaves behind when a step of it fails: no claim that stays, no number that nobody journalled."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from switchyard.errors import JournalError, StoreError
from switchyard.fraud.events import decode_blob
from switchyard.fraud.online import VIEWS, FraudDomain
from switchyard.fraud.requests import Transaction
from switchyard.serving import valkey
from switchyard.serving.commands import Commands
from switchyard.serving.domain import Assembled
from switchyard.serving.engine import Engine
from switchyard.serving.hot_store import HotStore
from switchyard.serving.journal import Journal
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.replies import Answer
from switchyard.serving.segments import read_journal
from switchyard.serving.service import DecisionService
from switchyard.serving.trip import Claim, Trip, Wanted, read_trip, read_written
from tests import loops
from tests.serving.test_engine import NOON_US, READER, ask, event_body, make_transaction, run

MakeEngine = Callable[..., Engine[Transaction]]


def store_numbers(url: str, project: str, entity: str = "c1") -> list[int]:
    """Numbers that the store gave to the events of a customer."""
    store = OnlineStore(url, project, VIEWS)
    blob = store.read([Wanted((entity, "s1"))]).activity[0][0]
    store.close()
    return [int(e["seq"]) for e in decode_blob(blob)[1]] if blob else []


def journalled_numbers(folder: Path) -> list[int]:
    return [r["customer_seq"] for r in read_journal(folder) if r["type"] == "appended"]


class Full(Journal):
    """The real journal, whose disk is full while ``full`` says so of what is to be written."""

    full: Callable[[Sequence[Any]], bool] = staticmethod(lambda _records: False)

    def write(self, records: Sequence[Any], keys: Any = None) -> None:
        self._room._max_bytes = 0 if self.full(records) else 1 << 62
        self._room._due = 0.0
        super().write(records, keys)


def of_numbers(records: Sequence[Any]) -> bool:
    return bool(records) and records[0]["type"] == "appended"


# ---------------------------------------------------------------- the journal fails


def test_after_a_decision_that_could_not_be_journalled_the_same_worker_decides_at_once(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    journal = Full(tmp_path / "journal")
    engine = make_engine(journal=journal)
    journal.full = lambda _records: True
    with pytest.raises(JournalError):
        run(engine, make_transaction())
    journal.full = lambda _records: False

    (again,) = run(engine, make_transaction())

    assert isinstance(again, Answer), "BUSY for the rest of a lease that nobody uses"
    assert again.status == 200


def test_a_body_that_was_never_decided_is_no_conflict_for_the_next_one(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    journal = Full(tmp_path / "journal")
    engine = make_engine(journal=journal)
    journal.full = lambda _records: True
    with pytest.raises(JournalError):
        run(engine, make_transaction(amount_minor=1))
    journal.full = lambda _records: False

    (corrected,) = run(engine, make_transaction(amount_minor=2))

    assert not isinstance(corrected, Answer) or corrected.status != 409


def test_a_decision_whose_numbers_find_no_room_is_answered_and_noted_for_the_caretaker(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    journal = Full(tmp_path / "journal")
    engine = make_engine(journal=journal)
    journal.full = of_numbers

    answers: list[Any] = []
    with contextlib.suppress(JournalError):
        answers = run(engine, make_transaction())
    journal.full = lambda _records: False

    assert engine.ledger.all_unsettled() == ["t1"], "its number is in the store and in no journal"
    assert [a.status for a in answers] == [200], "it is in the journal, and was not answered"


# ---------------------------------------------------------------- events


def test_an_event_that_the_store_refuses_costs_the_others_neither_answer_nor_number(
    make_engine: MakeEngine, store_url: str, project: str, tmp_path: Path
) -> None:
    engine = make_engine()
    with redis.Redis.from_url(store_url) as client:
        client.set(engine.store.commands.activity_key("customer", "broken"), b"\x00" * 100)
    taken = [
        READER.event(event_body(), NOON_US),
        READER.event(event_body(transaction_id="t2", customer_id="broken"), NOON_US),
    ]

    with contextlib.suppress(StoreError):
        loops.run(engine.store, engine.take_in(taken))

    assert journalled_numbers(tmp_path / "journal")[:1] == store_numbers(store_url, project) == [1]


def test_an_event_that_a_late_store_took_gets_its_number_journalled(
    make_engine: MakeEngine, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("late")
    url = valkey.start(home)
    store = HotStore(url, Commands("late", VIEWS), budget_s=1.0)
    engine = make_engine(store=store)
    pid = int((home / "valkey" / "valkey.pid").read_text())

    async def frozen_meanwhile() -> None:
        await store.ping()
        store.budget_s = 0.05
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StoreError):
            await engine.take_in([READER.event(event_body(), NOON_US)])
        os.kill(pid, signal.SIGCONT)
        store.budget_s = 1.0
        await store.ping()
        await engine.decide([ask(make_transaction(2))])

    loops.run(store, frozen_meanwhile())
    given = store_numbers(url, "late")
    valkey.stop(home)

    decisions = [r for r in read_journal(tmp_path / "journal") if r["type"] == "decision"]
    assert given == [1, 2]
    assert [r["customer_seq_seen"] for r in decisions] == [1]
    assert journalled_numbers(tmp_path / "journal") == [1, 2], "what the decision saw is not known"


# ---------------------------------------------------------------- two hosts


class Stalled(FraudDomain):
    """A worker that stands still between its read trip and its journal."""

    during: Callable[[], None] = staticmethod(lambda: None)

    def assemble(self, requests: Sequence[Transaction], trip: Trip | None) -> Assembled:
        self.during()
        return super().assemble(requests, trip)


def test_a_worker_that_stood_still_longer_than_its_lease_does_not_decide_a_second_time(
    make_engine: MakeEngine, tmp_path: Path, store_url: str, project: str
) -> None:
    other = make_engine(journal=Journal(tmp_path / "another host"))

    def on_another_host() -> None:
        time.sleep(2.1)
        thread = threading.Thread(target=lambda: run(other, make_transaction()))
        thread.start()
        thread.join()

    domain = Stalled(100)
    domain.during = on_another_host
    engine = make_engine(domain=domain)
    run(engine, make_transaction())

    journals = [tmp_path / "journal", tmp_path / "another host"]
    records = [record for folder in journals for record in read_journal(folder)]
    assert sum(record["type"] == "decision" for record in records) == 1


# ---------------------------------------------------------------- the folder goes


def test_a_journal_whose_folder_went_does_not_write_into_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.write([{"type": "event", "n": 1}])
        shutil.rmtree(tmp_path / "journal")
        journal.trouble()
        try:
            journal.write([{"type": "event", "n": 2}])
        except JournalError:
            return
        assert [r["n"] for r in read_journal(tmp_path / "journal")] == [2]


# ---------------------------------------------------------------- holds


def test_a_lock_table_that_is_full_leaves_no_hold_behind(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    assert engine.ledger.hold("t0")
    lock = fcntl.lockf
    asked: list[Any] = []

    def second_fails(*arguments: Any) -> None:
        asked.append(arguments)
        if len(asked) == 2:
            raise OSError(errno.ENOLCK, "No locks available")
        lock(*arguments)

    monkeypatch.setattr(fcntl, "lockf", second_fails)
    with pytest.raises(JournalError):
        run(engine, make_transaction(1), make_transaction(2))
    monkeypatch.undo()

    assert engine.ledger.hold("t1"), "BUSY for as long as this worker lives"


# ---------------------------------------------------------------- damaged replies


@pytest.mark.parametrize("value", [b"r", b"rubbish"])
def test_a_damaged_stored_reply_is_looked_up_and_not_told(
    make_engine: MakeEngine, store_url: str, value: bytes
) -> None:
    engine = make_engine()
    with redis.Redis.from_url(store_url) as client:
        client.set(engine.store.commands.decision_key("t1"), value)

    (answer,) = run(engine, make_transaction())

    assert isinstance(answer, Answer)
    assert (answer.status, bool(answer.body)) == (200, True)


def test_whatever_a_store_answers_a_trip_is_read_or_fails_as_the_stores_fault(
    make_engine: MakeEngine,
) -> None:
    draw = random.Random(1)

    def reply() -> object:
        return draw.choice(
            [
                None, 7, -1, b"", b"n", b"r", b"b" * 17, b"\x00" * 16, b"\x00" * 64, "text", 1.5, True,
                [], [None], [b"x"] * 17, [None] * 16, [b"\x08\x01"] * 16, redis.ResponseError("ERR no"),
                {}, [[]], b"\xff" * 200,
            ]
        )  # fmt: skip

    wanted = [Wanted(("c1", "s1"), Claim("t1", bytes(16), bytes(16)))]
    domain = FraudDomain(100)
    for _ in range(5_000):
        try:
            trip = read_trip(VIEWS, wanted, [reply() for _ in range(1 + 2 * 2 + 1 + 2 + 1)])
            domain.assemble([make_transaction()], trip)
            read_written(2, [reply() for _ in range(5)])
        except StoreError:
            continue


def test_of_one_bulk_the_same_id_far_apart_is_decided_once(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    engine = make_engine()
    service = DecisionService(engine, READER, lambda: NOON_US, bytes.hex)
    single = {
        "customer_id": "c1",
        "terminal_id": "s1",
        "amount": 5,
        "event_timestamp": "2026-03-01T12:00:00Z",
    }
    ids = [f"t{n % 100}" for n in range(1_000)]
    content = {"transactions": [single | {"transaction_id": name} for name in ids]}

    async def both() -> list[Answer]:
        body = json.dumps(content).encode()
        return await asyncio.gather(service.bulk(body), service.bulk(body))

    answers = loops.run(engine.store, both())

    results = [r for a in answers for r in json.loads(a.body)["results"]]
    assert {r["status"] for r in results} == {200}
    assert len({r["answer"]["decision_id"] for r in results}) == 100
    decided = [r for r in read_journal(tmp_path / "journal") if r["type"] == "decision"]
    assert len(decided) == 100

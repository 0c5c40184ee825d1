"""A store that was lost is filled from the journal: nothing that was served is forgotten, every vector comes out
again, and no transaction is decided twice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
import redis

from switchyard.errors import StoreError
from switchyard.fraud.bodies import label_body, transaction_body
from switchyard.fraud.caretaking import Caretaker
from switchyard.fraud.events import EVENT, decode_blob
from switchyard.fraud.online import FraudDomain, FraudReader, online_store_of
from switchyard.fraud.rebuild import refill_if_lost
from switchyard.fraud.recompute import Recomputed, recompute_journal
from switchyard.fraud.requests import Parser, Transaction
from switchyard.fraud.service import open_service
from switchyard.fraud.sync import sync_activity, sync_profiles
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake, write_parquet
from switchyard.serving import valkey
from switchyard.serving.engine import Asked, Engine
from switchyard.serving.ids import unique_tokens
from switchyard.serving.journal import Journal, wall_clock_us
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.replies import Answer
from switchyard.serving.segments import read_journal, segments
from switchyard.serving.trip import Wanted
from switchyard.settings import Settings, load_settings
from tests import loops
from tests.releases import make_release
from tests.streams import NOON, Row, land, make_label, make_transaction

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
BEFORE = NOON - timedelta(hours=12)  # midnight
READER = FraudReader(Parser("EUR", future_limit=None), FraudDomain(100))
encode = msgspec.json.encode
new_token = unique_tokens()


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of the module's Valkey, which each test empties first."""
    home = tmp_path_factory.mktemp("store")
    yield home
    valkey.stop(home)


@pytest.fixture
def url(shared_home: Path) -> str:
    address = valkey.start(shared_home)
    lose(address)
    return address


@pytest.fixture
def settings(tmp_path: Path, url: str) -> Settings:
    """A home with a week of history in its lake and in its store."""
    settings = load_settings(home=tmp_path / "home", redis_url=url)
    history = [
        make_transaction(
            transaction_id=f"h{i}",
            customer_id=f"c{i % 3}",
            terminal_id=f"s{i % 2}",
            amount_minor=500 + 31 * i,
            event_timestamp=BEFORE - 7 * DAY + timedelta(hours=4 * i),
        )
        for i in range(40)
    ]
    lake = land(settings.lake, history, [make_label(history[0])])
    build_profiles(lake, (BEFORE - 3 * DAY).date(), (BEFORE - DAY).date(), created_at=BEFORE)
    store = online_store_of(url)
    sync_profiles(lake, store, (BEFORE - DAY).date())
    sync_activity(lake, store, settings, BEFORE)
    store.close()
    return settings


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine[Transaction]]:
    service = open_service(settings, make_release(settings.releases).folder)
    service.engine.store.budget_s = 1.0
    yield service.engine
    service.close()


@pytest.fixture
def caretaker(settings: Settings, url: str, engine: Engine[Transaction]) -> Iterator[Caretaker]:
    made = Caretaker(settings, url, FraudDomain(100), lambda: engine.newest)
    yield made
    made.close()


@pytest.fixture
def store(url: str) -> Iterator[OnlineStore]:
    opened = online_store_of(url)
    yield opened
    opened.close()


def lose(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()


def row(number: int, **overrides: object) -> Row:
    """The day's transaction of that number, of one card at one terminal."""
    given = {"transaction_id": f"t{number}", "event_timestamp": NOON + number * MINUTE}
    return make_transaction(**(given | overrides))


def decide(engine: Engine[Transaction], *rows: Row) -> list[Answer]:
    """The answers to one batch."""
    now_us = wall_clock_us()
    asked = [
        Asked(READER.transaction(encode(transaction_body(r)), now_us), now_us, 0.0, new_token())
        for r in rows
    ]
    answers = loops.run(engine.store, engine.decide(asked))
    found = [answer for answer in answers if isinstance(answer, Answer)]
    assert len(found) == len(rows)
    return found


def degraded(answers: Sequence[Answer]) -> list[list[str]]:
    return [msgspec.json.decode(answer.body)["degraded"] for answer in answers]


def kept(store: OnlineStore, card: str = "c1") -> set[tuple[int, int]]:
    """(time, id) of the card's events in the store."""
    blob = store.read([Wanted((card, "s1"))]).activity[0][0]
    events = decode_blob(blob)[1] if blob else []
    return {(int(e["event_timestamp"]), int(e["event_id"])) for e in events}


def recomputed(settings: Settings) -> Recomputed:
    return recompute_journal(settings, Lake(settings.lake))


def test_before_and_after_a_loss_every_vector_comes_out_again_and_activity_is_whole(
    engine: Engine[Transaction],
    caretaker: Caretaker,
    store: OnlineStore,
    settings: Settings,
    url: str,
) -> None:
    before = [decide(engine, row(n))[0] for n in range(1, 6)]
    held = kept(store)

    lose(url)
    meanwhile = decide(engine, row(6))
    caretaker.step()
    after = [decide(engine, row(n))[0] for n in range(7, 12)]
    caretaker.step()

    assert degraded(before) == [[]] * 5
    assert degraded(meanwhile) != [[]]
    assert degraded(after) == [[]] * 5
    assert caretaker.filled
    assert held < kept(store)
    assert len(kept(store)) == len(held) + 6
    checked = recomputed(settings)
    assert checked.differences == ()
    assert checked.rows == 11


def test_what_was_decided_before_and_during_the_loss_gets_the_same_reply_after_it(
    engine: Engine[Transaction], caretaker: Caretaker, settings: Settings, url: str
) -> None:
    (first,) = decide(engine, row(1))
    lose(url)
    (second,) = decide(engine, row(2))
    caretaker.step()

    assert decide(engine, row(1), row(2)) == [first, second]
    assert [a.status for a in decide(engine, row(1, amount_minor=1), row(2, amount_minor=1))] == [
        409,
        409,
    ]
    decisions = [r for r in read_journal(settings.journal) if r["type"] == "decision"]
    assert len(decisions) == 2


def test_events_and_verdicts_are_in_the_filled_store_and_count_once(
    engine: Engine[Transaction],
    caretaker: Caretaker,
    store: OnlineStore,
    settings: Settings,
    url: str,
) -> None:
    now_us = wall_clock_us()
    taken = [
        READER.event(encode(transaction_body(row(1))), now_us),
        READER.label(encode(label_body(make_label(row(1)))), now_us),
    ]
    loops.run(engine.store, engine.take_in(taken))
    held = kept(store)

    lose(url)
    caretaker.step()
    again = READER.label(encode(label_body(make_label(row(1)))), now_us)
    loops.run(engine.store, engine.take_in([again]))
    decide(engine, row(2, event_timestamp=NOON + 8 * DAY))

    assert len(held & kept(store)) == len(held)
    labels = [r for r in read_journal(settings.journal) if r["type"] == "label"]
    assert len(labels) == 1
    assert recomputed(settings).differences == ()


def test_an_emptied_store_takes_no_event_before_it_is_filled(
    engine: Engine[Transaction], store: OnlineStore, url: str
) -> None:
    lose(url)
    event = READER.event(encode(transaction_body(row(1))), wall_clock_us())

    with pytest.raises(StoreError, match="was emptied"):
        loops.run(engine.store, engine.take_in([event]))
    decide(engine, row(2))

    assert engine.ledger.all_unsettled() == ["t2"]


def test_a_store_that_lost_what_it_had_acknowledged_is_filled_anew(
    engine: Engine[Transaction],
    caretaker: Caretaker,
    store: OnlineStore,
    settings: Settings,
    url: str,
) -> None:
    """As one that comes back from an older copy of its data."""
    with redis.Redis.from_url(url) as client:
        keys = client.keys("*")
        older = {key: client.dump(key) for key in keys}
        decide(engine, row(1))
        decide(engine, row(2))
        held, epoch = kept(store), store.epoch()
        caretaker.step()
        assert store.epoch() == epoch
        client.flushall()
        for key, value in older.items():
            client.restore(key, 0, value)

    caretaker.step()
    decide(engine, row(3))

    assert store.epoch() != epoch
    assert held < kept(store)
    assert recomputed(settings).differences == ()


def test_of_two_caretakers_one_fills_the_store(
    engine: Engine[Transaction],
    caretaker: Caretaker,
    store: OnlineStore,
    settings: Settings,
    url: str,
) -> None:
    other = Caretaker(settings, url, FraudDomain(100))
    lose(url)
    other.start()
    caretaker.step()
    deadline = time.monotonic() + 20
    while not other.filled and time.monotonic() < deadline:
        time.sleep(0.02)
    other.close()

    baselines = [r for r in read_journal(settings.journal) if r["type"] == "baseline"]
    assert len(baselines) == 2
    assert store.epoch() == baselines[-1]["epoch"]


def test_a_filling_that_was_interrupted_is_done_again(
    engine: Engine[Transaction],
    caretaker: Caretaker,
    store: OnlineStore,
    settings: Settings,
    url: str,
) -> None:
    decide(engine, row(1))
    held = kept(store)
    lose(url)
    caretaker.step()
    store.end_epoch()  # as if it had been killed just before its end
    decide(engine, row(2))

    caretaker.step()
    decide(engine, row(3))

    assert held < kept(store)
    assert recomputed(settings).differences == ()


def test_without_a_store_the_service_is_ready_and_its_caretaker_waits(
    settings: Settings, tmp_path: Path
) -> None:
    caretaker = Caretaker(settings, f"unix://{tmp_path}/nobody.sock", FraudDomain(100))
    assert not caretaker.filled

    caretaker.start()
    deadline = time.monotonic() + 20
    while not caretaker.filled and time.monotonic() < deadline:
        time.sleep(0.02)
    caretaker.close()

    assert caretaker.filled


def test_a_sync_into_an_emptied_store_first_fills_it_with_what_was_served(
    engine: Engine[Transaction], store: OnlineStore, settings: Settings, url: str
) -> None:
    decide(engine, row(1))
    held = kept(store)
    lose(url)

    refilled = refill_if_lost(settings, store, wall_clock_us())
    again = refill_if_lost(settings, store, wall_clock_us())

    assert refilled is not None
    assert (refilled.replies, again) == (1, None)
    assert refilled.profiles > 0
    assert kept(store) == held


def test_a_home_without_a_past_begins_with_an_empty_store(
    tmp_path: Path, url: str, store: OnlineStore
) -> None:
    settings = load_settings(home=tmp_path / "new", redis_url=url)
    caretaker = Caretaker(settings, url, FraudDomain(100))

    assert refill_if_lost(settings, store, wall_clock_us()) is None
    caretaker.step()

    assert store.epoch() is not None
    assert store.activity_cutoff() is None
    caretaker.close()


def test_an_id_noted_long_ago_and_never_decided_is_dropped_and_a_fresh_one_stays(
    engine: Engine[Transaction], caretaker: Caretaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.ledger.note_unsettled(["never"])
    caretaker.step()
    assert engine.ledger.all_unsettled() == ["never"]

    monkeypatch.setattr("switchyard.fraud.caretaking.UNDECIDED_S", 0.0)
    caretaker.step()

    assert engine.ledger.all_unsettled() == []


def test_events_are_numbered_from_one_by_time_in_a_filled_store(
    engine: Engine[Transaction], caretaker: Caretaker, store: OnlineStore, url: str
) -> None:
    decide(engine, row(2))
    decide(engine, row(1))
    lose(url)
    caretaker.step()

    blob = store.read([Wanted(("c1", "s1"))]).activity[0][0]

    last, events = decode_blob(blob)
    assert events.dtype == EVENT
    assert events["seq"].tolist() == list(range(1, len(events) + 1))
    assert last == len(events)
    assert (events["event_timestamp"][1:] >= events["event_timestamp"][:-1]).all()


# ---------------------------------------------------------------- what a loss may hide behind


def test_a_sync_into_a_store_that_was_filled_long_ago_and_emptied_brings_back_the_replies(
    engine: Engine[Transaction], store: OnlineStore, settings: Settings, url: str
) -> None:
    """The record of its filling is older than anything that still counts."""
    for segment in segments(settings.journal):
        os.utime(segment, (0, 0))
    (first,) = decide(engine, row(1))
    lose(url)

    refill_if_lost(settings, store, wall_clock_us())
    sync_activity(Lake(settings.lake), store, settings, BEFORE)

    assert decide(engine, row(1)) == [first]
    assert len([r for r in read_journal(settings.journal) if r["type"] == "decision"]) == 1


def test_a_clock_that_was_set_back_does_not_bring_back_an_older_snapshot(
    engine: Engine[Transaction],
    caretaker: Caretaker,
    store: OnlineStore,
    settings: Settings,
    url: str,
) -> None:
    """Segments are named by the clock: the one of the older baseline then seems to be the newer."""
    held = kept(store)
    older = settings.home / "activity" / "older.parquet"
    (baseline,) = [r for r in read_journal(settings.journal) if r["type"] == "baseline"]
    write_parquet(pq.read_table(settings.home / "activity" / baseline["file"]).slice(0, 0), older)
    an_hour_ahead = wall_clock_us() + 3_600_000_000
    with Journal(settings.journal, clock=lambda: an_hour_ahead) as journal:
        earlier = {"cutoff_us": baseline["cutoff_us"] - 1, "file": older.name, "epoch": "older"}
        journal.append([baseline | earlier])
    lose(url)

    caretaker.step()

    assert kept(store) == held


def test_a_reply_of_another_version_does_not_keep_a_lost_store_from_being_filled(
    engine: Engine[Transaction], caretaker: Caretaker, settings: Settings, url: str
) -> None:
    (first,) = decide(engine, row(1))
    (record,) = [r for r in read_journal(settings.journal) if r["type"] == "decision"]
    journal_of_another_version(settings, record, "t2")
    lose(url)

    caretaker.step()

    assert caretaker.filled
    assert decide(engine, row(1)) == [first]


def test_a_decision_of_another_version_does_not_keep_the_others_from_the_store(
    engine: Engine[Transaction], caretaker: Caretaker, settings: Settings, url: str
) -> None:
    decide(engine, row(1))
    (record,) = [r for r in read_journal(settings.journal) if r["type"] == "decision"]
    journal_of_another_version(settings, record, "t2")
    engine.ledger.note_unsettled(["t2"])
    lose(url)
    decide(engine, row(3))

    caretaker.step()

    assert engine.ledger.all_unsettled() == []


def journal_of_another_version(settings: Settings, record: Row, transaction_id: str) -> None:
    """A decision whose reply lacks a field that today's has."""
    other = {name: value for name, value in record.items() if name != "variant"}
    other["transaction"] = record["transaction"] | {"transaction_id": transaction_id}
    with Journal(settings.journal) as journal:
        journal.append([other])


def roll_back(url: str, older: dict[bytes, bytes]) -> None:
    """As a store that comes back from an older copy of its data, or whose replica takes over."""
    lose(url)
    with redis.Redis.from_url(url) as client:
        for key, value in older.items():
            client.restore(key, 0, value)


def copy_of(url: str) -> dict[bytes, bytes]:
    with redis.Redis.from_url(url) as client:
        return {key: client.dump(key) for key in client.keys("*")}


def test_a_loss_while_the_service_was_down_is_noticed_when_it_is_back(
    engine: Engine[Transaction],
    store: OnlineStore,
    settings: Settings,
    url: str,
) -> None:
    """A power failure: the journal was synced, the store's own file was a second behind."""
    older, epoch = copy_of(url), store.epoch()
    (first,) = decide(engine, row(1))
    engine.journal.close()
    roll_back(url, older)
    with closing(Caretaker(settings, url, FraudDomain(100))) as fresh:
        fresh.step()

    assert store.epoch() != epoch
    assert decide(engine, row(1)) == [first]
    assert recomputed(settings).differences == ()


def test_a_loss_is_noticed_also_if_the_worker_has_written_again_before_it_was_looked_for(
    engine: Engine[Transaction],
    caretaker: Caretaker,
    store: OnlineStore,
    settings: Settings,
    shared_home: Path,
) -> None:
    """Under load it always has."""
    url = valkey.start(shared_home)
    older, epoch = copy_of(url), store.epoch()
    caretaker.step()
    (first,) = decide(engine, row(1))
    valkey.stop(shared_home)
    assert valkey.start(shared_home) == url
    roll_back(url, older)
    decide(engine, row(2, customer_id="c2", terminal_id="s2"))

    caretaker.step()

    assert store.epoch() != epoch
    assert decide(engine, row(1)) == [first]
    assert recomputed(settings).differences == ()

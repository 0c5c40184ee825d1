"""One customer is forgotten everywhere, and everybody else's decisions come out again to the bit."""

from __future__ import annotations

import contextlib
import gzip
import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from switchyard.errors import ForgettingError, InputError, JournalError, RequestError
from switchyard.fraud import checkpoint
from switchyard.fraud import forget as forgetting
from switchyard.fraud.activity import build_activity
from switchyard.fraud.bodies import label_body, transaction_body
from switchyard.fraud.caretaking import Caretaker
from switchyard.fraud.compaction import compact
from switchyard.fraud.explain import Explainer
from switchyard.fraud.features import vectors_of
from switchyard.fraud.forget import forget, would_forget
from switchyard.fraud.forget_requests import Forgotten, ask, audit, waiting, write_down
from switchyard.fraud.journalled import decisions_between
from switchyard.fraud.landing import land_raw, validate_days
from switchyard.fraud.online import FraudDomain, FraudReader, cold_store_of, online_store_of
from switchyard.fraud.raw import RAW, RawDay, label_table, raw_table
from switchyard.fraud.recompute import recompute_journal
from switchyard.fraud.requests import Parser, Transaction
from switchyard.fraud.service import open_service
from switchyard.fraud.skew import LOCK as CHECKING
from switchyard.fraud.skew import checkpoint_path, measure_skew
from switchyard.fraud.sync import sync_activity, sync_profiles
from switchyard.fraud.tombstones import Tombstones, WithoutTheForgotten
from switchyard.fraud.traces import Wanted
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake, write_parquet, write_text
from switchyard.lock import alone
from switchyard.serving import valkey
from switchyard.serving.cold_store import ColdStore
from switchyard.serving.engine import Asked, Engine
from switchyard.serving.exploration import Exploration
from switchyard.serving.journal import wall_clock_us
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.replies import Answer
from switchyard.serving.segments import read_journal, segments
from switchyard.serving.turnover import Turnover
from switchyard.settings import Settings, load_settings
from tests import loops
from tests.releases import make_release
from tests.streams import NOON, Row, make_label, make_transaction

GONE, STAYS = "card-4711-0815", "card-4711-0816"
NOW = datetime(2026, 4, 1, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
BEFORE = NOON - timedelta(hours=12)  # midnight
READER = FraudReader(Parser("EUR", future_limit=None), FraudDomain(100))
DAYS = [(BEFORE - n * DAY).date() for n in range(7, 0, -1)]
encode = msgspec.json.encode


class History:
    """A source of a week in which both cards pay at the same terminals, and one row of each is bad."""

    name = "simulator"

    def days(self) -> tuple[date, date]:
        return DAYS[0], DAYS[-1]

    def read(self, day: date) -> RawDay:
        rows = [row for row in self.rows() if row["event_timestamp"].date() == day]
        columns = {name: pa.array([self.raw(row, name) for row in rows]) for name in RAW}
        keys = {n: columns[n] for n in ("transaction_id", "customer_id", "terminal_id")}
        moments = columns["event_timestamp"].cast(pa.timestamp("us", tz="UTC"))
        verdicts = pa.array([i % 5 == 0 for i in range(len(rows))])
        arrivals = pa.array([m.as_py() + 2 * DAY for m in moments], moments.type)
        labels = label_table(keys, moments, verdicts, arrivals)
        return RawDay(raw_table(columns, len(rows), f"{day}.csv"), labels, f"{day}.csv")

    def rows(self) -> Iterator[Row]:
        for i in range(84):
            yield make_transaction(
                transaction_id=f"history-{i}",
                customer_id=(GONE, STAYS, "card-other")[i % 3],
                terminal_id=f"s{i % 4}",
                device_id=f"device-of-{i % 3}",
                amount_minor=-1 if i in (30, 31) else 500 + 31 * i,
                event_timestamp=BEFORE - 7 * DAY + timedelta(hours=2 * i),
            )

    def raw(self, row: Row, name: str) -> Any:
        return f"{row['amount_minor'] / 100:.2f}" if name == "amount" else row[name]


@dataclass
class World:
    """A home in which everything of a customer's lies somewhere; its journal is closed."""

    settings: Settings
    engine: Engine[Transaction]
    store: OnlineStore
    cold: ColdStore
    decided: dict[str, str]
    """Transaction -> decision."""

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake)

    def ask(self) -> str:
        return ask(self.settings, GONE, who="dpo", why="erasure request 17", now=NOW)

    def forget(self, name: str | None = None) -> Forgotten:
        self.engine.journal.close()
        return forget(self.settings, name or self.ask(), self.store, self.cold, now=NOW)

    def decide(self, *rows: Row) -> list[Answer]:
        now_us = wall_clock_us()
        asked = [
            Asked(READER.transaction(encode(transaction_body(r)), now_us), now_us, 0.0)
            for r in rows
        ]
        answers = loops.run(self.engine.store, self.engine.decide(asked))
        return [answer for answer in answers if isinstance(answer, Answer)]

    def take_in(self, rows: list[Row], verdicts: list[Row]) -> None:
        now_us = wall_clock_us()
        taken = [READER.event(encode(transaction_body(r)), now_us) for r in rows]
        taken += [READER.label(encode(label_body(r)), now_us) for r in verdicts]
        loops.run(self.engine.store, self.engine.take_in(taken))


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("store")
    yield home
    valkey.stop(home)


@pytest.fixture(scope="module")
def release_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("releases")).folder


@pytest.fixture
def world(tmp_path: Path, shared_store: Path, release_folder: Path) -> Iterator[World]:
    url = valkey.start(shared_store)
    with redis.Redis.from_url(url) as client:
        client.flushall()
    settings = load_settings(home=tmp_path / "home", redis_url=url)
    settings.releases.mkdir(parents=True)
    (settings.releases / release_folder.name).symlink_to(release_folder)
    store = online_store_of(url)
    cold = cold_store_of(None, settings.cold_store)
    lake = Lake(settings.lake)
    land_raw(History(), lake, DAYS)
    validate_days(lake, DAYS, now=NOW, currency="EUR")
    build_profiles(lake, DAYS[0], DAYS[-1], created_at=BEFORE)
    build_activity(lake, DAYS[0], DAYS[-1])
    sync_profiles(lake, store, DAYS[-1], cold)
    sync_activity(lake, store, settings, BEFORE)
    engine = open_service(settings, release_folder).engine
    engine.store.budget_s = 1.0
    made = World(settings, engine, store, cold, {})
    serve(made)
    leave_files(made)
    yield made
    engine.close()
    store.close()
    cold.close()


def serve(world: World) -> None:
    """An hour in which the two cards meet at one terminal, one by one and in the same batch."""
    rows = [
        make_transaction(
            transaction_id=f"served-{n}",
            customer_id=GONE if n % 2 else STAYS,
            device_id=f"device-of-{n % 2}",
            terminal_id=f"s{n % 3 % 2}",
            event_timestamp=NOON + n * MINUTE,
        )
        for n in range(24)
    ]
    for n in range(0, 16, 2):
        answers = [msgspec.json.decode(a.body) for a in world.decide(rows[n], rows[n + 1])]
        world.decided |= {a["transaction_id"]: a["decision_id"] for a in answers}
    at = {"label_available_at": NOON + 17 * MINUTE}
    world.take_in(rows[16:18], [make_label(rows[1], **at), make_label(rows[2], **at)])
    for row in rows[18:]:
        (answer,) = world.decide(row)
        told = msgspec.json.decode(answer.body)
        world.decided[told["transaction_id"]] = told["decision_id"]
    world.engine.journal.close()
    compact(world.settings.journal, world.lake)


def leave_files(world: World) -> None:
    """What training, batches, a rollout and monitoring leave in a home."""
    home = world.settings.home
    ids = [f"history-{i}" for i in range(3)]
    training = pa.table({"transaction_id": ids, "customer_id": [GONE, STAYS, "card-other"]})
    write_parquet(training, world.settings.training / "training_set.parquet")
    scores = pa.table({"transaction_id": ids, "score": [0.1, 0.2, 0.3]})
    write_parquet(scores, world.lake.path("batch_scores", DAYS[0]))
    write_parquet(scores, home / "batch" / "scores.parquet")
    write_parquet(training, home / "scratch" / "file-1" / "2026-01-01.parquet")
    phase = home / "rollouts" / "salt-canary"
    write_parquet(training, phase / "2026-03-01" / "00000000.parquet")
    (segment, *_) = segments(world.settings.journal)
    waits = {"d1": {"customer_id": GONE}, "d2": {"customer_id": STAYS}}
    state = {"read": {segment.name: segment.stat().st_size}, "waiting": waits}
    write_text(json.dumps(state), phase / "state.json")
    report = json.dumps({"key": [GONE, "s1"], "other": STAYS})
    exploration = Exploration(world.settings.exploration, 0.999, 10_000, 10**9)
    for name in ("served-1", "served-2"):
        exploration.choose(name, 90, wall_clock_us())
    write_text(report, home / "monitoring" / "skew" / "2026-02-27.json")


def records(world: World) -> list[Row]:
    return list(read_journal(world.settings.journal))


def named(home: Path, text: str) -> list[Path]:
    """Files whose bytes hold the text."""
    files = [f for f in home.rglob("*") if f.is_file() and text.encode() in f.read_bytes()]
    return [f for f in files if f.name != "journal"]


def contents(home: Path) -> dict[Path, bytes]:
    """All files but what SQLite has beside a database while it is read."""
    files = [f for f in home.rglob("*") if f.is_file()]
    return {f: f.read_bytes() for f in files if not f.name.endswith(("-shm", "-wal"))}


def counts(removed: list[Any]) -> dict[tuple[str, str], int]:
    return {(line.place, line.what): line.count for line in removed}


# ---------------------------------------------------------------- what is gone, and what stays


def test_nothing_names_the_customer_afterwards_and_what_others_did_comes_out_to_the_bit(
    world: World, shared_store: Path
) -> None:
    before = recompute_journal(world.settings, world.lake)
    others = [r for r in records(world) if GONE not in str(r) and r["type"] == "decision"]

    done = world.forget()

    after = recompute_journal(world.settings, world.lake)
    assert named(world.settings.home, GONE) == []
    assert named(shared_store, GONE) == []
    assert (before.differences, after.differences) == ((), ())
    assert [r for r in records(world) if r["type"] == "decision"] == others
    assert 0 < after.rows == len(others) < before.rows
    assert after.late_share == before.late_share == 0
    assert waiting(world.settings) == []
    assert [one.tombstone for one in audit(world.settings)] == [done.tombstone]
    assert GONE not in str(done)


def test_the_table_says_what_went_where(world: World) -> None:
    expected = would_forget(world.settings, GONE, world.store, world.cold)
    done = world.forget()

    assert counts(done.removed) == counts(expected)
    told = counts(done.removed)
    assert told["online store", "profile and activity removed"] == 2
    assert told["online store", "replies removed"] == 12
    assert told["cold store", "profiles removed"] == 1
    assert told["lake/transactions", "rows kept under stand-ins"] == 27
    assert told["lake/raw_transactions", "rows kept under stand-ins"] == 28
    assert told["lake/quarantine", "rows removed"] == 1
    assert told["lake/decisions", "rows removed"] == 11
    assert told["lake/batch_scores", "rows removed"] == 1
    assert told["training/", "rows removed"] == 1
    assert told["batch/", "rows removed"] == 1
    assert told["monitoring/", "rows removed"] == 1
    assert told["exploration/", "transactions removed"] == 1
    assert told["scratch/", "folders removed, made again when needed"] == 1


def test_a_dry_run_changes_nothing(world: World) -> None:
    before, stored = contents(world.settings.home), dict(world.store.everything())

    would_forget(world.settings, GONE, world.store, world.cold)

    assert contents(world.settings.home) == before
    assert dict(world.store.everything()) == stored


def test_a_forgotten_decision_is_explained_no_more_and_the_others_are(world: World) -> None:
    explainer = Explainer(world.settings.journal, world.settings.releases)
    assert explainer.explain(world.decided["served-1"]).equal

    world.forget()

    with pytest.raises(RequestError, match="or its customer was forgotten") as refused:
        explainer.explain(world.decided["served-1"])
    assert refused.value.status == 404
    assert explainer.explain(world.decided["served-2"]).equal


def test_a_terminals_features_come_out_the_same_when_they_are_built_again(world: World) -> None:
    terminals = world.lake.read("terminal_profiles", *DAYS[:: len(DAYS) - 1])
    windows = world.lake.read("activity_windows", DAYS[0], DAYS[-1])

    world.forget()
    kept = world.lake.read("activity_windows", DAYS[0], DAYS[-1])
    validate_days(world.lake, DAYS, now=NOW, currency="EUR")
    build_profiles(world.lake, DAYS[0], DAYS[-1], created_at=BEFORE)
    build_activity(world.lake, DAYS[0], DAYS[-1])

    assert world.lake.read("terminal_profiles", *DAYS[:: len(DAYS) - 1]) == terminals
    assert world.lake.read("activity_windows", DAYS[0], DAYS[-1]) == kept
    of_terminals = [n for n in windows.column_names if n.startswith("terminal_") and n != "terminal_id"]  # fmt: skip
    assert kept.select(of_terminals) == windows.select(of_terminals)
    rows = world.lake.read("transactions", DAYS[0], DAYS[-1])
    assert len(vectors_of(world.lake, rows)) == len(rows) == 82


def test_no_stand_in_leads_from_one_terminal_to_another(world: World) -> None:
    world.forget()

    rows = world.lake.read("transactions", DAYS[0], DAYS[-1]).to_pylist()
    left = [row for row in rows if row["customer_id"].startswith("forgotten-")]
    names = {(row["customer_id"], row["terminal_id"]) for row in left}
    assert len(left) == 27
    assert len(names) == len({name for name, _ in names}) == 4
    assert {row["device_id"] for row in left} == {None}
    assert {row["transaction_id"][:10] for row in left} == {"forgotten-"}


# ---------------------------------------------------------------- the service goes on


def test_the_others_are_served_on_and_the_filled_store_agrees_after_a_loss(world: World) -> None:
    world.forget()
    (again,) = world.decide(
        next(History().rows()) | {"transaction_id": "t-new", "customer_id": STAYS}
    )
    assert msgspec.json.decode(again.body)["degraded"] == []
    held = {k: v for k, v in world.store.everything() if b"activity:terminal" in k}

    with redis.Redis.from_url(world.engine.store.url) as client:
        client.flushall()
    caretaker = Caretaker(world.settings, world.engine.store.url, FraudDomain(100))
    caretaker.step()
    caretaker.close()
    world.decide(make_transaction(transaction_id="t-last", customer_id=STAYS, event_timestamp=NOON + 40 * MINUTE))  # fmt: skip

    def whole(blobs: dict[bytes, bytes]) -> dict[bytes, set[bytes]]:
        return {
            k: {b[16 + i : 56 + i] for i in range(0, len(b) - 16, 48)} for k, b in blobs.items()
        }

    filled = {k: v for k, v in world.store.everything() if k in held}
    assert {k: whole(held)[k] <= whole(filled)[k] for k in held} == dict.fromkeys(held, True)
    assert recompute_journal(world.settings, world.lake).differences == ()
    assert named(world.settings.home, GONE) == []


def test_a_repeated_transaction_of_somebody_else_gets_its_reply_byte_for_byte(world: World) -> None:
    row = make_transaction(
        transaction_id="served-2", customer_id=STAYS, device_id="device-of-0", terminal_id="s0",
        event_timestamp=NOON + 2 * MINUTE,
    )  # fmt: skip
    (first,) = world.decide(row)
    world.forget()
    with redis.Redis.from_url(world.engine.store.url) as client:
        client.delete(world.store.commands.decision_key("served-2"))

    found = world.engine.ledger.look_up(["served-2"], wall_clock_us())

    assert found["served-2"].reply == first.body


def test_a_worker_closes_its_segment_and_drops_what_it_read_when_it_is_told(world: World) -> None:
    world.decide(make_transaction(transaction_id="t-open", customer_id=GONE, event_timestamp=NOON + 50 * MINUTE))  # fmt: skip
    turnover, stop = Turnover(world.settings.journal), threading.Event()

    def tend() -> None:
        while not stop.wait(0.01):
            if turnover.is_asked() and world.engine.turn_over():
                turnover.followed()

    worker = threading.Thread(target=tend)
    worker.start()
    try:
        forget(world.settings, world.ask(), world.store, world.cold, now=NOW)
    finally:
        stop.set()
        worker.join()

    assert len(world.engine.ladder.recent) == 0
    assert named(world.settings.home, GONE) == []


def test_a_worker_that_does_not_close_its_segment_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.serving.turnover.turn_over.__defaults__", (0.1,))
    world.decide(make_transaction(transaction_id="t-open", customer_id=STAYS))

    with pytest.raises(JournalError, match="is still written after"):
        forget(world.settings, world.ask(), world.store, world.cold, now=NOW)


def test_a_payment_that_arrives_meanwhile_is_found_and_goes_with_the_next_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase = forgetting._Work.erase

    def arrives(work: Any) -> None:
        erase(work)
        world.decide(make_transaction(transaction_id="t-late", customer_id=GONE, event_timestamp=NOON + 3 * DAY))  # fmt: skip

    monkeypatch.setattr(forgetting._Work, "erase", arrives)
    name = world.ask()
    with pytest.raises(ForgettingError, match="still named in key"):
        world.forget(name)
    monkeypatch.undo()

    world.forget(name)

    assert named(world.settings.home, GONE) == []
    assert recompute_journal(world.settings, world.lake).differences == ()


def test_a_rollout_reads_on_where_it_was(world: World) -> None:
    world.forget()

    state = json.loads((world.settings.rollouts / "salt-canary" / "state.json").read_text())
    (first, *_) = segments(world.settings.journal)
    assert state["read"][first.name] == first.stat().st_size
    assert list(state["waiting"]) == ["d2"]


def checked(world: World) -> tuple[int, ...]:
    """What the skew check knows of the day that was served, having read on."""
    figures = measure_skew(world.settings, world.lake, NOON.date())[0].verdict.figures
    names = ("recomputed", "differing_values", "waiting", "incomplete")
    return tuple(figures[name] for name in names)


def test_the_skew_check_reads_on_where_it_was_and_judges_no_decision_again(world: World) -> None:
    before = checked(world)
    world.forget()

    assert checked(world) == before == (22, 0, 0, 0)
    assert named(world.settings.home, GONE) == []


def test_monitoring_counts_what_is_left_once(world: World) -> None:
    span = (NOON - DAY, NOON + DAY, ["decision_id"])
    before = decisions_between(world.settings.journal, world.lake, *span)["decision_id"]

    world.forget()
    compact(world.settings.journal, world.lake)

    left = decisions_between(world.settings.journal, world.lake, *span)["decision_id"].to_pylist()
    assert (len(before), len(left), len(set(left))) == (22, 11, 11)


def test_what_has_no_number_yet_waits_for_it_under_a_stand_in(world: World) -> None:
    world.engine.journal.close()
    known = checkpoint.load(checkpoint_path(world.settings))
    pending = [r for r in records(world) if r["type"] in ("event", "label")]
    pending = [{k: v for k, v in r.items() if k != "epoch"} for r in pending]
    checkpoint.save(replace(known, pending=pending), checkpoint_path(world.settings))

    world.forget()

    left = checkpoint.load(checkpoint_path(world.settings)).pending
    terminals = [(r.get("transaction", r))["terminal_id"] for r in pending]
    assert [(r.get("transaction", r))["terminal_id"] for r in left] == terminals
    assert GONE in str(pending)
    assert GONE not in str(left)


def test_no_skew_check_brings_back_what_it_read_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []
    erase = forgetting._Work.erase

    def looked(work: Any) -> None:
        with alone(world.settings.activity / CHECKING, wait_s=0) as alone_there:
            free.append(alone_there)
        erase(work)

    monkeypatch.setattr(forgetting._Work, "erase", looked)
    world.forget()

    assert free == [False]


# ---------------------------------------------------------------- killed, repeated, delivered again


class Killed(BaseException):
    """As a process that ends there."""


def lease_lapses(world: World) -> None:
    """As ten seconds later: whoever was killed holds the right to fill the store no more."""
    with redis.Redis.from_url(world.engine.store.url) as client:
        assert client.delete(f"{world.store.project}:filling")


@pytest.mark.parametrize("place", ["_erase_online", "_erase_journal", "_erase_lake", "_erase_cold"])
def test_killed_half_way_it_is_finished_by_running_it_again(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    step = getattr(forgetting._Work, place)

    def killed(work: Any) -> None:
        step(work)
        raise Killed

    monkeypatch.setattr(forgetting._Work, place, killed)
    name = world.ask()
    with pytest.raises(Killed):
        world.forget(name)
    monkeypatch.undo()
    lease_lapses(world)
    assert waiting(world.settings) == [name]

    world.forget(name)

    assert named(world.settings.home, GONE) == []
    assert recompute_journal(world.settings, world.lake).differences == ()
    kept = world.lake.read("activity_windows", DAYS[0], DAYS[-1])
    build_activity(world.lake, DAYS[0], DAYS[-1])
    assert world.lake.read("activity_windows", DAYS[0], DAYS[-1]) == kept


def test_killed_between_a_segment_and_its_successor_no_record_is_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_segment: Path) -> None:
        raise Killed

    monkeypatch.setattr("switchyard.serving.rewriting._remove", killed)
    name = world.ask()
    with pytest.raises(Killed):
        world.forget(name)
    monkeypatch.undo()
    lease_lapses(world)
    world.forget(name)

    ids = [r["decision_id"] for r in records(world) if r["type"] == "decision"]
    assert len(ids) == len(set(ids)) == 11
    assert recompute_journal(world.settings, world.lake).differences == ()


def test_forgetting_twice_finds_nothing_more(world: World) -> None:
    world.forget()
    again = world.forget()

    assert again.removed == []
    assert len(audit(world.settings)) == 2


def test_a_source_that_delivers_the_customer_again_does_not_bring_them_back(world: World) -> None:
    terminals = world.lake.read("terminal_profiles", DAYS[-1])
    world.forget()
    source = WithoutTheForgotten(History(), Tombstones(world.settings.forgotten))

    land_raw(source, world.lake, DAYS)
    validate_days(world.lake, DAYS, now=NOW, currency="EUR")
    build_profiles(world.lake, DAYS[-1], DAYS[-1], created_at=BEFORE)

    assert named(world.settings.home, GONE) == []
    assert world.lake.read("terminal_profiles", DAYS[-1]) == terminals
    rows = world.lake.read("transactions", DAYS[0], DAYS[-1])["customer_id"].to_pylist()
    assert sum(name.startswith("forgotten-") for name in rows) == 27
    assert rows.count(STAYS) == 27


# ---------------------------------------------------------------- the search


@pytest.mark.parametrize("kind", ["log", "gzip", "parquet", "database", "key", "hash"])
def test_what_still_names_the_customer_is_found_wherever_it_is(world: World, kind: str) -> None:
    home = world.settings.home
    if kind == "log":
        write_text(f"card {GONE} was late\n", home / "logs" / "service.log")
    elif kind == "gzip":
        (home / "old.json.gz").write_bytes(gzip.compress(f'["{GONE}"]'.encode()))
    elif kind == "database":
        with contextlib.closing(sqlite3.connect(home / "tags.db")) as database:
            database.execute("CREATE TABLE tags (key TEXT, value TEXT, run TEXT)")
            database.execute("INSERT INTO tags VALUES ('card', ?, 'run')", (GONE,))
            database.commit()
    elif kind == "parquet":
        nested = pa.table({"said": [[{"of": f"by {GONE}"}]]})
        write_parquet(nested, home / "mlflow" / "artifacts" / "rows.parquet")
    else:
        with redis.Redis.from_url(world.engine.store.url) as client:
            if kind == "key":
                client.rpush(f"somebody's:{GONE}", "x")
            else:
                key = world.store.commands.activity_key("terminal", "unheard-of")
                client.set(key, client.get(world.store.commands.activity_key("terminal", "s0")))

    with pytest.raises(ForgettingError, match="still named in"):
        world.forget()
    assert len(waiting(world.settings)) == 1


def test_an_id_within_another_one_is_none_and_a_short_number_is_sought_where_customers_stand(
    world: World,
) -> None:
    write_text(f"{GONE}7 596 ms\n", world.settings.home / "logs" / "service.log")

    world.forget()
    name = ask(world.settings, "596", who="dpo", why="request 18", now=NOW)
    world.forget(name)
    write_text('{"customer_id": "596"}', world.settings.home / "logs" / "service.log")

    with pytest.raises(ForgettingError, match=r"service\.log"):
        world.forget(ask(world.settings, "596", who="dpo", why="request 19", now=NOW))


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("card-4711", "card-4711-0816"),
        ("ann@bank", "ann@bank.test"),
        ("bank.test", "ann@bank.test"),
        ("kunde-ü", "kunde-üß"),
        ("kunde-1", "kunde-1é"),
        ("card_11", "card_11_2"),
        ("card-c1", "card-c12"),
    ],
)
def test_an_id_that_begins_or_ends_another_is_told_from_it(own: str, other: str) -> None:
    wanted, text = Wanted(own), f"by {own}. ({own}), of {other}: {own}"

    assert not wanted.in_bytes(f"by {other}, {other}.".encode())
    assert not wanted.in_column("said", pa.array([other]))
    assert wanted.in_column("said", pa.array([own]))
    assert wanted.in_bytes(b"\xa9\x00" + own.encode() + b"\x00\xff")
    assert wanted.taken_out_of(text) == (
        f"by forgotten. (forgotten), of {other}: forgotten", 3,
    )  # fmt: skip


@pytest.mark.parametrize("own", ["o'neil & söhne", 'the "third"', 'a\\b/ü"c'])
def test_an_id_is_found_as_json_and_pages_write_it(own: str) -> None:
    wanted = Wanted(own)
    said = [json.dumps({"key": own}), encode({"key": own}).decode(), f"<td>{escape(own)}</td>"]

    assert [wanted.in_bytes(text.encode()) for text in said] == [True, True, True]
    assert {wanted.taken_out_of(text)[1] for text in said} == {1}


def test_a_terminal_may_be_called_like_the_customer(world: World) -> None:
    """As in the Handbook's data, where both are small numbers."""
    same = "s1"
    for n, (customer, terminal) in enumerate([(same, "s0"), (STAYS, same)]):
        at = NOON + timedelta(hours=2 + n)
        world.decide(make_transaction(transaction_id=f"m{n}", customer_id=customer, terminal_id=terminal, event_timestamp=at))  # fmt: skip
    with redis.Redis.from_url(world.engine.store.url) as client:
        client.flushall()
    caretaker = Caretaker(world.settings, world.engine.store.url, FraudDomain(100))
    caretaker.step()
    caretaker.close()

    done = world.forget(ask(world.settings, same, who="dpo", why="request 20", now=NOW))

    assert counts(done.removed)["activity/", "rows kept under stand-ins"] == 1
    assert recompute_journal(world.settings, world.lake).differences == ()
    names = [r["transaction"]["terminal_id"] for r in records(world) if "transaction" in r]
    assert same in names


def test_who_and_why_must_not_name_the_customer(world: World) -> None:
    with pytest.raises(InputError, match="must not name the customer"):
        ask(world.settings, GONE, who="dpo", why=f"{GONE} asked for it", now=NOW)


def test_two_who_ask_at_once_lose_no_tombstone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(text: str, path: Path) -> None:
        other.start()
        other.join(0.2)
        monkeypatch.undo()
        write_text(text, path)

    mine, theirs = Tombstones(tmp_path), Tombstones(tmp_path)
    other = threading.Thread(target=theirs.add, args=(STAYS,))
    monkeypatch.setattr("switchyard.fraud.tombstones.write_text", slowly)
    mine.add(GONE)
    other.join()

    assert mine.among(pa.chunked_array([[GONE, STAYS, "card-other"]])).tolist() == [True, True, False]  # fmt: skip


def test_two_forgettings_that_end_at_once_are_both_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(settings: Settings) -> list[Forgotten]:
        held = audit(settings)
        monkeypatch.undo()
        other.start()
        other.join(0.2)
        return held

    settings = load_settings(home=tmp_path)
    one, two = (Forgotten(name, "dpo", "why", "", "", [], []) for name in ("one", "two"))
    other = threading.Thread(target=write_down, args=(settings, two))
    monkeypatch.setattr("switchyard.fraud.forget_requests.audit", slowly)
    write_down(settings, one)
    other.join()

    assert audit(settings) == [one, two]


def test_a_tombstone_tells_nothing_without_the_homes_secret(world: World, tmp_path: Path) -> None:
    mine, theirs = Tombstones(world.settings.forgotten), Tombstones(tmp_path / "other")
    mine.add(GONE)

    asked = pa.chunked_array([[GONE, STAYS, None]])
    assert mine.among(asked).tolist() == [True, False, False]
    assert mine.of(GONE) != theirs.of(GONE)
    assert (world.settings.forgotten / "secret").stat().st_mode & 0o077 == 0
    assert not np.any(theirs.among(asked))
    assert pq.read_table(world.lake.path("transactions", DAYS[0])).num_rows > 0

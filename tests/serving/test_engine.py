"""The engine on a real Valkey, a real journal and a real release: what is decided, seen, kept and refused."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from switchyard.errors import JournalError, StoreError
from switchyard.fraud.assembly import transaction_records
from switchyard.fraud.columns import CUSTOMER_PROFILE, FEATURES, names
from switchyard.fraud.events import CAPACITY, FRAUD_KIND, decode_blob
from switchyard.fraud.online import VIEWS, FraudDomain, FraudReader, cold_store_of
from switchyard.fraud.requests import Parser, Transaction
from switchyard.learning.models import LogisticRegression
from switchyard.learning.release import Release
from switchyard.serving import valkey
from switchyard.serving.claims import BUSY, Busy
from switchyard.serving.commands import Commands
from switchyard.serving.engine import Asked, Engine
from switchyard.serving.exploration import Exploration
from switchyard.serving.hot_store import HotStore
from switchyard.serving.journal import Journal
from switchyard.serving.ladder import FeatureLadder
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.recent import Recent
from switchyard.serving.replies import Answer
from switchyard.serving.segments import read_journal
from switchyard.serving.trip import Append, Claim, Trip, Wanted
from tests import loops
from tests.releases import SUSPICIOUS_AMOUNT, make_release

NOON_US = 1_772_366_400_000_000  # 2026-03-01 12:00 UTC
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
FEATURE = {name: i for i, name in enumerate(names(FEATURES))}
READER = FraudReader(Parser("EUR", future_limit=timedelta(minutes=5)), FraudDomain(100))


@pytest.fixture
def store(store_url: str, project: str) -> Iterator[OnlineStore]:
    """The engine's store as others see it."""
    online = OnlineStore(store_url, project, VIEWS)
    yield online
    online.close()


@pytest.fixture
def engine(make_engine: Callable[..., Engine[Transaction]]) -> Engine[Transaction]:
    return make_engine()


def make_transaction(number: int = 1, **overrides: Any) -> Transaction:
    content = {
        "transaction_id": f"t{number}",
        "customer_id": "c1",
        "terminal_id": "s1",
        "amount_minor": 5_000,
        "currency": "EUR",
        "event_timestamp_us": NOON_US + number * 1_000_000,
        "customer_country": "FR",
        "terminal_country": "FR",
        "device_id": "d1",
        "channel": "pos",
        "merchant_category": "5411",
    }
    return Transaction(**(content | overrides))


def ask(transaction: Transaction) -> Asked[Transaction]:
    return Asked(transaction, NOON_US, time.perf_counter())


def run(engine: Engine[Transaction], *transactions: Transaction) -> list[Answer | Busy]:
    """The answers to one batch."""
    return loops.run(engine.store, engine.decide([ask(t) for t in transactions]))


def decide(engine: Engine[Transaction], *transactions: Transaction) -> list[dict[str, Any]]:
    """The decoded bodies of the answers, each of which must be a 200."""
    answers = run(engine, *transactions)
    assert all(isinstance(answer, Answer) and answer.status == 200 for answer in answers)
    return [json.loads(answer.body) for answer in answers if isinstance(answer, Answer)]


def journalled(engine: Engine[Transaction], kind: str) -> list[dict[str, Any]]:
    return [r for r in read_journal(engine.journal.folder) if r["type"] == kind]


def kept_events(store: OnlineStore, customer: str = "c1") -> list[Any]:
    blob = store.read([Wanted((customer, "s1"))]).activity[0][0]
    return list(decode_blob(blob)[1]) if blob else []


def label_body(**overrides: Any) -> bytes:
    body = {
        "transaction_id": "t1",
        "customer_id": "c1",
        "terminal_id": "s1",
        "event_timestamp": "2026-03-01T12:00:01Z",
        "is_fraud": True,
    }
    return json.dumps(body | overrides).encode()


# ---------------------------------------------------------------- one decision


def test_a_decision_stands_in_the_journal_with_all_that_it_saw(
    engine: Engine[Transaction], release: Release
) -> None:
    transaction = make_transaction()

    (reply,) = decide(engine, transaction)

    (record,) = journalled(engine, "decision")
    vector = np.array([[math.nan if v is None else v for v in record["vector"]]])
    assert reply["score"] == record["score"] == release.score(vector)[0]
    assert reply["decision"] == record["decision"] == release.thresholds.decide(reply["score"])
    assert reply["degraded"] == []
    assert bool(reply["reasons"]) == (reply["decision"] != "allow")
    assert record["reasons"] == reply["reasons"]
    assert record["decision_id"] == reply["decision_id"]
    assert record["transaction"]["amount_minor"] == transaction.amount_minor
    assert (record["customer_profile_day"], record["customer_seq_seen"]) == (None, 0)
    assert journalled(engine, "appended") == [
        {
            "type": "appended",
            "kind": "transaction",
            "transaction_id": "t1",
            "customer_seq": 1,
            "terminal_seq": 1,
            "epoch": None,
        }
    ]


def test_an_unknown_card_is_decided_with_the_defaults_of_the_feature_service(
    engine: Engine[Transaction],
) -> None:
    (reply,) = decide(engine, make_transaction(customer_id="never seen"))

    (record,) = journalled(engine, "decision")
    for column, value in zip(FEATURES, record["vector"], strict=True):
        if column.freshness == "daily":
            assert value == column.default
    assert reply["degraded"] == []


def test_the_next_transaction_of_a_card_sees_the_last_one(engine: Engine[Transaction]) -> None:
    decide(engine, make_transaction(1))
    decide(engine, make_transaction(2))

    second = journalled(engine, "decision")[1]
    assert second["vector"][FEATURE["customer_tx_count_1min"]] == 1
    assert second["vector"][FEATURE["is_new_terminal"]] == 0
    assert (second["customer_seq_seen"], second["terminal_seq_seen"]) == (1, 1)


def test_a_blocked_transaction_gets_its_strongest_reasons_and_they_add_up(
    engine: Engine[Transaction], release: Release
) -> None:
    (reply,) = decide(engine, make_transaction(amount_minor=200 * SUSPICIOUS_AMOUNT))

    vector = np.array(
        [[math.nan if v is None else v for v in journalled(engine, "decision")[0]["vector"]]]
    )
    pushes = release.explain(vector)[0]
    logit = math.log(reply["score"] / (1 - reply["score"]))
    assert reply["decision"] == "block"
    assert pushes.sum() == pytest.approx(logit, abs=1e-4)
    assert 1 <= len(reply["reasons"]) <= 5
    assert [r["contribution"] for r in reply["reasons"]] == sorted(
        pushes[:-1][pushes[:-1] > 0].tolist(), reverse=True
    )[:5]
    first = reply["reasons"][0]
    assert (first["code"], first["feature"]) == ("LARGE_AMOUNT", "amount")
    assert first["value"] == 2 * SUSPICIOUS_AMOUNT


def test_warming_up_leaves_no_trace(engine: Engine[Transaction], store: OnlineStore) -> None:
    engine.warm_up(engine.lineup.champion)

    assert list(read_journal(engine.journal.folder)) == []
    assert kept_events(store, "example") == []


# ---------------------------------------------------------------- batches


def test_two_of_one_card_in_a_batch_see_what_was_there_before_both(
    engine: Engine[Transaction],
) -> None:
    decide(engine, make_transaction(1))

    decide(engine, make_transaction(2), make_transaction(3))

    records = journalled(engine, "decision")[1:]
    assert [r["customer_seq_seen"] for r in records] == [1, 1]
    assert [r["vector"][FEATURE["customer_tx_count_1min"]] for r in records] == [1, 1]
    assert [r["customer_seq"] for r in journalled(engine, "appended")] == [1, 2, 3]


def test_the_same_id_twice_in_a_batch_is_one_decision(engine: Engine[Transaction]) -> None:
    replies = decide(engine, make_transaction(1), make_transaction(2), make_transaction(1))

    assert replies[0] == replies[2] != replies[1]
    assert len(journalled(engine, "decision")) == 2


def test_the_same_id_with_another_body_in_a_batch_is_a_conflict_and_the_others_go_on(
    engine: Engine[Transaction],
) -> None:
    answers = run(
        engine, make_transaction(1), make_transaction(1, amount_minor=1), make_transaction(2)
    )

    assert [a.status for a in answers if isinstance(a, Answer)] == [200, 409, 200]


def test_a_batch_gives_each_the_score_it_would_get_alone(
    make_engine: Callable[..., Engine[Transaction]],
    project: str,
    store_url: str,
    store: OnlineStore,
) -> None:
    several = [
        make_transaction(n, customer_id=f"c{n}", terminal_id=f"s{n}", amount_minor=n * 7_001)
        for n in range(1, 40)
    ]
    alone = HotStore(store_url, Commands(f"{project}-alone", VIEWS), budget_s=1.0)

    together = decide(make_engine(), *several)
    one_by_one = [decide(make_engine(store=alone), t)[0] for t in several]

    assert [r["score"] for r in together] == [r["score"] for r in one_by_one]


# ---------------------------------------------------------------- the same id again


def test_the_same_id_and_body_get_the_same_reply_and_nothing_is_decided_twice(
    engine: Engine[Transaction], store: OnlineStore
) -> None:
    first = run(engine, make_transaction())
    again = run(engine, make_transaction())

    assert first == again
    assert len(journalled(engine, "decision")) == 1
    assert len(kept_events(store)) == 1


def test_the_same_id_with_another_body_is_a_conflict_that_names_the_field(
    engine: Engine[Transaction],
) -> None:
    decide(engine, make_transaction())

    (answer,) = run(engine, make_transaction(amount_minor=1))

    assert isinstance(answer, Answer)
    assert answer.status == 409
    assert json.loads(answer.body)["error"]["field"] == "transaction_id"


def test_what_another_worker_is_deciding_is_busy_for_the_same_body_and_a_conflict_for_another(
    engine: Engine[Transaction], store: OnlineStore
) -> None:
    mine = make_transaction()
    store.read([Wanted(("c1", "s1"), Claim("t1", b"another worker's", mine.digest))])

    same, other = run(engine, mine), run(engine, make_transaction(amount_minor=1))

    assert same == [BUSY]
    assert isinstance(other[0], Answer)
    assert other[0].status == 409
    assert journalled(engine, "decision") == []


# ---------------------------------------------------------------- profiles


def write_profile(store: OnlineStore, available_at_us: int, **values: int) -> None:
    columns = names(CUSTOMER_PROFILE)
    row = np.zeros((1, len(columns)), np.int64)
    for name, value in values.items():
        row[0, columns.index(name)] = value
    store.write_profiles("customer_profile", ["c1"], row, np.array([available_at_us]))


def test_a_current_profile_is_used_and_its_day_journalled(
    engine: Engine[Transaction], store: OnlineStore
) -> None:
    write_profile(
        store, NOON_US - 10 * HOUR_US, customer_profile_day=20_512, customer_tx_count_30d=60
    )

    (reply,) = decide(engine, make_transaction())

    (record,) = journalled(engine, "decision")
    assert record["customer_profile_day"] == 20_512
    assert record["vector"][FEATURE["customer_tx_count_30d"]] == 60
    assert reply["degraded"] == []


def test_a_profile_whose_successor_is_overdue_is_used_and_named_stale(
    engine: Engine[Transaction], store: OnlineStore
) -> None:
    write_profile(
        store, NOON_US - 3 * DAY_US, customer_profile_day=20_509, customer_tx_count_30d=60
    )

    (reply,) = decide(engine, make_transaction())

    assert reply["degraded"] == ["stale_profile"]
    assert journalled(engine, "decision")[0]["customer_profile_day"] == 20_509


def test_a_profile_beyond_its_time_is_not_used(
    engine: Engine[Transaction], store: OnlineStore
) -> None:
    write_profile(
        store, NOON_US - 40 * DAY_US, customer_profile_day=20_472, customer_tx_count_30d=60
    )

    (reply,) = decide(engine, make_transaction())

    (record,) = journalled(engine, "decision")
    assert record["customer_profile_day"] is None
    assert record["vector"][FEATURE["customer_tx_count_30d"]] == 0
    assert reply["degraded"] == ["default_features"]


# ---------------------------------------------------------------- what fails


def test_without_the_store_decisions_go_on_with_defaults_and_say_so(
    make_engine: Callable[..., Engine[Transaction]], tmp_path: Path, store: OnlineStore
) -> None:
    nowhere = HotStore(f"unix://{tmp_path}/nobody.sock", Commands("x", VIEWS))
    engine = make_engine(store=nowhere)

    replies = decide(engine, make_transaction(1), make_transaction(2))

    assert [r["degraded"] for r in replies] == [["default_features"]] * 2
    assert all(r["score"] is not None for r in replies)
    assert len(journalled(engine, "decision")) == 2
    assert journalled(engine, "appended") == []


class Sometimes(HotStore):
    """The real store, which can't be reached while ``gone``."""

    gone = False
    trips = 0

    async def read(self, wanted: Sequence[Wanted]) -> Trip:
        self.trips += 1
        if self.gone:
            raise StoreError("it is gone")
        return await super().read(wanted)


@pytest.fixture
def sometimes(store_url: str, project: str) -> Sometimes:
    return Sometimes(store_url, Commands(project, VIEWS), budget_s=1.0)


def test_while_the_store_is_gone_what_was_lately_read_serves_and_says_so(
    make_engine: Callable[..., Engine[Transaction]], store: OnlineStore, sometimes: Sometimes
) -> None:
    write_profile(
        store, NOON_US - 10 * HOUR_US, customer_profile_day=20_512, customer_tx_count_30d=60
    )
    engine = make_engine(store=sometimes)
    decide(engine, make_transaction(1))
    decide(engine, make_transaction(2))
    sometimes.gone = True

    (reply,) = decide(engine, make_transaction(3))

    record = journalled(engine, "decision")[-1]
    assert reply["degraded"] == ["cached_features"]
    assert (record["customer_profile_day"], record["customer_seq_seen"]) == (20_512, 1)
    assert record["vector"][FEATURE["customer_tx_count_30d"]] == 60
    assert record["vector"][FEATURE["customer_tx_count_1min"]] == 1
    assert len(journalled(engine, "appended")) == 2


def test_of_a_batch_without_the_store_what_was_decided_before_keeps_its_reply(
    make_engine: Callable[..., Engine[Transaction]], sometimes: Sometimes
) -> None:
    engine = make_engine(store=sometimes)
    (before,) = decide(engine, make_transaction(1))
    sometimes.gone = True

    new, again = decide(engine, make_transaction(2, customer_id="c2"), make_transaction(1))

    assert again == before
    assert new["degraded"] == ["default_features"]


def test_of_a_batch_without_the_store_the_new_ones_behind_an_old_one_are_decided(
    make_engine: Callable[..., Engine[Transaction]], tmp_path: Path
) -> None:
    nowhere = HotStore(f"unix://{tmp_path}/nobody.sock", Commands("x", VIEWS))
    engine = make_engine(store=nowhere)
    (first,) = decide(engine, make_transaction(1))

    again, new = decide(engine, make_transaction(1), make_transaction(2))

    assert again == first
    assert new["degraded"] == ["default_features"]
    assert len(journalled(engine, "decision")) == 2


def test_what_was_never_read_is_looked_up_in_the_cold_store_and_judged_by_the_same_rule(
    make_engine: Callable[..., Engine[Transaction]], tmp_path: Path
) -> None:
    cold = cold_store_of(None, tmp_path / "cold.sqlite")
    nowhere = HotStore(f"unix://{tmp_path}/nobody.sock", Commands("x", VIEWS))
    engine = make_engine(store=nowhere, ladder=FeatureLadder(VIEWS, Recent(VIEWS), cold))
    seen = []

    for days_ago in (0, 3, 40):
        available_at = np.array([NOON_US - 10 * HOUR_US - days_ago * DAY_US])
        (tmp_path / "cold.sqlite").unlink(missing_ok=True)
        cold.close()
        for view in VIEWS:
            row = np.full((1, len(view.features)), 3)
            cold.write_profiles(view.name, ["c1" if view is VIEWS[0] else "s1"], row, available_at)
        seen.append(decide(engine, make_transaction(days_ago))[0]["degraded"])

    profile_days = [r["customer_profile_day"] for r in journalled(engine, "decision")]
    assert seen == [
        ["cold_features"],
        ["cold_features", "stale_profile"],
        ["cold_features", "default_features"],
    ]
    assert profile_days == [3, 3, None]


def test_a_store_that_fails_five_times_is_not_asked_for_a_while(
    make_engine: Callable[..., Engine[Transaction]], sometimes: Sometimes
) -> None:
    clock = [0.0]
    ladder = FeatureLadder(VIEWS, Recent(VIEWS), None, clock=lambda: clock[0])
    engine = make_engine(store=sometimes, ladder=ladder)
    sometimes.gone = True
    for n in range(20):
        decide(engine, make_transaction(n))
    asked = sometimes.trips
    sometimes.gone = False

    (still_alone,) = decide(engine, make_transaction(30))
    clock[0] += 2
    (back,) = decide(engine, make_transaction(31))

    assert asked == 5
    assert still_alone["degraded"] == ["default_features"]
    assert back["degraded"] == []


def test_a_frozen_store_is_stood_in_for_and_taken_back_when_it_thaws(
    make_engine: Callable[..., Engine[Transaction]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("frozen")
    clock = [0.0]
    ladder = FeatureLadder(VIEWS, Recent(VIEWS), None, clock=lambda: clock[0])
    store = HotStore(valkey.start(home), Commands("frozen", VIEWS), budget_s=0.5)
    engine = make_engine(store=store, ladder=ladder)
    decide(engine, make_transaction(1))
    pid = int((home / "valkey" / "valkey.pid").read_text())
    store.budget_s = 0.01

    os.kill(pid, signal.SIGSTOP)
    frozen = [decide(engine, make_transaction(n))[0]["degraded"] for n in range(2, 9)]
    left_alone = ladder.breaker.state
    os.kill(pid, signal.SIGCONT)
    clock[0], store.budget_s = 2.0, 0.5
    (thawed,) = decide(engine, make_transaction(9))
    valkey.stop(home)

    assert frozen == [["cached_features"]] * 7
    assert left_alone == "open"
    assert (thawed["degraded"], ladder.breaker.state) == ([], "closed")


def test_the_reply_names_the_release_that_really_decided(
    make_engine: Callable[..., Engine[Transaction]], release: Release, tmp_path: Path
) -> None:
    earlier = make_release(tmp_path / "earlier", training={"seed": 8})
    broken = make_release_that_cannot_score(release, "model")
    engine = make_engine(release=broken, previous=earlier)

    (reply,) = decide(engine, make_transaction())

    (record,) = journalled(engine, "decision")
    assert reply["degraded"] == ["previous_champion"]
    assert reply["release"] == record["release"] == earlier.id != release.id


def test_an_unreadable_activity_degrades_its_own_card_only(
    engine: Engine[Transaction], store_url: str, store: OnlineStore
) -> None:
    import redis

    with redis.Redis.from_url(store_url) as client:
        client.set(engine.store.commands.activity_key("customer", "c1"), b"\x00" * 100)

    damaged, fine = decide(engine, make_transaction(1), make_transaction(2, customer_id="c2"))

    assert damaged["degraded"] == ["default_features"]
    assert fine["degraded"] == []


def make_release_that_cannot_score(release: Release, *parts: str) -> Release:
    """The same release with models of other columns in place of its own."""
    X = np.random.default_rng(1).normal(size=(100, 2))
    wrong = LogisticRegression.train(X, (X[:, 0] > 0).astype(np.int64), columns=["a", "b"])
    return dataclasses.replace(release, **dict.fromkeys(parts, wrong))


def test_without_its_trees_a_release_decides_by_its_regression(
    make_engine: Callable[..., Engine[Transaction]], release: Release
) -> None:
    engine = make_engine(release=make_release_that_cannot_score(release, "model"))

    (reply,) = decide(engine, make_transaction())

    vector = [math.nan if v is None else v for v in journalled(engine, "decision")[0]["vector"]]
    assert reply["degraded"] == ["fallback_logistic"]
    assert reply["score"] == release.fallback_score(np.array([vector]))[0]


@pytest.mark.parametrize(
    ("overrides", "decision", "reason"),
    [
        (
            {"amount_minor": 1_000_001},
            "review",
            ["high_amount_fallback", "amount", 10_000.01, None],
        ),
        (
            {"amount_minor": 100_001, "terminal_country": "US"},
            "review",
            ["cross_country_fallback", "is_cross_border", 1.0, None],
        ),
        ({"amount_minor": 100_001}, "allow", ["service_unavailable_fallback", None, None, None]),
    ],
)
def test_without_any_model_the_rules_decide_and_give_themselves_as_the_reason(
    make_engine: Callable[..., Engine[Transaction]],
    release: Release,
    overrides: dict[str, Any],
    decision: str,
    reason: list[Any],
) -> None:
    engine = make_engine(release=make_release_that_cannot_score(release, "model", "baseline"))

    (reply,) = decide(engine, make_transaction(**overrides))

    assert (reply["score"], reply["decision"]) == (None, decision)
    assert [list(r.values()) for r in reply["reasons"]] == [reason]
    assert reply["degraded"] == ["fallback_rules"]


def test_what_cannot_be_journalled_is_not_decided(
    make_engine: Callable[..., Engine[Transaction]], tmp_path: Path, store: OnlineStore
) -> None:
    (tmp_path / "in the way").write_text("")
    engine = make_engine(journal=Journal(tmp_path / "in the way" / "journal"))

    with pytest.raises(JournalError, match=r"can't be used.*free space or mend the folder"):
        run(engine, make_transaction())

    assert kept_events(store) == []


# ---------------------------------------------------------------- events and verdicts


def event_body(**overrides: Any) -> bytes:
    body = {
        "transaction_id": "t1",
        "customer_id": "c1",
        "terminal_id": "s1",
        "amount": "50.00",
        "event_timestamp": "2026-03-01T12:00:01Z",
        "device_id": "d1",
    }
    return json.dumps(body | overrides).encode()


def test_an_event_counts_in_activity_without_a_decision_and_once_however_often_it_is_sent(
    engine: Engine[Transaction],
) -> None:
    for _ in range(3):
        (answer,) = loops.run(engine.store, engine.take_in([READER.event(event_body(), NOON_US)]))

    decide(engine, make_transaction(2))
    assert json.loads(answer.body) == {"transaction_id": "t1", "accepted": "transaction"}
    (record,) = journalled(engine, "decision")
    assert record["vector"][FEATURE["customer_tx_count_1min"]] == 1
    assert [a["customer_seq"] for a in journalled(engine, "appended")] == [1, 1, 1, 2]
    assert journalled(engine, "event")[0]["transaction"]["amount_minor"] == 5_000


def test_a_verdict_fraud_is_an_event_of_card_and_terminal_from_when_it_arrived(
    engine: Engine[Transaction], store: OnlineStore
) -> None:
    loops.run(engine.store, engine.take_in([READER.label(label_body(), NOON_US)]))

    decide(engine, make_transaction(5))

    event = kept_events(store)[0]
    (record,) = journalled(engine, "decision")
    assert (event["kind"], event["event_timestamp"]) == (FRAUD_KIND, NOON_US)
    assert record["vector"][FEATURE["customer_fraud_label_count_30d"]] == 1
    assert record["vector"][FEATURE["terminal_fraud_label_count_24h"]] == 1
    (label,) = journalled(engine, "label")
    assert (label["label_available_at_us"], label["received_at"]) == (NOON_US, NOON_US)


def test_a_verdict_counts_once_and_its_correction_too(
    engine: Engine[Transaction], store: OnlineStore
) -> None:
    for seconds in range(3):
        loops.run(
            engine.store,
            engine.take_in([READER.label(label_body(), NOON_US + seconds * 1_000_000)]),
        )
    loops.run(engine.store, engine.take_in([READER.label(label_body(is_fraud=False), NOON_US)]))

    assert [r["is_fraud"] for r in journalled(engine, "label")] == [True, False]
    assert len(kept_events(store)) == 1


def test_what_is_only_taken_in_needs_the_store(
    make_engine: Callable[..., Engine[Transaction]], tmp_path: Path, store: OnlineStore
) -> None:
    nowhere = HotStore(f"unix://{tmp_path}/nobody.sock", Commands("x", VIEWS))
    engine = make_engine(store=nowhere)

    with pytest.raises(StoreError):
        loops.run(engine.store, engine.take_in([READER.event(event_body(), NOON_US)]))


def test_a_card_with_more_events_than_are_kept_is_decided_by_the_newest(
    engine: Engine[Transaction], store: OnlineStore
) -> None:
    many = [make_transaction(n, event_timestamp_us=NOON_US + n * 1_000) for n in range(300)]
    store.write([Append("customer", "c1", transaction_records(t)[0]) for t in many])

    decide(engine, make_transaction(1_000, event_timestamp_us=NOON_US + 1_000_000))

    (record,) = journalled(engine, "decision")
    assert record["customer_seq_seen"] == 300
    assert record["vector"][FEATURE["customer_tx_count_1min"]] == CAPACITY


# ---------------------------------------------------------------- exploration


def suspicious(number: int) -> Transaction:
    """One that the release would block."""
    return make_transaction(number, amount_minor=SUSPICIOUS_AMOUNT * 190, customer_id=f"c{number}")


def test_an_explored_block_is_reviewed_journalled_with_its_propensity_and_answered_the_same_again(
    make_engine: Callable[..., Engine[Transaction]], tmp_path: Path
) -> None:
    exploration = Exploration(tmp_path / "exploration", 0.5, 10**9, 10**9)
    engine = make_engine(exploration=exploration)
    transactions = [suspicious(n) for n in range(40)] + [make_transaction(99)]

    replies = decide(engine, *transactions)
    again = decide(engine, *transactions)

    records = journalled(engine, "decision")
    kinds = {(r["decision"], r.get("propensity")) for r in records}
    assert kinds == {("review", 0.5), ("block", 0.5), ("review", None)}
    assert again == replies
    assert [r["decision"] for r in replies] == [r["decision"] for r in records]


def test_without_exploration_no_decision_has_a_propensity(engine: Engine[Transaction]) -> None:
    decide(engine, suspicious(1))

    (record,) = journalled(engine, "decision")
    assert record["decision"] == "block"
    assert "propensity" not in record


def test_rules_and_degraded_models_are_never_explored(
    make_engine: Callable[..., Engine[Transaction]], release: Release, tmp_path: Path
) -> None:
    class Broken:
        id = release.id
        thresholds = release.thresholds
        explain = release.explain
        fallback_score = release.fallback_score

        def score(self, X: Any) -> Any:
            raise ValueError("it can't score")

    exploration = Exploration(tmp_path / "exploration", 0.999, 10**9, 10**9)
    engine = make_engine(exploration=exploration, release=Broken())

    decide(engine, *[suspicious(n) for n in range(5)])

    assert not any("propensity" in record for record in journalled(engine, "decision"))

"""Whatever the engine served, the journal is enough to compute it again to the bit.

Batches of any size, late and repeated transactions, verdicts, events without a decision, a store that goes
away or loses everything: none of these may make a journalled vector differ from its recomputation.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.fraud.activity import build_activity
from switchyard.fraud.bodies import label_body, transaction_body
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.compaction import compact
from switchyard.fraud.events import LABEL_DELAY_DAYS
from switchyard.fraud.online import VIEWS, FraudDomain, FraudReader, cold_store_of
from switchyard.fraud.rebuild import refill
from switchyard.fraud.recompute import recompute
from switchyard.fraud.requests import EPOCH, Parser, Transaction
from switchyard.fraud.sync import sync_profiles
from switchyard.fraud.windows import build_profiles
from switchyard.learning.release import Release
from switchyard.serving import valkey
from switchyard.serving.cold_store import ColdStore
from switchyard.serving.commands import Commands
from switchyard.serving.engine import Asked, Engine
from switchyard.serving.hot_store import HotStore
from switchyard.serving.journal import Journal, wall_clock_us
from switchyard.serving.ladder import FeatureLadder
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.segments import read_journal
from switchyard.settings import load_settings
from tests import loops
from tests.releases import make_release
from tests.streams import Row, land, streams

DAY = timedelta(days=1)
WRITTEN = datetime(2030, 1, 1, tzinfo=UTC)
encode = msgspec.json.encode
READER = FraudReader(Parser("EUR", future_limit=None), FraudDomain(100))
NOW_US = (WRITTEN - EPOCH) // timedelta(microseconds=1)
Traffic = tuple[list[Row], list[Row], list[list[tuple[str, Row]]]]
_WAYS = ("decide", "event", "label", "decide without the store")
_FROM_VERDICTS = (
    "customer_fraud_label_count_30d",
    "terminal_fraud_label_count_24h",
    "terminal_fraud_label_count_30d",
)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("served")
    yield folder
    valkey.stop(folder)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("releases"))


@st.composite
def traffic(draw: st.DrawFn) -> Traffic:
    """A stream, and the order in which it reaches the service: batches of (what, row)."""
    transactions, labels = draw(streams(max_size=15))
    ways = st.sampled_from(["decide", "decide", "decide", "event", "decide without the store"])
    sent = [(row["event_timestamp"], draw(ways), row) for row in transactions]
    arrived = [row for row in labels if row["label_available_at"] is not None]
    sent += [(row["label_available_at"], "label", row) for row in arrived]
    late = draw(st.lists(st.sampled_from(sent), max_size=4))
    ordered = [(what, row) for _, what, row in sorted(sent, key=lambda each: each[0])]
    for _, what, row in late:
        ordered.insert(draw(st.integers(0, len(ordered))), (what, row))
    sizes = draw(st.lists(st.integers(1, 4), min_size=len(ordered), max_size=len(ordered)))
    rest = iter(ordered)
    return transactions, labels, [list(itertools.islice(rest, size)) for size in sizes]


@settings(max_examples=10)
@given(traffic(), st.data())
def test_every_journalled_vector_comes_out_again(
    home: Path, release: Release, sent: Traffic, data: st.DataObject
) -> None:
    transactions, labels, batches = sent
    with tempfile.TemporaryDirectory() as folder:
        lake = land(Path(folder) / "lake", transactions, labels)
        last = max(row["event_timestamp"] for row in transactions).date()
        build_profiles(lake, last - 3 * DAY, last, created_at=WRITTEN)
        engine = make_engine(valkey.start(home), release, Path(folder) / "journal")
        sync_before = data.draw(st.integers(0, len(batches)))
        losses = data.draw(st.lists(st.integers(0, len(batches)), max_size=2))
        for number, batch in enumerate(batches):
            for _ in range(losses.count(number)):
                lose_the_store(engine, Path(folder))
            if number == sync_before:
                sync_profiles(lake, store_of(engine), last - DAY, cold_of(engine))
            serve(engine, batch)
        engine.close()

        records = list(read_journal(engine.journal.folder))
        recomputed = recompute(records, lake, Path(folder) / "activity")

    decided = {r["transaction"]["transaction_id"] for r in records if r["type"] == "decision"}
    assert recomputed.differences == ()
    assert recomputed.rows >= len(decided)


@settings(max_examples=8)
@given(streams(max_size=12))
def test_verdicts_that_only_the_service_was_told_count_offline_as_they_did_online(
    home: Path, release: Release, stream: tuple[list[Row], list[Row]]
) -> None:
    transactions, labels = stream
    told = [row for row in labels if row["label_available_at"] and _in_time(row)]
    sent = [(row["event_timestamp"], "decide", row) for row in transactions]
    sent += [(row["label_available_at"], "label", row) for row in told]
    with tempfile.TemporaryDirectory() as folder:
        lake = land(Path(folder) / "lake", transactions)
        engine = make_engine(valkey.start(home), release, Path(folder) / "journal")
        for _, what, row in sorted(sent, key=lambda each: each[:2]):  # ties count for neither side
            serve(engine, [(what, row)])
        engine.close()

        compact(engine.journal.folder, lake)
        days = lake.days("transactions")
        build_activity(lake, days[0], days[-1])
        offline = lake.read("activity_windows", days[0], days[-1]).to_pylist()
        served = pa.concat_tables(lake.read("decisions", day) for day in lake.days("decisions"))

    places = {name: names(FEATURES).index(name) for name in _FROM_VERDICTS}
    online = {
        row["transaction_id"]: [row["vector"][at] for at in places.values()]
        for row in served.to_pylist()
    }
    assert online == {row["transaction_id"]: [row[name] for name in places] for row in offline}


def _in_time(label: Row) -> bool:
    return label["label_available_at"] - label["event_timestamp"] <= LABEL_DELAY_DAYS * DAY


def make_engine(url: str, release: Release, journal: Path) -> Engine[Transaction]:
    store = HotStore(url, Commands(f"served{next(_numbers)}", VIEWS), budget_s=1.0)
    return Engine(FraudDomain(100), store, Journal(journal), release)


def lose_the_store(engine: Engine[Transaction], home: Path) -> None:
    """From now on the store is an empty one, filled from the journal."""
    engine.store = HotStore(
        engine.store.url, Commands(f"served{next(_numbers)}", VIEWS), budget_s=1.0
    )
    store = store_of(engine)
    with store.filling() as lease:
        refill(load_settings(home=home), store, lease, wall_clock_us())
    store.close()


def cold_of(engine: Engine[Transaction]) -> ColdStore:
    """The cold store beside the engine's journal."""
    return cold_store_of(None, engine.journal.folder / "cold_store.sqlite")


def store_of(engine: Engine[Transaction]) -> OnlineStore:
    """The engine's store as a sync sees it."""
    return OnlineStore(engine.store.url, engine.store.commands.project, VIEWS)


def serve(engine: Engine[Transaction], batch: Sequence[tuple[str, Row]]) -> None:
    """One batch as it may wait together in the service; without a store nothing is taken in."""
    ways: dict[str, list[Row]] = {what: [] for what in _WAYS}
    for what, row in batch:
        ways[what].append(row)
    events = [READER.event(encode(transaction_body(row)), NOW_US) for row in ways["event"]]
    labels = [READER.label(encode(label_body(row)), NOW_US) for row in ways["label"]]
    nowhere = HotStore("unix:///nobody/listens.sock", Commands("x", VIEWS))
    ladder = FeatureLadder(VIEWS, engine.ladder.recent, cold_of(engine))
    alone = Engine(engine.domain, nowhere, engine.journal, engine.lineup.champion, ladder=ladder)

    async def all_of_them() -> None:
        await engine.decide([ask(row) for row in ways["decide"]])
        await engine.take_in(events)
        await engine.take_in(labels)
        await alone.decide([ask(row) for row in ways["decide without the store"]])

    loops.run(engine.store, all_of_them())
    alone.ledger.close()
    ladder.close()


def ask(row: Row) -> Asked[Transaction]:
    transaction = READER.transaction(encode(transaction_body(row)), NOW_US)
    return Asked(transaction, NOW_US, time.perf_counter())

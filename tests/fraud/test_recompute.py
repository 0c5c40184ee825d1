"""Recomputing a journal: nothing differs when the service was right, and every way to be wrong shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.errors import JournalError
from switchyard.fraud.activity import EVENT, KEY, MISSING, Events, Owner, encode, snapshot
from switchyard.fraud.columns import CUSTOMER_PROFILE, TERMINAL_PROFILE, TRANSACTION, names
from switchyard.fraud.features import requests_of, vectors
from switchyard.fraud.recompute import recompute
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake
from tests.streams import (
    NOON,
    BlobStore,
    Row,
    labels_of,
    land,
    make_label,
    make_transaction,
    transactions_of,
    windows_of,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)
HISTORY = [
    make_transaction(
        transaction_id=f"h{i}",
        customer_id=f"c{i % 3}",
        terminal_id=f"s{i % 4}",
        amount_minor=100 + 37 * i,
        device_id=f"d{i % 5}",
        event_timestamp=NOON - 8 * DAY + timedelta(hours=5 * i),
    )
    for i in range(36)
]
BEFORE = HISTORY[-1]["event_timestamp"] + timedelta(hours=1)


def us(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def journalled(row: Row) -> dict[str, Any]:
    """A transaction or label as the journal holds it: times in microseconds."""
    return {
        f"{name}_us" if isinstance(value, datetime) else name: us(value) if isinstance(value, datetime) else value
        for name, value in row.items()
    }  # fmt: skip


Reader = Callable[[BlobStore, Owner, str], Events]


class Service:
    """The order of a decision, in plain Python: read, vector, journal, append, journal."""

    def __init__(self, lake: Lake, folder: Path) -> None:
        self.lake = lake
        self.journal: list[dict[str, Any]] = []
        self.store = BlobStore()
        self.clock = itertools.count(us(BEFORE), 1_000)
        self.days_back = 0
        self.profiles: dict[tuple[Owner, date], dict[str, list[int]]] = {}
        self.events_of: Reader = lambda store, owner, key: store.read(owner, key)[1]
        table = snapshot(lake, BEFORE)
        pq.write_table(table, folder / "baseline.parquet")
        for row in table.to_pylist():
            self.store.blobs[row["owner"], row["key"]] = row["blob"]
        self.journal.append(
            {"type": "baseline", "cutoff_us": us(BEFORE), "file": "baseline.parquet"}
        )

    def decide(self, row: Row) -> None:
        self.read(row)
        self.append(row)

    def read(self, row: Row) -> None:
        """Everything up to the journalled decision."""
        received = next(self.clock)
        table = transactions_of([row])
        profiles, days = zip(*(self._profile(row, owner) for owner in KEY), strict=True)
        windows, seqs = zip(*(self._windows(row, owner) for owner in KEY), strict=True)
        vector = vectors(requests_of(table), *profiles, *windows)[0]
        self.journal.append(
            {
                "type": "decision",
                "decision_id": f"decision of {row['transaction_id']}",
                "transaction": journalled(row),
                "received_at": received,
                "latency_ms": 0.5,
                "vector": [None if np.isnan(v) else v for v in vector.tolist()],
                "customer_profile_day": days[0],
                "terminal_profile_day": days[1],
                "customer_seq_seen": seqs[0],
                "terminal_seq_seen": seqs[1],
            }
        )

    def append(self, row: Row) -> None:
        self._number(
            "transaction", row, {o: encode(transactions_of([row]), None, o)[1] for o in KEY}
        )

    def event(self, row: Row) -> None:
        record = {"type": "event", "received_at": next(self.clock), "transaction": journalled(row)}
        self.journal.append(record)
        self.append(row)

    def label(self, row: Row) -> None:
        self.journal.append({"type": "label", "received_at": next(self.clock), **journalled(row)})
        if row["is_fraud"]:
            nothing = transactions_of([])
            verdicts = {o: encode(nothing, labels_of([row]), o)[1] for o in KEY}
            self._number("label", row, verdicts)

    def _number(self, kind: str, row: Row, events: dict[Owner, Events]) -> None:
        numbers = {
            f"{owner}_seq": self.store.append(owner, row[KEY[owner]], events[owner][0])
            for owner in KEY
        }
        appended = {"type": "appended", "kind": kind, "transaction_id": row["transaction_id"]}
        self.journal.append(appended | numbers)

    def _profile(self, row: Row, owner: Owner) -> tuple[Any, int | None]:
        """The profile that is right at the row's moment, or one of ``days_back`` days before."""
        columns = names(CUSTOMER_PROFILE if owner == "customer" else TERMINAL_PROFILE)
        day = (row["event_timestamp"] - timedelta(hours=26)).date() - self.days_back * DAY
        if (owner, day) not in self.profiles:
            rows = self.lake.read(f"{owner}_profiles", day).to_pylist()
            self.profiles[owner, day] = {
                found[KEY[owner]]: [found[name] for name in columns] for found in rows
            }
        values = self.profiles[owner, day].get(row[KEY[owner]], [MISSING] * len(columns))
        return np.array([values]), None if values[0] == MISSING else values[0]

    def _windows(self, row: Row, owner: Owner) -> tuple[Any, int]:
        key = row[KEY[owner]]
        subject = encode(transactions_of([row]), None, owner)[1][0]
        events = self.events_of(self.store, owner, key)
        return np.array([windows_of(owner, events, subject)]), self.store.read(owner, key)[0]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """History with profiles of its last days."""
    folder = tmp_path_factory.mktemp("lake")
    landed = land(folder, HISTORY, [make_label(row) for row in HISTORY[:9]])
    last = BEFORE.date()
    build_profiles(landed, last - 5 * DAY, last, created_at=BEFORE)
    return landed


@pytest.fixture
def service(lake: Lake, tmp_path: Path) -> Service:
    return Service(lake, tmp_path)


def make_payment(number: int, minutes: float = 0, **overrides: Any) -> Row:
    """A transaction after the history, ``minutes`` after its end."""
    fields = {
        "transaction_id": f"p{number}",
        "customer_id": f"c{number % 3}",
        "terminal_id": f"s{number % 4}",
        "amount_minor": 50 + 61 * number,
        "device_id": f"d{number % 7}",
        "event_timestamp": BEFORE + timedelta(minutes=minutes or number),
    }
    return make_transaction(**fields | overrides)


def pay(service: Service, count: int = 12) -> None:
    for number in range(1, count + 1):
        service.decide(make_payment(number))


def test_a_right_service_has_no_difference(service: Service, tmp_path: Path) -> None:
    pay(service)
    service.label(make_label(HISTORY[30], label_available_at=BEFORE + timedelta(minutes=20)))
    service.label(make_label(HISTORY[31], is_fraud=False))
    service.event(make_payment(20, 21))
    service.decide(make_payment(23, 25))

    found = recompute(service.journal, service.lake, tmp_path)

    assert found.rows == 13
    assert found.differences == ()
    assert (found.stale_share, found.late_share, found.simultaneous_share) == (0, 0, 0)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["decide", "read", "append", "event", "label", "again"]),
        st.integers(1, 9),
        st.sampled_from([1, 5, 5, 9, 30, 31]),
    ),
    max_size=25,
)


@settings(max_examples=10)
@given(steps=_STEPS, stale=st.integers(0, 2))
def test_whatever_came_late_twice_together_or_never_is_recomputed_alike(
    steps: list[tuple[str, int, int]], stale: int, lake: Lake,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("journal")
    service = Service(lake, folder)
    service.days_back = stale
    paid: dict[int, Row] = {}
    for what, number, minutes in steps:
        row = paid.setdefault(number, make_payment(number, minutes))
        if what == "label":
            arrival = BEFORE + timedelta(minutes=minutes)
            service.label(make_label(row, label_available_at=arrival))
        elif what == "again":
            service.decide(row)
            service.append(row)
        elif what == "append":
            service.event(row)
        else:
            getattr(service, what)(row)

    found = recompute(service.journal, service.lake, folder)

    assert found.differences == ()
    assert found.rows == sum(what in ("decide", "read", "again") for what, _, _ in steps)


def one_event_short(store: BlobStore, owner: Owner, key: str) -> Events:
    return store.read(owner, key)[1][:-1]


def test_a_window_off_by_one_event_is_found(service: Service, tmp_path: Path) -> None:
    service.events_of = one_event_short

    pay(service)

    assert recompute(service.journal, service.lake, tmp_path).differences


def test_the_profile_of_another_day_is_found(service: Service, tmp_path: Path) -> None:
    pay(service)
    for record in service.journal:
        if record["type"] == "decision":
            record["customer_profile_day"] -= 1

    found = recompute(service.journal, service.lake, tmp_path)

    assert {d.feature for d in found.differences} >= {"customer_mean_amount_30d"}


def test_the_own_event_counted_is_found(service: Service, tmp_path: Path) -> None:
    row = make_payment(1)

    def with_itself(store: BlobStore, owner: Owner, key: str) -> Events:
        mine = encode(transactions_of([row]), None, owner)[1].copy()
        mine["event_timestamp"] -= 1
        return np.concatenate([store.read(owner, key)[1], mine]).astype(EVENT)

    service.events_of = with_itself
    service.decide(row)

    found = recompute(service.journal, service.lake, tmp_path)

    (difference,) = [d for d in found.differences if d.feature == "customer_tx_count_1min"]
    assert difference.decision_id == "decision of p1"
    assert difference.key == ("c1", "s1")
    assert difference.served - difference.recomputed == 1


def test_one_changed_bit_of_one_value_is_one_difference(service: Service, tmp_path: Path) -> None:
    pay(service)
    vector = service.journal[-2]["vector"]
    vector[0] = float(np.nextafter(vector[0], 1e9))

    (difference,) = recompute(service.journal, service.lake, tmp_path).differences

    assert difference.feature == "amount"


def test_an_event_appended_but_never_numbered_was_seen_by_nobody(
    service: Service, tmp_path: Path
) -> None:
    service.read(make_payment(1))
    service.decide(make_payment(4, 2, customer_id="c1"))

    found = recompute(service.journal, service.lake, tmp_path)

    assert (found.rows, found.differences) == (2, ())


def test_an_older_profile_is_right_but_stale(service: Service, tmp_path: Path) -> None:
    service.decide(make_payment(1))
    service.days_back = 1
    service.decide(make_payment(2))

    found = recompute(service.journal, service.lake, tmp_path)

    assert (found.differences, found.stale_share) == ((), 0.5)


def test_who_missed_an_earlier_event_is_counted_as_late_or_simultaneous(
    service: Service, tmp_path: Path
) -> None:
    same = {"customer_id": "c1", "terminal_id": "s1"}
    service.clock = itertools.count(us(BEFORE), 300)
    on_its_way, decided = make_payment(1, 5, **same), make_payment(2, 6, **same)
    service.read(on_its_way)
    service.read(decided)
    service.append(decided)
    service.append(on_its_way)
    service.clock = itertools.count(us(BEFORE) + 10**9, 300)
    service.event(make_payment(3, 5.5, **same))

    found = recompute(service.journal, service.lake, tmp_path)

    assert found.differences == ()
    assert (found.rows, found.late_share, found.simultaneous_share) == (2, 0.5, 0.5)


def test_only_decisions_of_the_span_are_checked_but_all_events_count(
    service: Service, tmp_path: Path
) -> None:
    pay(service, 6)
    span = us(BEFORE + timedelta(minutes=4)), us(BEFORE + timedelta(minutes=6))

    found = recompute(service.journal, service.lake, tmp_path, span)

    assert (found.rows, found.differences) == (2, ())


def test_a_second_baseline_starts_the_numbers_anew(service: Service, tmp_path: Path) -> None:
    pay(service, 4)
    refilled = Service(service.lake, tmp_path)
    for number in (5, 6, 8):
        refilled.decide(make_payment(number))

    found = recompute([*service.journal, *refilled.journal], service.lake, tmp_path)

    assert (found.rows, found.differences) == (7, ())


def test_a_decision_without_a_vector_is_not_checked(service: Service, tmp_path: Path) -> None:
    service.decide(make_payment(1))
    service.journal[1]["vector"] = None

    found = recompute(service.journal, service.lake, tmp_path)

    assert (found.rows, found.stale_share) == (0, 0)


def test_records_of_another_version_are_refused(service: Service, tmp_path: Path) -> None:
    service.decide(make_payment(1))
    service.journal[1]["vector"].append(1.0)
    with pytest.raises(JournalError, match="has not 50 values"):
        recompute(service.journal, service.lake, tmp_path)

    del service.journal[1]["customer_profile_day"]
    with pytest.raises(JournalError, match="no 'customer_profile_day'"):
        recompute(service.journal, service.lake, tmp_path)


def test_a_snapshot_that_is_gone_is_named(service: Service, tmp_path: Path) -> None:
    service.decide(make_payment(1))

    with pytest.raises(JournalError, match=r"nowhere/baseline\.parquet .* is gone"):
        recompute(service.journal, service.lake, tmp_path / "nowhere")


def test_every_column_of_a_transaction_is_journalled() -> None:
    assert {name.removesuffix("_us") for name in journalled(make_payment(1))} == set(
        names(TRANSACTION)
    )

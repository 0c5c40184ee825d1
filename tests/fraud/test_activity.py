"""Activity: windows by hand and by a naive definition, the blob, replay, the lake's table, snapshots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import LakeError, StoreError
from switchyard.fraud import activity
from switchyard.fraud.activity import CAPACITY, EVENT, FRAUD_KIND, MISSING, Events
from switchyard.fraud.columns import CUSTOMER_ACTIVITY, TERMINAL_ACTIVITY, names
from switchyard.lake import Lake
from tests.streams import (
    NOON,
    labels_of,
    land,
    make_label,
    make_transaction,
    transactions_of,
    windows_of,
)

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
NOW = 10**15


def make_event(age_us: int, **overrides: Any) -> tuple[int, ...]:
    """An event ``age_us`` before NOW, as the fields of EVENT in order."""
    fields = {
        "event_timestamp": NOW - age_us,
        "event_id": 1,
        "other": 7,
        "amount_minor": 1_000,
        "device": 3,
        "seq": 0,
        "country": 28,
        "kind": 0,
        "spare": 0,
    } | overrides
    return tuple(fields.values())


def events_of(*events: tuple[int, ...]) -> Events:
    ordered = np.array(list(events), EVENT)
    return ordered[np.lexsort((ordered["event_id"], ordered["event_timestamp"]))]


def customer(events: Events, **asked: Any) -> dict[str, int]:
    subject = events_of(make_event(0, event_id=-5, **asked))[0]
    return dict(zip(names(CUSTOMER_ACTIVITY), windows_of("customer", events, subject), strict=True))


def terminal(events: Events) -> dict[str, int]:
    subject = events_of(make_event(0, event_id=-5))[0]
    return dict(zip(names(TERMINAL_ACTIVITY), windows_of("terminal", events, subject), strict=True))


def test_an_event_has_48_bytes_without_padding() -> None:
    assert EVENT.itemsize == 48
    assert EVENT.isalignedstruct is False
    assert sum(EVENT[name].itemsize for name in EVENT.names or ()) == 48


def test_a_window_begins_with_its_first_moment_and_ends_before_the_transaction() -> None:
    at_the_edge = events_of(
        make_event(0, event_id=1),
        make_event(-1, event_id=2),
        make_event(MINUTE_US, event_id=3),
        make_event(MINUTE_US + 1, event_id=4),
        make_event(HOUR_US, event_id=5),
        make_event(HOUR_US + 1, event_id=6),
        make_event(DAY_US, event_id=7),
        make_event(DAY_US + 1, event_id=8),
    )

    found = customer(at_the_edge)

    assert found["customer_tx_count_1min"] == 1
    assert found["customer_tx_count_10min"] == 2
    assert found["customer_tx_count_1h"] == 3
    assert found["customer_tx_count_24h"] == 5
    assert found["customer_amount_sum_24h"] == 5_000
    assert found["customer_last_tx_age_us"] == MINUTE_US


def test_the_thirtieth_day_counts_to_its_first_microsecond() -> None:
    inside = events_of(make_event(30 * DAY_US))
    outside = events_of(make_event(30 * DAY_US + 1))

    assert customer(inside)["customer_terminal_seen_30d"] == 1
    assert customer(inside)["customer_last_tx_age_us"] == 30 * DAY_US
    assert customer(outside)["customer_terminal_seen_30d"] == 0
    assert customer(outside)["customer_last_tx_age_us"] == MISSING


def test_seen_is_null_where_the_request_names_none_and_0_where_the_past_names_none() -> None:
    past = events_of(make_event(1, device=0, country=0))

    nameless = customer(past, device=0, country=0)
    named = customer(past, device=3, country=28)

    assert nameless["customer_device_seen_30d"] == MISSING
    assert nameless["customer_country_seen_30d"] == MISSING
    assert named["customer_device_seen_30d"] == 0
    assert named["customer_country_seen_30d"] == 0


def test_a_verdict_counts_as_a_verdict_only() -> None:
    verdicts = events_of(
        make_event(HOUR_US, event_id=1, kind=FRAUD_KIND, other=7, amount_minor=0),
        make_event(2 * DAY_US, event_id=2, kind=FRAUD_KIND),
    )

    card, shop = customer(verdicts), terminal(verdicts)

    assert card["customer_fraud_label_count_30d"] == 2
    assert card["customer_terminal_seen_30d"] == 0
    assert card["customer_tx_count_24h"] == 0
    assert card["customer_last_tx_age_us"] == MISSING
    assert shop["terminal_fraud_label_count_24h"] == 1
    assert shop["terminal_fraud_label_count_30d"] == 2
    assert shop["terminal_last_fraud_label_age_us"] == HOUR_US
    assert shop["terminal_tx_count_1h"] == 0


def test_distinct_counterparts_are_counted_once_and_ties_not_at_all() -> None:
    past = events_of(
        make_event(0, event_id=1, other=99),
        make_event(1, event_id=2, other=8),
        make_event(2, event_id=3, other=7),
        make_event(3, event_id=4, other=8),
        make_event(4, event_id=5, other=8, kind=FRAUD_KIND),
    )

    assert customer(past)["customer_terminal_count_24h"] == 2
    assert terminal(past)["terminal_customer_count_1h"] == 2


def naive_windows(events: Events, subject: np.void) -> dict[str, int]:
    """The meaning of the columns, written as they are described."""
    now = int(subject["event_timestamp"])
    past = [e for e in events if now - 30 * DAY_US <= e["event_timestamp"] < now]
    verdicts = [e for e in past if e["kind"] == FRAUD_KIND]
    payments = [e for e in past if e["kind"] != FRAUD_KIND]

    def last(of: list[Any], window_us: int) -> list[Any]:
        return [e for e in of if e["event_timestamp"] >= now - window_us]

    def small(of: list[Any]) -> int:
        return sum(e["amount_minor"] < 500 for e in of)

    def age(of: list[Any]) -> int:
        return min((now - int(e["event_timestamp"]) for e in of), default=MISSING)

    def seen(name: str) -> int:
        return (
            MISSING if subject[name] == 0 else int(any(e[name] == subject[name] for e in payments))
        )

    day, hour = last(payments, DAY_US), last(payments, HOUR_US)
    return {
        "customer_tx_count_1min": len(last(payments, MINUTE_US)),
        "customer_tx_count_10min": len(last(payments, 10 * MINUTE_US)),
        "customer_tx_count_1h": len(hour),
        "customer_tx_count_24h": len(day),
        "customer_amount_sum_24h": sum(int(e["amount_minor"]) for e in day),
        "customer_amount_max_24h": max((int(e["amount_minor"]) for e in day), default=0),
        "customer_small_amount_count_1h": small(hour),
        "customer_terminal_count_24h": len({int(e["other"]) for e in day}),
        "customer_last_tx_age_us": age(payments),
        "customer_fraud_label_count_30d": len(verdicts),
        "customer_terminal_seen_30d": int(any(e["other"] == subject["other"] for e in payments)),
        "customer_device_seen_30d": seen("device"),
        "customer_country_seen_30d": seen("country"),
        "terminal_tx_count_1h": len(hour),
        "terminal_small_amount_count_1h": small(hour),
        "terminal_customer_count_1h": len({int(e["other"]) for e in hour}),
        "terminal_fraud_label_count_24h": len(last(verdicts, DAY_US)),
        "terminal_fraud_label_count_30d": len(verdicts),
        "terminal_last_fraud_label_age_us": age(verdicts),
    }


_AGES = st.one_of(
    st.integers(-HOUR_US, 31 * DAY_US),
    st.integers(-2, 2 * HOUR_US),
    st.sampled_from(
        [w + d for w in (0, MINUTE_US, HOUR_US, DAY_US, 30 * DAY_US) for d in (-1, 0, 1)]
    ),
)
_EVENTS = st.lists(
    st.builds(
        make_event,
        _AGES,
        event_id=st.integers(-9, 9),
        other=st.integers(1, 3),
        amount_minor=st.sampled_from([0, 499, 500, 10**8]),
        device=st.integers(0, 2),
        country=st.integers(0, 2),
        kind=st.sampled_from([0, 0, FRAUD_KIND]),
    ),
    max_size=20,
)


@given(_EVENTS, st.integers(0, 2), st.integers(0, 2))
def test_windows_are_what_their_columns_say(
    past: list[tuple[int, ...]], device: int, country: int
) -> None:
    events = events_of(*past)
    subject = events_of(make_event(0, other=2, device=device, country=country))[0]

    found = {
        name: value
        for owner, columns in (("customer", CUSTOMER_ACTIVITY), ("terminal", TERMINAL_ACTIVITY))
        for name, value in zip(names(columns), windows_of(owner, events, subject), strict=True)
    }

    assert found == naive_windows(events, subject)


@given(st.permutations(range(12)), st.integers(1, 5))
def test_insert_keeps_the_newest_in_order_whatever_the_order_of_arrival(
    arrival: list[int], capacity: int
) -> None:
    kept, count = np.zeros(2 * capacity, EVENT), 0

    for number in [*arrival, *arrival[:3]]:
        event = events_of(make_event(number // 2, event_id=number))[0]
        count = activity.insert(kept, count, event, capacity)

    expected = sorted(range(12), key=lambda n: (-(n // 2), n))[-capacity:]
    assert kept[max(0, count - capacity) : count]["event_id"].tolist() == expected


def test_a_blob_gives_its_newest_256_events_back_without_copying() -> None:
    many = events_of(*(make_event(300 - i, event_id=i) for i in range(300)))
    blob = activity.encode_blob(300, many)

    last, events = activity.decode_blob(blob)

    assert (last, len(events)) == (300, CAPACITY)
    assert (events == many[-CAPACITY:]).all()
    assert not events.flags.owndata


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 17, b"\0" * 64])
def test_a_torn_or_foreign_blob_is_refused(damage: bytes) -> None:
    with pytest.raises(StoreError, match="activity blob"):
        activity.decode_blob(damage)


def test_a_table_becomes_the_events_of_either_owner() -> None:
    paid = make_transaction(device_id=None, terminal_country="DE")
    rows, labels = transactions_of([paid]), [make_label(paid), make_label(paid, is_fraud=False)]
    labels.append(make_label(paid, label_available_at=None))

    keys, events = activity.encode(rows, labels_of(labels), "customer")
    terminal_keys, terminal_events = activity.encode(rows, None, "terminal")

    assert keys.to_pylist() == ["c1", "c1"]
    assert events["kind"].tolist() == [0, FRAUD_KIND]
    assert events["event_id"].tolist() == [activity.stable_hash(p + "t1") for p in ("t:", "l:")]
    assert events["other"].tolist() == [activity.stable_hash("s1"), 0]
    assert events["device"].tolist() == [0, 0]
    assert events["country"].tolist() == [activity.country_code("DE"), 0]
    assert np.diff(events["event_timestamp"]).tolist() == [7 * DAY_US]
    assert terminal_keys.to_pylist() == ["s1"]
    assert terminal_events["other"].tolist() == [activity.stable_hash("c1")]


def test_the_hash_of_an_id_never_changes() -> None:
    assert activity.stable_hash("c1") == -7265803277487577130


def test_each_day_gets_its_rows_in_order_with_real_nulls(tmp_path: Path) -> None:
    first = make_transaction(event_timestamp=NOON, device_id=None)
    second = make_transaction(transaction_id="t2", event_timestamp=NOON + timedelta(minutes=1))
    third = make_transaction(transaction_id="t3", event_timestamp=NOON + timedelta(days=1))
    lake = land(tmp_path, [third, second, first])

    written = activity.build_activity(lake, NOON.date(), NOON.date() + timedelta(days=1))

    rows = lake.read("activity_windows", NOON.date(), NOON.date() + timedelta(days=1))
    assert written == 3
    assert rows["transaction_id"].to_pylist() == ["t1", "t2", "t3"]
    assert rows["customer_tx_count_24h"].to_pylist() == [0, 1, 2]
    assert rows["customer_last_tx_age_us"].to_pylist() == [None, MINUTE_US, DAY_US - MINUTE_US]
    assert rows["customer_device_seen_30d"].to_pylist() == [None, 0, 1]
    assert rows.schema.names[4:] == names(CUSTOMER_ACTIVITY) + names(TERMINAL_ACTIVITY)


def test_one_day_alone_equals_the_same_day_of_a_range(tmp_path: Path) -> None:
    rows = [
        make_transaction(transaction_id=f"t{i}", event_timestamp=NOON + timedelta(hours=7 * i))
        for i in range(150)
    ]
    lake = land(tmp_path, rows, [make_label(row) for row in rows[::5]])
    day, end = NOON.date() + timedelta(days=40), NOON.date() + timedelta(days=43)
    activity.build_activity(lake, NOON.date(), end)
    of_range = lake.read("activity_windows", day)

    activity.build_activity(lake, day, day)

    assert lake.read("activity_windows", day).equals(of_range)


def test_small_chunks_equal_one_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        make_transaction(
            transaction_id=f"t{i}",
            customer_id=f"c{i % 3}",
            event_timestamp=NOON + timedelta(hours=9 * i),
        )
        for i in range(100)
    ]
    lake = land(tmp_path, rows, [make_label(row) for row in rows[::4]])
    end = rows[-1]["event_timestamp"].date()
    activity.build_activity(lake, NOON.date(), end)
    at_once = lake.read("activity_windows", NOON.date(), end)

    monkeypatch.setattr(activity, "CHUNK_ROWS", 1)
    activity.build_activity(lake, NOON.date(), end)

    assert lake.read("activity_windows", NOON.date(), end).equals(at_once)


def test_days_without_transactions_are_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"no 'transactions' from 2026-03-01 to 2026-03-01"):
        activity.build_activity(Lake(tmp_path), NOON.date(), NOON.date())


def test_a_snapshot_holds_what_was_known_just_before_its_moment(tmp_path: Path) -> None:
    old = make_transaction(transaction_id="old", event_timestamp=NOON - timedelta(days=31))
    paid = make_transaction(transaction_id="paid", event_timestamp=NOON - timedelta(days=7))
    tie = make_transaction(transaction_id="tie", event_timestamp=NOON, customer_id="c2")
    lake = land(tmp_path, [old, paid, tie], [make_label(old), make_label(paid)])
    after = NOON + timedelta(microseconds=1)

    before = _decoded(activity.snapshot(lake, NOON))
    later = _decoded(activity.snapshot(lake, after))

    assert set(before) == {("customer", "c1"), ("terminal", "s1")}
    last, events = before["customer", "c1"]
    assert (last, events["seq"].tolist()) == (2, [1, 2])
    assert [_when(e) for e in events] == [NOON - timedelta(days=24), NOON - timedelta(days=7)]
    assert events["kind"].tolist() == [FRAUD_KIND, 0]
    assert set(later) == {("customer", "c1"), ("customer", "c2"), ("terminal", "s1")}
    assert sorted(later["terminal", "s1"][1]["kind"].tolist()) == [0, 0, FRAUD_KIND, FRAUD_KIND]


def _decoded(snapshot: pa.Table) -> dict[tuple[str, str], tuple[int, Events]]:
    rows = snapshot.to_pylist()
    return {(row["owner"], row["key"]): activity.decode_blob(row["blob"]) for row in rows}


def _when(event: np.void) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + timedelta(microseconds=int(event["event_timestamp"]))

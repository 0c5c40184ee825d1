"""Parity is a law: one event at a time equals the set-based form, and no feature knows the future."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.fraud import activity
from switchyard.fraud.activity import KEY, Ints, Owner, build_activity, encode
from switchyard.fraud.features import activity_of, requests_of, vectors, vectors_of
from switchyard.fraud.windows import build_profiles, profiles_as_of
from switchyard.lake import Lake
from tests.streams import BlobStore, Row, labels_of, land, streams, transactions_of, windows_of

Stream = tuple[list[Row], list[Row]]
WRITTEN = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def one_by_one(stream: Stream, owner: Owner, capacity: int) -> Ints:
    """Each transaction reads its blob, gets its windows, is appended: in canonical order, each twice."""
    transactions, labels = transactions_of(stream[0]), labels_of(stream[1])
    keys, events = encode(transactions, labels, owner)
    store = BlobStore(capacity)
    rows: dict[int, list[int]] = {}
    for i in np.lexsort((events["event_id"], events["event_timestamp"])).tolist():
        key = keys[i].as_py()
        if i < len(transactions):
            rows[i] = windows_of(owner, store.read(owner, key)[1], events[i])
        number = store.append(owner, key, events[i])
        assert store.append(owner, key, events[i]) == number
    return np.array([rows[i] for i in range(len(transactions))])


def build(lake: Lake, rows: list[Row], *, profiles: bool) -> None:
    days = sorted({row["event_timestamp"].date() for row in rows})
    build_activity(lake, days[0], days[-1])
    if profiles:
        build_profiles(lake, days[-1] - 3 * DAY, days[-1], created_at=WRITTEN)


@settings(max_examples=25)
@given(streams(), st.sampled_from([1, 2, 5, 256]))
def test_replaying_any_stream_event_by_event_equals_the_set_based_windows(
    stream: Stream, capacity: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(activity, "CAPACITY", capacity)
        lake = land(Path(folder), *stream)
        build(lake, stream[0], profiles=False)

        at_once = activity_of(lake, transactions_of(stream[0]))

    for owner, windows in zip(KEY, at_once, strict=True):
        assert (one_by_one(stream, owner, capacity) == windows).all()


@settings(max_examples=6)
@given(streams(max_size=15))
def test_the_service_s_row_equals_the_batch_s_row_to_the_bit(stream: Stream) -> None:
    transactions = transactions_of(stream[0])
    with tempfile.TemporaryDirectory() as folder:
        lake = land(Path(folder), *stream)
        build(lake, stream[0], profiles=True)
        in_batch = vectors_of(lake, transactions)
        customers, terminals = profiles_as_of(lake, transactions)
    card, shop = (one_by_one(stream, owner, activity.CAPACITY) for owner in KEY)

    for i in range(len(transactions)):
        alone = slice(i, i + 1)
        served = vectors(
            requests_of(transactions.slice(i, 1)),
            customers[alone], terminals[alone], card[alone], shop[alone],
        )  # fmt: skip
        assert served.tobytes() == in_batch[alone].tobytes()


@settings(max_examples=8)
@given(streams(max_size=15), st.data())
def test_deleting_all_rows_from_a_moment_on_leaves_every_feature_at_it_as_it_was(
    stream: Stream, data: st.DataObject
) -> None:
    transactions, labels = stream
    asked = data.draw(st.sampled_from(transactions))
    moment = asked["event_timestamp"]
    past = [row for row in transactions if row["event_timestamp"] < moment]
    known = [
        row
        for row in labels
        if row["event_timestamp"] < moment
        and row["label_available_at"] is not None
        and row["label_available_at"] < moment
    ]
    subject = transactions_of([asked])
    with tempfile.TemporaryDirectory() as folder:
        whole = land(Path(folder) / "whole", transactions, labels)
        cut = land(Path(folder) / "cut", [*past, asked], known)
        for lake in (whole, cut):
            build(lake, [asked], profiles=True)

        of_whole, of_cut = vectors_of(whole, subject), vectors_of(cut, subject)

    assert of_whole.tobytes() == of_cut.tobytes()


def test_a_key_busier_than_its_capacity_sees_its_newest_events_in_both_forms(
    tmp_path: Path,
) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    template = transactions_of([])  # the schema alone
    rows = [
        dict.fromkeys(template.schema.names)
        | {
            "transaction_id": f"t{i}",
            "customer_id": "c1",
            "terminal_id": f"s{i % 300}",
            "amount_minor": i,
            "currency": "EUR",
            "event_timestamp": moment + timedelta(seconds=i),
        }
        for i in range(600)
    ]
    lake = land(tmp_path, rows)
    build(lake, rows, profiles=False)

    windows, _ = activity_of(lake, transactions_of(rows))

    assert (windows == one_by_one((rows, []), "customer", activity.CAPACITY)).all()
    counts = lake.read("activity_windows", moment.date())["customer_tx_count_1h"]
    assert pc.max(counts).as_py() == activity.CAPACITY

"""Labels are only what was known at the moment asked about; the ledger only grows, and counts each verdict once."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.fraud.activity import build_activity
from switchyard.fraud.labels import (
    LEDGER,
    LEDGER_SCHEMA,
    labels_as_of,
    record_labels,
    verdicts_beside,
)
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake
from tests.streams import NOON, Row, labels_of, land, make_label, make_transaction

DAY = date(2026, 3, 1)
HOUR = timedelta(hours=1)


def told(label: Row, source: str = "investigator") -> Row:
    """A row of the ledger."""
    return label | {"source": source, "recorded_at": label["label_available_at"]}


def record(lake: Lake, *rows: Row) -> int:
    return record_labels(lake, pa.Table.from_pylist(list(rows), LEDGER_SCHEMA))


def known(lake: Lake, as_of: datetime, first: date = DAY, last: date = DAY) -> dict[str, bool]:
    rows = labels_as_of(lake, first, last, as_of).to_pylist()
    assert len({row["transaction_id"] for row in rows}) == len(rows)
    return {row["transaction_id"]: row["is_fraud"] for row in rows}


def test_a_label_is_there_from_the_moment_it_was_known(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    at = NOON + timedelta(days=5)
    rows = [
        make_label(make_transaction(transaction_id="early"), label_available_at=at),
        make_label(make_transaction(transaction_id="never"), label_available_at=None),
    ]
    lake.write("labels", DAY, labels_of(rows))

    assert known(lake, at - timedelta(microseconds=1)) == {}
    assert known(lake, at) == {"early": True}


def test_days_without_labels_have_none(tmp_path: Path) -> None:
    assert len(labels_as_of(Lake(tmp_path), DAY, DAY, NOON)) == 0


def test_a_correction_holds_from_its_arrival_and_the_earlier_verdict_before(tmp_path: Path) -> None:
    payment = make_transaction()
    lake = land(tmp_path, [payment], [make_label(payment, is_fraud=False)])
    first, second = NOON + 1 * HOUR, NOON + timedelta(days=90)
    record(lake, told(make_label(payment, label_available_at=first)))
    record(lake, told(make_label(payment, label_available_at=second), "chargeback"))

    moments = [NOON, first, NOON + timedelta(days=7), second]

    assert [known(lake, at) for at in moments] == [{}, {"t1": True}, {"t1": False}, {"t1": True}]


def test_of_equally_new_verdicts_the_sources_own_counts_since_landing_again_may_change_it(
    tmp_path: Path,
) -> None:
    payment = make_transaction()
    lake = land(tmp_path, [payment], [make_label(payment)])
    record(lake, told(make_label(payment)))

    land(tmp_path, [payment], [make_label(payment, is_fraud=False)])

    assert known(lake, NOON + timedelta(days=8)) == {"t1": False}


def test_a_verdict_told_again_is_recorded_once_and_an_earlier_recording_stays(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path)
    row = told(make_label(make_transaction()))
    later = row | {"recorded_at": row["recorded_at"] + HOUR}

    assert [record(lake, row, row), record(lake, later), record(lake)] == [1, 0, 0]
    assert lake.read(LEDGER, DAY).to_pylist() == [row]


def test_verdicts_are_filed_by_the_day_of_their_transaction(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    days = [NOON, NOON + timedelta(days=1), NOON + timedelta(days=300)]
    payments = [
        make_transaction(transaction_id=f"t{n}", event_timestamp=at) for n, at in enumerate(days)
    ]

    record(lake, *(told(make_label(payment)) for payment in payments))

    assert lake.days(LEDGER) == [at.date() for at in days]
    late = NOON + timedelta(days=400)
    assert known(lake, late, DAY, DAY + timedelta(days=1)) == {"t0": True, "t1": True}


def test_a_window_of_days_is_answered_from_the_files_of_these_days_alone(tmp_path: Path) -> None:
    payment = make_transaction()
    lake = land(tmp_path, [payment])
    record(lake, told(make_label(payment)))
    for days in (-1, 1, 100):
        for table in ("labels", LEDGER):
            lake.path(table, DAY + timedelta(days=days)).write_bytes(b"not to be read")

    assert known(lake, NOON + timedelta(days=7)) == {"t1": True}
    assert record(lake, told(make_label(payment, is_fraud=False))) == 1
    assert len(verdicts_beside(lake, DAY, DAY)) == 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 4), st.sampled_from(["investigator", "chargeback"])),
        max_size=12,
    )
)  # fmt: skip
def test_in_whatever_portions_it_came_the_newest_known_verdict_is_told(
    tmp_path_factory: pytest.TempPathFactory, stream: list[tuple[str, bool, int, str]]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    rows = [
        told(
            make_label(make_transaction(transaction_id=name), is_fraud=fraud, label_available_at=NOON + hour * HOUR),
            source,
        )
        for name, fraud, hour, source in stream
    ]  # fmt: skip
    for row in rows:
        record(lake, row)

    for asked in range(5):
        newest: dict[str, Any] = {}
        for row in rows:
            at = row["label_available_at"]
            held = newest.get(row["transaction_id"])
            if at <= NOON + asked * HOUR and (held is None or at >= held[0]):
                same = held is not None and at == held[0]
                newest[row["transaction_id"]] = (
                    at,
                    {row["is_fraud"]} | (held[1] if same else set()),
                )
        found = known(lake, NOON + asked * HOUR)
        assert found.keys() == newest.keys()
        assert all(found[name] in newest[name][1] for name in found)


# ---------------------------------------------------------------- what follows offline

LATER = DAY + timedelta(days=20)


def two_payments() -> tuple[Row, Row]:
    """One that is judged, and one of the same card and terminal that comes later."""
    later = NOON + timedelta(days=20)
    return make_transaction(), make_transaction(transaction_id="t2", event_timestamp=later)


def features(lake: Lake) -> tuple[list[Row], list[Row]]:
    """Windows of the later payment, and the terminal's profile of that day, without the time of writing."""
    build_activity(lake, LATER, LATER)
    build_profiles(lake, LATER, LATER, created_at=NOON)
    tables = (lake.read(name, LATER) for name in ("activity_windows", "terminal_profiles"))
    windows, profiles = (table.to_pylist() for table in tables)
    return windows, profiles


def test_an_investigators_verdict_counts_offline_as_the_same_one_of_the_source_does(
    tmp_path: Path,
) -> None:
    judged, later = two_payments()
    told_by_source = land(tmp_path / "source", [judged, later], [make_label(judged)])
    told_by_another = land(tmp_path / "ledger", [judged, later])
    record(told_by_another, told(make_label(judged)))
    told_by_both = land(tmp_path / "both", [judged, later], [make_label(judged)])
    record(told_by_both, told(make_label(judged)))

    source, another, both = map(features, (told_by_source, told_by_another, told_by_both))

    assert source == another == both
    assert source[0][0]["terminal_fraud_label_count_30d"] == 1
    assert source[1][0]["terminal_fraud_count_30d"] == 1


def test_a_chargeback_that_no_online_store_was_told_of_changes_no_feature(tmp_path: Path) -> None:
    judged, later = two_payments()
    without = land(tmp_path / "without", [judged, later])
    charged_back = land(tmp_path / "with", [judged, later])
    record(charged_back, told(make_label(judged), "chargeback"))

    assert features(without) == features(charged_back)
    assert len(verdicts_beside(charged_back, DAY, LATER)) == 0


def test_a_revised_verdict_is_a_second_arrival(tmp_path: Path) -> None:
    judged, later = two_payments()
    lake = land(tmp_path, [judged, later], [make_label(judged, is_fraud=False)])
    record(lake, told(make_label(judged, label_available_at=NOON + timedelta(days=9))))

    windows, profiles = features(lake)

    assert windows[0]["customer_fraud_label_count_30d"] == 1
    assert profiles[0]["terminal_label_count_30d"] == 2
    assert profiles[0]["terminal_fraud_count_30d"] == 1

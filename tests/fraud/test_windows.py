"""Profiles: equal to a naive reference, one row per key and day with anything, found at the right moment."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.errors import LakeError
from switchyard.fraud.activity import MISSING, country_code, stable_hash
from switchyard.fraud.columns import CUSTOMER_PROFILE, TERMINAL_PROFILE, names
from switchyard.fraud.windows import (
    KEY,
    TABLE,
    available_at,
    build_profiles,
    profile_schema,
    profiles_as_of,
    profiles_on,
)
from switchyard.lake import Lake
from tests.streams import NOON, Row, land, make_label, make_transaction, streams, transactions_of

DAY = timedelta(days=1)
WRITTEN = datetime(2030, 1, 1, tzinfo=UTC)


def build(lake: Lake, start: date, end: date | None = None) -> Any:
    return build_profiles(lake, start, end or start, created_at=WRITTEN)


def profile(lake: Lake, owner: str, day: date, key: str) -> dict[str, Any]:
    """The row of ``key`` on ``day`` without the owner's prefix."""
    rows = lake.read(f"{owner}_profiles", day).to_pylist()
    (row,) = [row for row in rows if row[f"{owner}_id"] == key]
    return {name.removeprefix(f"{owner}_"): value for name, value in row.items()}


def test_a_profile_sums_whole_days_and_says_when_it_is_available(tmp_path: Path) -> None:
    today = NOON.replace(hour=0)
    lake = land(
        tmp_path,
        [
            make_transaction(transaction_id="a", amount_minor=300, event_timestamp=today),
            make_transaction(transaction_id="b", amount_minor=50, event_timestamp=today - DAY / 2),
            make_transaction(transaction_id="c", event_timestamp=today - 7 * DAY + DAY / 2),
            make_transaction(transaction_id="d", event_timestamp=today - 29 * DAY),
            make_transaction(transaction_id="e", event_timestamp=today - 30 * DAY + DAY / 2),
            make_transaction(transaction_id="f", event_timestamp=today + DAY),
        ],
    )

    rows = build(lake, NOON.date())

    found = profile(lake, "customer", NOON.date(), "c1")
    assert (rows.customer, rows.terminal) == (1, 1)
    assert [found[f"tx_count_{w}d"] for w in (1, 7, 30)] == [1, 2, 4]
    assert [found[f"amount_sum_{w}d"] for w in (7, 30)] == [350, 2_350]
    assert found["amount_square_sum_30d"] == 300**2 + 50**2 + 2 * 1_000**2
    assert [found[f"amount_max_{w}d"] for w in (7, 30)] == [300, 1_000]
    assert found["active_days_30d"] == 4
    assert found["night_count_30d"] == 2
    assert found["available_at"] == available_at(NOON.date()) == today + timedelta(hours=26)
    assert found["created_at"] == WRITTEN


def test_verdicts_count_by_the_day_they_arrived(tmp_path: Path) -> None:
    paid = make_transaction(event_timestamp=NOON - 40 * DAY)
    never, late = (make_transaction(transaction_id=i, event_timestamp=NOON) for i in "nl")
    labels = [
        make_label(paid, label_available_at=NOON - 6 * DAY),
        make_label(never, label_available_at=None),
        make_label(late, label_available_at=NOON + DAY),
    ]
    lake = land(tmp_path, [paid, never, late], labels)
    labels_only, first_seen = NOON.date() - 6 * DAY, NOON.date()

    build(lake, labels_only - DAY, first_seen + DAY)

    assert lake.read("terminal_profiles", labels_only - DAY).num_rows == 0
    alone = profile(lake, "terminal", labels_only, "s1")
    assert (alone["tx_count_30d"], alone["label_count_7d"], alone["fraud_count_7d"]) == (0, 1, 1)
    assert lake.read("customer_profiles", labels_only).num_rows == 0
    today = profile(lake, "terminal", first_seen, "s1")
    assert (today["label_count_7d"], today["label_count_30d"]) == (1, 1)
    tomorrow = profile(lake, "terminal", first_seen + DAY, "s1")
    assert (tomorrow["label_count_7d"], tomorrow["label_count_30d"]) == (1, 2)


def test_a_sum_too_large_for_64_bits_stays_at_the_largest(tmp_path: Path) -> None:
    rows = [make_transaction(transaction_id=f"t{i}", amount_minor=10**8) for i in range(1_000)]
    lake = land(tmp_path, rows)

    build(lake, NOON.date())

    found = profile(lake, "customer", NOON.date(), "c1")
    assert found["amount_square_sum_30d"] == np.iinfo(np.int64).max
    assert found["amount_sum_30d"] == 10**11


def test_tables_have_their_schema_sorted_keys_and_a_file_for_every_day(tmp_path: Path) -> None:
    rows = [make_transaction(transaction_id=c, customer_id=c) for c in ("b", "ä", "a", "B")]
    lake = land(tmp_path, rows)

    build(lake, NOON.date() - DAY, NOON.date() + 30 * DAY)

    for owner, table in TABLE.items():
        assert lake.read(table, NOON.date()).schema.equals(profile_schema(owner))
        assert lake.read(table, NOON.date() - DAY).num_rows == 0
        assert lake.read(table, NOON.date() + 29 * DAY).num_rows > 0
        assert lake.read(table, NOON.date() + 30 * DAY).num_rows == 0
    assert lake.read("customer_profiles", NOON.date())["customer_id"].to_pylist() == sorted(
        ["b", "ä", "a", "B"]
    )


def test_days_without_transactions_are_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"no 'transactions' from 2026-01-31 to 2026-03-01"):
        build(Lake(tmp_path), NOON.date())


def naive_profile(
    owner: str, key: str, day: date, transactions: list[Row], labels: list[Row]
) -> dict[str, int] | None:
    """The meaning of the columns, written as they are described; None: nothing in 30 days."""

    def inside(moment: datetime | None, days: int) -> bool:
        return moment is not None and day - days * DAY < moment.date() <= day

    def paid(days: int) -> list[Row]:
        mine = [row for row in transactions if row[f"{owner}_id"] == key]
        return [row for row in mine if inside(row["event_timestamp"], days)]

    def judged(days: int) -> list[Row]:
        mine = [row for row in labels if row[f"{owner}_id"] == key]
        return [row for row in mine if inside(row["label_available_at"], days)]

    def bits(numbers: list[int]) -> int:
        return int(np.uint64(sum({1 << (n % 64) for n in numbers})).view(np.int64))

    countries = {"customer_country", "terminal_country"}
    measures = {
        "tx_count": lambda w: len(paid(w)),
        "amount_sum": lambda w: sum(row["amount_minor"] for row in paid(w)),
        "amount_square_sum": lambda w: sum(row["amount_minor"] ** 2 for row in paid(w)),
        "amount_max": lambda w: max((row["amount_minor"] for row in paid(w)), default=0),
        "night_count": lambda w: sum(row["event_timestamp"].hour < 6 for row in paid(w)),
        "cross_border_count": lambda w: sum(
            len({row[c] for c in countries} - {None}) == 2 for row in paid(w)
        ),
        "active_days": lambda w: len({row["event_timestamp"].date() for row in paid(w)}),
        "device_bits": lambda w: bits(
            [stable_hash(row["device_id"]) for row in paid(w) if row["device_id"]]
        ),
        "country_bits": lambda w: bits(
            [country_code(row["terminal_country"]) for row in paid(w) if row["terminal_country"]]
        ),
        "label_count": lambda w: len(judged(w)),
        "fraud_count": lambda w: sum(row["is_fraud"] for row in judged(w)),
    }
    if not paid(30) and not (owner == "terminal" and judged(30)):
        return None
    columns = CUSTOMER_PROFILE if owner == "customer" else TERMINAL_PROFILE
    return {
        c.name: (
            (day - date(1970, 1, 1)).days
            if c.measure is None
            else measures[c.measure](c.window_days)
        )
        for c in columns
    }


@settings(max_examples=10)
@given(streams(max_size=12), st.data())
def test_profiles_are_what_their_columns_say(
    stream: tuple[list[Row], list[Row]], data: st.DataObject
) -> None:
    transactions, labels = stream
    anchor = data.draw(st.sampled_from(transactions))["event_timestamp"].date()
    day = anchor + data.draw(st.integers(0, 31)) * DAY
    with tempfile.TemporaryDirectory() as folder:
        lake = land(Path(folder), transactions, labels)
        if not lake.paths("transactions", day - 29 * DAY, day):
            return

        build(lake, day)

        for owner, table in TABLE.items():
            rows = lake.read(table, day).to_pylist()
            expected = {
                key: naive
                for key in sorted({row[KEY[owner]] for row in transactions})
                if (naive := naive_profile(owner, key, day, transactions, labels))
            }
            found = {row[KEY[owner]]: {n: row[n] for n in naive_names(owner)} for row in rows}
            assert found == expected
            assert list(found) == list(expected)


def naive_names(owner: str) -> list[str]:
    return names(CUSTOMER_PROFILE if owner == "customer" else TERMINAL_PROFILE)


@pytest.fixture
def profiled(tmp_path: Path) -> Lake:
    """One card's profiles of the NOON day and the two days after; none of the fourth."""
    lake = land(tmp_path, [make_transaction()])
    build(lake, NOON.date(), NOON.date() + 2 * DAY)
    return lake


@pytest.mark.parametrize(
    ("moment", "days_after"),
    [
        (available_at(NOON.date()) - timedelta(microseconds=1), None),
        (available_at(NOON.date()), 0),
        (available_at(NOON.date()) + DAY - timedelta(microseconds=1), 0),
        (available_at(NOON.date()) + DAY, 1),
        (available_at(NOON.date()) + 4 * DAY, 2),
        (available_at(NOON.date()) + 4 * DAY + timedelta(microseconds=1), None),
    ],
)
def test_the_newest_profile_within_its_time_to_live_is_the_right_one(
    profiled: Lake, moment: datetime, days_after: int | None
) -> None:
    asked = transactions_of(
        [make_transaction(event_timestamp=moment, terminal_id="never seen before")]
    )

    customers, terminals = profiles_as_of(profiled, asked)

    noon_day = (NOON.date() - date(1970, 1, 1)).days
    assert customers[0, 0] == (MISSING if days_after is None else noon_day + days_after)
    assert (terminals == MISSING).all()
    assert customers.shape == (1, 14)
    assert terminals.shape == (1, 11)


def test_rows_come_back_in_the_order_asked_for(profiled: Lake) -> None:
    keys = ["nobody", "c1", "c1", "c1", "c1"]
    noon_day = (NOON.date() - date(1970, 1, 1)).days
    days = np.array([noon_day, noon_day + 2, MISSING, noon_day, noon_day + 40])

    found = profiles_on(profiled, keys, days, "customer")

    assert found[:, 0].tolist() == [MISSING, noon_day + 2, MISSING, noon_day, MISSING]


def test_no_transactions_have_no_profiles(profiled: Lake) -> None:
    customers, terminals = profiles_as_of(profiled, transactions_of([]))

    assert (customers.shape, terminals.shape) == ((0, 14), (0, 11))

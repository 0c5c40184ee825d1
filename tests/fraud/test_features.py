"""The vector: values by hand, cold starts, nulls, and the same bits for one row as for many."""

from __future__ import annotations

import math
import statistics
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from switchyard.errors import InputError, LakeError
from switchyard.fraud import features
from switchyard.fraud.activity import MISSING, build_activity, country_code, stable_hash
from switchyard.fraud.columns import (
    CUSTOMER_ACTIVITY,
    CUSTOMER_PROFILE,
    FEATURES,
    TERMINAL_ACTIVITY,
    TERMINAL_PROFILE,
    Column,
    names,
)
from switchyard.fraud.features import Requests, requests_of, vectors, vectors_of
from switchyard.fraud.windows import build_profiles
from tests.streams import NOON, land, make_transaction, transactions_of


def make_row(columns: tuple[Column, ...], **overrides: int) -> np.ndarray[Any, Any]:
    """One row of an int64 matrix: MISSING throughout, or 0 but for what is given."""
    start = 0 if overrides else MISSING
    assert set(overrides) <= set(names(columns))
    return np.array([[overrides.get(name, start) for name in names(columns)]], np.int64)


def vector(
    customer: dict[str, int] | None = None,
    terminal: dict[str, int] | None = None,
    customer_activity: dict[str, int] | None = None,
    terminal_activity: dict[str, int] | None = None,
    minor_units: int = 100,
    **transaction: Any,
) -> dict[str, float]:
    values = vectors(
        requests_of(transactions_of([make_transaction(**transaction)])),
        make_row(CUSTOMER_PROFILE, **customer or {}),
        make_row(TERMINAL_PROFILE, **terminal or {}),
        make_row(CUSTOMER_ACTIVITY, **customer_activity or {}),
        make_row(TERMINAL_ACTIVITY, **terminal_activity or {}),
        minor_units,
    )
    assert values.shape == (1, len(FEATURES))
    return dict(zip(names(FEATURES), values[0].tolist(), strict=True))


def test_the_request_alone_gives_its_own_columns() -> None:
    found = vector(
        amount_minor=12_345,
        event_timestamp=datetime.fromisoformat("2026-03-01T05:30:00+00:00"),
        customer_country="FR",
        terminal_country="DE",
        channel="atm",
        merchant_category="0742",
    )

    assert found["amount"] == 123.45
    assert found["hour"] == 5.5
    assert (found["is_night"], found["is_weekend"], found["is_cross_border"]) == (1, 1, 1)
    assert (found["channel_code"], found["merchant_category_code"]) == (2, 742)


@pytest.mark.parametrize(
    ("moment", "is_weekend"), [("06T23:59:59", 0), ("07T00:00:00", 1), ("08T23:59:59", 1), ("09T00:00:00", 0)]
)  # fmt: skip
def test_the_weekend_is_saturday_and_sunday(moment: str, is_weekend: int) -> None:
    at = datetime.fromisoformat(f"2026-03-{moment}+00:00")

    assert vector(event_timestamp=at)["is_weekend"] == is_weekend


def test_the_amount_is_in_the_currency_s_major_unit() -> None:
    assert vector(amount_minor=1_500, minor_units=1)["amount"] == 1_500
    assert vector(amount_minor=1_500, minor_units=1_000)["amount"] == 1.5


def test_what_the_request_does_not_say_is_nan() -> None:
    found = vector(
        customer_country=None, terminal_country=None, channel=None, merchant_category=None,
        device_id=None,
    )  # fmt: skip

    for name in (
        "is_cross_border", "channel_code", "merchant_category_code", "is_new_device", "is_new_country",
    ):  # fmt: skip
        assert math.isnan(found[name])


def test_a_cold_start_has_each_column_s_default() -> None:
    found = vector()

    of_the_past = [c for c in FEATURES if c.freshness != "request"]
    novelty = {"is_new_terminal": 1, "is_new_device": 1, "is_new_country": 1}
    assert len(of_the_past) == 43
    for column in of_the_past:
        expected = novelty.get(column.name, column.default)
        assert found[column.name] == expected or (
            expected is None and math.isnan(found[column.name])
        ), column.name


def test_measured_columns_are_passed_on_as_they_are() -> None:
    customer = {
        "customer_tx_count_7d": 3,
        "customer_tx_count_30d": 9,
        "customer_active_days_30d": 5,
    }
    terminal = {"terminal_tx_count_7d": 4, "terminal_fraud_count_30d": 2}
    card = {"customer_tx_count_1min": 1, "customer_terminal_count_24h": 6}
    shop = {"terminal_customer_count_1h": 8, "terminal_fraud_label_count_24h": 1}

    found = vector(customer, terminal, card, shop)

    for name, value in (customer | terminal | card | shop).items():
        assert found[name] == value


def test_ratios_and_deviations_follow_from_the_sums() -> None:
    amounts = [1_000, 2_500, 700, 9_900]
    customer = {
        "customer_tx_count_1d": 1,
        "customer_tx_count_7d": 2,
        "customer_tx_count_30d": 4,
        "customer_amount_sum_7d": sum(amounts[:2]),
        "customer_amount_sum_30d": sum(amounts),
        "customer_amount_square_sum_30d": sum(a * a for a in amounts),
        "customer_amount_max_7d": 2_500,
        "customer_amount_max_30d": 9_900,
        "customer_night_count_30d": 1,
        "customer_cross_border_count_30d": 3,
    }

    found = vector(customer, amount_minor=5_000)

    mean, spread = statistics.mean(amounts), statistics.pstdev(amounts)
    assert found["customer_mean_amount_30d"] == pytest.approx(mean / 100)
    assert found["amount_to_mean_7d"] == pytest.approx(5_000 / 1_750)
    assert found["amount_to_mean_30d"] == pytest.approx(5_000 / mean)
    assert found["amount_deviations_30d"] == pytest.approx((5_000 - mean) / spread)
    assert found["amount_to_max_7d"] == 2
    assert found["amount_to_max_30d"] == pytest.approx(5_000 / 9_900)
    assert found["customer_count_ratio_1d_30d"] == 7.5
    assert found["customer_amount_ratio_7d_30d"] == pytest.approx(1_750 / mean)
    assert (found["customer_night_share_30d"], found["customer_cross_border_share_30d"]) == (
        0.25,
        0.75,
    )


def test_the_terminal_s_columns_follow_from_its_sums() -> None:
    terminal = {
        "terminal_tx_count_1d": 2,
        "terminal_tx_count_30d": 3,
        "terminal_amount_sum_30d": 6_000,
        "terminal_amount_square_sum_30d": 1_000**2 + 2_000**2 + 3_000**2,
        "terminal_cross_border_count_30d": 1,
        "terminal_label_count_7d": 0,
        "terminal_label_count_30d": 4,
        "terminal_fraud_count_30d": 1,
    }

    found = vector(terminal=terminal, amount_minor=4_000)

    assert found["terminal_mean_amount_30d"] == 20
    assert found["amount_to_terminal_mean_30d"] == 2
    spread = statistics.pstdev([1_000, 2_000, 3_000])
    assert found["amount_deviations_terminal_30d"] == pytest.approx(2_000 / spread)
    assert found["terminal_count_ratio_1d_30d"] == 20
    assert found["terminal_cross_border_share_30d"] == pytest.approx(1 / 3)
    assert math.isnan(found["terminal_fraud_share_7d"])
    assert found["terminal_fraud_share_30d"] == 0.25


@pytest.mark.parametrize("amount", [1, 4_999, 99_999_999])
@pytest.mark.parametrize("count", [1, 2, 7, 50_000])
def test_equal_amounts_have_no_deviation(amount: int, count: int) -> None:
    same = {
        "customer_tx_count_30d": count,
        "customer_amount_sum_30d": count * amount,
        "customer_amount_square_sum_30d": min(count * amount * amount, 2**63 - 1),
    }

    found = vector(same, amount_minor=100)

    assert math.isnan(found["amount_deviations_30d"])


def test_sums_near_the_end_of_64_bits_do_not_wrap_round() -> None:
    half = 450
    sums = {
        "customer_tx_count_30d": 2 * half,
        "customer_amount_sum_30d": half * 10**8,
        "customer_amount_square_sum_30d": half * 10**16,
    }

    found = vector(sums, amount_minor=10**8)

    assert found["amount_deviations_30d"] == pytest.approx(1)


def test_activity_in_minor_units_and_microseconds_becomes_major_units_and_hours() -> None:
    card = {
        "customer_amount_sum_24h": 12_345,
        "customer_amount_max_24h": 10_000,
        "customer_last_tx_age_us": 5_400_000_000,
        "customer_terminal_seen_30d": 1,
    }

    found = vector(
        customer_activity=card,
        terminal_activity={"terminal_last_fraud_label_age_us": 1_800_000_000},
    )

    assert (found["customer_amount_24h"], found["customer_max_amount_24h"]) == (123.45, 100)
    assert found["customer_hours_since_last_tx"] == 1.5
    assert found["terminal_hours_since_fraud_label"] == 0.5
    assert found["is_new_terminal"] == 0


def _signed(bits: int) -> int:
    return int(np.uint64(bits).view(np.int64))


@pytest.mark.parametrize("device", ["d1", "d62", "d117"])
def test_new_is_what_neither_activity_nor_profile_has_seen(device: str) -> None:
    mine = _signed(1 << (stable_hash(device) % 64))
    others = ~mine
    country = _signed(1 << (country_code("FR") % 64))
    asked = {"device_id": device, "terminal_country": "FR"}

    known = vector(
        {"customer_device_bits_30d": mine, "customer_country_bits_30d": country}, **asked
    )
    unknown = vector(
        {"customer_device_bits_30d": others, "customer_country_bits_30d": ~country}, **asked
    )
    lately = vector(
        customer_activity={"customer_device_seen_30d": 1, "customer_country_seen_30d": 1}, **asked
    )

    assert (known["is_new_device"], known["is_new_country"]) == (0, 0)
    assert (unknown["is_new_device"], unknown["is_new_country"]) == (1, 1)
    assert (lately["is_new_device"], lately["is_new_country"]) == (0, 0)


def test_a_profile_whose_one_device_has_the_highest_bit_is_no_missing_profile() -> None:
    """Its 64 bits, read as an integer, are the very number that stands for null."""
    device = next(f"d{i}" for i in range(1_000) if stable_hash(f"d{i}") % 64 == 63)
    assert _signed(1 << 63) == MISSING

    found = vector({"customer_device_bits_30d": MISSING}, device_id=device)

    assert found["is_new_device"] == 0


_COUNTS = st.integers(0, 2**62) | st.just(MISSING)


@given(st.data(), st.integers(2, 6))
def test_one_row_has_the_same_bits_as_the_same_row_among_many(data: st.DataObject, n: int) -> None:
    def matrix(columns: tuple[Column, ...]) -> Any:
        return data.draw(hnp.arrays(np.int64, (n, len(columns)), elements=_COUNTS))

    def array(dtype: Any, low: int, high: int) -> Any:
        return data.draw(hnp.arrays(dtype, n, elements=st.integers(low, high)))

    requests = Requests(
        amount_minor=array(np.int64, 0, 10**8),
        event_timestamp=array(np.int64, 0, 2 * 10**15),
        cross_border=array(np.int8, -1, 1),
        channel=array(np.int8, -1, 3),
        merchant_category=array(np.int32, -1, 9_999),
        device=array(np.int64, -(2**63), 2**63 - 1),
        country=array(np.uint16, 0, 728),
    )
    tables = [
        matrix(c)
        for c in (CUSTOMER_PROFILE, TERMINAL_PROFILE, CUSTOMER_ACTIVITY, TERMINAL_ACTIVITY)
    ]

    together = vectors(requests, *tables)

    for i in range(n):
        alone = Requests(*(getattr(requests, f)[i : i + 1] for f in Requests.__slots__))
        row = vectors(alone, *(table[i : i + 1] for table in tables))
        assert row.tobytes() == together[i : i + 1].tobytes()


def test_past_transactions_get_vectors_in_their_order_from_the_lake(tmp_path: Path) -> None:
    days = [NOON + timedelta(days=d) for d in range(4)]
    rows = [
        make_transaction(transaction_id=f"t{i}", amount_minor=100 * (i + 1), event_timestamp=day)
        for i, day in enumerate(days)
    ]
    lake = land(tmp_path, rows)
    build_profiles(lake, days[0].date(), days[-1].date(), created_at=NOON)
    build_activity(lake, days[0].date(), days[-1].date())
    asked = transactions_of(rows).take([3, 0])

    found = vectors_of(lake, asked)

    at = {name: i for i, name in enumerate(names(FEATURES))}
    assert found.shape == (2, 50)
    assert found[:, at["amount"]].tolist() == [4, 1]
    assert found[:, at["customer_tx_count_30d"]].tolist() == [3, 0]
    assert found[:, at["customer_tx_count_24h"]].tolist() == [1, 0]
    assert found[:, at["customer_mean_amount_30d"]].tolist() == [
        2,
        pytest.approx(math.nan, nan_ok=True),
    ]
    assert vectors_of(lake, transactions_of([])).shape == (0, 50)


def test_a_transaction_without_activity_is_an_error_that_names_it(tmp_path: Path) -> None:
    lake = land(tmp_path, [make_transaction()])
    build_activity(lake, NOON.date(), NOON.date())
    strangers = transactions_of([make_transaction(), make_transaction(transaction_id="stranger")])

    with pytest.raises(LakeError, match=r"lacks 1 of 2 transactions .* first stranger"):
        vectors_of(lake, strangers)


def test_two_currencies_can_t_share_vectors(tmp_path: Path) -> None:
    mixed = [make_transaction(), make_transaction(transaction_id="t2", currency="JPY")]

    with pytest.raises(InputError, match="a home has one currency"):
        vectors_of(land(tmp_path, mixed), transactions_of(mixed))


def test_the_code_hash_covers_every_module_that_computes_a_column() -> None:
    source = Path(features.__file__).parent

    assert len(features.code_hash()) == 64
    assert features.code_hash() == features.code_hash()
    assert all((source / f"{module}.py").exists() for module in features.COMPUTING_MODULES)

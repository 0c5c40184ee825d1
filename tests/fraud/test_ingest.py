"""Ingest: what is good goes on, in order; what is bad is set aside with its reason; twice is the same."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import InputError
from switchyard.fraud.columns import LABEL, TRANSACTION, arrow_schema
from switchyard.fraud.ingest import REASONS, Ingested, ingest, labels_of
from switchyard.fraud.raw import RAW
from switchyard.fraud.simulate import Simulator, SimulatorConfig

DAY = date(2026, 1, 5)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
NOW = datetime(2026, 1, 6, 3, tzinfo=UTC)
NOTHING_SEEN = pa.array([], pa.string())


def make_raw(**overrides: Any) -> dict[str, Any]:
    raw = {
        "transaction_id": "t1",
        "customer_id": "C1",
        "terminal_id": "T1",
        "amount": "57.16",
        "currency": "EUR",
        "event_timestamp": "2026-01-05T12:00:00Z",
        "customer_country": "FR",
        "terminal_country": None,
        "device_id": None,
        "channel": "pos",
        "merchant_category": "5411",
    }
    return raw | overrides


def table_of(*rows: dict[str, Any]) -> pa.Table:
    table = pa.table({name: pa.array([r[name] for r in rows]) for name in RAW})
    return table.append_column("source_row", pa.array(range(1, len(rows) + 1)))


def run(*rows: dict[str, Any], seen: pa.Array = NOTHING_SEEN, now: datetime = NOW) -> Ingested:
    return ingest(table_of(*rows), DAY, seen=seen, now=now, currency="EUR")


def ids(table: pa.Table) -> list[str]:
    return list(table["transaction_id"].to_pylist())


def test_a_good_row_becomes_a_transaction_with_its_amount_in_minor_units() -> None:
    result = run(make_raw())

    assert result.quarantined.num_rows == 0
    assert result.clean.schema.equals(arrow_schema(TRANSACTION))
    assert result.clean.to_pylist() == [
        {n: v for n, v in make_raw().items() if n != "amount"}
        | {"amount_minor": 5716, "event_timestamp": NOON}
    ]


@pytest.mark.parametrize(
    ("overrides", "reason", "detail"),
    [
        ({"customer_id": None}, "null_key", "customer_id is null"),
        ({"terminal_id": ""}, "null_key", "terminal_id is ''"),
        ({"transaction_id": None, "amount": "x"}, "null_key", "transaction_id is null"),
        ({"currency": "USD", "amount": "1.234"}, "other_currency", "currency is 'USD'"),
        ({"currency": None}, "other_currency", "currency is null"),
        ({"amount": "twelve"}, "bad_amount", "amount is 'twelve'"),
        ({"amount": "NaN"}, "bad_amount", "amount is 'NaN'"),
        ({"amount": None}, "bad_amount", "amount is null"),
        ({"amount": "-1"}, "negative_amount", "amount is '-1'"),
        ({"amount": "57.165"}, "too_many_decimals", "amount is '57.165'"),
        ({"amount": "1000000.01"}, "amount_too_large", "amount is '1000000.01'"),
        ({"event_timestamp": "yesterday"}, "bad_time", "event_timestamp is 'yesterday'"),
        (
            {"event_timestamp": "2026-01-05 12:00"},
            "bad_time",
            "event_timestamp is '2026-01-05 12:00'",
        ),
        ({"event_timestamp": None}, "bad_time", "event_timestamp is null"),
        (
            {"event_timestamp": "2026-01-06T03:00:01Z"},
            "future_time",
            "event_timestamp is '2026-01-06T03:00:01Z'",
        ),
        (
            {"event_timestamp": "2026-01-06T00:00:00Z"},
            "wrong_day",
            "event_timestamp is '2026-01-06T00:00:00Z'",
        ),
        (
            {"event_timestamp": "2026-01-05T00:30:00+01:00"},
            "wrong_day",
            "event_timestamp is '2026-01-05T00:30:00+01:00'",
        ),
        ({"customer_country": "XX"}, "unknown_country", "customer_country is 'XX'"),
        ({"terminal_country": "fr"}, "unknown_country", "terminal_country is 'fr'"),
        ({"channel": "phone"}, "unknown_channel", "channel is 'phone'"),
        ({"merchant_category": "54a1"}, "bad_merchant_category", "merchant_category is '54a1'"),
        ({"amount": "y" * 500}, "bad_amount", "amount is '" + "y" * 200 + "'"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_reason_and_the_rest_goes_on(
    overrides: dict[str, Any], reason: str, detail: str
) -> None:
    result = run(make_raw(), make_raw(**({"transaction_id": "t2"} | overrides)))

    assert ids(result.clean) == ["t1"]
    [bad] = result.quarantined.to_pylist()
    assert (bad["reason"], bad["detail"], bad["source_row"]) == (reason, detail, "2")
    assert result.reasons == {reason: 1}


def test_a_missing_optional_value_is_no_reason() -> None:
    optional = [c.name for c in TRANSACTION if c.nullable]

    assert run(make_raw(**dict.fromkeys(optional))).clean.num_rows == 1


def test_quarantined_rows_keep_what_came_as_strings() -> None:
    bad = run(make_raw(amount="-1")).quarantined

    assert bad.column_names == [*RAW, "source_row", "reason", "detail"]
    assert set(bad.schema.types) == {pa.string()}


def test_of_several_bad_columns_the_first_reason_is_told() -> None:
    wrong = make_raw(amount="x", channel="phone", event_timestamp="never")

    assert run(wrong).reasons == {"bad_amount": 1}


def test_an_id_seen_on_another_day_is_a_repeat() -> None:
    result = run(make_raw(), make_raw(transaction_id="t2"), seen=pa.array(["t0", "t1"]))

    assert ids(result.clean) == ["t2"]
    assert result.quarantined["detail"].to_pylist() == ["transaction_id is 't1'"]


def test_within_a_file_the_first_good_row_of_an_id_stays() -> None:
    result = run(
        make_raw(channel="phone"), make_raw(amount="1"), make_raw(amount="2"), make_raw(amount="3")
    )

    assert result.clean["amount_minor"].to_pylist() == [100]
    assert result.quarantined["reason"].to_pylist() == [
        "unknown_channel", "repeated_id", "repeated_id",
    ]  # fmt: skip


def test_output_is_sorted_by_time_then_id() -> None:
    early = "2026-01-05T01:00:00Z"

    result = run(
        make_raw(transaction_id="b"),
        make_raw(transaction_id="d", event_timestamp=early),
        make_raw(transaction_id="a"),
        make_raw(transaction_id="c", event_timestamp=early),
        make_raw(transaction_id="e", event_timestamp="2026-01-05T11:00:00Z"),
    )

    assert ids(result.clean) == ["c", "d", "e", "a", "b"]


def test_typed_columns_read_as_their_strings_do() -> None:
    strings = table_of(make_raw(), make_raw(transaction_id="t2", amount="3.5"))
    typed = (
        strings.set_column(3, "amount", pa.array([57.16, 3.5]))
        .set_column(5, "event_timestamp", pa.array([NOON, NOON], pa.timestamp("us", tz="UTC")))
    )  # fmt: skip

    results = [
        ingest(raw, DAY, seen=NOTHING_SEEN, now=NOW, currency="EUR") for raw in (strings, typed)
    ]

    assert results[0].clean.equals(results[1].clean)


def test_an_empty_day_is_fine() -> None:
    nothing = table_of(make_raw()).slice(0, 0)

    result = ingest(nothing, DAY, seen=NOTHING_SEEN, now=NOW, currency="EUR")

    assert (result.clean.num_rows, result.quarantined.num_rows) == (0, 0)


def test_a_missing_column_is_an_error() -> None:
    with pytest.raises(InputError, match="lack the columns amount, channel"):
        ingest(
            table_of(make_raw()).drop_columns(["amount", "channel"]),
            DAY, seen=NOTHING_SEEN, now=NOW, currency="EUR",
        )  # fmt: skip


def test_a_naive_now_is_an_error() -> None:
    with pytest.raises(InputError, match="aware"):
        run(make_raw(), now=datetime(2026, 1, 6))


def test_a_simulated_day_is_clean_and_its_labels_all_stay() -> None:
    day = Simulator(SimulatorConfig(customers=300, transactions_per_day=400)).day(DAY)
    later = NOW + timedelta(days=1)

    result = ingest(day.transactions, DAY, seen=NOTHING_SEEN, now=later, currency="EUR")

    assert result.quarantined.num_rows == 0
    assert labels_of(result.clean, day.labels).equals(day.labels)


rows = st.fixed_dictionaries(
    {
        "transaction_id": st.sampled_from(["a", "b", "c", "d", None, ""]),
        "amount": st.sampled_from(["1", "2.50", "0.001", "-1", "x", None]),
        "event_timestamp": st.sampled_from(
            ["2026-01-05T12:00:00Z", "2026-01-05T12:00:00.000001Z", "2026-01-04T12:00:00Z", "x"]
        ),
        "terminal_country": st.sampled_from(["FR", None, "??"]),
        "channel": st.sampled_from(["pos", None, "fax"]),
    }
)


@given(st.lists(rows, max_size=12), st.sets(st.sampled_from(["a", "b"])))
def test_every_row_goes_one_way_and_ingesting_again_changes_nothing(
    given_rows: list[dict[str, Any]], earlier: set[str]
) -> None:
    raws = [make_raw(**overrides) for overrides in given_rows]
    strings = {name: pa.array([r[name] for r in raws], pa.string()) for name in RAW}
    raw = pa.table(strings | {"source_row": pa.array(range(len(raws)), pa.int64())})
    seen = pa.array(sorted(earlier), pa.string())

    once = ingest(raw, DAY, seen=seen, now=NOW, currency="EUR")
    again = ingest(raw, DAY, seen=seen, now=NOW, currency="EUR")

    assert once.clean.equals(again.clean)
    assert once.quarantined.equals(again.quarantined)
    assert once.clean.num_rows + once.quarantined.num_rows == len(raws)
    assert len(set(ids(once.clean))) == once.clean.num_rows
    assert not set(ids(once.clean)) & earlier
    assert set(once.reasons) <= set(REASONS)
    keys = list(zip(once.clean["event_timestamp"].to_pylist(), ids(once.clean), strict=True))
    assert keys == sorted(keys)


def make_label(**overrides: Any) -> dict[str, Any]:
    label = {
        "transaction_id": "t1",
        "customer_id": "C1",
        "terminal_id": "T1",
        "event_timestamp": NOON,
        "is_fraud": False,
        "label_available_at": None,
    }
    return label | overrides


def test_labels_of_quarantined_rows_and_of_strangers_are_left_out() -> None:
    clean = run(make_raw(), make_raw(transaction_id="t2"), make_raw(transaction_id="t3")).clean
    labels = pa.Table.from_pylist(
        [
            make_label(transaction_id="t3", is_fraud=True),
            make_label(transaction_id="t9"),
            make_label(customer_id="C2", is_fraud=True),
            make_label(label_available_at=NOW),
            make_label(is_fraud=True),
        ],
        schema=arrow_schema(LABEL),
    )

    kept = labels_of(clean, labels)

    assert kept.to_pylist() == [
        make_label(label_available_at=NOW),
        make_label(transaction_id="t3", is_fraud=True),
    ]
    assert kept.schema.equals(arrow_schema(LABEL))


def test_amounts_survive_as_exact_integers() -> None:
    raw = table_of(make_raw()).set_column(3, "amount", pa.array([Decimal("19.99")]))

    result = ingest(raw, DAY, seen=NOTHING_SEEN, now=NOW, currency="EUR")

    assert result.clean["amount_minor"].to_pylist() == [1999]

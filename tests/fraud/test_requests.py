"""Bodies are read strictly: what is right comes through exactly, what is wrong is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import RequestError
from switchyard.fraud.columns import LABEL, TRANSACTION, names
from switchyard.fraud.money import format_minor
from switchyard.fraud.requests import EPOCH, Label, Parser, Transaction

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PARSER = Parser("EUR", future_limit=timedelta(minutes=5))


def transaction_body(**overrides: Any) -> dict[str, Any]:
    body = {
        "transaction_id": "t1",
        "customer_id": "c1",
        "terminal_id": "m1",
        "amount": "57.16",
        "event_timestamp": "2026-03-01T11:59:58.000123Z",
    }
    return {k: v for k, v in (body | overrides).items() if v is not ...}


def label_body(**overrides: Any) -> dict[str, Any]:
    body = {
        "transaction_id": "t1",
        "customer_id": "c1",
        "terminal_id": "m1",
        "event_timestamp": "2026-02-20T10:00:00Z",
        "is_fraud": True,
    }
    return body | overrides


def read(**overrides: Any) -> Transaction:
    return PARSER.transaction(json.dumps(transaction_body(**overrides)).encode(), NOW)


def refusal(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        PARSER.transaction(body, NOW)
    return caught.value


def test_the_journalled_transaction_has_the_columns_of_the_table() -> None:
    fields = [f.removesuffix("_us") for f in Transaction.__struct_fields__]

    assert fields == names(TRANSACTION)
    assert [f.removesuffix("_us") for f in Label.__struct_fields__] == names(LABEL)


def test_a_whole_body_becomes_a_transaction_with_its_time_to_the_microsecond() -> None:
    transaction = read(
        currency="EUR",
        customer_country="FR",
        terminal_country="US",
        device_id="d1",
        channel="ecommerce",
        merchant_category="5411",
    )

    assert transaction.amount_minor == 5716
    moment = datetime(2026, 3, 1, 11, 59, 58, 123, tzinfo=UTC)
    assert timedelta(microseconds=transaction.event_timestamp_us) == moment - EPOCH
    assert (transaction.customer_country, transaction.merchant_category) == ("FR", "5411")


def test_what_the_source_does_not_have_is_null_and_never_made_up() -> None:
    transaction = read()

    assert transaction.currency == "EUR"
    assert (transaction.channel, transaction.device_id, transaction.customer_country) == (None,) * 3


@given(st.integers(0, 100_000_000), st.booleans())
def test_every_amount_is_read_exactly_as_number_and_as_string(minor: int, quoted: bool) -> None:
    text = format_minor(minor, "EUR")
    body = json.dumps(transaction_body(amount="@")).replace('"@"', f'"{text}"' if quoted else text)

    assert PARSER.transaction(body.encode(), NOW).amount_minor == minor


def test_the_digest_is_the_transactions_and_not_the_spelling_of_its_body() -> None:
    offset = read(amount=57.16, event_timestamp="2026-03-01T12:59:58.000123+01:00")

    assert read().digest == offset.digest
    assert read().digest != read(amount="57.17").digest
    assert read().digest != read(channel="pos").digest


@pytest.mark.parametrize(
    ("overrides", "field", "says"),
    [
        ({"amount": -1}, "amount", "negative"),
        ({"amount": "NaN"}, "amount", "not a finite number"),
        ({"amount": "1_000"}, "amount", "not a finite number"),
        ({"amount": 1.005}, "amount", "more than the 2 decimals"),
        ({"amount": 1e9}, "amount", "the most accepted"),
        ({"amount": True}, "amount", "must be a decimal number"),
        ({"amount": None}, "amount", "must be a decimal number"),
        ({"amount": ...}, "amount", "missing required field"),
        ({"amount": {}}, "amount", "must be a decimal number"),
        ({"currency": "USD"}, "currency", "decides in EUR"),
        ({"customer_country": "XX"}, "customer_country", "ISO 3166"),
        ({"terminal_country": "fr"}, "terminal_country", "ISO 3166"),
        ({"channel": "fax"}, "channel", "one of pos"),
        ({"merchant_category": "54111"}, "merchant_category", "matching regex"),
        ({"merchant_category": "5411\n"}, "merchant_category", "matching regex"),
        ({"transaction_id": ""}, "transaction_id", "length"),
        ({"transaction_id": "x" * 129}, "transaction_id", "length"),
        ({"transaction_id": "line\nbreak"}, "transaction_id", "matching regex"),
        ({"customer_id": 7}, "customer_id", "Expected `str`"),
        ({"terminal_id": None}, "terminal_id", "Expected `str`"),
        ({"colour": "red"}, "colour", "unknown field"),
        ({"event_timestamp": "2026-03-01T11:59:58"}, "event_timestamp", "timezone"),
        ({"event_timestamp": "yesterday"}, "event_timestamp", "RFC3339"),
        ({"event_timestamp": 1772366398}, "event_timestamp", "Expected `datetime`"),
        ({"event_timestamp": "2026-03-01T12:05:01Z"}, "event_timestamp", "future"),
        ({"event_timestamp": "1969-12-31T23:59:59Z"}, "event_timestamp", "before 1970"),
    ],
)
def test_a_wrong_field_is_a_422_that_names_it(
    overrides: dict[str, Any], field: str, says: str
) -> None:
    error = refusal(json.dumps(transaction_body(**overrides)).encode())

    assert (error.status, error.field) == (422, field)
    assert says in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"transaction_id": NaN}',
        b'{"transaction_id": "\\ud800"}',
        b'{"transaction_id": "\xc3\x28"}',
        json.dumps(transaction_body(amount="@")).replace('"@"', "[" * 60_000).encode(),
        json.dumps(transaction_body(amount="@")).encode().replace(b"@", b"57\xed\xa0\x80"),
        json.dumps(transaction_body(amount="@")).encode().replace(b"@", b"\\ud800"),
    ],
)
def test_what_is_no_json_is_a_400(body: bytes) -> None:
    assert refusal(body).status == 400


@pytest.mark.parametrize("body", [b"[1]", b"null", b'"text"', b"7"])
def test_json_that_is_no_object_is_a_422(body: bytes) -> None:
    assert refusal(body).status == 422


def test_a_little_clock_skew_is_taken_and_a_parser_may_allow_the_future() -> None:
    ahead = json.dumps(transaction_body(event_timestamp="2030-01-01T00:00:00Z")).encode()

    assert read(event_timestamp="2026-03-01T12:04:59Z").event_timestamp_us > 0
    assert Parser("EUR", future_limit=None).transaction(ahead, NOW).event_timestamp_us > 0


def test_a_verdict_is_available_now_unless_it_says_when() -> None:
    now = PARSER.label(json.dumps(label_body()).encode(), NOW)
    earlier = PARSER.label(
        json.dumps(label_body(label_available_at="2026-02-25T00:00:00Z")).encode(), NOW
    )

    assert timedelta(microseconds=now.label_available_at_us) == NOW - EPOCH
    assert now.label_available_at_us - earlier.label_available_at_us == 4.5 * 86_400_000_000


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"is_fraud": 1}, "is_fraud"),
        ({"label_available_at": "2027-01-01T00:00:00Z"}, "label_available_at"),
    ],
)
def test_a_wrong_verdict_is_a_422_that_names_the_field(
    overrides: dict[str, Any], field: str
) -> None:
    with pytest.raises(RequestError) as caught:
        PARSER.label(json.dumps(label_body(**overrides)).encode(), NOW)

    assert (caught.value.status, caught.value.field) == (422, field)


@pytest.mark.parametrize("field", ["transaction_id", "customer_id", "terminal_id", "device_id"])
@pytest.mark.parametrize("written", ["t\\u0000", "\\n", "a\x7fb", "\\u007f", "a\nb", "a\x1f"])
def test_no_id_has_a_control_character_however_it_is_written(field: str, written: str) -> None:
    body = json.dumps(transaction_body(**{field: "HERE"})).replace("HERE", written).encode()

    error = refusal(body)

    assert error.status == 400 or error.field == field


def test_an_escape_in_a_body_changes_nothing_in_what_is_read() -> None:
    plain = json.dumps(transaction_body(device_id="d/1", channel="pos")).encode()

    escaped = PARSER.transaction(plain.replace(b"/", b"\\/"), NOW)

    assert escaped == PARSER.transaction(plain, NOW)
    assert escaped.digest == PARSER.transaction(plain, NOW).digest


def test_of_an_empty_body_the_first_field_is_named() -> None:
    assert refusal(b"{}").field == "transaction_id"

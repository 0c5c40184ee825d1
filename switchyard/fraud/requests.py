"""Bodies of the decision service, read strictly: a transaction to decide or take in, a verdict.

Every refusal is a RequestError with its status and, where there is one, the field. Here: JSON to typed
values, checked. Not here: HTTP, keys, what is done with them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, NoReturn

import msgspec
from msgspec import Meta

from switchyard.errors import InputError, RequestError
from switchyard.fraud.columns import CHANNELS
from switchyard.fraud.countries import COUNTRIES
from switchyard.fraud.money import minor_units, parse_amount, plain_amount
from switchyard.serving.domain import digest_of
from switchyard.serving.reading import read

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_Bounded = Annotated[str, Meta(min_length=1, max_length=128)]
Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
"""Any text without control characters: it becomes part of keys and of log lines."""
Moment = Annotated[datetime, Meta(tz=True)]


class TransactionBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a client sends of a transaction. ``amount`` stays raw: it is parsed exactly, not as a float."""

    transaction_id: Id
    customer_id: Id
    terminal_id: Id
    amount: msgspec.Raw
    event_timestamp: Moment
    currency: str | None = None
    customer_country: str | None = None
    terminal_country: str | None = None
    device_id: Id | None = None
    channel: str | None = None
    merchant_category: Annotated[str, Meta(pattern=r"^[0-9]{4}\Z")] | None = None


class _UnescapedBody(TransactionBody, kw_only=True):
    """The same where no character is escaped. JSON has control characters as escapes only (but DEL), so none of its
    texts needs to be searched for them, which takes longer than all the rest of reading it."""

    transaction_id: _Bounded
    customer_id: _Bounded
    terminal_id: _Bounded
    device_id: _Bounded | None = None


class LabelBody(msgspec.Struct, forbid_unknown_fields=True):
    """What an investigator sends of a verdict; ``label_available_at`` is now, unless it is given."""

    transaction_id: Id
    customer_id: Id
    terminal_id: Id
    event_timestamp: Moment
    is_fraud: bool
    label_available_at: Moment | None = None


class Transaction(msgspec.Struct, frozen=True, dict=True):
    """One transaction as the journal holds it: the TRANSACTION columns, the time in microseconds."""

    transaction_id: str
    customer_id: str
    terminal_id: str
    amount_minor: int
    currency: str
    event_timestamp_us: int
    customer_country: str | None
    terminal_country: str | None
    device_id: str | None
    channel: str | None
    merchant_category: str | None

    @property
    def encoded(self) -> bytes:
        """Its JSON in the journal. Kept, as is the digest: several parts of a decision need them."""
        known: bytes | None = self.__dict__.get("encoded")
        return known or self.__dict__.setdefault("encoded", _encode(self))

    @property
    def digest(self) -> bytes:
        """16 bytes that are equal for equal transactions, however their bodies were written."""
        known: bytes | None = self.__dict__.get("digest")
        return known or self.__dict__.setdefault("digest", digest_of(self.encoded))


class Label(msgspec.Struct, frozen=True):
    """One verdict as the journal holds it, times in microseconds."""

    transaction_id: str
    customer_id: str
    terminal_id: str
    event_timestamp_us: int
    is_fraud: bool
    label_available_at_us: int

    @property
    def digest(self) -> bytes:
        """16 bytes that are equal for verdicts on the same transaction with the same outcome."""
        what = (self.transaction_id, self.customer_id, self.terminal_id, self.is_fraud)
        return digest_of(_encode(what))


_encode = msgspec.json.Encoder().encode
_decode_transaction = msgspec.json.Decoder(TransactionBody).decode
_decode_unescaped = msgspec.json.Decoder(_UnescapedBody).decode
_decode_label = msgspec.json.Decoder(LabelBody).decode
_decode_text = msgspec.json.Decoder(str).decode


def _plainly_read(body: bytes) -> TransactionBody | None:
    """A body without escapes, if it is a good one: what is wrong with another is said by the one that reads them all."""
    if b"\\" in body or b"\x7f" in body:
        return None
    try:
        sent: TransactionBody = _decode_unescaped(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return sent


class Parser:
    """Reads bodies for one home: its currency, and how far ahead of ``now`` times may lie (None: any)."""

    def __init__(self, currency: str, *, future_limit: timedelta | None) -> None:
        self._currency = currency
        self._future_limit = future_limit
        self.minor_units = minor_units(currency)
        self._plain_amount = plain_amount(currency)

    def transaction(self, body: bytes, now: datetime) -> Transaction:
        """Raises RequestError: 400 for what is no JSON, 422 naming the field for what is wrong."""
        sent = _plainly_read(body) or read(_decode_transaction, body)
        if (sent.currency or self._currency) != self._currency:
            _refuse("currency", f"is {sent.currency!r}; this service decides in {self._currency}")
        _check_country("customer_country", sent.customer_country)
        _check_country("terminal_country", sent.terminal_country)
        if sent.channel is not None and sent.channel not in CHANNELS:
            _refuse("channel", f"is {sent.channel!r}; it must be one of {', '.join(CHANNELS)}")
        return Transaction(
            sent.transaction_id,
            sent.customer_id,
            sent.terminal_id,
            self._amount(sent.amount),
            self._currency,
            self._micros("event_timestamp", sent.event_timestamp, now),
            sent.customer_country,
            sent.terminal_country,
            sent.device_id,
            sent.channel,
            sent.merchant_category,
        )

    def label(self, body: bytes, now: datetime) -> Label:
        """Raises RequestError as :meth:`transaction` does."""
        sent = read(_decode_label, body)
        return Label(
            transaction_id=sent.transaction_id,
            customer_id=sent.customer_id,
            terminal_id=sent.terminal_id,
            event_timestamp_us=self._micros("event_timestamp", sent.event_timestamp, now),
            is_fraud=sent.is_fraud,
            label_available_at_us=self._micros(
                "label_available_at", sent.label_available_at or now, now
            ),
        )

    def _amount(self, raw: msgspec.Raw) -> int:
        literal = bytes(raw).strip()
        if (plain := self._plain_amount(literal)) is not None:
            return plain
        if literal[:1] not in b'-0123456789"' or not literal:
            _refuse("amount", "must be a decimal number, or one in a string")
        text = read(_decode_text, literal) if literal[:1] == b'"' else literal.decode()
        try:
            return parse_amount(text, self._currency)
        except InputError as error:
            raise RequestError(str(error), field="amount") from None

    def _micros(self, field: str, moment: datetime, now: datetime) -> int:
        if moment < EPOCH:
            _refuse(field, "lies before 1970")
        if self._future_limit is not None and moment > now + self._future_limit:
            _refuse(
                field,
                f"lies in the future: the service's clock says {now:%Y-%m-%dT%H:%M:%SZ}, and at most "
                f"{self._future_limit.total_seconds():.0f} s ahead of it are taken for clock skew",
            )
        return (moment - EPOCH) // _MICROSECOND


def _check_country(field: str, country: str | None) -> None:
    if country is not None and country not in COUNTRIES:
        _refuse(field, f"is {country!r}; it must be an ISO 3166 alpha-2 code, such as 'FR'")


def _refuse(field: str, what: str) -> NoReturn:
    raise RequestError(f"{field} {what}", field=field)

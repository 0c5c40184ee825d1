"""The fraud domain as the decision engine sees it: keys, events, vectors, reasons, rules.

Here: what a transaction is to the online store and to the journal. Not here: formulas (``activity``,
``features``), bodies (``requests``), the order of a decision (``switchyard.serving.engine``).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from switchyard.fraud.assembly import assemble, transaction_records, verdict_record
from switchyard.fraud.columns import CUSTOMER_PROFILE, FEATURES, TERMINAL_PROFILE, names
from switchyard.fraud.requests import EPOCH, Label, Parser, Transaction
from switchyard.fraud.rules import rule_on
from switchyard.serving.cold_store import ColdStore, open_cold_store
from switchyard.serving.commands import Commands
from switchyard.serving.domain import Assembled, Floats, Ruling
from switchyard.serving.engine import Taken
from switchyard.serving.feast_format import View, entity_key
from switchyard.serving.hot_store import HotStore
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.replies import Accepted, Reason, encode
from switchyard.serving.traffic import Traffic
from switchyard.serving.trip import Append, Claim, Trip

PROJECT = "fraud"
"""Feast's project, and the start of every key beside Feast's."""
VIEWS = (
    View("customer_profile", "customer_id", "customer", tuple(names(CUSTOMER_PROFILE))),
    View("terminal_profile", "terminal_id", "terminal", tuple(names(TERMINAL_PROFILE))),
)
TOP_REASONS = 5

_LABEL_CLAIM = "\0label"
"""Starts the claim of a verdict; a transaction's id holds no control character."""


def online_store_of(url: str, timeout_s: float = 2.0) -> OnlineStore:
    """The fraud features' part of the online store at ``url``."""
    return OnlineStore(url, PROJECT, VIEWS, timeout_s)


def hot_store_of(url: str) -> HotStore:
    """The same for the service, on its event loop; an emptied one is not used before it is filled again."""
    return HotStore(url, Commands(PROJECT, VIEWS), needs_epoch=True)


def traffic_of(home: Path, url: str) -> Traffic:
    """The traffic plans of a home and of the online store at ``url``."""
    return Traffic(home, url, PROJECT)


def cold_store_of(url: str | None, file: Path) -> ColdStore:
    """The cold store of the fraud profiles, in the Postgres at ``url`` or else in ``file``."""
    return open_cold_store(url, file, VIEWS)


class FraudDomain:
    """Implements :class:`switchyard.serving.domain.Domain` for transactions of one currency."""

    def __init__(self, minor_units: int) -> None:
        self._minor_units = minor_units

    def entities(self, request: Transaction) -> tuple[str, ...]:
        return request.customer_id, request.terminal_id

    def appends(self, request: Transaction) -> tuple[Append, ...]:
        customer, terminal = transaction_records(request)
        return (
            Append("customer", request.customer_id, customer),
            Append("terminal", request.terminal_id, terminal),
        )

    def assemble(self, requests: Sequence[Transaction], trip: Trip | None) -> Assembled:
        return assemble(requests, trip, self._minor_units)

    def reasons(self, vector: Floats, contributions: Floats) -> list[Reason]:
        """At most five, the strongest pushes towards fraud first."""
        pushes = contributions[:-1]
        strongest = np.argsort(-pushes, kind="stable")[:TOP_REASONS]
        return [_reason(i, vector[i], pushes[i]) for i in strongest.tolist() if pushes[i] > 0]

    def rule(self, request: Transaction) -> Ruling:
        amount = Decimal(request.amount_minor) / self._minor_units
        ruling = rule_on(amount, request.customer_country, request.terminal_country)
        values = {"amount": float(amount), "is_cross_border": 1.0}
        value = values[ruling.feature] if ruling.feature else None
        return Ruling(ruling.decision, Reason(ruling.rule, ruling.feature, value, None))

    def appended(
        self, request: Transaction | Label, kind: str, numbers: Sequence[int | None]
    ) -> dict[str, Any]:
        customer, terminal = numbers
        record = {
            "type": "appended",
            "kind": kind,
            "transaction_id": request.transaction_id,
            "customer_seq": customer,
            "terminal_seq": terminal,
        }
        if isinstance(request, Label):
            record["label_available_at_us"] = request.label_available_at_us
        return record

    def customer(self, request: Transaction) -> str:
        return request.customer_id

    def stake(self, request: Transaction) -> int:
        return request.amount_minor

    def example(self) -> Transaction:
        return Transaction(
            transaction_id="example",
            customer_id="example",
            terminal_id="example",
            amount_minor=1,
            currency="XXX",
            event_timestamp_us=1_767_225_600_000_000,
            customer_country="FR",
            terminal_country="US",
            device_id="example",
            channel="pos",
            merchant_category="5411",
        )


class FraudReader:
    """Implements :class:`switchyard.serving.service.Reader`."""

    def __init__(self, parser: Parser, domain: FraudDomain) -> None:
        self._parser = parser
        self._domain = domain

    def transaction(self, body: bytes, now_us: int) -> Transaction:
        return self._parser.transaction(body, EPOCH + timedelta(microseconds=now_us))

    def event(self, body: bytes, now_us: int) -> Taken:
        transaction = self.transaction(body, now_us)
        return Taken(
            subject=transaction,
            kind="transaction",
            record={"type": "event", "received_at": now_us, "transaction": transaction},
            entities=self._domain.entities(transaction),
            appends=self._domain.appends(transaction),
            answer=encode(Accepted(transaction.transaction_id, "transaction")),
        )

    def label(self, body: bytes, now_us: int) -> Taken:
        """A verdict counts once in 24 hours, however often it is sent."""
        label = self._parser.label(body, EPOCH + timedelta(microseconds=now_us))
        return Taken(
            subject=label,
            kind="label",
            record={"type": "label", "received_at": now_us, **msgspec.structs.asdict(label)},
            entities=(label.customer_id, label.terminal_id),
            appends=_verdict_appends(label) if label.is_fraud else (),
            answer=label_answer(label),
            claim=Claim(label_claim(label), secrets.token_bytes(16), label.digest),
        )


def label_claim(label: Label) -> str:
    """The id under which the store keeps that a verdict was taken in."""
    return _claim_of(label.transaction_id, label.is_fraud)


def keys_of_customer(store: OnlineStore, customer_id: str) -> list[bytes]:
    """The keys of the store that are a customer's own: profile and activity."""
    view = next(view for view in VIEWS if view.owner == "customer")
    profile = entity_key(view, customer_id, store.project.encode())
    return [profile, store.commands.activity_key("customer", customer_id)]


def keys_of_transaction(store: OnlineStore, transaction_id: str) -> list[bytes]:
    """The keys that keep what was answered on a transaction and on verdicts of it."""
    claims = (transaction_id, _claim_of(transaction_id, True), _claim_of(transaction_id, False))
    return [store.commands.decision_key(claim) for claim in claims]


def _claim_of(transaction_id: str, is_fraud: bool) -> str:
    return f"{_LABEL_CLAIM}:{is_fraud}:{transaction_id}"


def label_answer(label: Label) -> bytes:
    """What a verdict that was taken in is answered."""
    return encode(Accepted(label.transaction_id, "label"))


def _verdict_appends(label: Label) -> tuple[Append, ...]:
    record = verdict_record(label)
    return (
        Append("customer", label.customer_id, record),
        Append("terminal", label.terminal_id, record),
    )


def _reason(feature: int, value: float, push: float) -> Reason:
    column = FEATURES[feature]
    shown = None if np.isnan(value) else float(value)
    return Reason(column.reason or column.name.upper(), column.name, shown, float(push))

"""A row of the lake as the request body that a client would have sent for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from switchyard.fraud.columns import LABEL, TRANSACTION
from switchyard.fraud.money import format_minor


def transaction_body(row: dict[str, Any]) -> dict[str, Any]:
    """Body for ``POST /v1/predict`` and ``/v1/events``; null fields are left out."""
    body = {c.name: _plain(row[c.name]) for c in TRANSACTION if row[c.name] is not None}
    body["amount"] = format_minor(body.pop("amount_minor"), body["currency"])
    return body


def label_body(row: dict[str, Any]) -> dict[str, Any]:
    """Body for ``POST /v1/labels`` of a verdict that has arrived."""
    return {c.name: _plain(row[c.name]) for c in LABEL}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value

"""What the service answers: decisions, acknowledgements and errors, in their JSON shapes.

Here: the shapes and their bytes. Not here: how a decision is made (``engine``) or sent (``http``).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

import msgspec

from switchyard.errors import RequestError

Decision = Literal["allow", "review", "block"]
Rung = Literal[
    "stale_profile",
    "cached_features",
    "cold_features",
    "default_features",
    "champion_instead",
    "previous_champion",
    "fallback_logistic",
    "fallback_rules",
    "no_reasons",
]
"""What of a decision was degraded: one name for each rung of the two ladders that was stepped on.

Features: 'stale_profile' (the next sync is overdue), 'cached_features' (as read up to five minutes ago),
'cold_features' (a profile of the cold store, no activity), 'default_features' (something was unreadable,
too old or nowhere to be had: the feature service's defaults). Models: 'champion_instead' (the challenger,
whose turn it was, could not judge), 'previous_champion' (its release is then the reply's), 'fallback_logistic', 'fallback_rules'. 'no_reasons': decided by a model that could not
explain itself, or whose explanation did not add up to the score.
"""

MODEL_RUNGS: frozenset[Rung] = frozenset(
    ("champion_instead", "previous_champion", "fallback_logistic", "fallback_rules")
)
"""Those that say that a decision's own model could not judge."""


class Reason(msgspec.Struct, frozen=True):
    """One reason of a decision. ``contribution`` is in log-odds; null for a rule, which has none."""

    code: str
    feature: str | None
    value: float | None
    contribution: float | None


class Reply(msgspec.Struct, frozen=True):
    """One decision, in the order of the contract. ``score`` is null only where no model could score."""

    decision_id: str
    transaction_id: str
    score: float | None
    decision: Decision
    reasons: list[Reason]
    release: str
    variant: str
    degraded: list[Rung]
    latency_ms: float


class Accepted(msgspec.Struct, frozen=True):
    """An event or a verdict that was taken in."""

    transaction_id: str
    accepted: Literal["transaction", "label"]


class Error(msgspec.Struct, frozen=True):
    """What was wrong: a name for programs, words for people, and the field where there is one."""

    code: str
    message: str
    field: str | None


class ErrorReply(msgspec.Struct, frozen=True):
    """The one shape of every refusal."""

    error: Error


class Answer(msgspec.Struct, frozen=True):
    """What goes back over HTTP: a status, a body, and headers beyond those of every answer."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    media: bytes = b"application/json"


LONGEST_MESSAGE = 500
"""Characters of an error's message: it may quote what was sent, which may be long."""


encode = msgspec.json.Encoder().encode


def error_answer(error: RequestError) -> Answer:
    """One refused request in the one error shape.

    >>> error_answer(RequestError("amount must not be negative", field="amount")).body
    b'{"error":{"code":"unprocessable_entity","message":"amount must not be negative","field":"amount"}}'
    """
    code = _CODES.get(error.status) or HTTPStatus(error.status).name.lower()
    shown = Error(code, bounded(str(error)), error.field and bounded(error.field))
    headers = _UNREAD if error.status in (408, 413, 415) else ()
    if error.status in (429, 503):
        headers += ((b"retry-after", b"%d" % (error.retry_after_s or 1)),)
    return Answer(error.status, encode(ErrorReply(shown)), headers)


def bounded(text: str) -> str:
    """``text``, its middle left out where it is longer than LONGEST_MESSAGE.

    >>> len(bounded("x" * 9_000))
    500
    """
    if len(text) <= LONGEST_MESSAGE:
        return text
    end = LONGEST_MESSAGE // 4
    return f"{text[: LONGEST_MESSAGE - end - 5]} ... {text[-end:]}"


_UNREAD: tuple[tuple[bytes, bytes], ...] = ((b"connection", b"close"),)
"""For an answer to a body that was not read to its end: nothing that follows it can be understood."""
_CODES = {409: "conflict", 413: "body_too_large", 422: "unprocessable_entity"}

"""Bulk: many bodies in one, each answered as if it had come alone.

Here: taking a bulk body apart and putting the answers together, in their order. Not here: what a single
body means (``fraud.requests``) or how it is decided (``engine``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from switchyard.serving.reading import read
from switchyard.serving.replies import Answer

MOST = 1_000
"""Transactions in one bulk body."""
MAX_BULK_BYTES = 2 * 1024 * 1024
"""Longest bulk body."""


class BulkBody(msgspec.Struct, forbid_unknown_fields=True):
    """``transactions``: bodies as ``/v1/predict`` takes them."""

    transactions: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MOST)]


class Single(msgspec.Struct, frozen=True):
    """One of a bulk: the status and the body (Reply or ErrorReply) of an answer alone."""

    status: int
    answer: Any


class BulkReply(msgspec.Struct, frozen=True):
    """The answers, in the order of the transactions."""

    results: list[Single]


_decode = msgspec.json.Decoder(BulkBody).decode


def split(body: bytes) -> list[bytes]:
    """The single bodies.

    Raises RequestError: 400 for what is no JSON, 422 for what is no list of 1 to MOST transactions.
    """
    return [bytes(single) for single in read(_decode, body).transactions]


def weight(body: bytes) -> int:
    """Transactions in a bulk body, for whoever counts them; 1 for what is no bulk body.

    >>> weight(b'{"transactions": [{}, {}]}'), weight(b"{")
    (2, 1)
    """
    try:
        return len(_decode(body).transactions)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 1


def joined(answers: Sequence[Answer]) -> Answer:
    """All answers in one, each with the status that it would have had alone.

    >>> joined([Answer(200, b'{"score":0.1}')]).body
    b'{"results":[{"status":200,"answer":{"score":0.1}}]}'
    """
    results = b",".join(b'{"status":%d,"answer":%b}' % (a.status, a.body) for a in answers)
    return Answer(200, b'{"results":[%b]}' % results)

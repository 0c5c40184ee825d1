"""Idempotency: what an earlier claim or reply of the same transaction id means for the answer to this one.

Here: same body, same reply; other body, 409; being decided elsewhere, BUSY. Not here: how claims are kept
(``scripts``) and decisions remembered (``ledger``), nor the wait (``service``).
"""

from __future__ import annotations

from collections.abc import Sequence

from switchyard.errors import RequestError
from switchyard.serving.domain import Request
from switchyard.serving.ledger import Decided, Ledger
from switchyard.serving.replies import Answer, error_answer
from switchyard.serving.trip import Claimed


class Busy:
    """Another request is deciding this id just now; ask again shortly."""


BUSY = Busy()


def settled_by(claim: Claimed | None, request: Request) -> Answer | Busy | None:
    """The answer that the claim settles, or None: this request is ours to decide."""
    if claim is None or claim.state not in ("busy", "stored"):
        return None
    return answer_of(claim) if claim.digest == request.digest else conflict(request.transaction_id)


def answer_of(claim: Claimed | None) -> Answer | Busy | None:
    """The stored reply, BUSY while there is none yet, None if the claim is ours or was not made."""
    if claim and claim.state == "stored":
        return Answer(200, claim.reply)
    return BUSY if claim and claim.state == "busy" else None


def remembered(
    ledger: Ledger,
    requests: Sequence[Request],
    claims: Sequence[Claimed | None],
    now_us: int,
) -> list[Answer | None]:
    """The answers to what this host decided before although the store does not say so.

    Looked up where a claim ran out before its reply came, or the store could not be asked (None); what it
    calls new only if a decision is known not to have reached it. Raises JournalError.
    """
    doubtful, new = [], []
    for request, claim in zip(requests, claims, strict=True):
        if claim is None or claim.state == "lapsed":
            doubtful.append(request.transaction_id)
        elif claim.state == "new":
            new.append(request.transaction_id)
    found = ledger.unsettled(new, now_us)
    if doubtful:
        before = ledger.look_up(doubtful, now_us)
        if before:
            ledger.note_unsettled(before)
        found |= before
    if not found:
        return [None] * len(requests)
    return [
        _repeated(found[r.transaction_id], r) if r.transaction_id in found else None
        for r in requests
    ]


def _repeated(decided: Decided, request: Request) -> Answer:
    if decided.digest != request.digest:
        return conflict(request.transaction_id)
    return Answer(200, decided.reply)


def kept(body: bytes, earlier: Claimed | None, request: Request) -> Answer:
    """The answer that counts: ``body``, or another worker's if it stored one first."""
    if earlier is None:
        return Answer(200, body)
    if earlier.digest != request.digest:
        return conflict(request.transaction_id)
    return Answer(200, earlier.reply)


def conflict(transaction_id: str) -> Answer:
    """409: the id is taken by another body."""
    return error_answer(
        RequestError(
            f"transaction {transaction_id!r} was sent before with another body; a new transaction "
            "needs an id of its own",
            status=409,
            field="transaction_id",
        )
    )

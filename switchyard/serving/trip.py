"""What one trip to the online store asks and brings: plain tuples, and the reading of the replies.

Something unreadable under one key is that key's trouble; whatever concerns the whole store is a StoreError.
Not here: keys and commands (``commands``).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Literal, NamedTuple

from switchyard.errors import StoreError
from switchyard.serving.feast_format import MISSING, Ints, View
from switchyard.serving.stored_rows import read_rows


class Claim(NamedTuple):
    """The wish to decide a transaction. ``token`` (16 bytes) names who asks, ``digest`` (16 bytes) the body;
    the same token may claim again."""

    transaction_id: str
    token: bytes
    digest: bytes


class Claimed(NamedTuple):
    """What came of a claim.

    'new': ours, never seen. 'lapsed': ours, after a claim that never got its reply (look the id up in the
    journal before deciding). 'busy': another one is deciding it. 'stored': decided, with ``reply``. 'held':
    somebody has claimed it, and the store is still to be asked whether his time is over. ``digest`` is that of
    the earlier body, b"" where there is none; if it differs from ours, the same id came with another body.
    """

    state: Literal["new", "lapsed", "busy", "stored", "held"]
    digest: bytes = b""
    reply: bytes = b""


_NEW = Claimed("new")


class Wanted(NamedTuple):
    """What to read for one transaction: an entity for each view, in the views' order, and its claim."""

    entities: tuple[str, ...]
    claim: Claim | None = None


class Trip(NamedTuple):
    """What one read brought for n transactions; profiles, times and activity by view, in their order.

    ``profiles``: int64[n, features], MISSING for null and for all of an absent profile.
    ``available_at``: int64[n], microseconds, MISSING for an absent profile. ``activity``: n blobs, b"" for
    none. ``synced_through``: newest available_at whose sync is complete, MISSING for none. ``damaged``:
    the transactions for which something unreadable was stored; it reads as absent, a claim as 'lapsed'.
    ``epoch``: since when the store's numbers count, None if it was never filled or was emptied.
    """

    profiles: tuple[Ints, ...]
    available_at: tuple[Ints, ...]
    activity: tuple[list[bytes], ...]
    claims: list[Claimed | None]
    synced_through: tuple[int, ...]
    damaged: Set[int]
    epoch: str | None = None


class Append(NamedTuple):
    """One event (48 bytes, the number left open) for the activity of an owner's entity."""

    owner: str
    entity: str
    record: bytes


class Reply(NamedTuple):
    """The reply to store for a transaction id and body."""

    transaction_id: str
    digest: bytes
    body: bytes


class Written(NamedTuple):
    """What one write brought.

    ``numbers``: each append's sequence number (the old one if the event was there), 0 where refused.
    ``earlier``: for each reply the one that was stored before and stays, else None. ``refused``: the
    store's words for what it did not take (something else lies under that key). ``epoch``: whose numbers
    these are, as in a Trip.
    """

    numbers: list[int]
    earlier: list[Claimed | None]
    refused: tuple[str, ...]
    epoch: str | None = None


def fit(replies: list[object]) -> list[object]:
    """The replies, unless one says that the whole store can't be used: then StoreError."""
    for reply in replies:
        if isinstance(reply, Exception) and not str(reply).startswith(_OF_ONE_KEY):
            raise StoreError(f"the online store answers: {reply}")
    return replies


_OF_ONE_KEY = ("WRONGTYPE", "ERR")


def read_trip(views: tuple[View, ...], wanted: Sequence[Wanted], replies: list[object]) -> Trip:
    """The replies of one read: the epoch; for each transaction a profile and a blob per view, then its claim,
    if it made one; at the end one mark per view, and the epoch again."""
    epoch, *rest, epoch_after = fit(replies)
    answers = iter(rest)
    rows: list[list[object]] = [[] for _ in views]
    activity: list[list[bytes]] = [[] for _ in views]
    claims: list[Claimed | None] = []
    damaged: set[int] = set()
    for i, each in enumerate(wanted):
        for v in range(len(views)):
            rows[v].append(next(answers))
            blob = next(answers)
            activity[v].append(blob if isinstance(blob, bytes) else b"")
            if not isinstance(blob, bytes | None):
                damaged.add(i)
        claim = claimed(next(answers)) if each.claim is not None else None
        if each.claim is not None and claim is None:
            damaged.add(i)
            claim = Claimed("lapsed")
        claims.append(claim)
    read = [read_rows(own, len(view.features)) for own, view in zip(rows, views, strict=True)]
    return Trip(
        tuple(of_view.values for of_view in read),
        tuple(of_view.times for of_view in read),
        tuple(activity),
        claims,
        tuple(mark_of(mark) for mark in answers),
        damaged.union(*(of_view.damaged for of_view in read)),
        epoch_throughout(epoch, epoch_after),
    )


def held(trip: Trip) -> list[int]:
    """The transactions whose claims somebody else has, or had."""
    return [i for i, claim in enumerate(trip.claims) if claim is not None and claim.state == "held"]


def taken_over(trip: Trip, rows: Sequence[int], answers: list[object]) -> Trip:
    """The trip with what came of taking over the claims of ``rows``."""
    claims, damaged = list(trip.claims), set(trip.damaged)
    for i, answer in zip(rows, fit(answers), strict=True):
        claims[i] = claimed(answer)
        if claims[i] is None:
            damaged.add(i)
            claims[i] = Claimed("lapsed")
    return trip._replace(claims=claims, damaged=damaged)


def read_written(appends: int, replies: list[object]) -> Written:
    """The replies of one write: the epoch, a number for each append, what each reply replaced, the epoch."""
    epoch, *answers, epoch_after = fit(replies)
    numbers, replaced = answers[:appends], answers[appends:]
    return Written(
        [number if isinstance(number, int) else 0 for number in numbers],
        [
            claimed(held) if isinstance(held, bytes) and held[:1] == b"r" else None
            for held in replaced
        ],
        tuple(str(answer) for answer in answers if isinstance(answer, Exception)),
        epoch_throughout(epoch, epoch_after),
    )


def displaced(replies: Sequence[Reply], written: Written) -> list[tuple[str, Claimed]]:
    """The earlier replies, by transaction id, in whose place later ones were stored."""
    return [
        (reply.transaction_id, earlier)
        for reply, earlier in zip(replies, written.earlier, strict=True)
        if earlier is not None and (earlier.digest, earlier.reply) != (reply.digest, reply.body)
    ]


def claimed(answer: object) -> Claimed | None:
    """The reply of a claim or of taking one over; None for what is neither."""
    if answer is None or answer == b"n":
        return _NEW
    if not isinstance(answer, bytes):
        return None
    kind, digest = answer[:1], answer[1:17]
    if kind == b"r" and answer[17:18] == b"{":
        return Claimed("stored", digest, answer[17:])
    if kind == b"c":
        return Claimed("held", answer[17:33])
    if kind in (b"x", b"b"):
        return Claimed("lapsed" if kind == b"x" else "busy", digest)
    return None


def mark_of(answer: object) -> int:
    """A stored time in microseconds, MISSING for none. Raises StoreError."""
    try:
        return MISSING if answer is None else int(answer)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise StoreError(f"the online store holds {answer!r} where a time should be") from None


def epoch_throughout(before: object, after: object) -> str | None:
    """The epoch of a trip in which it was asked for at both ends; None if the store was filled in between."""
    return epoch_of(after) if before == after else None


def epoch_of(answer: object) -> str | None:
    """The stored epoch, None for none or for what is no text."""
    return answer.decode(errors="replace") if isinstance(answer, bytes) else None

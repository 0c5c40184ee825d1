"""Profiles into the online store, in Feast's format and many times as fast as its ``materialize``.

One writer per view at a time, by a lease in the store itself. Each row arrives in one command, so that a
reader never meets a mixture of two days; the next rows are encoded while the store takes the last. Not here: which rows (the caller), the format (``feast_format``).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress, zip_longest

import hiredis
import numpy as np

from switchyard.errors import StoreError
from switchyard.serving.feast_format import (
    Ints,
    View,
    decode_time,
    encode_time,
    entity_key,
    read_time_commands,
    write_commands,
)
from switchyard.serving.lease import TRIP_SECONDS, Lease
from switchyard.serving.wire import Wire

CHUNK_ROWS = 1_000


def write_rows(
    wire: Wire, project: str, view: View, ids: Sequence[str], rows: Ints, available_at: Ints
) -> int:
    """Write ``rows`` (int64[n, features]) of ``ids``; how many were written.

    A row is skipped if the store holds one with a later available_at; one of the same time is replaced.
    Raises StoreError if the store fails, or another sync of the view does not end.
    """
    order = np.argsort(
        available_at, kind="stable"
    )  # a key that comes twice ends with its newest row
    moments = {int(moment): encode_time(int(moment)) for moment in np.unique(available_at)}
    chunks = [order[start : start + CHUNK_ROWS] for start in range(0, len(order), CHUNK_ROWS)]
    lease = Lease(wire, f"{project}:syncing:{view.name}".encode())
    written, keys = 0, _keys(view, ids, chunks[0], project) if chunks else []
    lease.take()
    with ThreadPoolExecutor(1, "profile-sync") as sender:
        answers = sender.submit(_send, wire, read_time_commands(view, keys))
        for chunk, following in zip_longest(chunks, chunks[1:], fillvalue=order[:0]):
            times = available_at[chunk]
            commands = write_commands(view, keys, rows[chunk], [moments[t] for t in times.tolist()])
            keys = _keys(view, ids, following, project)
            reads = read_time_commands(view, keys)
            fresh = _stored_times(answers.result()[-len(chunk) :]) <= times
            lease.keep()
            answers = sender.submit(_send, wire, [*compress(commands, fresh), *reads])
            written += int(fresh.sum())
        answers.result()
    lease.give_back()
    return written


def _keys(view: View, ids: Sequence[str], chunk: Ints, project: str) -> list[bytes]:
    suffix = project.encode()
    return [entity_key(view, ids[i], suffix) for i in chunk.tolist()]


def _stored_times(replies: list[object]) -> Ints:
    """Event times that the store holds, MISSING for no row: int64[n]."""
    known = {stored: decode_time(stored) for stored in set(replies)}
    return np.fromiter((known[stored] for stored in replies), np.int64, len(replies))


def _send(wire: Wire, commands: list[bytes]) -> list[object]:
    replies = wire.ask(b"".join(commands), len(commands), TRIP_SECONDS)
    if hiredis.ReplyError in set(map(type, replies)):
        refusal = next(reply for reply in replies if isinstance(reply, hiredis.ReplyError))
        raise StoreError(f"the online store refused a profile: {refusal}")
    return replies

"""Profiles into the online store, in Feast's format and many times as fast as its ``materialize``.

One writer per view at a time, by a lease in the store itself. Each row arrives in one command, so that a
reader never meets a mixture of two days. Not here: which rows (the caller), the format (``feast_format``).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

import numpy as np

from switchyard.errors import StoreError
from switchyard.serving.feast_format import (
    Ints,
    View,
    decode_time,
    encode_time,
    entity_key,
    write_commands,
)
from switchyard.serving.scripts import LEASE
from switchyard.serving.wire import Wire, command

LEASE_SECONDS = 10.0
CHUNK_ROWS = 2_000
TRIP_SECONDS = 10.0


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
    lease = _Lease(wire, f"{project}:syncing:{view.name}".encode())
    written, pending = 0, list[bytes]()
    lease.take()
    for start in range(0, len(order), CHUNK_ROWS):
        chunk = order[start : start + CHUNK_ROWS]
        keys = [entity_key(view, ids[i], project.encode()) for i in chunk]
        stored = _stored_times(wire, view, keys, pending, lease)
        fresh = np.flatnonzero(stored <= available_at[chunk])
        pending = write_commands(
            view,
            [keys[i] for i in fresh],
            rows[chunk[fresh]],
            [encode_time(int(moment)) for moment in available_at[chunk[fresh]]],
        )
        written += len(fresh)
    lease.keep()
    _send(wire, pending)
    lease.give_back()
    return written


def _stored_times(
    wire: Wire, view: View, keys: list[bytes], pending: list[bytes], lease: _Lease
) -> Ints:
    """Send what is pending and read the keys' times in the same trip: int64[n], MISSING for no row."""
    lease.keep()
    reads = [command(b"HGET", key, view.time_field) for key in keys]
    replies = _send(wire, [*pending, *reads])[len(pending) :]
    known = {stored: decode_time(stored) for stored in set(replies)}
    return np.fromiter((known[stored] for stored in replies), np.int64, len(replies))


def _send(wire: Wire, commands: list[bytes]) -> list[object]:
    replies = wire.ask(b"".join(commands), len(commands), TRIP_SECONDS)
    for reply in replies:
        if isinstance(reply, Exception):
            raise StoreError(f"the online store refused a profile: {reply}")
    return replies


class _Lease:
    """The right to write a view, held in the store: it lapses by itself when its holder dies."""

    def __init__(self, wire: Wire, key: bytes) -> None:
        self._wire, self._key, self._token = wire, key, secrets.token_bytes(16)
        self._held_until = 0.0

    def take(self) -> None:
        deadline = time.monotonic() + 2 * LEASE_SECONDS
        while not self._renew():
            if time.monotonic() > deadline:
                raise StoreError(
                    f"another sync has held {self._key.decode()} for too long; is it alive?"
                )
            time.sleep(0.1)

    def keep(self) -> None:
        """Renew once half of it is over. Raises StoreError if somebody else has it by now."""
        if time.monotonic() > self._held_until - LEASE_SECONDS / 2 and not self._renew():
            raise StoreError(
                f"this sync was stopped too long: another one now holds {self._key.decode()}"
            )

    def give_back(self) -> None:
        _send(self._wire, [LEASE.call(self._key, self._token, b"0")])

    def _renew(self) -> bool:
        asked = time.monotonic()
        milliseconds = b"%d" % (LEASE_SECONDS * 1000)
        held = _send(self._wire, [LEASE.call(self._key, self._token, milliseconds)]) == [1]
        if held:
            self._held_until = asked + LEASE_SECONDS
        return held

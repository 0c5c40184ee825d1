"""A lease in the online store: the right to do something that only one may do, lapsing with its holder.

Not here: what it is for (``profile_sync``, the filling of a lost store).
"""

from __future__ import annotations

import secrets
import time
from types import TracebackType

from switchyard.errors import StoreError
from switchyard.serving.scripts import LEASE
from switchyard.serving.wire import Wire

LEASE_SECONDS = 10.0
TRIP_SECONDS = 10.0


class Lease:
    """Held from ``take`` to ``give_back`` (or as a context), as long as ``keep`` is called often enough."""

    def __init__(self, wire: Wire, key: bytes) -> None:
        self._wire, self._key, self._token = wire, key, secrets.token_bytes(16)
        self._held_until = 0.0

    def __enter__(self) -> Lease:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.give_back()

    def take(self) -> None:
        """Wait until it is free. Raises StoreError if its holder neither ends nor dies."""
        deadline = time.monotonic() + 2 * LEASE_SECONDS
        while not self.renew():
            if time.monotonic() > deadline:
                raise StoreError(
                    f"another holder has held {self._key.decode()} for too long; is it alive?"
                )
            time.sleep(0.1)

    def keep(self) -> None:
        """Renew once half of it is over. Raises StoreError if somebody else has it by now."""
        if time.monotonic() > self._held_until - LEASE_SECONDS / 2 and not self.renew():
            raise StoreError(
                f"this process was stopped too long: another one now holds {self._key.decode()}"
            )

    def give_back(self) -> None:
        """Let others have it."""
        self._ask(b"0")

    def renew(self) -> bool:
        """Take it, or hold it for another LEASE_SECONDS; False if somebody else has it."""
        asked = time.monotonic()
        held = self._ask(b"%d" % (LEASE_SECONDS * 1000)) == 1
        if held:
            self._held_until = asked + LEASE_SECONDS
        return held

    def _ask(self, milliseconds: bytes) -> object:
        command = LEASE.call(self._key, self._token, milliseconds)
        (answer,) = self._wire.ask(command, 1, TRIP_SECONDS)
        if isinstance(answer, Exception):
            raise StoreError(f"the online store refused a lease: {answer}")
        return answer

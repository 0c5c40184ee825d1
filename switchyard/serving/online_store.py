"""The online store as the service uses it: one trip to read, one to write, for all that waits together.

Profiles lie there in Feast's format, written and read without Feast; activity, idempotency and the syncs'
marks lie beside them. Which views there are and what a record means, the caller says. Not here: the
bytes (``feast_format``, ``scripts``, ``trip``), the connection (``wire``), how old a profile may be (``freshness``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from switchyard.errors import StoreError
from switchyard.serving.feast_format import MISSING, Ints, View, entity_key, read_command
from switchyard.serving.profile_sync import write_rows
from switchyard.serving.scripts import APPEND, CLAIM, FINISH, RAISE_TO, SCRIPTS
from switchyard.serving.trip import (
    Append,
    Reply,
    Trip,
    Wanted,
    Written,
    claimed,
    fit,
    mark_of,
    read_trip,
)
from switchyard.serving.wire import Wire, bulk, command

Item = TypeVar("Item")

LEASE_MS = 2_000
"""How long one worker's claim on a transaction id keeps others from deciding it."""
REPLY_SECONDS = 86_400
"""How long the same transaction id gets the same decision."""
_BULK_ITEMS = 500
_BULK_SECONDS = 10.0


class OnlineStore:
    """The online store at ``url``; connects on first use. Safe for several threads, one trip at a time.

    All methods raise StoreError if the store is unreachable, too slow (``timeout_s`` a trip) or answers
    something that is not its protocol.
    """

    def __init__(
        self,
        url: str,
        project: str,
        views: tuple[View, ...],
        timeout_s: float = 2.0,
    ) -> None:
        self.project = project
        self.views = views
        self._wire = Wire(url, SCRIPTS, timeout_s)
        self._suffix = project.encode()
        self._reads = [read_command(view) for view in views]
        self._marks = b"".join(command(b"GET", self._mark(view.name)) for view in views)

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    def ping(self, timeout_s: float | None = None) -> None:
        """Raise StoreError unless the store answers."""
        if self._wire.ask(command(b"PING"), 1, timeout_s) != [b"PONG"]:
            raise StoreError(
                "the online store does not answer PING as it should; is it still loading?"
            )

    # ------------------------------------------------------------ what the service reads and writes

    def read(self, wanted: Sequence[Wanted], timeout_s: float | None = None) -> Trip:
        """Profiles, activity and claims of the transactions, and the views' marks, in one trip."""
        parts = [part for each in wanted for part in self._read_parts(each)]
        claims = sum(each.claim is not None for each in wanted)
        replies = 2 * len(self.views) * len(wanted) + claims + len(self.views)
        payload = b"".join(parts) + self._marks
        return read_trip(self.views, wanted, self._wire.ask(payload, replies, timeout_s))

    def write(
        self,
        appends: Sequence[Append],
        replies: Sequence[Reply] = (),
        timeout_s: float | None = None,
    ) -> Written:
        """Append events to activities and store replies, in one trip. Safe to repeat as a whole."""
        parts = [APPEND.call(self.activity_key(a.owner, a.entity), a.record) for a in appends]
        parts += [
            FINISH.call(
                self.decision_key(r.transaction_id), r.digest, r.body, b"%d" % REPLY_SECONDS
            )
            for r in replies
        ]
        answers = fit(self._wire.ask(b"".join(parts), len(parts), timeout_s)) if parts else []
        numbers, stored = answers[: len(appends)], answers[len(appends) :]
        return Written(
            [number if isinstance(number, int) else 0 for number in numbers],
            [claimed(held) if isinstance(held, bytes) else None for held in stored],
            tuple(str(answer) for answer in answers if isinstance(answer, Exception)),
        )

    # ------------------------------------------------------------ what syncs and restores write

    def write_profiles(
        self,
        view_name: str,
        ids: Sequence[str],
        rows: Ints,
        available_at: Ints,
        synced_through: int | None = None,
    ) -> int:
        """Write profiles of a view, then its mark; how many rows were written.

        ``rows``: int64[n, features] in the view's order, MISSING for null; ``available_at``: int64[n],
        microseconds. A row is skipped if the store holds a newer one; one of the same time is replaced.
        ``synced_through``: the available_at up to which the view is now complete (default: the newest
        row's; of no rows, none). An interrupted call leaves whole rows and the old mark: repeat it.
        Raises StoreError also if another sync of the view does not end.
        """
        view = next(v for v in self.views if v.name == view_name)
        written = write_rows(self._wire, self.project, view, ids, rows, available_at)
        if synced_through is None and len(available_at):
            synced_through = int(available_at.max())
        if synced_through is not None:
            self._tell([RAISE_TO.call(self._mark(view_name), b"%d" % synced_through)])
        return written

    def synced_through(self, view_name: str) -> int | None:
        """Newest available_at (microseconds) whose sync is complete, None before the first."""
        mark = mark_of(self._tell([command(b"GET", self._mark(view_name))])[0])
        return None if mark == MISSING else mark

    def append(self, events: Iterable[Append]) -> list[int]:
        """Append any number of events; their sequence numbers. Raises StoreError if one is refused."""
        numbers: list[int] = []
        for some in _in_groups(events):
            written = self.write(some, timeout_s=_BULK_SECONDS)
            if written.refused:
                raise StoreError(f"the online store refused an event: {written.refused[0]}")
            numbers += written.numbers
        return numbers

    def load_activity(self, rows: Iterable[tuple[str, str, bytes]], cutoff_us: int) -> int:
        """Fill an empty store with activities (owner, entity, blob) up to ``cutoff_us``; how many.

        Nothing that is there is overwritten: after a complete load this does nothing, an interrupted one
        is completed. Events may be appended only after it.
        """
        if self.activity_cutoff() is not None:
            return 0
        loaded = 0
        for some in _in_groups(rows):
            answers = self._tell(
                [
                    command(b"SET", self.activity_key(owner, entity), blob, b"NX")
                    for owner, entity, blob in some
                ]
            )
            loaded += sum(answer == b"OK" for answer in answers)
        self._tell([command(b"SET", self._cutoff, b"%d" % cutoff_us, b"NX")])
        return loaded

    def activity_cutoff(self) -> int | None:
        """Event time (microseconds) up to which :meth:`load_activity` filled the store, None: never."""
        cutoff = mark_of(self._tell([command(b"GET", self._cutoff)])[0])
        return None if cutoff == MISSING else cutoff

    def raise_activity_cutoff(self, cutoff_us: int) -> None:
        """Say that everything up to ``cutoff_us`` was appended since :meth:`load_activity`."""
        self._tell([RAISE_TO.call(self._cutoff, b"%d" % cutoff_us)])

    # ------------------------------------------------------------ keys

    def activity_key(self, owner: str, entity: str) -> bytes:
        """Key of an activity's blob."""
        return f"{self.project}:activity:{owner}:{entity}".encode()

    def decision_key(self, transaction_id: str) -> bytes:
        """Key of a transaction's claim, later of its reply."""
        return f"{self.project}:decision:{transaction_id}".encode()

    @property
    def _cutoff(self) -> bytes:
        return f"{self.project}:activity_cutoff".encode()

    def _mark(self, view_name: str) -> bytes:
        return f"{self.project}:synced:{view_name}".encode()

    # ------------------------------------------------------------ one trip, there and back

    def _read_parts(self, wanted: Wanted) -> Iterator[bytes]:
        for view, (head, tail), entity in zip(
            self.views, self._reads, wanted.entities, strict=True
        ):
            yield head
            yield bulk(entity_key(view, entity, self._suffix))
            yield tail
            yield command(b"GET", self.activity_key(view.owner, entity))
        if wanted.claim is not None:
            transaction_id, token, digest = wanted.claim
            lease, kept = b"%d" % LEASE_MS, b"%d" % REPLY_SECONDS
            yield CLAIM.call(self.decision_key(transaction_id), token, digest, lease, kept)

    def _tell(self, commands: list[bytes]) -> list[object]:
        """Send commands of which none may be refused; their replies."""
        answers = fit(self._wire.ask(b"".join(commands), len(commands), _BULK_SECONDS))
        for answer in answers:
            if isinstance(answer, Exception):
                raise StoreError(f"the online store refused what it was sent: {answer}")
        return answers


def _in_groups(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, _BULK_ITEMS)):
        yield some

"""The online store for whoever may wait for it: syncs, restores, commands and tests.

Profiles lie there in Feast's format, written and read without Feast; activity, idempotency and the syncs'
marks lie beside them. Which views there are and what a record means, the caller says. Not here: the
bytes (``commands``, ``feast_format``, ``scripts``, ``trip``), the connection (``wire``), how old a profile
may be (``freshness``), the service's own way to the store (``hot_store``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from switchyard.errors import StoreError
from switchyard.serving.commands import Commands
from switchyard.serving.feast_format import MISSING, Ints, View
from switchyard.serving.profile_sync import write_rows
from switchyard.serving.scripts import RAISE_TO, SCRIPTS
from switchyard.serving.trip import (
    Append,
    Reply,
    Trip,
    Wanted,
    Written,
    fit,
    mark_of,
    read_trip,
    read_written,
)
from switchyard.serving.wire import Wire, command

Item = TypeVar("Item")
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
        self.commands = Commands(project, views)
        self._wire = Wire(url, SCRIPTS, timeout_s)

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
        payload, replies = self.commands.read(wanted)
        return read_trip(self.views, wanted, self._wire.ask(payload, replies, timeout_s))

    def write(
        self,
        appends: Sequence[Append],
        replies: Sequence[Reply] = (),
        timeout_s: float | None = None,
    ) -> Written:
        """Append events to activities and store replies, in one trip. Safe to repeat as a whole."""
        payload, count = self.commands.write(appends, replies)
        return read_written(len(appends), self._wire.ask(payload, count, timeout_s))

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
            self._tell([RAISE_TO.call(self.commands.mark_key(view_name), b"%d" % synced_through)])
        return written

    def synced_through(self, view_name: str) -> int | None:
        """Newest available_at (microseconds) whose sync is complete, None before the first."""
        mark = mark_of(self._tell([command(b"GET", self.commands.mark_key(view_name))])[0])
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
                    command(b"SET", self.commands.activity_key(owner, entity), blob, b"NX")
                    for owner, entity, blob in some
                ]
            )
            loaded += sum(answer == b"OK" for answer in answers)
        self._tell([command(b"SET", self.commands.cutoff_key, b"%d" % cutoff_us, b"NX")])
        return loaded

    def activity_cutoff(self) -> int | None:
        """Event time (microseconds) up to which :meth:`load_activity` filled the store, None: never."""
        cutoff = mark_of(self._tell([command(b"GET", self.commands.cutoff_key)])[0])
        return None if cutoff == MISSING else cutoff

    def raise_activity_cutoff(self, cutoff_us: int) -> None:
        """Say that everything up to ``cutoff_us`` was appended since :meth:`load_activity`."""
        self._tell([RAISE_TO.call(self.commands.cutoff_key, b"%d" % cutoff_us)])

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

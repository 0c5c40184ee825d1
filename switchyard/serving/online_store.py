"""The online store for whoever may wait for it: syncs, restores, commands and tests.

Profiles lie there in Feast's format, written and read without Feast; activity, idempotency and the syncs'
marks lie beside them. Which views there are and what a record means, the caller says. Not here: the
bytes (``commands``, ``feast_format``, ``scripts``, ``trip``), the connection (``wire``), how old a profile
may be (``freshness``), the service's own way to the store (``hot_store``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar, cast

from switchyard.errors import StoreError
from switchyard.serving.commands import Commands
from switchyard.serving.feast_format import MISSING, Ints, View
from switchyard.serving.lease import Lease
from switchyard.serving.profile_sync import write_rows
from switchyard.serving.scripts import FINISH, RAISE_TO, REPLACE, SCRIPTS
from switchyard.serving.trip import (
    Append,
    Reply,
    Trip,
    Wanted,
    Written,
    displaced,
    epoch_of,
    fit,
    held,
    mark_of,
    read_trip,
    read_written,
    taken_over,
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
        trip = read_trip(self.views, wanted, self._wire.ask(payload, replies, timeout_s))
        if rows := held(trip):
            claims = [claim for i in rows if (claim := wanted[i].claim)]
            answers = self._wire.ask(*self.commands.take_over(claims), timeout_s)
            trip = taken_over(trip, rows, answers)
        return trip

    def write(
        self,
        appends: Sequence[Append],
        replies: Sequence[Reply] = (),
        timeout_s: float | None = None,
    ) -> Written:
        """Append events to activities and store replies, in one trip. Safe to repeat as a whole."""
        payload, count = self.commands.write(appends, replies)
        written = read_written(len(appends), self._wire.ask(payload, count, timeout_s))
        if earlier := displaced(replies, written):
            self._wire.ask(*self.commands.put_back(earlier), timeout_s)
        return written

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

    # ------------------------------------------------------------ filling an empty or a lost store

    def epoch(self) -> str | None:
        """The name under which the store's content was begun; None if it was never filled, or emptied."""
        return epoch_of(self._tell([command(b"GET", self.commands.epoch_key)])[0])

    def end_epoch(self) -> None:
        """Say that the content is no longer to be used: services then decide without the store."""
        self._tell([command(b"DEL", self.commands.epoch_key)])

    def begin_epoch(self, epoch: str) -> None:
        """Say that the content is complete: what is appended from now on counts from it."""
        self._tell([command(b"SET", self.commands.epoch_key, epoch.encode())])

    def filling(self) -> Lease:
        """The right to fill the store, which one process has at a time."""
        return Lease(self._wire, f"{self.project}:filling".encode())

    def restore_activity(self, rows: Iterable[tuple[str, str, bytes]], lease: Lease) -> int:
        """Put activities (owner, entity, blob) in the place of what is there; how many."""
        restored = 0
        for some in _in_groups(rows):
            lease.keep()
            self._tell(
                [
                    command(b"SET", self.commands.activity_key(owner, entity), blob)
                    for owner, entity, blob in some
                ]
            )
            restored += len(some)
        return restored

    def keep_replies(self, replies: Iterable[tuple[Reply, int]], lease: Lease) -> int:
        """Store replies, each for so many seconds, where none is stored yet; how many were given."""
        kept = 0
        for some in _in_groups(replies):
            lease.keep()
            self._tell(
                [
                    FINISH.call(
                        self.commands.decision_key(r.transaction_id),
                        r.digest,
                        r.body,
                        b"%d" % seconds,
                    )
                    for r, seconds in some
                ]
            )
            kept += len(some)
        return kept

    def last_number(self, owner: str, entity: str) -> int:
        """The newest sequence number of an activity, 0 for none."""
        return self.last_numbers(owner, [entity])[0]

    def last_numbers(self, owner: str, entities: Sequence[str]) -> list[int]:
        """The same of several, in their order."""
        found: list[int] = []
        for some in _in_groups(entities):
            keys = [self.commands.activity_key(owner, entity) for entity in some]
            for head in self._tell([command(b"GETRANGE", key, b"0", b"7") for key in keys]):
                found.append(int.from_bytes(head, "little") if isinstance(head, bytes) else 0)
        return found

    # ------------------------------------------------------------ forgetting somebody

    def count(self, keys: Iterable[bytes]) -> int:
        """How many of these keys are there."""
        return self._on_each(b"EXISTS", keys)

    def remove(self, keys: Iterable[bytes]) -> int:
        """Remove keys; how many were there."""
        return self._on_each(b"DEL", keys)

    def activity(self, owner: str, entity: str) -> bytes | None:
        """An activity's blob, None for none."""
        (blob,) = self._tell([command(b"GET", self.commands.activity_key(owner, entity))])
        return blob if isinstance(blob, bytes) else None

    def change_activity(self, owner: str, entity: str, change: Callable[[bytes], bytes]) -> bool:
        """Put ``change`` of an activity's blob in its place, whatever is appended meanwhile; False if it is the
        same, or there is none."""
        key = self.commands.activity_key(owner, entity)
        while True:
            blob = self.activity(owner, entity)
            if blob is None or (changed := change(blob)) == blob:
                return False
            if self._tell([REPLACE.call(key, blob, changed)]) == [1]:
                return True

    def everything(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key, and its value's bytes one after the other; what comes or goes meanwhile may be missed."""
        cursor = b"0"
        while True:
            (answer,) = self._tell([command(b"SCAN", cursor, b"COUNT", b"500")])
            cursor, keys = cast(tuple[bytes, list[bytes]], answer)
            yield from zip(keys, self._values(keys), strict=True)
            if cursor == b"0":
                return

    def rewrite_log(self, patience_s: float = 120.0) -> str:
        """Have the server write its append-only file anew, without what was removed; in words what came of it."""
        if self._info("persistence").get("aof_enabled") != "1":
            return "the server keeps no append-only file"
        try:
            self._tell([command(b"BGREWRITEAOF")])
        except StoreError as error:
            return f"the server's own files still hold it until it writes them anew: {error}"
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            told = self._info("persistence")
            if (told.get("aof_rewrite_in_progress"), told.get("aof_rewrite_scheduled")) == (
                "0",
                "0",
            ):
                return "the server's append-only file is written anew"
            time.sleep(0.05)
        return f"the server is still writing its append-only file anew after {patience_s:.0f} s"

    def _on_each(self, verb: bytes, keys: Iterable[bytes]) -> int:
        answers = (
            answer for some in _in_groups(keys) for answer in self._tell([command(verb, k) for k in some])
        )  # fmt: skip
        return sum(answer for answer in answers if isinstance(answer, int))

    def _values(self, keys: Sequence[bytes]) -> list[bytes]:
        if not keys:
            return []
        kinds = self._tell([command(b"TYPE", key) for key in keys])
        return [_flat(answer) for answer in self._tell([_read_whole(k, t) for k, t in zip(keys, kinds, strict=True)])]  # fmt: skip

    # ------------------------------------------------------------ the server

    def server(self) -> str:
        """Which server answers: another one after each start, and where a replica has taken over."""
        return self._info("server").get("run_id", "")

    def evicts(self) -> str | None:
        """The policy by which it drops keys when its memory is full; None if it refuses writes instead."""
        told = self._info("memory")
        policy = told.get("maxmemory_policy", "noeviction")
        return None if policy == "noeviction" or told.get("maxmemory") == "0" else policy

    def _info(self, section: str) -> dict[str, str]:
        (told,) = self._tell([command(b"INFO", section.encode())])
        lines = told.decode(errors="replace").split() if isinstance(told, bytes) else []
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def activity_cutoff(self) -> int | None:
        """Event time (microseconds) up to which a sync filled the store, None: never."""
        cutoff = mark_of(self._tell([command(b"GET", self.commands.cutoff_key)])[0])
        return None if cutoff == MISSING else cutoff

    def raise_activity_cutoff(self, cutoff_us: int) -> None:
        """Say that everything up to ``cutoff_us`` is in the store."""
        self._tell([RAISE_TO.call(self.commands.cutoff_key, b"%d" % cutoff_us)])

    def _tell(self, commands: list[bytes]) -> list[object]:
        """Send commands of which none may be refused; their replies."""
        answers = fit(self._wire.ask(b"".join(commands), len(commands), _BULK_SECONDS))
        for answer in answers:
            if isinstance(answer, Exception):
                raise StoreError(f"the online store refused what it was sent: {answer}")
        return answers


def _read_whole(key: bytes, kind: object) -> bytes:
    """The command that reads a value of that type."""
    if kind == b"hash":
        return command(b"HGETALL", key)
    if kind == b"list":
        return command(b"LRANGE", key, b"0", b"-1")
    if kind == b"set":
        return command(b"SMEMBERS", key)
    return command(b"GET", key) if kind == b"string" else command(b"DUMP", key)


def _flat(answer: object) -> bytes:
    if isinstance(answer, list):
        return b"\n".join(map(_flat, answer))
    return answer if isinstance(answer, bytes) else b""


def _in_groups(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, _BULK_ITEMS)):
        yield some

"""What was decided, and is being decided, on this host: shared by all its workers, whatever the store says.

The order of a decision: hold -> read trip -> ``unsettled`` or ``look_up`` where need be -> journal -> write trip
-> (it failed: ``note_unsettled``) -> let go. Not here: the parts (``holds``, ``decided``, ``unsettled``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from switchyard.errors import JournalError
from switchyard.serving.commands import REPLY_SECONDS
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.domain import digest_of
from switchyard.serving.holds import Holds
from switchyard.serving.index import mend
from switchyard.serving.replies import Reply
from switchyard.serving.segments import segments, whole_bodies
from switchyard.serving.unsettled import Unsettled

_REMEMBERED_US = REPLY_SECONDS * 1_000_000


class Decided(NamedTuple):
    """An earlier decision on a transaction: the digest of its body, and the reply as it was sent."""

    digest: bytes
    reply: bytes


class _Files(NamedTuple):
    holds: Holds
    unsettled: Unsettled


class Ledger:
    """The ledger of the journal in ``folder``, for one process. All but ``settle`` from one thread.

    Its files are opened at first use. All methods raise JournalError if they can't be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: _Files | None = None
        self._decided = DecidedIndex(folder)

    def hold(self, transaction_id: str) -> bool:
        """Claim the id on this host until :meth:`let_go`, or the death of this process; False if somebody
        has it."""
        try:
            return (self._files or self._open()).holds.hold(transaction_id)
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def let_go(self, transaction_id: str) -> None:
        """Give the claim up, if there is one."""
        if self._files:
            self._files.holds.let_go(transaction_id)

    def look_up(self, transaction_ids: Sequence[str], now_us: int) -> dict[str, Decided]:
        """The first decision of the last 24 hours on each of these, where there is one.

        For claims that lapsed, and for all while the store can't be reached. ``now_us``: microseconds
        since the epoch.
        """
        found = self._decided.first_of(transaction_ids, now_us - _REMEMBERED_US)
        return {name: decided_in(body) for name, body in found.items()}

    def unsettled(self, transaction_ids: Iterable[str], now_us: int) -> dict[str, Decided]:
        """The same, of those alone that the store may not know of: for what it calls new."""
        with _as_journal_error(self._folder):
            noted = (self._files or self._open()).unsettled.ids()
        if not noted:
            return {}
        return self.look_up([name for name in transaction_ids if name in noted], now_us)

    def note_unsettled(self, transaction_ids: Iterable[str]) -> None:
        """Say that the store may not know of the decisions on these: before they are journalled where it
        can't be read, else once the write trip failed."""
        with _as_journal_error(self._folder):
            (self._files or self._open()).unsettled.note(transaction_ids)

    def settle(self, transaction_ids: Iterable[str]) -> None:
        """Say that the store knows of these by now. Any thread may."""
        with _as_journal_error(self._folder):
            (self._files or self._open()).unsettled.settle(transaction_ids)

    def all_unsettled(self) -> list[str]:
        """Every id that is noted, oldest first."""
        with _as_journal_error(self._folder):
            return list((self._files or self._open()).unsettled.ids())

    def close(self) -> None:
        """Let go of everything; what is asked later opens the files again."""
        files, self._files = self._files, None
        if files:
            files.holds.close()
            files.unsettled.close()

    def _open(self) -> _Files:
        with contextlib.ExitStack() as opened:
            holds = opened.enter_context(contextlib.closing(Holds(self._folder / "holds")))
            self._files = _Files(holds, Unsettled(self._folder / "unsettled"))
            opened.pop_all()
        return self._files


@contextlib.contextmanager
def _as_journal_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> JournalError:
    return JournalError(
        f"the ledger in {folder} can't be used: {error}; free space or mend the folder, nothing is decided "
        "meanwhile"
    )


def note_what_the_dead_left(folder: Path) -> int:
    """Mend the journal, and note the decisions of dead processes that have no number of the store; how many.

    Their writer may have died before its write trip. To be called before a process begins to serve, and by
    whoever else mends: a segment that was sealed without this is never looked at again.
    """
    noted = 0

    def note(segment: Path) -> None:
        nonlocal noted
        left = _unnumbered(_last_two(segment))
        if left:
            with (
                _as_journal_error(folder),
                contextlib.closing(Unsettled(folder / "unsettled")) as unsettled,
            ):
                unsettled.note(left)
        noted += len(left)

    mend(folder, note)
    return noted


class _Ids(msgspec.Struct):
    type: str
    kind: str = ""
    transaction_id: str = ""
    transaction: _Subject | None = None


class _Subject(msgspec.Struct):
    transaction_id: str


def _last_two(segment: Path) -> list[Path]:
    """The segment and the one that its writer closed before: a batch may have begun there."""
    writer = segment.name.split("-")[1]
    own = [s for s in segments(segment.parent) if s.name.split("-")[1] == writer and s <= segment]
    return own[-2:]


def _unnumbered(of_one: Sequence[Path]) -> list[str]:
    """Transactions of a writer's segments that were decided in them and got no number in them."""
    decode = msgspec.json.Decoder(_Ids).decode
    decided: dict[str, None] = {}
    for body in chain.from_iterable(map(whole_bodies, of_one)):
        ids = decode(body)
        if ids.type == "decision" and ids.transaction is not None:
            decided[ids.transaction.transaction_id] = None
        elif ids.type == "appended" and ids.kind == "transaction":
            decided.pop(ids.transaction_id, None)
    return list(decided)


_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_REPLIED = tuple(name for name in Reply.__struct_fields__ if name != "transaction_id")


class _Named(msgspec.Struct):
    transaction_id: msgspec.Raw


_decode_named = msgspec.json.Decoder(_Named).decode


def decided_in(body: bytes) -> Decided:
    """From a journalled decision's JSON the digest and the reply, byte for byte as it was sent.

    The record has every field of the reply, written by the same encoder; so their text is put together
    again, and no number is read. Raises JournalError if one is missing.
    """
    fields = _decode_fields(body)
    try:
        transaction = fields["transaction"]
        parts = {name: fields[name] for name in _REPLIED}
        parts["transaction_id"] = _decode_named(transaction).transaction_id
    except (KeyError, msgspec.ValidationError) as missing:
        raise JournalError(
            f"a journalled decision lacks {missing}: it was written by another version, so its reply can't "
            "be told again"
        ) from None
    reply = b",".join(b'"%b":%b' % (n.encode(), parts[n]) for n in Reply.__struct_fields__)
    return Decided(digest_of(bytes(transaction)), b"{%b}" % reply)

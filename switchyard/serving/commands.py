"""Keys and command bytes of the online store: what a trip sends, ready for the wire.

Whoever carries them, the service on its event loop or a sync that may wait, sends the same bytes. Not here:
the replies (``trip``), the connection (``wire``, ``hot_store``), Feast's format (``feast_format``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from switchyard.serving.feast_format import View, entity_key, read_command
from switchyard.serving.scripts import APPEND, TAKE_OVER
from switchyard.serving.trip import Append, Claim, Claimed, Reply, Wanted
from switchyard.serving.wire import command

LEASE_MS = 2_000
"""How long one worker's claim on a transaction id keeps others from deciding it."""
REPLY_SECONDS = 86_400
"""How long the same transaction id gets the same decision."""

_u32 = struct.Struct("<I").pack
_LEASE, _KEPT = b"%d" % LEASE_MS, b"%d" % REPLY_SECONDS
_KEY = b"%b\r\n"
"""In a template, where the first string goes: what its keys begin with is put before it."""
_GET = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"
_CLAIM = (
    b"*7\r\n$3\r\nSET\r\n$%%d\r\n%%b\r\n$33\r\nc%%b%%b\r\n$2\r\nEX\r\n$5\r\n%b\r\n$2\r\nNX\r\n$3\r\nGET\r\n"
    % _KEPT
)
_FINISH = (
    b"*6\r\n$3\r\nSET\r\n$%%d\r\n%%b\r\n$%%d\r\nr%%b%%b\r\n$2\r\nEX\r\n$5\r\n%b\r\n$3\r\nGET\r\n"
    % _KEPT
)


class Commands:
    """The commands of one Feast project and its views; every method gives (payload, replies to come).

    Of what a decision sends most is the same each time: it stands in a template, filled in for a whole batch at once.
    """

    def __init__(self, project: str, views: tuple[View, ...]) -> None:
        self.project = project
        self.views = views
        self._decision = f"{project}:decision:".encode()
        self._epoch = command(b"GET", self.epoch_key)
        marks = b"".join(command(b"GET", self.mark_key(view.name)) for view in views)
        self._marks = marks + self._epoch
        suffix = project.encode()
        self._read = b"".join(map(self._read_template, views))
        self._sizes = [
            (len(entity_key(view, "", suffix)), len(self.activity_key(view.owner, "")))
            for view in views
        ]
        self._claim = _CLAIM.replace(_KEY, self._literal(self._decision) + _KEY, 1)
        self._finish = _FINISH.replace(_KEY, self._literal(self._decision) + _KEY, 1)
        self._append = {view.owner: self._append_template(view.owner) for view in views}

    def read(self, wanted: Sequence[Wanted]) -> tuple[bytes, int]:
        """For each transaction its profiles, activity and, if wanted, its claim; then the views' marks; first
        and last, so that it speaks for all that was read, the epoch."""
        forms, values = [self._literal(self._epoch)], list[object]()
        claims = 0
        for entities, claim in wanted:
            for (profile, activity), entity in zip(self._sizes, entities, strict=True):
                name = entity.encode()
                size = len(name)
                values += profile + size, _u32(size), name, activity + size, name
            forms.append(self._read)
            if claim is not None:
                name = claim.transaction_id.encode()
                values += len(self._decision) + len(name), name, claim.token, claim.digest
                forms.append(self._claim)
                claims += 1
        forms.append(self._literal(self._marks))
        replies = 2 * len(self.views) * len(wanted) + claims + len(self.views) + 2
        return b"".join(forms) % tuple(values), replies

    def take_over(self, claims: Sequence[Claim]) -> tuple[bytes, int]:
        """Claims that somebody else has: ours now, if his time is over."""
        parts = [
            TAKE_OVER.call(self.decision_key(c.transaction_id), c.token, c.digest, _LEASE, _KEPT)
            for c in claims
        ]
        return b"".join(parts), len(parts)

    def write(self, appends: Sequence[Append], replies: Sequence[Reply]) -> tuple[bytes, int]:
        """The epoch, the events, the replies to keep, the epoch; safe to send again as a whole."""
        parts = [self._epoch]
        for owner, entity, record in appends:
            size, form = self._append[owner]
            name = entity.encode()
            parts.append(form % (size + len(name), name, len(record), record))
        parts += map(self._finished, replies)
        parts.append(self._epoch)
        return b"".join(parts), len(parts)

    def put_back(self, replies: Sequence[tuple[str, Claimed]]) -> tuple[bytes, int]:
        """Of transaction ids the replies that were stored before a later one took their place."""
        parts = [self._finished(Reply(name, held.digest, held.reply)) for name, held in replies]
        return b"".join(parts), len(parts)

    # ------------------------------------------------------------ keys

    def activity_key(self, owner: str, entity: str) -> bytes:
        """Key of an activity's blob."""
        return f"{self.project}:activity:{owner}:{entity}".encode()

    def decision_key(self, transaction_id: str) -> bytes:
        """Key of a transaction's claim, later of its reply."""
        return self._decision + transaction_id.encode()

    @property
    def cutoff_key(self) -> bytes:
        """Key of the event time up to which activity was loaded."""
        return f"{self.project}:activity_cutoff".encode()

    @property
    def epoch_key(self) -> bytes:
        """Key of the name under which the store's present content was begun: its numbers count from there."""
        return f"{self.project}:epoch".encode()

    def mark_key(self, view_name: str) -> bytes:
        """Key of a view's newest available_at whose sync is complete."""
        return f"{self.project}:synced:{view_name}".encode()

    def _finished(self, reply: Reply) -> bytes:
        name = reply.transaction_id.encode()
        size = len(self._decision) + len(name)
        return self._finish % (size, name, 17 + len(reply.body), reply.digest, reply.body)

    def _read_template(self, view: View) -> bytes:
        """To be filled in for a profile and an activity: sizes of the keys, the entity and its length."""
        head, tail = read_command(view)
        before, after = self._literal(view.key_head), self._literal(self.project.encode())
        activity = self._literal(self.activity_key(view.owner, ""))
        return b"%b$%%d\r\n%b%%b%%b%b\r\n%b%b" % (
            self._literal(head),
            before,
            after,
            self._literal(tail),
            _GET.replace(_KEY, activity + _KEY, 1),
        )

    def _append_template(self, owner: str) -> tuple[int, bytes]:
        """The size of an activity's key without its entity, and what appends an event to it."""
        key = self.activity_key(owner, "")
        head = self._literal(APPEND.head(1))
        return len(key), b"%b$%%d\r\n%b%%b\r\n$%%d\r\n%%b\r\n" % (head, self._literal(key))

    @staticmethod
    def _literal(text: bytes) -> bytes:
        """As a part of a template that stands for itself."""
        return text.replace(b"%", b"%%")

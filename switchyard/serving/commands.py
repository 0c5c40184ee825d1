"""Keys and command bytes of the online store: what a trip sends, ready for the wire.

Whoever carries them, the service on its event loop or a sync that may wait, sends the same bytes. Not here:
the replies (``trip``), the connection (``wire``, ``hot_store``), Feast's format (``feast_format``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from switchyard.serving.feast_format import View, entity_key, read_command
from switchyard.serving.scripts import APPEND, TAKE_OVER
from switchyard.serving.trip import Append, Claim, Claimed, Reply, Wanted
from switchyard.serving.wire import command

LEASE_MS = 2_000
"""How long one worker's claim on a transaction id keeps others from deciding it."""
REPLY_SECONDS = 86_400
"""How long the same transaction id gets the same decision."""

_LEASE, _KEPT = b"%d" % LEASE_MS, b"%d" % REPLY_SECONDS
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
    """The commands of one Feast project and its views; every method gives (payload, replies to come)."""

    def __init__(self, project: str, views: tuple[View, ...]) -> None:
        self.project = project
        self.views = views
        self._suffix = project.encode()
        self._reads = [read_command(view) for view in views]
        self._activity = [f"{project}:activity:{view.owner}:".encode() for view in views]
        self._decision = f"{project}:decision:".encode()
        self._epoch = command(b"GET", self.epoch_key)
        marks = b"".join(command(b"GET", self.mark_key(view.name)) for view in views)
        self._marks = marks + self._epoch

    def read(self, wanted: Sequence[Wanted]) -> tuple[bytes, int]:
        """For each transaction its profiles, activity and, if wanted, its claim; then the views' marks; last,
        so that it speaks for all that was read, the epoch."""
        parts = [part for each in wanted for part in self._read_parts(each)]
        claims = sum(each.claim is not None for each in wanted)
        replies = 2 * len(self.views) * len(wanted) + claims + len(self.views) + 1
        return b"".join(parts) + self._marks, replies

    def take_over(self, claims: Sequence[Claim]) -> tuple[bytes, int]:
        """Claims that somebody else has: ours now, if his time is over."""
        parts = [
            TAKE_OVER.call(self.decision_key(c.transaction_id), c.token, c.digest, _LEASE, _KEPT)
            for c in claims
        ]
        return b"".join(parts), len(parts)

    def write(self, appends: Sequence[Append], replies: Sequence[Reply]) -> tuple[bytes, int]:
        """The events, the replies to keep, the epoch; safe to send again as a whole."""
        parts = [APPEND.call(self.activity_key(a.owner, a.entity), a.record) for a in appends]
        parts += [self._finish(r) for r in replies]
        parts.append(self._epoch)
        return b"".join(parts), len(parts)

    def put_back(self, replies: Sequence[tuple[str, Claimed]]) -> tuple[bytes, int]:
        """Of transaction ids the replies that were stored before a later one took their place."""
        parts = [self._finish(Reply(name, held.digest, held.reply)) for name, held in replies]
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

    def _read_parts(self, wanted: Wanted) -> Iterator[bytes]:
        for view, (head, tail), activity, entity in zip(
            self.views, self._reads, self._activity, wanted.entities, strict=True
        ):
            key = entity_key(view, entity, self._suffix)
            yield b"%b$%d\r\n%b\r\n%b" % (head, len(key), key, tail)
            key = activity + entity.encode()
            yield _GET % (len(key), key)
        if wanted.claim is not None:
            transaction_id, token, digest = wanted.claim
            key = self.decision_key(transaction_id)
            yield _CLAIM % (len(key), key, token, digest)

    def _finish(self, reply: Reply) -> bytes:
        key = self.decision_key(reply.transaction_id)
        return _FINISH % (len(key), key, 17 + len(reply.body), reply.digest, reply.body)

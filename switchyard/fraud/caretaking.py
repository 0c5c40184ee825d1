"""Keeping the online store at what the journal says, beside the service: each worker has a thread for it.

It notices a store that was emptied or lost what it had acknowledged and has it filled (one worker does it),
and brings decisions to the store that were made without it. Not here: how a store is filled (``rebuild``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from switchyard.errors import JournalError, StoreError, SwitchyardError
from switchyard.fraud.given import numbers_given
from switchyard.fraud.online import online_store_of
from switchyard.fraud.rebuild import refill
from switchyard.fraud.requests import Transaction
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.domain import Domain
from switchyard.serving.engine import Given
from switchyard.serving.journal import journal_of, wall_clock_us
from switchyard.serving.ledger import decided_in
from switchyard.serving.trip import Reply, Written
from switchyard.serving.unsettled import Unsettled
from switchyard.settings import Settings

EVERY_S = 0.5
UNDECIDED_S = 10.0
"""An id that was noted for so long and is in no journal was never decided."""
_GROUP = 200
_log = logging.getLogger(__name__)


class _Decision(msgspec.Struct):
    transaction: Transaction


_decode = msgspec.json.Decoder(_Decision).decode


class Caretaker:
    """One worker's caretaker of the home's online store at ``url``.

    ``newest`` tells the newest number that the store gave to this worker. ``filled`` says whether the store,
    when it last answered, had all that it should have; before the first answer it does not.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        domain: Domain[Transaction],
        newest: Callable[[], Given | None] = lambda: None,
    ) -> None:
        self.filled = False
        self._settings = settings
        self._domain = domain
        self._newest = newest
        self._store = online_store_of(url)
        self._decided = DecidedIndex(settings.journal)
        self._unsettled = Unsettled(settings.journal / "unsettled")
        self._undecided_since: dict[str, float] = {}
        self._server: str | None = None
        """That of which it is known that it lost nothing when it began."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caretaker", daemon=True)

    def start(self) -> None:
        """Take care from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the step that is under way, if that ends soon."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2 * EVERY_S)
        if not self._thread.is_alive():
            self._store.close()
            self._unsettled.close()

    def step(self) -> None:
        """Look once, and do what is to be done. Raises StoreError, JournalError."""
        if self._lost():
            self.filled = False
            self._refill()
        self.filled = True
        if self._unsettled.ids():
            self._settle()

    def _run(self) -> None:
        said = ""
        while not self._stop.is_set():
            try:
                self.step()
                said = ""
            except StoreError as error:
                self._away(str(error), said)
                said = str(error)
            except SwitchyardError as error:
                _log.error("the online store can't be cared for: %s", error)
            except Exception:  # the thread's entry point: the next step may succeed
                _log.exception("a step of the caretaker failed")
            self._stop.wait(EVERY_S)

    def _away(self, words: str, said_before: str) -> None:
        """A store that can't be reached degrades decisions; it is no reason to send nobody here."""
        if words != said_before:
            _log.warning("the online store can't be cared for: %s", words)
        self.filled = True

    def _lost(self) -> bool:
        epoch, newest = self._store.epoch(), self._newest()
        if epoch is None:
            return True
        if newest is not None and newest.epoch == epoch:
            number = self._store.last_number(newest.owner, newest.entity)
            if number < newest.number:
                return True
        server = self._store.server()
        if server != self._server:
            if self._lost_what_it_gave(epoch):
                return True
            if policy := self._store.evicts():
                _log.error(
                    "the online store drops keys when it is full (maxmemory-policy %s): a reply that is dropped "
                    "can be decided twice, and an activity is lost; set noeviction", policy,
                )  # fmt: skip
            self._server = server
        return False

    def _lost_what_it_gave(self, epoch: str) -> bool:
        """Asked of another server than before: what was written since then says nothing of what was lost."""
        given = numbers_given(self._settings.journal, epoch)
        held = self._store.last_numbers("customer", list(given))
        return any(have < number for have, number in zip(held, given.values(), strict=True))

    def _refill(self) -> None:
        with self._store.filling() as lease:
            if self._lost():  # nobody did it while we waited
                refill(self._settings, self._store, lease, wall_clock_us())

    # ------------------------------------------------------------ what was decided without the store

    def _settle(self) -> None:
        """Bring the noted decisions to the store, by one worker at a time."""
        lease = self._store.filling()
        if not lease.renew():
            return
        with journal_of(self._settings) as journal:
            noted = list(self._unsettled.ids())
            for start in range(0, len(noted), _GROUP):
                lease.keep()
                names = noted[start : start + _GROUP]
                found = self._decided.first_of(names, 0)
                if found:
                    journal.append(self._bring(list(found.values())))
                self._unsettled.settle([*found, *self._never_decided(names, found)])
        lease.give_back()

    def _bring(self, bodies: Sequence[bytes]) -> list[dict[str, object]]:
        """Append the transactions and store the replies; journal records of the numbers given."""
        decided = [found for body in bodies if (found := _of_this_version(body))]
        transactions = [transaction for transaction, _ in decided]
        replies = [reply for _, reply in decided]
        appends = [self._domain.appends(transaction) for transaction in transactions]
        written = self._store.write([event for own in appends for event in own], replies)
        _check(written)
        numbers = iter(written.numbers)
        return [
            self._domain.appended(t, "transaction", [next(numbers) or None for _ in own])
            | {"epoch": written.epoch}
            for t, own in zip(transactions, appends, strict=True)
        ]

    def _never_decided(self, names: Sequence[str], found: dict[str, bytes]) -> list[str]:
        """Those whose decision should long be in the journal, and is not."""
        now = time.monotonic()
        since = {n: self._undecided_since.get(n, now) for n in names if n not in found}
        over = [name for name, first in since.items() if now - first > UNDECIDED_S]
        self._undecided_since |= since
        for name in [*found, *over]:
            self._undecided_since.pop(name, None)
        return over


def _of_this_version(body: bytes) -> tuple[Transaction, Reply] | None:
    """A journalled decision's transaction and reply; None, and words in the log, if another version wrote it."""
    try:
        transaction = _decode(body).transaction
        return transaction, Reply(transaction.transaction_id, *decided_in(body))
    except (JournalError, msgspec.ValidationError) as error:
        _log.error("a decision can't be brought to the online store: %s", error)
        return None


def _check(written: Written) -> None:
    if written.epoch is None:
        raise StoreError("the online store was emptied while decisions were brought to it")
    for words in written.refused:
        _log.warning("the online store refused a part of a decision: %s", words)

"""Filling a lost online store from the journal: activity, the replies of 24 hours, the newest profiles.

A store that was emptied has no epoch, one that lost what it had acknowledged gave lower numbers than it
should; either is filled anew under a new epoch, so that what was seen before and after can be told apart.
Not here: noticing it (``caretaking``), the lake's own syncs (``sync``).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from switchyard.errors import JournalError
from switchyard.fraud.assembly import transaction_records, verdict_record
from switchyard.fraud.events import EVENT, KEY, Owner, decode_blob
from switchyard.fraud.gathered import Gathered
from switchyard.fraud.online import label_answer, label_claim
from switchyard.fraud.requests import Label, Transaction
from switchyard.fraud.sliding import DAY_US, KEPT_DAYS
from switchyard.fraud.sync import sync_profiles
from switchyard.lake import Lake, write_parquet
from switchyard.serving.commands import REPLY_SECONDS
from switchyard.serving.journal import journal_of
from switchyard.serving.lease import Lease
from switchyard.serving.ledger import decided_in
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.segments import whole_bodies, written_since
from switchyard.serving.trip import Reply
from switchyard.settings import Settings

_GROUP = 10_000
_REMEMBERED_US = REPLY_SECONDS * 1_000_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refilled:
    """What a lost store was filled with."""

    epoch: str
    keys: int
    replies: int
    profiles: int


def refill(settings: Settings, store: OnlineStore, lease: Lease, now_us: int) -> Refilled:
    """Fill the store from the journal and the lake, under ``lease``; services use it once this is done.

    The new baseline is written down and journalled before the first key is restored. Interrupted, it is
    simply done again. Raises StoreError, JournalError.
    """
    store.end_epoch()
    epoch = secrets.token_hex(8)
    _log.info("the online store is being filled from the journal %s", settings.journal)
    snapshot, cutoff_us = _past(settings, lease, now_us)
    path = settings.activity / f"{epoch}.parquet"
    write_parquet(snapshot, path)
    baseline = {"type": "baseline", "epoch": epoch, "cutoff_us": cutoff_us, "file": path.name}
    with journal_of(settings) as journal:
        journal.append([baseline])
    rows = zip(*(snapshot[name].to_pylist() for name in ("owner", "key", "blob")), strict=True)
    keys = store.restore_activity(rows, lease)
    _log.info("%d activities are restored; replies and profiles follow", keys)
    replies = store.keep_replies(_replies(settings.journal, now_us), lease)
    profiles = _newest_profiles(settings, store)
    if cutoff_us is not None:
        store.raise_activity_cutoff(cutoff_us)
    lease.keep()
    store.begin_epoch(epoch)
    done = Refilled(epoch, keys, replies, profiles)
    _log.info("the online store is filled: %s", done)
    return done


def refill_if_lost(settings: Settings, store: OnlineStore, now_us: int) -> Refilled | None:
    """Fill a store that was emptied, if the journal knows of anything that it may have held; else None.

    What syncs call before they load: they know the lake, but not what was served since.
    """
    with store.filling() as lease:
        if store.epoch() is not None or not _has_a_past(settings.journal, now_us):
            return None
        return refill(settings, store, lease, now_us)


def _has_a_past(folder: Path, now_us: int) -> bool:
    """Not: a baseline. A store is filled once and then served from for years."""
    return any(True for _ in _lines(folder, _oldest_us(now_us)))


def _oldest_us(now_us: int) -> int:
    """What was journalled before counts in no activity."""
    return now_us - (KEPT_DAYS + 1) * DAY_US


class _Line(msgspec.Struct):
    """Of a journal line what matters here."""

    type: str
    received_at: int = 0
    transaction: Transaction | None = None
    transaction_id: str = ""
    customer_id: str = ""
    terminal_id: str = ""
    event_timestamp_us: int = 0
    is_fraud: bool = False
    label_available_at_us: int = 0
    cutoff_us: int | None = None
    file: str | None = None

    @property
    def label(self) -> Label:
        return Label(
            self.transaction_id,
            self.customer_id,
            self.terminal_id,
            self.event_timestamp_us,
            self.is_fraud,
            self.label_available_at_us,
        )


_decode = msgspec.json.Decoder(_Line).decode


def _lines(folder: Path, since_us: int) -> Iterator[tuple[_Line, bytes]]:
    """Lines of the segments written since, and their JSON; of another version's nothing is taken."""
    for segment in written_since(folder, since_us):
        for body in whole_bodies(segment):
            try:
                yield _decode(body), body
            except msgspec.ValidationError as error:
                _log.warning("%s: a record of another version is passed over: %s", segment, error)


# ---------------------------------------------------------------- activity


def _past(settings: Settings, lease: Lease, now_us: int) -> tuple[pa.Table, int | None]:
    """Rows (owner, key, blob) of all that the journal knows of the last 30 days, on top of the newest
    baseline, and that one's cut-off."""
    past = _Past()
    baseline: _Line | None = None
    for count, (line, _) in enumerate(_lines(settings.journal, _oldest_us(now_us)), start=1):
        if line.type == "baseline":
            baseline = _later(baseline, line)
        else:
            past.take(line)
        if count % _GROUP == 0:
            past.gather()
            lease.keep()
    past.gather()
    if baseline is not None and baseline.file is not None:
        past.add_snapshot(settings.activity / baseline.file)
    return past.table(), baseline.cutoff_us if baseline else None


def _later(one: _Line | None, other: _Line) -> _Line:
    """Of two baselines the one that holds more: that of the later cut-off, since the segments' names follow
    a clock that may have been set back; of the same, the one that was read last."""
    if one is None or one.cutoff_us is None:
        return other
    return one if (other.cutoff_us or 0) < one.cutoff_us else other


class _Past:
    """Events of customers and terminals, gathered in groups."""

    def __init__(self) -> None:
        self._gathered = {owner: Gathered(owner) for owner in KEY}
        self._keys: dict[Owner, list[str]] = {owner: [] for owner in KEY}
        self._records: dict[Owner, list[bytes]] = {owner: [] for owner in KEY}

    def take(self, line: _Line) -> None:
        """A transaction, or a verdict 'fraud', as an event of both its keys."""
        if line.transaction is not None:
            customer, terminal = transaction_records(line.transaction)
            self._put("customer", line.transaction.customer_id, customer)
            self._put("terminal", line.transaction.terminal_id, terminal)
        elif line.type == "label" and line.is_fraud:
            record = verdict_record(line.label)
            self._put("customer", line.customer_id, record)
            self._put("terminal", line.terminal_id, record)

    def gather(self) -> None:
        for owner, gathered in self._gathered.items():
            events = np.frombuffer(b"".join(self._records[owner]), EVENT)
            gathered.add(self._keys[owner], events)
            self._keys[owner], self._records[owner] = [], []

    def add_snapshot(self, path: Path) -> None:
        if not path.exists():
            raise JournalError(
                f"the snapshot {path} that the journal names is gone; restore it, or the online store "
                "would be filled with less than it had"
            )
        for row in pq.read_table(path).to_pylist():
            _, events = decode_blob(row["blob"])
            self._gathered[row["owner"]].add([row["key"]] * len(events), events)

    def table(self) -> pa.Table:
        return pa.concat_tables([gathered.table() for gathered in self._gathered.values()])

    def _put(self, owner: Owner, key: str, record: bytes) -> None:
        self._keys[owner].append(key)
        self._records[owner].append(record)


# ---------------------------------------------------------------- replies and profiles


def _replies(folder: Path, now_us: int) -> Iterator[tuple[Reply, int]]:
    """What was answered in the last 24 hours, the first answer first, and for how long it still counts."""
    since_us = now_us - _REMEMBERED_US
    for line, body in _lines(folder, since_us):
        if line.received_at < since_us:
            continue
        seconds = max(1, (line.received_at - since_us) // 1_000_000)
        if line.type == "decision" and line.transaction is not None:
            try:
                digest, reply = decided_in(body)
            except JournalError as error:  # it can't be told again; the others can
                _log.warning("a reply is not restored: %s", error)
                continue
            yield Reply(line.transaction.transaction_id, digest, reply), seconds
        elif line.type == "label":
            label = line.label
            yield Reply(label_claim(label), label.digest, label_answer(label)), seconds


def _newest_profiles(settings: Settings, store: OnlineStore) -> int:
    """Put the newest profiles of the lake online, if it has any; else the ladder helps until the next sync."""
    lake = Lake(settings.lake)
    days = set(lake.days("customer_profiles")) & set(lake.days("terminal_profiles"))
    return sync_profiles(lake, store, max(days)) if days else 0

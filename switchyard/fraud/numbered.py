"""What an online store held of each key, by its own numbers: from a snapshot, carried on by the journal.

A number is given to every event that is appended to a key. ``Numbered`` knows the events up to some number of
each key, and so what a decision saw that says 'up to number n'. Not here: how a journal is read (``stories``),
windows (``sliding``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from switchyard.errors import JournalError
from switchyard.fraud.events import (
    CAPACITY,
    EVENT,
    HEADER,
    Events,
    Ints,
    Owner,
    decode_blob,
    encode_blob,
)
from switchyard.fraud.sliding import KEPT_US

FIRST = int(np.iinfo(np.int64).min)
REMEMBERED_US = 2 * KEPT_US
"""So that decisions on events up to KEPT_US late can still be answered."""
NEVER = int(np.iinfo(np.int64).max)
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("exact_from", pa.int64()),
        ("whole_to", pa.int64()),
        ("events_from", pa.int64()),
        ("blob", pa.large_binary()),
    ]
)


class Appended(NamedTuple):
    """Events as they entered a store: key, event (with its number in ``seq``), when it was received."""

    keys: list[str]
    events: Events
    received: Ints


@dataclass(frozen=True, slots=True)
class Numbered:
    """One owner's keys. ``events[starts[k]:starts[k + 1]]`` are those of ``keys[k]``.

    ``exact_from``: for what was seen up to a number not below it, they suffice (an older event that the store
    no longer kept then is left out). ``whole_to``: no number up to it is missing. ``events_from``: older events
    (microseconds) are left out, so nobody can be answered whose windows reach further back.
    """

    keys: list[str]
    starts: Ints
    events: Events
    exact_from: Ints
    whole_to: Ints
    events_from: int = FIRST

    def of(self, wanted: set[str]) -> Numbered:
        """That of the ``wanted`` keys alone."""
        rows = [k for k, key in enumerate(self.keys) if key in wanted]
        parts = [self.events[self.starts[k] : self.starts[k + 1]] for k in rows]
        return Numbered(
            [self.keys[k] for k in rows],
            _ends(map(len, parts)),
            np.concatenate([np.empty(0, EVENT), *parts]),
            self.exact_from[rows],
            self.whole_to[rows],
            self.events_from,
        )

    def appended(self) -> Appended:
        """Its events, as if each had entered before anything was received."""
        lengths = np.diff(self.starts).tolist()
        keys = [key for key, n in zip(self.keys, lengths, strict=True) for _ in range(n)]
        return Appended(keys, self.events, np.full(len(self.events), FIRST))

    def table(self) -> pa.Table:
        """One row per key, as a snapshot has it (key, blob) and more; ``numbered_in`` reads it back."""
        spans = zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True)
        last = self.whole_to.tolist()
        blobs = [
            encode_blob(number, self.events[start:end])
            for number, (start, end) in zip(last, spans, strict=True)
        ]
        since = np.full(len(self.keys), self.events_from)
        return pa.table([self.keys, self.exact_from, self.whole_to, since, blobs], schema=SCHEMA)


def nothing() -> Numbered:
    """An empty store."""
    none = np.zeros(0, np.int64)
    return Numbered([], np.zeros(1, np.int64), np.empty(0, EVENT), none, none)


def numbered_in(table: pa.Table) -> Numbered:
    """What ``Numbered.table`` wrote."""
    blobs = [blob[HEADER.size :] for blob in table["blob"].to_pylist()]
    events = np.frombuffer(b"".join(blobs), EVENT)
    return Numbered(
        table["key"].to_pylist(),
        _ends(len(blob) // EVENT.itemsize for blob in blobs),
        events,
        table["exact_from"].to_numpy(),
        table["whole_to"].to_numpy(),
        int(table["events_from"][0].as_py()) if len(table) else FIRST,
    )


def of_snapshot(path: Path, owner: Owner, wanted: set[str] | None = None) -> Numbered:
    """What a store was filled with, of all keys or those ``wanted``. Raises JournalError if it is gone."""
    if not path.exists():
        raise JournalError(
            f"the snapshot {path} that the journal names is gone; decisions after it can't be "
            "recomputed without it, so restore it"
        )
    rows = pq.read_table(path, columns=["key", "blob"], filters=[("owner", "=", owner)])
    pairs = zip(rows["key"].to_pylist(), rows["blob"].to_pylist(), strict=True)
    held = [(key, *decode_blob(blob)) for key, blob in pairs if wanted is None or key in wanted]
    last = np.array([number for _, number, _ in held], np.int64)
    return Numbered(
        [key for key, _, _ in held],
        _ends(len(events) for _, _, events in held),
        np.concatenate([np.empty(0, EVENT), *(events for _, _, events in held)]),
        last,
        last,
    )


def carried_on(held: Numbered, more: Appended, seen: Mapping[str, int]) -> Numbered:
    """``held`` with ``more`` appended, and thinned to what later questions need.

    ``seen``: key -> a number that everything asked from now on has seen. Up to it the newest CAPACITY events
    are kept, as the store does; behind it all. What lies REMEMBERED_US before the newest is left out in any case.
    """
    before = held.appended()
    names = list(dict.fromkeys([*held.keys, *more.keys]))
    place = {key: k for k, key in enumerate(names)}
    count = len(held.keys)
    codes = np.array([place[key] for key in [*before.keys, *more.keys]], np.int64)
    events = np.concatenate([before.events, more.events])
    exact, whole = np.zeros((2, len(names)), np.int64)
    exact[:count], whole[:count] = held.exact_from, held.whole_to
    whole = whole_up_to(whole, codes, events["seq"])
    asked = np.array([seen.get(key, 0) for key in names], np.int64)
    exact = np.maximum(exact, np.minimum(asked, whole))
    newest = int(events["event_timestamp"].max(initial=0))
    since = max(held.events_from, newest - REMEMBERED_US)
    inside = (events["event_timestamp"] >= since) | (events["seq"] > exact[codes])
    codes, events = _thinned(codes[inside], events[inside], exact)
    starts = np.searchsorted(codes, np.arange(len(names) + 1))
    return Numbered(names, starts, events, exact, whole, since)


def whole_up_to(whole: Ints, codes: Ints, numbers: Ints) -> Ints:
    """Of each key (0..k-1) the last number before the first that is missing: ``whole`` is known to be there,
    and ``numbers`` of the keys ``codes``.

    >>> whole_up_to(np.array([2, 0]), np.array([0, 0, 0, 1]), np.array([3, 4, 6, 2])).tolist()
    [4, 0]
    """
    numbers = numbers.astype(np.int64)
    behind = numbers > whole[codes]
    pairs = np.unique(np.stack([codes[behind], numbers[behind]]), axis=1)
    firsts = np.searchsorted(pairs[0], np.arange(len(whole)))
    rank = np.arange(pairs.shape[1]) - firsts[pairs[0]]
    joined = pairs[1] == whole[pairs[0]] + 1 + rank
    found: Ints = whole + np.bincount(pairs[0][joined], minlength=len(whole))
    return found


def _thinned(codes: Ints, events: Events, exact: Ints) -> tuple[Ints, Events]:
    """By key; each append once, and up to ``exact`` each event once and only the newest CAPACITY."""
    order = np.lexsort((events["seq"], codes))
    codes, events = codes[order], events[order]
    again = np.zeros(len(codes), np.bool_)
    again[1:] = (codes[1:] == codes[:-1]) & (events["seq"][1:] == events["seq"][:-1])
    codes, events = codes[~again], events[~again]
    later = events["seq"] > exact[codes]
    order = np.lexsort((events["seq"], events["event_id"], events["event_timestamp"], later, codes))
    codes, events, later = codes[order], events[order], later[order]
    same = np.zeros(len(codes), np.bool_)
    same[1:] = (codes[1:] == codes[:-1]) & ~later[1:]
    for name in ("event_timestamp", "event_id"):
        same[1:] &= events[name][1:] == events[name][:-1]
    codes, events, later = codes[~same], events[~same], later[~same]
    old = ~later
    last = np.searchsorted(codes[old], np.arange(codes.max(initial=-1) + 1), side="right")
    from_newest = last[codes[old]] - np.arange(old.sum())
    kept = np.ones(len(codes), np.bool_)
    kept[old] = from_newest <= CAPACITY
    return codes[kept], events[kept]


def _ends(lengths: Iterable[int]) -> Ints:
    """Where each of several lists begins that lie one behind the other, and where the last ends."""
    ends: Ints = np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)
    return ends


def joined(one: Appended, other: Appended) -> Appended:
    return Appended(
        one.keys + other.keys,
        np.concatenate([one.events, other.events]),
        np.concatenate([one.received, other.received]),
    )


def codes_of(keys: Sequence[str]) -> dict[str, int]:
    """A number for each key, in the order in which they come."""
    return {key: code for code, key in enumerate(dict.fromkeys(keys))}

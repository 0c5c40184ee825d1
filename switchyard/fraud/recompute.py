"""Recomputing journalled vectors: what each decision saw, computed again from the lake and the journal.

The one judge of parity: replay, the daily skew check and ``explain`` use it. A decision is recomputed with
the profile days and the newest events that its record says it saw; every bit must come out the same. Not
here: how the journal is written (``switchyard.serving.journal``), the formulas (``features``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from switchyard.errors import JournalError
from switchyard.fraud.columns import FEATURES, LABEL, TRANSACTION, Column, arrow_schema
from switchyard.fraud.events import (
    CAPACITY,
    EVENT,
    MISSING,
    Events,
    Ints,
    Owner,
    decode_blob,
    encode,
)
from switchyard.fraud.features import Floats, requests_of, vectors
from switchyard.fraud.money import minor_units
from switchyard.fraud.sliding import COLUMNS, KEPT_US, compiled, replay
from switchyard.fraud.windows import profiles_as_of, profiles_on
from switchyard.lake import Lake
from switchyard.serving.segments import read_journal
from switchyard.settings import Settings

Bools = npt.NDArray[np.bool_]
Record = dict[str, Any]
_FIRST = int(np.iinfo(np.int64).min)
_LAST = int(np.iinfo(np.int64).max)


class Difference(NamedTuple):
    """One journalled value that did not come out again; ``key`` is (customer_id, terminal_id)."""

    decision_id: str
    feature: str
    key: tuple[str, str]
    served: float
    recomputed: float


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What came out of ``rows`` decisions. The shares are fractions of them.

    ``stale_share``: served with an older profile than the point-in-time join gives for their moment.
    ``late_share``: an event that precedes them in event time reached its key only after they were
    answered; ``simultaneous_share``: one was on its way while they were decided.
    """

    rows: int
    differences: tuple[Difference, ...]
    stale_share: float
    late_share: float
    simultaneous_share: float


def recompute_journal(
    settings: Settings, lake: Lake, span_us: tuple[int, int] | None = None
) -> Recomputed:
    """``recompute`` of the home's journal."""
    return recompute(read_journal(settings.journal), lake, settings.activity, span_us)


def recompute(
    records: Iterable[Record],
    lake: Lake,
    baselines: Path,
    span_us: tuple[int, int] | None = None,
) -> Recomputed:
    """Recompute every decision whose event time lies in ``span_us`` ([from, to); None: all).

    ``records`` in the journal's order; ``baselines`` is the folder of the snapshots they name. What was
    appended counts for a decision if its number in the store is not above the newest it saw; what has no
    number was seen by nobody. A further baseline, and with it another epoch, starts the numbers anew. Raises JournalError if a
    record is not of this code's shape or a snapshot is gone.
    """
    try:
        parts = [_recompute(s, lake, baselines) for s in _stories(records, span_us)]
    except KeyError as missing:
        raise JournalError(
            f"a journal record has no {missing}: it was written by another version; recompute it with "
            "that version's code"
        ) from None
    rows = sum(len(part.late) for part in parts)

    def share(name: str) -> float:
        return float(sum(getattr(part, name).sum() for part in parts) / rows) if rows else 0.0

    differences = tuple(found for part in parts for found in part.differences)
    return Recomputed(rows, differences, share("stale"), share("late"), share("simultaneous"))


# ---------------------------------------------------------------- reading the journal


@dataclass(slots=True)
class _Taken:
    """What was taken in: transactions by id, verdicts 'fraud' by id and arrival, each as it came first."""

    transactions: dict[str, Record] = field(default_factory=dict)
    labels: dict[str, dict[int, Record]] = field(default_factory=lambda: defaultdict(dict))

    def take(self, record: Record) -> None:
        if record["type"] in ("decision", "event"):
            self.transactions.setdefault(record["transaction"]["transaction_id"], record)
        elif record["type"] == "label" and record["is_fraud"]:
            of_one = self.labels[record["transaction_id"]]
            of_one.setdefault(record["label_available_at_us"], record)


@dataclass(slots=True)
class _Story:
    """What belongs to one filling of the store: decisions to check, and the numbers it gave.

    ``own`` is what was taken in meanwhile; what it numbered may also have been journalled before, while the
    store was away: that is in ``all``.
    """

    all: _Taken
    baseline: str | None = None
    own: _Taken = field(default_factory=_Taken)
    decisions: list[Record] = field(default_factory=list)
    numbers: dict[tuple[str, str], list[Record]] = field(default_factory=lambda: defaultdict(list))

    def take(self, record: Record, span: tuple[int, int]) -> None:
        self.own.take(record)
        if record["type"] == "decision":
            inside = span[0] <= record["transaction"]["event_timestamp_us"] < span[1]
            if inside and record["vector"] is not None:
                self.decisions.append(record)
        elif record["type"] == "appended":
            self.numbers[record["kind"], record["transaction_id"]].append(record)

    def subjects(self, kind: str, name: str) -> list[Record]:
        """The records of a transaction, or of its verdicts in the order in which they came."""
        if kind == "transaction":
            found = self.own.transactions.get(name) or self.all.transactions.get(name)
            return [found] if found else []
        return list((self.all.labels.get(name) or {}).values())


def _stories(records: Iterable[Record], span_us: tuple[int, int] | None) -> list[_Story]:
    """One story for each epoch; what names none belongs to the baseline that was journalled last."""
    taken = _Taken()
    by_order = [_Story(taken)]
    by_epoch: dict[str, _Story] = {}
    for record in records:
        epoch = record.get("epoch")
        if epoch is not None and epoch not in by_epoch:
            by_epoch[epoch] = _Story(taken)
        if record["type"] != "baseline":
            taken.take(record)
            story = by_order[-1] if epoch is None else by_epoch[epoch]
            story.take(record, span_us or (_FIRST, _LAST))
        elif epoch is not None:
            by_epoch[epoch].baseline = record["file"]
        else:
            if by_order[-1].baseline is not None:
                by_order.append(_Story(taken))
            by_order[-1].baseline = record["file"]
    return [story for story in [*by_order, *by_epoch.values()] if story.decisions]


def _table(columns: tuple[Column, ...], records: Sequence[Record]) -> pa.Table:
    """Journalled rows as a table of ``columns``; a time stands in the journal as ``<name>_us``."""
    schema = arrow_schema(columns)
    arrays = []
    for column in schema:
        name = f"{column.name}_us" if pa.types.is_timestamp(column.type) else column.name
        values = pa.array([record[name] for record in records])
        arrays.append(values.cast(column.type))
    return pa.table(arrays, schema=schema)


# ---------------------------------------------------------------- one story


class _Part(NamedTuple):
    """Per decision of one story."""

    differences: list[Difference]
    stale: Bools
    late: Bools
    simultaneous: Bools


def _recompute(story: _Story, lake: Lake, baselines: Path) -> _Part:
    transactions = _table(TRANSACTION, [d["transaction"] for d in story.decisions])
    customer = _Seen(story, transactions, baselines, "customer")
    terminal = _Seen(story, transactions, baselines, "terminal")
    days = _journalled(story, "customer_profile_day"), _journalled(story, "terminal_profile_day")
    computed = vectors(
        requests_of(transactions),
        profiles_on(lake, transactions["customer_id"], days[0], "customer"),
        profiles_on(lake, transactions["terminal_id"], days[1], "terminal"),
        customer.windows,
        terminal.windows,
        minor_units(story.decisions[0]["transaction"]["currency"]),
    )
    right = [matrix[:, 0] for matrix in profiles_as_of(lake, transactions)]
    return _Part(
        _differences(story, computed),
        (days[0] < right[0]) | (days[1] < right[1]),
        customer.late | terminal.late,
        customer.simultaneous | terminal.simultaneous,
    )


def _journalled(story: _Story, name: str) -> Ints:
    """A field of the decisions as int64, MISSING where it is null."""
    return np.array([MISSING if d[name] is None else d[name] for d in story.decisions], np.int64)


def _differences(story: _Story, computed: Floats) -> list[Difference]:
    """Where served and recomputed are not equal to the bit (NaN equals NaN)."""
    try:
        served = np.array([decision["vector"] for decision in story.decisions], np.float64)
        both_nan = np.isnan(served) & np.isnan(computed)
    except ValueError:
        raise JournalError(
            f"a journalled vector has not {len(FEATURES)} values: it was written by another version; "
            "recompute it with that version's code"
        ) from None
    differs = (served.view(np.int64) != computed.view(np.int64)) & ~both_nan
    found = []
    for row, column in np.argwhere(differs).tolist():
        decision = story.decisions[row]
        transaction = decision["transaction"]
        found.append(
            Difference(
                decision["decision_id"],
                FEATURES[column].name,
                (transaction["customer_id"], transaction["terminal_id"]),
                float(served[row, column]),
                float(computed[row, column]),
            )
        )
    return found


# ---------------------------------------------------------------- what one owner's keys had seen


class _Appended(NamedTuple):
    """Events as they entered the store: key, event (with its number in ``seq``), when it was received."""

    keys: list[str]
    events: Events
    received: Ints


class _Seen:
    """Windows of each decision over what its key held then, and which decisions missed an event."""

    def __init__(
        self, story: _Story, transactions: pa.Table, baselines: Path, owner: Owner
    ) -> None:
        keys, subjects = encode(transactions, None, owner)
        asked = keys.to_pylist()
        held = _joined(
            _baseline(baselines, story.baseline, owner, set(asked)),
            _numbered(story, owner),
        )
        position = 2 * np.array([d[f"{owner}_seq_seen"] or 0 for d in story.decisions]) + 1
        codes = {key: code for code, key in enumerate(dict.fromkeys([*held.keys, *asked]))}
        of_step = np.array([codes[key] for key in [*held.keys, *asked]], np.int64)
        order = np.lexsort(
            (np.concatenate([2 * held.events["seq"].astype(np.int64), position]), of_step)
        )
        starts = np.searchsorted(of_step[order], np.arange(len(codes) + 1))
        count = len(asked)
        steps = np.concatenate([held.events, subjects])[order]
        rows = np.concatenate([np.full(len(held.events), -1), np.arange(count)])[order]
        enters = rows < 0
        self.windows = np.empty((count, len(COLUMNS[owner])), np.int64)
        replay(starts, steps, rows, enters, self.windows, owner == "customer", CAPACITY)
        self.late, self.simultaneous = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        answered = [d["received_at"] + int(d["latency_ms"] * 1000) for d in story.decisions]
        received = np.concatenate([held.received, np.array(answered, np.int64)])[order]
        _find_missed(starts, steps, rows, received, self.late, self.simultaneous)


def _baseline(folder: Path, file: str | None, owner: Owner, wanted: set[str]) -> _Appended:
    """What the store was filled with, of the keys ``wanted``."""
    keys: list[str] = []
    parts = [np.empty(0, EVENT)]
    for key, blob in _snapshot(folder / file, owner) if file is not None else ():
        if key in wanted:
            _, events = decode_blob(blob)
            keys += [key] * len(events)
            parts.append(events)
    events = np.concatenate(parts)
    return _Appended(keys, events, np.full(len(events), _FIRST))


def _snapshot(path: Path, owner: Owner) -> Iterable[tuple[str, bytes]]:
    if not path.exists():
        raise JournalError(
            f"the snapshot {path} that the journal names is gone; decisions after it can't be "
            "recomputed without it, so restore it"
        )
    rows = pq.read_table(path, filters=[("owner", "=", owner)])
    return zip(rows["key"].to_pylist(), rows["blob"].to_pylist(), strict=True)


def _numbered(story: _Story, owner: Owner) -> _Appended:
    """The journal's transactions and verdicts that have a number in the owner's store."""
    taken = list(_with_numbers(story, owner))
    taken.sort(key=lambda each: "transaction" not in each[0])  # as ``encode`` orders them
    rows = [record["transaction"] for record, _ in taken if "transaction" in record]
    verdicts = [record for record, _ in taken if "transaction" not in record]
    keys, events = encode(_table(TRANSACTION, rows), _table(LABEL, verdicts), owner)
    events["seq"] = [number for _, number in taken]
    received = [record.get("received_at", _LAST) for record, _ in taken]
    return _Appended(keys.to_pylist(), events, np.array(received, np.int64))


def _with_numbers(story: _Story, owner: Owner) -> Iterable[tuple[Record, int]]:
    """Each record with its number. A verdict's number names it by its arrival; where it does not, verdicts
    and numbers of a transaction pair up in their order."""
    for (kind, name), given in story.numbers.items():
        subjects = story.subjects(kind, name)
        by_arrival = {record.get("label_available_at_us"): record for record in subjects}
        numbers = {a[f"{owner}_seq"]: a.get("label_available_at_us") for a in given}
        numbers.pop(None, None)
        for place, (number, arrival) in enumerate(numbers.items()):
            if arrival is not None and arrival in by_arrival:
                yield by_arrival[arrival], number
            elif arrival is None and place < len(subjects):
                yield subjects[place], number


def _joined(one: _Appended, other: _Appended) -> _Appended:
    return _Appended(
        one.keys + other.keys,
        np.concatenate([one.events, other.events]),
        np.concatenate([one.received, other.received]),
    )


def compile_search() -> None:
    """Compile what the search for missed events runs, or find it compiled."""
    none = np.zeros(0, np.int64)
    _find_missed(np.zeros(1, np.int64), np.zeros(0, EVENT), none, none, none > 0, none > 0)


@compiled
def _find_missed(
    starts: Ints, steps: Events, rows: Ints, received: Ints, late: Bools, simultaneous: Bools
) -> None:
    """Mark the decisions (``rows[s] >= 0``) behind which an event entered that precedes them in time.

    ``received`` of a decision is when it was answered: an event received before that was on its way.
    """
    earliest = np.empty(len(steps) + 1, np.int64)
    for k in range(len(starts) - 1):
        end = starts[k + 1]
        earliest[end] = _LAST
        for s in range(end - 1, starts[k] - 1, -1):
            earliest[s] = earliest[s + 1]
            if rows[s] < 0:
                earliest[s] = min(earliest[s], steps[s].event_timestamp)
        for s in range(starts[k], end):
            if rows[s] < 0:
                continue
            now = steps[s].event_timestamp
            j = s + 1
            while earliest[j] < now:
                past = steps[j].event_timestamp
                if rows[j] < 0 and past < now and past >= now - KEPT_US:
                    if received[j] <= received[s]:
                        simultaneous[rows[s]] = True
                    else:
                        late[rows[s]] = True
                j += 1

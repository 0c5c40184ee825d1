"""A journal read as stories: for each filling of the online store the decisions to check, and its numbers.

Here: which record belongs to which epoch, and which events got which number. Not here: computing a vector
again (``recompute``), lines and segments (``switchyard.serving.segments``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from switchyard.fraud.columns import LABEL, TRANSACTION, Column, arrow_schema
from switchyard.fraud.events import Owner, encode
from switchyard.fraud.numbered import NEVER, Appended, Numbered, nothing, of_snapshot

Record = dict[str, Any]
Held = Mapping[Owner, Numbered]
"""What is known of a store before a story begins."""


@dataclass(slots=True)
class Taken:
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
class Story:
    """What belongs to one filling of the store: decisions to check, and the numbers it gave.

    ``own`` is what was taken in meanwhile; what it numbered may also have been journalled before, while the
    store was away: that is in ``all``. ``held``: what an earlier reading of the journal came to; without it
    the story begins with its ``baseline``.
    """

    all: Taken
    epoch: str | None = None
    held: Held | None = None
    baseline: str | None = None
    own: Taken = field(default_factory=Taken)
    decisions: list[Record] = field(default_factory=list)
    numbers: dict[tuple[str, str], list[Record]] = field(default_factory=lambda: defaultdict(list))

    def take(self, record: Record, span: tuple[int, int] | None) -> None:
        self.own.take(record)
        if record["type"] == "decision":
            at = record["transaction"]["event_timestamp_us"]
            inside = span is None or span[0] <= at < span[1]
            if inside and record["vector"] is not None:
                self.decisions.append(record)
        elif record["type"] == "appended":
            self.numbers[record["kind"], record["transaction_id"]].append(record)

    def begins_with(self, owner: Owner, baselines: Path, wanted: set[str] | None) -> Numbered:
        """What the store held of all keys, or of those ``wanted``, when the story begins."""
        if self.held is not None:
            held = self.held[owner]
            return held if wanted is None else held.of(wanted)
        if self.baseline is None:
            return nothing()
        return of_snapshot(baselines / self.baseline, owner, wanted)

    def numbered(self, owner: Owner) -> Appended:
        """The transactions and verdicts that got a number in the owner's store."""
        taken = list(self._with_numbers(owner))
        taken.sort(key=lambda each: "transaction" not in each[0])  # as ``encode`` orders them
        rows = [record["transaction"] for record, _ in taken if "transaction" in record]
        verdicts = [record for record, _ in taken if "transaction" not in record]
        keys, events = encode(table_of(TRANSACTION, rows), table_of(LABEL, verdicts), owner)
        events["seq"] = [number for _, number in taken]
        received = [record.get("received_at", NEVER) for record, _ in taken]
        return Appended(keys.to_pylist(), events, np.array(received, np.int64))

    def _with_numbers(self, owner: Owner) -> Iterator[tuple[Record, int]]:
        """Each record with its number. A verdict's number names it by its arrival; where it does not, verdicts
        and numbers of a transaction pair up in their order."""
        for (kind, name), given in self.numbers.items():
            subjects = self._subjects(kind, name)
            by_arrival = {record.get("label_available_at_us"): record for record in subjects}
            numbers = {a[f"{owner}_seq"]: a.get("label_available_at_us") for a in given}
            numbers.pop(None, None)
            for place, (number, arrival) in enumerate(numbers.items()):
                if arrival is not None and arrival in by_arrival:
                    yield by_arrival[arrival], number
                elif arrival is None and place < len(subjects):
                    yield subjects[place], number

    def _subjects(self, kind: str, name: str) -> list[Record]:
        """The records of a transaction, or of its verdicts in the order in which they came."""
        if kind == "transaction":
            found = self.own.transactions.get(name) or self.all.transactions.get(name)
            return [found] if found else []
        return list((self.all.labels.get(name) or {}).values())


def stories(
    records: Iterable[Record],
    span_us: tuple[int, int] | None = None,
    *,
    taken: Taken | None = None,
    held: Mapping[str, Held] | None = None,
) -> list[Story]:
    """One story for each epoch; what names none belongs to the baseline that was journalled last.

    Decisions to check are those whose event time lies in ``span_us`` ([from, to); None: all). ``taken`` and
    ``held``, by epoch, are what an earlier reading left.
    """
    taken, held = taken or Taken(), held or {}
    by_order = [Story(taken)]
    by_epoch = {epoch: Story(taken, epoch, of_epoch) for epoch, of_epoch in held.items()}
    for record in records:
        epoch = record.get("epoch")
        if epoch is not None and epoch not in by_epoch:
            by_epoch[epoch] = Story(taken, epoch)
        if record["type"] != "baseline":
            taken.take(record)
            story = by_order[-1] if epoch is None else by_epoch[epoch]
            story.take(record, span_us)
        elif epoch is not None:
            by_epoch[epoch].baseline = record["file"]
        else:
            if by_order[-1].baseline is not None:
                by_order.append(Story(taken))
            by_order[-1].baseline = record["file"]
    return [*by_order, *by_epoch.values()]


def table_of(columns: tuple[Column, ...], records: Sequence[Record]) -> pa.Table:
    """Journalled rows as a table of ``columns``; a time stands in the journal as ``<name>_us``."""
    schema = arrow_schema(columns)
    arrays = []
    for column in schema:
        name = f"{column.name}_us" if pa.types.is_timestamp(column.type) else column.name
        values = pa.array([record[name] for record in records])
        arrays.append(values.cast(column.type))
    return pa.table(arrays, schema=schema)

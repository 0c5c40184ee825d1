"""What belongs to one customer: their transactions, the terminals they used, the decisions on them.

Here: finding it in journal and lake, which journal lines it concerns and what is left of them. Not here: the order in
which places are gone through (``forget``), tables of Parquet (``erasure``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.fraud.events import stable_hash
from switchyard.fraud.pseudonyms import Pseudonyms

_IDS = ("transaction_id", "terminal_id", "decision_id")


class _Subject(msgspec.Struct):
    transaction_id: str
    customer_id: str
    terminal_id: str


class _Line(msgspec.Struct):
    """Of a journal line whom it is about."""

    type: str = ""
    transaction: _Subject | None = None
    transaction_id: str = ""
    customer_id: str = ""
    terminal_id: str = ""
    decision_id: str = ""


_decode = msgspec.json.Decoder(_Line).decode


def _parsed(line: bytes) -> _Line | None:
    try:
        return _decode(line[9:])
    except (msgspec.DecodeError, UnicodeDecodeError):  # damaged
        return None


@dataclass(slots=True)
class Footprint:
    """A customer's id, and the ids of what belongs to them."""

    customer_id: str
    transactions: set[str] = field(default_factory=set)
    terminals: set[str] = field(default_factory=set)
    decisions: set[str] = field(default_factory=set)

    def take_segment(self, segment: Path) -> None:
        """Add what a segment says of the customer; nothing if it is gone."""
        try:
            with segment.open("rb") as lines:
                self._take_lines(lines)
        except FileNotFoundError:
            return

    def take_table(self, path: Path) -> None:
        """Add what a table says of the customer, if it has a column of customers."""
        names = pq.read_schema(path).names
        if "customer_id" not in names:
            return
        columns = [name for name in _IDS if name in names]
        rows = pq.read_table(path, columns=["customer_id", *columns])
        rows = rows.filter(pc.equal(rows["customer_id"].cast(pa.string()), self.customer_id))
        for name, known in zip(
            _IDS, (self.transactions, self.terminals, self.decisions), strict=True
        ):
            if name in columns:
                known.update(rows[name].cast(pa.string()).drop_null().to_pylist())

    def concerns(self, line: bytes) -> bool:
        """Whether a journal line is about the customer."""
        told = _parsed(line)
        if told is None:
            return json.dumps(self.customer_id, ensure_ascii=False).encode() in line
        if told.transaction is not None and told.transaction.customer_id == self.customer_id:
            return True
        return (
            told.customer_id == self.customer_id
            or told.transaction_id in self.transactions
            or (told.type == "shadow" and told.decision_id in self.decisions)
        )

    def left_of(self, record: dict[str, Any], pseudonyms: Pseudonyms) -> dict[str, Any] | None:
        """What is left of a journal record that concerns the customer; None: nothing.

        A decision becomes an event: that a payment was made counts at the terminal, not what was thought of it.
        """
        transaction = record.get("transaction")
        if transaction is not None:
            kept: dict[str, Any] = {n: record[n] for n in ("received_at", "epoch") if n in record}
            return {"type": "event", **kept, "transaction": pseudonyms.payment(transaction)}
        if record["type"] == "shadow":
            return None
        if record.get("customer_id") == self.customer_id:
            return pseudonyms.payment(record)
        left = record | {"transaction_id": pseudonyms.transaction(record["transaction_id"])}
        return left | ({"customer_seq": None} if "customer_seq" in record else {})

    def event_ids(self, pseudonyms: Pseudonyms) -> dict[int, int]:
        """Of the activity's events of these transactions, payments and verdicts, the ids of those left."""
        return {
            stable_hash(prefix + own): stable_hash(prefix + pseudonyms.transaction(own))
            for own in self.transactions
            for prefix in ("t:", "l:")
        }

    def _take_lines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            told = _parsed(line)
            if told is None:
                continue
            subject = told.transaction or told
            if subject.customer_id != self.customer_id:
                continue
            self.transactions.add(subject.transaction_id)
            self.terminals.add(subject.terminal_id)
            if told.decision_id:
                self.decisions.add(told.decision_id)

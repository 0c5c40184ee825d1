"""Stand-ins for the ids of somebody who is forgotten, and what is left of a payment under them.

A payment stays with its terminal, amount, time and countries: what a terminal's features are made of. A customer gets
another stand-in at each terminal, so that no path from terminal to terminal is left; within a terminal it is one, since
distinct cards are counted there. Not here: who is forgotten (``tombstones``), where (``forget``).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.fraud.events import EVENT, HEADER, TRANSACTION_KIND, stable_hash

Bools = npt.NDArray[np.bool_]
KEY_BYTES = 32
OF_THE_PERSON = ("device_id", "channel", "source_row")
"""Columns of a payment that say something of who paid and are read by no terminal's feature: null afterwards."""


class Pseudonyms:
    """Stand-ins by a secret ``key``: the same for the same key; whoever throws it away can't make them again."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def fresh(cls) -> Pseudonyms:
        """By a key that nobody keeps."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def customer(self, customer_id: str, terminal_id: str | None) -> str:
        """The customer at that terminal."""
        return self._name(b"customer", f"{customer_id}\0{terminal_id or ''}")

    def transaction(self, transaction_id: str) -> str:
        return self._name(b"transaction", transaction_id)

    def event_id(self, event_id: int) -> int:
        """Of an event whose transaction is not known by its id any more."""
        return stable_hash(self._name(b"event", str(event_id)))

    def _name(self, what: bytes, text: str) -> str:
        digest = hashlib.blake2b(text.encode(), digest_size=16, key=self._key, person=what)
        return f"forgotten-{digest.hexdigest()}"

    # ------------------------------------------------------------ rows, records, activity

    def payment(self, transaction: Mapping[str, Any]) -> dict[str, Any]:
        """What is left of a journalled transaction, or of a verdict."""
        left = dict(transaction) | {name: None for name in OF_THE_PERSON if name in transaction}
        left["transaction_id"] = self.transaction(left["transaction_id"])
        left["customer_id"] = self.customer(left["customer_id"], left["terminal_id"])
        return left

    def rows(self, table: pa.Table, of_them: Bools) -> pa.Table:
        """The table with what is left of the rows ``of_them``; it has the ids of transaction, customer and
        terminal, and keeps order, schema and metadata."""
        places = np.flatnonzero(of_them)
        ids = [table[n].take(pa.array(places)).to_pylist() for n in ("transaction_id", "customer_id", "terminal_id")]  # fmt: skip
        new: dict[str, list[str | None]] = {
            "transaction_id": [None if t is None else self.transaction(t) for t in ids[0]],
            "customer_id": [None if c is None else self.customer(c, t) for c, t in zip(*ids[1:], strict=True)],
        }  # fmt: skip
        new |= {n: [None] * len(places) for n in OF_THE_PERSON if n in table.column_names}
        for name, values in new.items():
            table = with_values(table, name, places, values)
        return table

    def activity(
        self, blob: bytes, customer_id: str, terminal_id: str, event_ids: Mapping[int, int]
    ) -> bytes:
        """A terminal's activity with what is left of the customer's events; the same blob if it has none.

        ``event_ids``: of the events that are known by their transaction's id, payments and verdicts, the ids of
        those that stand for them.
        """
        events = np.frombuffer(blob, EVENT, offset=HEADER.size).copy()
        paid = (events["kind"] == TRANSACTION_KIND) & (events["other"] == stable_hash(customer_id))
        known = np.isin(events["event_id"], np.fromiter(event_ids, np.int64, len(event_ids)))
        for i in np.flatnonzero(paid | known).tolist():
            own = int(events["event_id"][i])
            events["event_id"][i] = event_ids.get(own) or self.event_id(own)
        events["other"][paid] = stable_hash(self.customer(customer_id, terminal_id))
        events["device"][paid] = 0
        if not (paid | known).any():
            return blob
        ordered = events[np.lexsort((events["event_id"], events["event_timestamp"]))]
        return blob[: HEADER.size] + ordered.tobytes()


def with_values(
    table: pa.Table, name: str, places: npt.NDArray[np.int64], values: Sequence[Any]
) -> pa.Table:
    """The table with ``values`` in that column at the rows ``places``."""
    column = table[name].combine_chunks()
    at = np.zeros(len(table), np.bool_)
    at[places] = True
    field = table.schema.field(name)
    replaced = pc.replace_with_mask(column, pa.array(at), pa.array(values, column.type))
    return table.set_column(table.schema.get_field_index(name), field, replaced)

"""Taking one customer out of files: tables of Parquet, snapshots of activity, texts.

A lake's rows that a terminal's features are made of stay, under stand-ins; every other row goes. Each file is written
whole, or not at all. Not here: which files, in which order (``forget``), the journal (``footprint``).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.fraud.activity import customer_windows_of
from switchyard.fraud.checkpoint import PENDING
from switchyard.fraud.columns import LABEL, TRANSACTION, arrow_schema
from switchyard.fraud.footprint import Footprint
from switchyard.fraud.labels import verdicts_beside
from switchyard.fraud.pseudonyms import Bools, Pseudonyms, with_values
from switchyard.fraud.traces import Wanted
from switchyard.lake import Lake, write_parquet, write_text

_PAYMENT = {"transaction_id", "customer_id", "terminal_id", "event_timestamp"}
_ABOUT_THE_PERSON = {"quarantine", "decisions"}
"""Tables whose rows hold a payment, and are no source of any feature."""
_OF_MODELS = {"score", "vector"}


class Erased(NamedTuple):
    """Rows of a file that stay under stand-ins, and rows that are gone."""

    hidden: int = 0
    removed: int = 0


def erase_rows(
    path: Path, footprint: Footprint, pseudonyms: Pseudonyms | None, *, stay: bool, windows: pa.Table | None = None
) -> Erased:  # fmt: skip
    """Take the customer out of one Parquet file, or (without ``pseudonyms``) only count.

    ``stay``: whether rows stay, under stand-ins, if they are payments or verdicts of which features of terminals are made. ``windows``: what
    ``windows_left`` gave, for a table that holds a card's windows.
    """
    rows = _rows_of(path, footprint)
    count = int(rows.sum())
    if not count:
        return Erased()
    stay = stay and _is_of_terminals(path)
    if pseudonyms is not None:
        table = pq.read_table(path)
        table = table.filter(pa.array(~rows)) if not stay else pseudonyms.rows(table, rows)
        if stay and windows is not None:
            table = _with_windows(table, rows, windows)
        write_parquet(table, path)
    return Erased(hidden=count) if stay else Erased(removed=count)


def _is_of_terminals(path: Path) -> bool:
    """Whether a lake's table holds payments or verdicts of which features of terminals are made."""
    names = set(pq.read_schema(path).names)
    told = path.parent.name not in _ABOUT_THE_PERSON and names.isdisjoint(_OF_MODELS)
    return told and names >= _PAYMENT


def windows_left(lake: Lake, footprint: Footprint, pseudonyms: Pseudonyms) -> pa.Table:
    """``transaction_id`` and the card's windows of what is left of the customer's payments in the lake, as they come out
    when ``activity_windows`` is built again."""
    left = [pseudonyms.transaction(name) for name in footprint.transactions]
    transactions = _of(lake, "transactions", left, arrow_schema(TRANSACTION))
    labels = pa.concat_tables(
        [_of(lake, "labels", left, arrow_schema(LABEL)), _beside(lake, transactions)]
    )
    table = transactions.select(["transaction_id"])
    for column in customer_windows_of(transactions, labels):
        table = table.append_column(*column)
    return table


def _beside(lake: Lake, transactions: pa.Table) -> pa.Table:
    """The investigators' verdicts on these transactions."""
    if len(transactions) == 0:
        return arrow_schema(LABEL).empty_table()
    span = pc.min_max(transactions["event_timestamp"]).as_py()
    told = verdicts_beside(lake, span["min"].date(), span["max"].date())
    return told.filter(pc.is_in(told["transaction_id"], transactions["transaction_id"]))


def erase_activity(
    path: Path, footprint: Footprint, pseudonyms: Pseudonyms, *, dry_run: bool
) -> Erased:
    """Take the customer out of a snapshot of activity (owner, key, blob), or of the skew check's checkpoint (``kind``
    too): what waits for its number there stays under stand-ins, as in the journal."""
    table = pq.read_table(path)
    owners, keys, blobs = (table[name].to_pylist() for name in ("owner", "key", "blob"))
    kinds = table["kind"].to_pylist() if "kind" in table.column_names else [None] * len(table)
    event_ids, own = footprint.event_ids(pseudonyms), footprint.customer_id
    gone = np.zeros(len(table), np.bool_)
    changed: dict[int, tuple[str, bytes]] = {}
    for i, (owner, key, blob) in enumerate(zip(owners, keys, blobs, strict=True)):
        if owner == "terminal":
            left = pseudonyms.activity(blob, own, key, event_ids)
            if left != blob:
                changed[i] = key, left
        elif key == own and kinds[i] == PENDING:
            changed[i] = _waiting_left(blob, footprint, pseudonyms)
        elif key == own:
            gone[i] = True
    if (changed or gone.any()) and not dry_run:
        places = np.fromiter(changed, np.int64, len(changed))
        for name, values in zip(("key", "blob"), zip(*changed.values(), strict=True), strict=False):
            table = with_values(table, name, places, values)
        write_parquet(table.filter(pa.array(~gone)), path)
    return Erased(hidden=len(changed), removed=int(gone.sum()))


def _waiting_left(blob: bytes, footprint: Footprint, pseudonyms: Pseudonyms) -> tuple[str, bytes]:
    """Key and blob of what is left of a payment or verdict that waits for its number."""
    left = footprint.left_of(msgspec.json.decode(blob, type=dict), pseudonyms)
    assert left is not None, "only of what a shadow said is nothing left"
    return left.get("transaction", left)["customer_id"], msgspec.json.encode(left)


def erase_text(path: Path, wanted: Wanted, *, dry_run: bool) -> Erased:
    """Take the customer's id out of a text; what is no text stays as it is."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return Erased()
    left, count = wanted.taken_out_of(text)
    if count and not dry_run:
        write_text(left, path)
    return Erased(removed=count)


def _rows_of(path: Path, footprint: Footprint) -> Bools:
    """Which rows are the customer's: by the customer, without such a column by transaction or decision."""
    names = set(pq.read_schema(path).names)
    if "customer_id" in names:
        return _among(path, "customer_id", [footprint.customer_id])
    found = np.zeros(pq.read_metadata(path).num_rows, np.bool_)
    for name, ids in (
        ("transaction_id", footprint.transactions),
        ("decision_id", footprint.decisions),
    ):
        if name in names and ids:
            found |= _among(path, name, ids)
    return found


def _among(path: Path, name: str, ids: Collection[str]) -> Bools:
    column = pq.read_table(path, columns=[name])[name].cast(pa.string())
    return np.asarray(pc.is_in(column, value_set=pa.array(sorted(ids), pa.string())))


def _of(lake: Lake, table: str, transaction_ids: list[str], schema: pa.Schema) -> pa.Table:
    wanted = pc.field("transaction_id").isin(pa.array(transaction_ids, pa.string()))
    days = [lake.path(table, day) for day in lake.days(table)]
    found = [pq.read_table(path, filters=wanted, schema=schema) for path in days]
    return pa.concat_tables([schema.empty_table(), *found])


def _with_windows(table: pa.Table, rows: Bools, windows: pa.Table) -> pa.Table:
    places = np.flatnonzero(rows)
    at = pc.index_in(
        table["transaction_id"].take(pa.array(places)), windows["transaction_id"].combine_chunks()
    )
    known = np.flatnonzero(np.asarray(pc.is_valid(at)))
    for name in windows.column_names[1:]:
        if name in table.column_names:
            values = windows[name].take(at.take(pa.array(known))).to_pylist()
            table = with_values(table, name, places[known], values)
    return table

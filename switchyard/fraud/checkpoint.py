"""How far the journal was read, and what of it later decisions still need: so that each night reads a day.

A checkpoint holds the activity of every key as the journal tells it (not as the store has it, or the store
could not be checked by it), what has no number yet, and decisions that wait for one. One file, written whole.
Not here: reading stories (``stories``), judging them (``skew``).
"""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.fraud.events import KEY, Owner
from switchyard.fraud.numbered import SCHEMA, carried_on, numbered_in
from switchyard.fraud.stories import Held, Record, Story, Taken
from switchyard.lake import write_parquet
from switchyard.serving.rewriting import Rewritten

LAG_US = 2 * 3_600_000_000
"""What is read may lie so far behind: the age of a segment and of what a worker lately read, with room to spare."""
_HEAD = b"switchyard.checkpoint"
PENDING = "pending"
"""``kind`` of the rows whose blob is a record that has no number yet."""
_ACTIVITY, _WAITING = "activity", "waiting"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``offsets``: bytes read of each segment. ``held``: by epoch. ``pending``: transactions and verdicts without
    a number; ``waiting``: decisions not all of whose inputs were there. ``number`` counts the steps since the
    reading ``lineage`` began."""

    lineage: str
    number: int = 0
    offsets: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)
    pending: Sequence[Record] = ()
    waiting: Sequence[Record] = ()

    def taken(self) -> Taken:
        """What a further reading begins with."""
        taken = Taken()
        for record in self.pending:
            taken.take(record)
        return taken


def load(path: Path) -> Checkpoint:
    """The checkpoint, or the beginning of a new reading if there is none."""
    if not path.exists():
        return Checkpoint(secrets.token_hex(8))
    table = pq.read_table(path)
    head = json.loads(table.schema.metadata[_HEAD])
    records = {
        kind: [
            msgspec.json.decode(text, type=dict)
            for text in _rows(table, None, None, kind)["blob"].to_pylist()
        ]
        for kind in (PENDING, _WAITING)
    }
    held = {
        epoch: {owner: numbered_in(_rows(table, epoch, owner, _ACTIVITY)) for owner in KEY}
        for epoch in head["epochs"]
    }
    return Checkpoint(
        head["lineage"], head["number"], head["offsets"], held, records[PENDING], records[_WAITING]
    )


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write it in the place of the last one."""
    parts = [
        _with(part.table(), epoch, owner, _ACTIVITY)
        for epoch, held in checkpoint.held.items()
        for owner, part in held.items()
    ]
    for kind, records in ((PENDING, checkpoint.pending), (_WAITING, checkpoint.waiting)):
        parts.append(_with(_texts(records), None, "customer", kind))
    head = {
        "lineage": checkpoint.lineage,
        "number": checkpoint.number,
        "offsets": dict(checkpoint.offsets),
        "epochs": list(checkpoint.held),
    }
    whole = pa.concat_tables(parts).replace_schema_metadata({_HEAD: json.dumps(head)})
    write_parquet(whole, path)


def go_on_in(path: Path, done: Rewritten) -> None:
    """Have the reading go on in a segment's successor where it is in the segment."""
    if not path.exists():
        return
    head = json.loads(pq.read_schema(path).metadata[_HEAD])
    if done.old.name in head["offsets"]:
        head["offsets"][done.new.name] = done.place(head["offsets"][done.old.name])
        table = pq.read_table(path)
        write_parquet(table.replace_schema_metadata({_HEAD: json.dumps(head)}), path)


def _texts(records: Sequence[Record]) -> pa.Table:
    """Rows under the customer's key, so that whoever forgets a customer finds them as it finds activity."""
    none = [0] * len(records)
    keys = [record.get("transaction", record)["customer_id"] for record in records]
    texts = [msgspec.json.encode(record) for record in records]
    return pa.table([keys, none, none, none, texts], schema=SCHEMA)


def _with(table: pa.Table, epoch: str | None, owner: str, kind: str) -> pa.Table:
    for name, value in (("owner", owner), ("epoch", epoch), ("kind", kind)):
        table = table.append_column(name, pa.array([value] * len(table), pa.string()))
    return table


def _rows(table: pa.Table, epoch: str | None, owner: Owner | None, kind: str) -> pa.Table:
    mine = pc.equal(table["kind"], kind)
    for name, value in (("epoch", epoch), ("owner", owner)):
        if value is not None:
            mine = pc.and_(mine, pc.equal(table[name], value))
    return table.filter(mine)


# ---------------------------------------------------------------- from one to the next


def carry_on(
    last: Checkpoint,
    told: Iterable[Story],
    taken: Taken,
    waiting: Sequence[Record],
    offsets: Mapping[str, int],
    baselines: Path,
) -> Checkpoint:
    """The checkpoint behind the stories ``told``, of whose decisions those ``waiting`` are to be asked again."""
    told = list(told)
    by_epoch = {story.epoch: story for story in told if story.epoch and _says_anything(story)}
    kept = by_epoch or {story.epoch: story for story in told if story.epoch}
    held = {epoch: _held(story, waiting, baselines) for epoch, story in kept.items() if epoch}
    return replace(
        last,
        number=last.number + 1,
        offsets=dict(offsets),
        held=held,
        pending=_pending(taken, told),
        waiting=list(waiting),
    )


def _says_anything(story: Story) -> bool:
    return bool(story.decisions or story.numbers or story.baseline)


def _held(story: Story, waiting: Sequence[Record], baselines: Path) -> Held:
    return {
        owner: carried_on(
            story.begins_with(owner, baselines, None),
            story.numbered(owner),
            _surely_seen(story, waiting, owner),
        )
        for owner in KEY
    }


def _surely_seen(story: Story, waiting: Sequence[Record], owner: Owner) -> dict[str, int]:
    """Of each key a number that whoever is read later has seen: what was seen LAG_US before the newest."""
    newest = max((d["received_at"] for d in story.decisions), default=0)
    seen: dict[str, int] = defaultdict(int)
    for decision in story.decisions:
        if decision["received_at"] < newest - LAG_US:
            key = decision["transaction"][KEY[owner]]
            seen[key] = max(seen[key], decision[f"{owner}_seq_seen"] or 0)
    for decision in waiting:
        key = decision["transaction"][KEY[owner]]
        if key in seen:
            seen[key] = min(seen[key], decision[f"{owner}_seq_seen"] or 0)
    return seen


def _pending(taken: Taken, told: Sequence[Story]) -> list[Record]:
    """What was taken in and has no number, without what only a decision has."""
    given: dict[tuple[str, str], set[int | None]] = defaultdict(set)
    for story in told:
        for name, numbers in story.numbers.items():
            given[name] |= {record.get("label_available_at_us") for record in numbers}
    found: list[Record] = [
        {"type": "event", "transaction": r["transaction"], "received_at": r["received_at"]}
        for name, r in taken.transactions.items()
        if ("transaction", name) not in given
    ]
    for labelled, of_one in taken.labels.items():
        found += [r for at, r in of_one.items() if not given["label", labelled] & {at, None}]
    return found

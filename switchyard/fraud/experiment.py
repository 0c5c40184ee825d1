"""One experiment as its judge takes it, from what the journal says of it and what labels say later.

Each decision counts once: a journal is read on from where the last reading ended, an event day's labels are
taken when it has matured, and both places stand in the state, which is written whole. Decisions whose day has not matured
lie in small files by event day, until the trial has ended. Not here: who is on trial and what follows (``orchestration.rollout``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.fraud.events import stable_hash
from switchyard.fraud.labels import labels_as_of
from switchyard.lake import Lake, write_parquet, write_text
from switchyard.learning import Floats
from switchyard.learning.canary import CanaryState, Decisions
from switchyard.learning.outcomes import Costs, Matured
from switchyard.learning.promise import Promise
from switchyard.learning.slices import CHALLENGER, CONTROL, NEITHER
from switchyard.serving.plan import Mode
from switchyard.serving.replies import MODEL_RUNGS
from switchyard.serving.rewriting import Rewritten
from switchyard.serving.segments import body_of, segments, written_since

LOCK = "rollout.lock"
"""File of the home: its holder alone reads and writes the experiments."""
MOST_WAITING = 8_192
"""Decisions that wait for what the shadow says of them; older ones were dropped by it."""
_ENDED = "ended.json"
"""How a phase ended: the mark that nothing of single decisions is left of it."""
_ARM_OF = {"challenger": CHALLENGER, "control": CONTROL, "champion": NEITHER}
_CODE_OF = {"allow": 0, "review": 1, "block": 2}
_DAY_US = 86_400_000_000
_SEEN = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("arm", pa.int64()),
        ("customer", pa.uint64()),
        ("customer_id", pa.string()),
        ("score", pa.float64()),
        ("decision", pa.int64()),
        ("degraded", pa.bool_()),
        ("error", pa.bool_()),
        ("model_s", pa.float64()),
        ("amount_minor", pa.int64()),
        ("event_us", pa.int64()),
    ]
)
"""A decision of an arm, NaN where there is no score or no time; ``Decisions`` and ``Matured`` are made of it."""
Row = dict[str, Any]


class _Payment(msgspec.Struct):
    transaction_id: str
    customer_id: str
    amount_minor: int
    event_timestamp_us: int


class _Record(msgspec.Struct):
    """What of a journalled decision, or of what the shadow said beside it, the judge is told."""

    type: str
    decision_id: str
    experiment: str
    plan: int
    score: float | None
    decision: str | None
    model_us: float
    variant: str = ""
    degraded: list[str] = []
    transaction: _Payment | None = None


_decode = msgspec.json.Decoder(_Record).decode


class Phase(NamedTuple):
    """The shadow or the canary of an experiment: its salt, its mode, the number and time of the first plan that
    had them (``began_us`` in microseconds of the wall clock)."""

    salt: str
    mode: Mode
    plan: int
    began_us: int


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is known of a phase. ``read``: bytes of each segment that have been read; ``waiting``: decisions that the
    shadow has said nothing of yet, by id; ``files``: how many files of decisions there have been; ``matured``: the
    last event day whose labels were taken; ``late``: decisions that came after their day had matured."""

    canary: CanaryState
    read: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, Row] = field(default_factory=dict)
    files: int = 0
    matured: date | None = None
    late: int = 0

    def stepped(self, share: float) -> Experiment:
        """The same at another share."""
        return replace(self, canary=self.canary.stepped(share))


class Experiments:
    """The experiments of a home, in ``folder``; one process at a time."""

    def __init__(self, folder: Path, journal: Path, lake: Lake) -> None:
        self._folder = folder
        self._journal = journal
        self._lake = lake

    def load(self, phase: Phase) -> Experiment | None:
        """As it was saved last. Raises InputError if another version wrote it."""
        try:
            told = json.loads((self._of(phase) / "state.json").read_text())
        except FileNotFoundError:
            return None
        matured = told.pop("matured")
        return Experiment(
            canary=CanaryState.of_json(told.pop("canary")),
            matured=date.fromisoformat(matured) if matured else None,
            **told,
        )

    def begin(self, phase: Phase, promise: Promise, share: float) -> Experiment:
        """A new one, of which nothing has been read."""
        return Experiment(CanaryState.begin(f"{phase.salt} {phase.mode}", promise, share))

    def read_on(self, phase: Phase, known: Experiment) -> Experiment:
        """What the journal has got since, added and saved."""
        records, read = _read_on(self._journal, phase, known.read)
        rows, waiting = _rows_of(records, phase.mode, known.waiting)
        seen = pa.Table.from_pylist(rows, _SEEN)
        due, late = _not_matured(seen, known.matured)
        self._keep(phase, due, known.files)
        grown = replace(
            known,
            canary=known.canary.plus(_decisions(seen)),
            read=read,
            waiting=waiting,
            files=known.files + 1,
            late=known.late + late,
        )
        self.save(phase, grown)
        return grown

    def mature(self, phase: Phase, known: Experiment, until: date, now: datetime) -> Experiment:
        """The labels of the event days up to ``until`` that are known at ``now``, added day by day and saved;
        stops at a day that was not landed yet."""
        for day in sorted(date.fromisoformat(f.name) for f in self._of(phase).glob("????-??-??")):
            if day > until or not self._lake.has("transactions", day):
                break
            if known.matured is None or day > known.matured:
                matured = self._matured(phase, known, day, now)
                canary = known.canary.matured(matured, Costs())
                known = replace(known, canary=canary, matured=day)
                self.save(phase, known)
            shutil.rmtree(self._of(phase) / str(day))
        return known

    def save(self, phase: Phase, known: Experiment) -> None:
        """The whole state, or the one before stays."""
        state = {
            "canary": known.canary.to_json(),
            "read": known.read,
            "waiting": known.waiting,
            "files": known.files,
            "matured": str(known.matured) if known.matured else None,
            "late": known.late,
        }
        write_text(json.dumps(state), self._of(phase) / "state.json")

    def left(self, salt: str) -> list[Phase]:
        """Phases of other experiments than that of ``salt`` which were not put away yet; only their names are known."""
        folders = (state.parent for state in self._folder.glob("*/state.json"))
        open_ones = sorted(f.name for f in folders if not (f / _ENDED).exists())
        named = (name.rpartition("-") for name in open_ones)
        return [Phase(own, cast(Mode, mode), 0, 0) for own, _, mode in named if own != salt]

    def put_away(self, phase: Phase, record: Mapping[str, Any]) -> None:
        """Keep the sums and ``record`` (JSON) of a phase that has ended, and remove all that is of single decisions.

        May be taken again at any point; the record is written last, and only once.
        """
        if known := self.load(phase):
            self.save(phase, replace(known, waiting={}))
        for day in self._of(phase).glob("????-??-??"):
            shutil.rmtree(day)
        write_text(json.dumps(record, indent=1, default=str) + "\n", self._of(phase) / _ENDED)

    def _of(self, phase: Phase) -> Path:
        return self._folder / f"{phase.salt}-{phase.mode}"

    def _keep(self, phase: Phase, due: pa.Table, number: int) -> None:
        """A reading that is taken again, its state not having been saved, writes the same files again."""
        days = (due["event_us"].to_numpy() // _DAY_US).astype(np.int64)
        for day in np.unique(days):
            folder = self._of(phase) / str(_date(int(day)))
            write_parquet(due.filter(pa.array(days == day)), folder / f"{number:08d}.parquet")

    def _matured(self, phase: Phase, known: Experiment, day: date, now: datetime) -> Matured:
        files = sorted((self._of(phase) / str(day)).glob("[0-9]*.parquet"))
        seen = pa.concat_tables([pq.read_table(file) for file in files])
        labels = labels_as_of(self._lake, day, day, now).select(["transaction_id", "is_fraud"])
        rows = seen.join(labels, "transaction_id", join_type="inner")
        return Matured(
            arm=rows["arm"].to_numpy(),
            customer=rows["customer"].to_numpy(),
            decision=rows["decision"].to_numpy(),
            amount_minor=rows["amount_minor"].to_numpy(),
            is_fraud=rows["is_fraud"].to_numpy(zero_copy_only=False),
            before=self._spent_before(known, rows["customer_id"].to_pylist()),
        )

    def _spent_before(self, known: Experiment, customers: Sequence[str]) -> Floats:
        """Mean amount of each customer over the 30 days before the experiment; NaN for a new one."""
        first_us = known.canary.first_us
        day = _date((first_us or 0) // _DAY_US) - timedelta(days=1)
        if not self._lake.has("customer_profiles", day):
            return np.full(len(customers), np.nan)
        columns = ["customer_id", "customer_amount_sum_30d", "customer_tx_count_30d"]
        profiles = self._lake.read("customer_profiles", day, columns=columns)
        ids, total, count = (profiles[c].to_pylist() for c in columns)
        mean = {i: t / n for i, t, n in zip(ids, total, count, strict=True) if n}
        return np.array([mean.get(customer, np.nan) for customer in customers], np.float64)


def go_on_in(folder: Path, done: Rewritten) -> None:
    """Have the experiments below ``folder`` go on in a segment's successor where they are in the segment."""
    for file in folder.glob("*/state.json"):
        told = json.loads(file.read_text())
        if done.old.name in told["read"]:
            told["read"][done.new.name] = done.place(told["read"][done.old.name])
            write_text(json.dumps(told), file)


def drop_waiting(folder: Path, customer_id: str, *, dry_run: bool = False) -> int:
    """Drop the customer's decisions that wait for what the shadow says of them; how many."""
    dropped = 0
    for file in folder.glob("*/state.json"):
        told = json.loads(file.read_text())
        left = {i: row for i, row in told["waiting"].items() if row["customer_id"] != customer_id}
        dropped += len(told["waiting"]) - len(left)
        if len(left) < len(told["waiting"]) and not dry_run:
            write_text(json.dumps(told | {"waiting": left}), file)
    return dropped


def last_matured(now: datetime, label_delay_days: int) -> date:
    """The last event day that is over for at least the label delay.

    >>> last_matured(datetime(2026, 3, 9, 1, tzinfo=UTC), 7)
    datetime.date(2026, 3, 1)
    """
    return (now - timedelta(days=label_delay_days + 1)).date()


# ---------------------------------------------------------------- from the journal


def _read_on(
    journal: Path, phase: Phase, read: Mapping[str, int]
) -> tuple[list[_Record], dict[str, int]]:
    """The phase's records that were not read yet, segment by segment, and what is read then. A segment that
    ended before the phase is none of it."""
    known = {segment.name: segment for segment in segments(journal)}
    fresh = {segment.name for segment in written_since(journal, phase.began_us)}
    positions = {name: read[name] for name in known if name in read}
    found: list[_Record] = []
    for name, segment in known.items():
        if name in fresh or name in positions:
            records, positions[name] = _records(segment, phase, positions.get(name, 0))
            found += records
    return found, positions


def _records(segment: Path, phase: Phase, start: int) -> tuple[list[_Record], int]:
    mark = b'"experiment":"%b"' % phase.salt.encode()
    found = []
    with segment.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            if not line.endswith(b"\n"):
                break  # it is being written
            start += len(line)
            if mark in line and (record := _whole(line)) and _is_of(record, phase):
                found.append(record)
    return found, start


def _whole(line: bytes) -> _Record | None:
    """None for a damaged line, which the journal's own readers tell of, and for what is no decision."""
    try:
        return _decode(body_of(line[:-1]))
    except ValueError:  # msgspec's errors are such, too
        return None


def _is_of(record: _Record, phase: Phase) -> bool:
    return record.experiment == phase.salt and record.plan >= phase.plan


# ---------------------------------------------------------------- rows


def _rows_of(
    records: Sequence[_Record], mode: Mode, waiting: Mapping[str, Row]
) -> tuple[list[Row], dict[str, Row]]:
    """Rows of the arms, and the decisions that the shadow has yet to say something of."""
    if mode == "shadow":
        return _shadowed(records, waiting)
    decided = (r for r in records if r.type == "decision" and r.variant in _ARM_OF)
    return [_decided(r, _ARM_OF[r.variant]) for r in decided], {}


def _shadowed(
    records: Sequence[_Record], waiting: Mapping[str, Row]
) -> tuple[list[Row], dict[str, Row]]:
    """Pairs: the champion's decision is the control, what the shadow said of it the challenger. Neither is timed: a
    shadow's batches are not those of the decisions."""
    rows, left = [], dict(waiting)
    for record in records:
        if record.type == "decision" and record.variant == "champion":
            left[record.decision_id] = _decided(record, CONTROL) | {"model_s": None}
        elif record.type == "shadow" and (control := left.pop(record.decision_id, None)):
            rows += [control, _beside(record, control)]
    return rows, dict(list(left.items())[-MOST_WAITING:])


def _decided(record: _Record, arm: int) -> Row:
    payment = record.transaction
    assert payment is not None, "a decision is of a transaction"
    return {
        "transaction_id": payment.transaction_id,
        "arm": arm,
        "customer": stable_hash(payment.customer_id) % 2**64,
        "customer_id": payment.customer_id,
        "score": record.score,
        "decision": _CODE_OF.get(record.decision or "allow", 0),
        "degraded": bool(record.degraded),
        "error": not MODEL_RUNGS.isdisjoint(record.degraded),
        "model_s": record.model_us / 1e6,
        "amount_minor": payment.amount_minor,
        "event_us": payment.event_timestamp_us,
    }


def _beside(record: _Record, control: Row) -> Row:
    failed = record.score is None
    return control | {
        "arm": CHALLENGER,
        "score": record.score,
        "decision": _CODE_OF.get(record.decision or "allow", 0),
        "degraded": failed or (control["degraded"] and not control["error"]),
        "error": failed,
    }


def _decisions(seen: pa.Table) -> Decisions:
    return Decisions(
        arm=seen["arm"].to_numpy(),
        customer=seen["customer"].to_numpy(),
        score=_floats(seen["score"]),
        decision=seen["decision"].to_numpy(),
        degraded=seen["degraded"].to_numpy(zero_copy_only=False),
        error=seen["error"].to_numpy(zero_copy_only=False),
        model_s=_floats(seen["model_s"]),
        event_us=seen["event_us"].to_numpy(),
    )


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(pc.fill_null(column, np.nan).to_numpy(), dtype=np.float64)


def _not_matured(seen: pa.Table, matured: date | None) -> tuple[pa.Table, int]:
    """The arms' rows whose labels are still to come, and how many come too late."""
    arms = seen.filter(pc.not_equal(seen["arm"], NEITHER))
    if matured is None:
        return arms, 0
    end = datetime.combine(matured + timedelta(days=1), time(), UTC)
    due = arms.filter(pc.greater_equal(arms["event_us"], int(end.timestamp() * 1e6)))
    return due, len(arms) - len(due)


def _date(days: int) -> date:
    return date(1970, 1, 1) + timedelta(days=days)

"""Recomputing journalled vectors: what each decision saw, computed again from the lake and the journal.

The one judge of parity: replay, the daily skew check and ``explain`` use it. A decision is recomputed with
the profile days and the newest events that its record says it saw; every bit must come out the same. Not
here: how the journal is written (``switchyard.serving.journal``) and read (``stories``), the formulas
(``features``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from switchyard.errors import JournalError
from switchyard.fraud.columns import FEATURES, TRANSACTION
from switchyard.fraud.events import CAPACITY, EVENT, MISSING, Events, Ints, Owner, encode
from switchyard.fraud.features import Floats, requests_of, vectors
from switchyard.fraud.money import minor_units
from switchyard.fraud.numbered import NEVER, Appended, Numbered, codes_of, joined, whole_up_to
from switchyard.fraud.sliding import COLUMNS, KEPT_US, compiled, replay
from switchyard.fraud.stories import Record, Story, stories, table_of
from switchyard.fraud.windows import TABLE, profiles_as_of, profiles_on
from switchyard.lake import Lake
from switchyard.serving.segments import read_journal
from switchyard.settings import Settings

Bools = npt.NDArray[np.bool_]
_EPOCH = date(1970, 1, 1)


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
    with of_this_version():
        told = [story for story in stories(records, span_us) if story.decisions]
        parts = [recompute_story(story, lake, baselines) for story in told]
    rows = sum(len(part.late) for part in parts)

    def share(name: str) -> float:
        return float(sum(getattr(part, name).sum() for part in parts) / rows) if rows else 0.0

    differences = tuple(found for part in parts for found in part.differences)
    return Recomputed(rows, differences, share("stale"), share("late"), share("simultaneous"))


# ---------------------------------------------------------------- one story


class Part(NamedTuple):
    """What came out of the decisions of one story, in their order.

    ``whole``: whether all that a decision saw is there. Where it is not, an event has no journalled number, a
    part of the journal or of the lake is gone, and a difference says nothing.
    """

    differences: list[Difference]
    stale: Bools
    late: Bools
    simultaneous: Bools
    whole: Bools


@contextmanager
def of_this_version() -> Iterator[None]:
    """A field that is missing in a record becomes a JournalError."""
    try:
        yield
    except KeyError as missing:
        raise JournalError(
            f"a journal record has no {missing}: it was written by another version; recompute it with "
            "that version's code"
        ) from None


def recompute_story(story: Story, lake: Lake, baselines: Path) -> Part:
    """Recompute the decisions of a story that has any. Raises JournalError, KeyError as ``recompute``."""
    transactions = table_of(TRANSACTION, [d["transaction"] for d in story.decisions])
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
    return Part(
        _differences(story, computed),
        (days[0] < right[0]) | (days[1] < right[1]),
        customer.late | terminal.late,
        customer.simultaneous | terminal.simultaneous,
        customer.whole
        & terminal.whole
        & _there(lake, days[0], "customer")
        & _there(lake, days[1], "terminal"),
    )


def _there(lake: Lake, days: Ints, owner: Owner) -> Bools:
    """Whether the lake has the profiles of each day (days since 1970, MISSING: none are needed)."""
    gone = [
        day
        for day in np.unique(days[days != MISSING]).tolist()
        if not lake.has(TABLE[owner], _EPOCH + timedelta(days=day))
    ]
    return ~np.isin(days, np.array(gone, np.int64))


def _journalled(story: Story, name: str) -> Ints:
    """A field of the decisions as int64, MISSING where it is null."""
    return np.array([MISSING if d[name] is None else d[name] for d in story.decisions], np.int64)


def _differences(story: Story, computed: Floats) -> list[Difference]:
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


class _Seen:
    """Windows of each decision over what its key held then, and which decisions missed an event."""

    def __init__(self, story: Story, transactions: pa.Table, baselines: Path, owner: Owner) -> None:
        keys, subjects = encode(transactions, None, owner)
        asked = keys.to_pylist()
        before, more = story.begins_with(owner, baselines, set(asked)), story.numbered(owner)
        held = joined(before.appended(), more)
        seen = np.array([d[f"{owner}_seq_seen"] or 0 for d in story.decisions], np.int64)
        codes = codes_of([*before.keys, *held.keys, *asked])
        of_step = np.array([codes[key] for key in [*held.keys, *asked]], np.int64)
        order = np.lexsort(
            (np.concatenate([2 * held.events["seq"].astype(np.int64), 2 * seen + 1]), of_step)
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
        self.whole = _whole(before, held, subjects, codes, of_step[-count:], seen)


def _whole(
    before: Numbered,
    held: Appended,
    subjects: Events,
    codes: dict[str, int],
    keys: Ints,
    seen: Ints,
) -> Bools:
    """Whether every number up to the newest that a decision saw is there, and no event is left out that it saw."""
    known, exact = np.zeros((2, len(codes)), np.int64)
    known[: len(before.keys)], exact[: len(before.keys)] = before.whole_to, before.exact_from
    of_event = np.array([codes[key] for key in held.keys], np.int64)
    known = whole_up_to(known, of_event, held.events["seq"])
    none: Bools = seen == 0
    reach = subjects["event_timestamp"] - KEPT_US >= before.events_from
    return none | ((seen <= known[keys]) & (seen >= exact[keys]) & reach)


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
        earliest[end] = NEVER
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

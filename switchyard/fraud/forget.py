"""Forgetting one customer everywhere in a home: store, journal, lake, cold store, files made of them.

What only describes the person goes. A payment stays under stand-ins with terminal, amount, time and countries, so that
what terminals have seen, and with it every decision on others, comes out again to the bit (decision 9). Killed half-way,
it is finished by running it again. Not here: the parts (``footprint``, ``erasure``, ``pseudonyms``, ``traces``).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from switchyard.errors import ForgettingError
from switchyard.fraud import checkpoint, compaction, experiment, skew
from switchyard.fraud.erasure import (
    Erased,
    erase_activity,
    erase_rows,
    erase_text,
    windows_left,
)
from switchyard.fraud.footprint import Footprint
from switchyard.fraud.forget_requests import Forgotten, Removed, file_of, load, save, write_down
from switchyard.fraud.online import keys_of_customer, keys_of_transaction
from switchyard.fraud.pseudonyms import Pseudonyms
from switchyard.fraud.traces import Trace, Wanted, traces_in_home, traces_in_store
from switchyard.lake import Lake
from switchyard.lock import alone
from switchyard.serving.cold_store import ColdStore
from switchyard.serving.exploration import take_out
from switchyard.serving.lease import Lease
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.rewriting import Rewritten, concerned, finish_rewriting, rewrite
from switchyard.serving.segments import segments
from switchyard.serving.turnover import turn_over
from switchyard.serving.unsettled import Unsettled
from switchyard.settings import Settings

T = TypeVar("T")
Advance = Callable[[str, int, int], None]
NOT_FORGOTTEN = (
    "models and releases that were trained on the customer's payments: train again, and retire the old release",
    "what a training run put into MLflow (figures and pictures over all customers, no rows)",
    "backups, the source itself, and files or object stores outside this home that batch jobs were given",
    "messages that were sent: alerts, and logs that left the home",
)
"""What this can't reach; printed with every run."""
_CUSTOMER_VIEW = "customer_profile"
_MADE_ANEW = ("scratch", "backtest")
"""Folders of the home whose folders are made again from the source."""
_TEXTS = ("monitoring",)
_NO_ROWS = {"releases", "mlflow", "bentoml", "feast", "dagster", "activity", "lake", "forgotten"}
"""Folders of the home without tables of customers, or gone through apart."""


def forget(
    settings: Settings,
    name: str,
    store: OnlineStore,
    cold: ColdStore,
    *,
    now: datetime,
    advance: Advance = lambda _what, _done, _of: None,
) -> Forgotten:
    """Do what a request asks for, search for what still names the customer, and write down what was done.

    The service may run. Raises ForgettingError if the customer is still named somewhere (the request then waits to be
    run again), StoreError or JournalError if a part can't be reached: nothing is half done for good.
    """
    request = load(settings, name)
    pseudonyms = Pseudonyms(bytes.fromhex(request.key))
    work = _Work(settings, request.footprint, pseudonyms, store, cold, advance)
    finish_rewriting(settings.journal)
    turn_over(settings.journal)
    compaction.compact(settings.journal, work.lake)
    with (
        alone(settings.home / experiment.LOCK),
        alone(settings.journal / compaction.LOCK),
        alone(settings.activity / skew.LOCK),
        store.filling() as lease,
    ):
        work.lease = lease
        work.find()
        save(settings, name, request.having_found(work.footprint))
        work.erase()
    said = [store.rewrite_log()]
    _refuse_traces(work.traces(file_of(settings, name)))
    done_at = now.astimezone(UTC).isoformat()
    done = Forgotten(name, request.who, request.why, request.asked_at, done_at, work.removed, said)
    write_down(settings, done)
    file_of(settings, name).unlink(missing_ok=True)
    return done


def would_forget(
    settings: Settings,
    customer_id: str,
    store: OnlineStore,
    cold: ColdStore,
    *,
    advance: Advance = lambda _what, _done, _of: None,
) -> list[Removed]:
    """What ``forget`` would remove as things are; changes nothing."""
    work = _Work(settings, Footprint(customer_id), Pseudonyms.fresh(), store, cold, advance, True)
    work.find()
    work.erase()
    return work.removed


def _refuse_traces(traces: list[Trace]) -> None:
    if not traces:
        return
    shown = "; ".join(f"{trace.place} ({trace.what})" for trace in traces[:5])
    more = f" and {len(traces) - 5} more places" if len(traces) > 5 else ""
    raise ForgettingError(
        f"the customer is still named in {shown}{more}. If their payments still arrive, stop them at the source; "
        "remove a log or a run's record that names them; then run this again"
    )


@dataclass(slots=True)
class _Work:
    """One run: what belongs to the customer, where it is, what was done with it. In a dry run it only counts."""

    settings: Settings
    footprint: Footprint
    pseudonyms: Pseudonyms
    store: OnlineStore
    cold: ColdStore
    advance: Advance
    dry_run: bool = False
    lease: Lease | None = None
    removed: list[Removed] = field(default_factory=list)

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake)

    def find(self) -> None:
        """Find all that belongs to the customer, before anything is removed."""
        for segment in self._each("reading the journal", segments(self.settings.journal)):
            self.footprint.take_segment(segment)
        tables = sorted(self.settings.lake.rglob("*.parquet"))
        for path in self._each("reading the lake", tables):
            self.footprint.take_table(path)

    def erase(self) -> None:
        """The store first: what is in it could be brought back from the journal, not the other way."""
        self._erase_online()
        self._erase_journal()
        self._erase_snapshots()
        self._erase_lake()
        self._erase_other_files()
        self._erase_cold()

    def traces(self, left_out: Path) -> list[Trace]:
        """Where the customer is named still."""
        wanted, found = Wanted(self.footprint.customer_id), self.footprint
        keys = [*keys_of_customer(self.store, found.customer_id)]
        keys += [k for t in found.transactions for k in keys_of_transaction(self.store, t)]
        traces = [
            *traces_in_store(self.store, wanted, keys, self.advance),
            *traces_in_home(self.settings.home, wanted, left_out, self.advance),
        ]
        if self.cold.has(_CUSTOMER_VIEW, found.customer_id):
            traces.append(Trace("the cold store", "holds the customer's profile"))
        return traces

    # ------------------------------------------------------------ place by place

    def _erase_online(self) -> None:
        own, found = self.footprint.customer_id, self.footprint
        do = self.store.count if self.dry_run else self.store.remove
        self._note(
            "online store", "profile and activity removed", do(keys_of_customer(self.store, own))
        )
        replies = (
            k for t in sorted(found.transactions) for k in keys_of_transaction(self.store, t)
        )
        self._note("online store", "replies removed", do(replies))
        event_ids, changed = found.event_ids(self.pseudonyms), 0
        for terminal in self._each("terminals' activity", sorted(found.terminals)):
            changed += self._change_terminal(terminal, event_ids)
        self._note(
            "online store", "activities of terminals with the customer's events hidden", changed
        )

    def _change_terminal(self, terminal: str, event_ids: dict[int, int]) -> bool:
        def left(blob: bytes) -> bytes:
            return self.pseudonyms.activity(blob, self.footprint.customer_id, terminal, event_ids)

        if not self.dry_run:
            return self.store.change_activity("terminal", terminal, left)
        blob = self.store.activity("terminal", terminal)
        return blob is not None and left(blob) != blob

    def _erase_journal(self) -> None:
        folder, lines, rewritten = self.settings.journal, 0, 0
        for segment in self._each("rewriting the journal", segments(folder)):
            count = concerned(segment, self.footprint.concerns)
            if count and not self.dry_run:
                rewrite(
                    segment,
                    self.footprint.concerns,
                    lambda record: self.footprint.left_of(record, self.pseudonyms),
                    self._go_on_in,
                )
            lines, rewritten = lines + count, rewritten + bool(count)
        self._note("journal", f"records hidden or removed, in {rewritten} segments", lines)
        if not self.dry_run and folder.exists():
            with contextlib.closing(Unsettled(folder / "unsettled")) as unsettled:
                unsettled.settle(set(unsettled.ids()) & self.footprint.transactions)

    def _go_on_in(self, done: Rewritten) -> None:
        """Whoever has read a part of the segment goes on behind it."""
        experiment.go_on_in(self.settings.rollouts, done)
        checkpoint.go_on_in(skew.checkpoint_path(self.settings), done)

    def _erase_snapshots(self) -> None:
        files = sorted(self.settings.activity.glob("*.parquet"))
        for path in self._each("snapshots of activity", files):
            self._count(
                "activity/",
                erase_activity(path, self.footprint, self.pseudonyms, dry_run=self.dry_run),
            )

    def _erase_lake(self) -> None:
        """Payments and verdicts before the windows that are computed from what is left of them."""
        files = sorted(self.settings.lake.rglob("*.parquet"))
        of_windows = [p for p in files if p.parent.name == "activity_windows"]
        with_windows = set(of_windows)
        for path in self._each("the lake", [p for p in files if p not in with_windows]):
            self._erase_table(path)
        if not (of_windows and self.footprint.transactions):
            return
        windows = None if self.dry_run else windows_left(self.lake, self.footprint, self.pseudonyms)
        for path in self._each("windows of activity", of_windows):
            done = erase_rows(path, self.footprint, self._writing, stay=True, windows=windows)
            self._count("lake/activity_windows", done)

    def _erase_table(self, path: Path) -> None:
        done = erase_rows(path, self.footprint, self._writing, stay=True)
        self._count(f"lake/{path.parent.name}", done)

    def _erase_other_files(self) -> None:
        home = self.settings.home
        waiting_rows = experiment.drop_waiting(
            self.settings.rollouts, self.footprint.customer_id, dry_run=self.dry_run
        )
        self._note("rollouts/", "decisions that wait for the shadow removed", waiting_rows)
        explored = take_out(
            self.settings.exploration, self.footprint.transactions, dry_run=self.dry_run
        )
        self._note("exploration/", "transactions removed", explored)
        files = [p for p in sorted(home.rglob("*.parquet")) if p.relative_to(home).parts[0] not in _NO_ROWS]  # fmt: skip
        for path in self._each("other tables", files):
            if path.exists():
                self._erase_other_table(path)
        wanted = Wanted(self.footprint.customer_id)
        for folder in _TEXTS:
            for path in sorted(p for p in (home / folder).rglob("*") if p.is_file()):
                self._count(f"{folder}/", erase_text(path, wanted, dry_run=self.dry_run))

    def _erase_other_table(self, path: Path) -> None:
        """A folder that is made anew from the source, or holds a batch job's finished pieces, goes whole."""
        top, *rest = path.relative_to(self.settings.home).parts
        if top not in _MADE_ANEW and not path.parent.name.endswith(".pieces"):
            self._count(f"{top}/", erase_rows(path, self.footprint, self._writing, stay=False))
        elif sum(erase_rows(path, self.footprint, None, stay=False)):
            folder = self.settings.home / top / rest[0] if top in _MADE_ANEW else path.parent
            self._note(f"{top}/", "folders removed, made again when needed", 1)
            if not self.dry_run:
                shutil.rmtree(folder)

    def _erase_cold(self) -> None:
        own = self.footprint.customer_id
        do = self.cold.has if self.dry_run else self.cold.remove
        self._note("cold store", "profiles removed", int(do(_CUSTOMER_VIEW, own)))

    # ------------------------------------------------------------ counting

    @property
    def _writing(self) -> Pseudonyms | None:
        return None if self.dry_run else self.pseudonyms

    def _each(self, what: str, items: list[T]) -> Iterator[T]:
        for i, item in enumerate(items):
            self.advance(what, i, len(items))
            if self.lease is not None:
                self.lease.keep()
            yield item

    def _count(self, place: str, done: Erased) -> None:
        self._note(place, "rows kept under stand-ins", done.hidden)
        self._note(place, "rows removed", done.removed)

    def _note(self, place: str, what: str, count: int) -> None:
        """Add to the line of that place, if there is anything to add."""
        if not count:
            return
        for i, line in enumerate(self.removed):
            if (line.place, line.what) == (place, what):
                self.removed[i] = Removed(place, what, line.count + count)
                return
        self.removed.append(Removed(place, what, count))

"""How long a home keeps what: one function that says what is too old, and one that removes it.

Never what the journal still names, a release that the traffic plan or a deployment names, or an open trial. The journal's
own segments go with their compaction (``compaction.remove_old``), batch jobs' folders with newer jobs
(``serving.jobs``). Not here: forgetting one customer (``forget``).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from switchyard.fraud.compaction import LOCK
from switchyard.fraud.skew import checkpoint_path
from switchyard.lake import Lake, write_parquet
from switchyard.lock import alone
from switchyard.serving.segments import segments
from switchyard.settings import Settings

HISTORY = ("raw_transactions", "raw_labels", "transactions", "labels", "label_ledger",
           "customer_profiles", "terminal_profiles", "activity_windows")  # fmt: skip
"""Kept and removed together: training needs the features of every transaction that is there."""
SERVED = ("decisions", "shadows", "served_events", "batch_scores")
SET_ASIDE = ("quarantine", "refused_labels")
_STRIPPED = b"switchyard.vectors"
_BASELINE = re.compile(rb'"type":"baseline".*?"file":"([^"]+)"')
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class Old(msgspec.Struct, frozen=True):
    """Something that is kept no longer: where, what of it, by which setting, how many and how large."""

    place: str
    what: str
    setting: str
    count: int
    size_bytes: int


def retain(
    settings: Settings, now: datetime, named: Collection[str], *, dry_run: bool = False
) -> list[Old]:
    """Remove what is too old at ``now``, or (``dry_run``) only say what would go.

    ``named``: ids of the releases whose Bentos must stay. Interrupted, it is simply done again.
    """
    lake, gone = Lake(settings.lake), list[Old]()
    for place, setting, paths in _too_old(settings, lake, now, named):
        gone += _removed(place, "removed", setting, paths, dry_run=dry_run)
    with alone(settings.journal / LOCK):  # nobody adds to a day or forgets a customer of it
        return gone + _without_vectors(settings, lake, now, dry_run=dry_run)


def _too_old(
    settings: Settings, lake: Lake, now: datetime, named: Collection[str]
) -> Iterator[tuple[str, str, list[Path]]]:
    """Place, setting, and the files and folders that go."""
    for tables, setting in ((HISTORY, "keep_history_days"), (SET_ASIDE, "keep_quarantine_days"),
                            (SERVED, "keep_served_days")):  # fmt: skip
        before = _before(settings, setting, now)
        for table in tables:
            days = [day for day in lake.days(table) if before and day < before]
            yield f"lake/{table}", setting, [lake.path(table, day) for day in days]
    yield (
        "monitoring/",
        "keep_monitoring_days",
        _dated_before(
            settings.monitoring,
            _before(settings, "keep_monitoring_days", _newest_report(settings, now)),
        ),
    )
    yield (
        "logs/",
        "keep_logs_days",
        _unwritten((settings.home / "logs").glob("*"), settings.keep_logs_days, now),
    )
    yield (
        "bentoml/",
        "keep_bentos_days",
        [
            path
            for path in _unwritten(settings.bentos.glob("*"), settings.keep_bentos_days, now)
            if path.is_dir() and path.name not in named
        ],
    )
    yield (
        "exploration/",
        "keep_logs_days",
        _dated_before(settings.exploration, _before(settings, "keep_logs_days", now)),
    )
    yield "activity/", "journal_days", _snapshots_unnamed(settings, now)


def _before(settings: Settings, setting: str, now: datetime) -> date | None:
    """The first day that is kept; None: all are."""
    days = getattr(settings, setting)
    return None if days is None else (now - timedelta(days=days)).date()


def _newest_report(settings: Settings, now: datetime) -> datetime:
    """When the newest day ended that monitoring has told of, ``now`` at the latest: a home may hold data of long ago."""
    days = [date.fromisoformat(d[0]) for _, d in _dated(settings.monitoring)]
    ended = datetime.combine(max(days, default=now.date()), time.max, now.tzinfo)
    return min(now, ended)


def _dated(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    """Files below the folder that are named after a day, and that day."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [(path, day) for path in files if (day := _DAY.match(path.name))]


def _dated_before(folder: Path, before: date | None) -> list[Path]:
    """Files below the folder that are named after a day before."""
    return [p for p, day in _dated(folder) if before and date.fromisoformat(day[0]) < before]


def _unwritten(paths: Iterable[Path], days: int | None, now: datetime) -> list[Path]:
    """Those that were last written so many days ago."""
    if days is None:
        return []
    oldest = (now - timedelta(days=days)).timestamp()
    return [path for path in sorted(paths) if path.stat().st_mtime < oldest]


def _snapshots_unnamed(settings: Settings, now: datetime) -> list[Path]:
    """Snapshots of activity that no segment of the journal names any more: nothing is recomputed with them."""
    snapshots = set(settings.activity.glob("*.parquet")) - {checkpoint_path(settings)}
    old = _unwritten(snapshots, settings.journal_days, now)
    if not old:
        return []
    named = {
        found.decode()
        for segment in segments(settings.journal)
        for found in _BASELINE.findall(segment.read_bytes())
    }
    return [path for path in old if path.name not in named]


def _without_vectors(settings: Settings, lake: Lake, now: datetime, *, dry_run: bool) -> list[Old]:
    """Days of decisions written anew without vectors and reasons: nine tenths of their size."""
    before, saved = _before(settings, "keep_vectors_days", now), []
    for day in lake.days("decisions"):
        path = lake.path("decisions", day)
        if before is None or day >= before or _STRIPPED in (pq.read_schema(path).metadata or {}):
            continue
        size = path.stat().st_size
        if not dry_run:
            write_parquet(_stripped(pq.read_table(path)), path)
            size -= path.stat().st_size
        saved.append(size)
    what = "days written anew without vectors and reasons"
    return [Old("lake/decisions", what, "keep_vectors_days", len(saved), sum(saved))] if saved else []  # fmt: skip


def _stripped(table: pa.Table) -> pa.Table:
    for name, empty in (("vector", None), ("reasons", [])):
        field = table.schema.field(name)
        column = pa.array([empty] * len(table), field.type)
        table = table.set_column(table.schema.get_field_index(name), field, column)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _STRIPPED: b"removed"})


def _removed(place: str, what: str, setting: str, paths: list[Path], *, dry_run: bool) -> list[Old]:
    if not paths:
        return []
    size = sum(file.stat().st_size for path in paths for file in _files(path))
    for path in paths:
        if dry_run:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return [Old(place, what, setting, len(paths), size)]


def _files(path: Path) -> Iterator[Path]:
    return (file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())

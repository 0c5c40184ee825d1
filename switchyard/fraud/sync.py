"""What goes online: profiles of a day, activity up to a moment.

Here: from the lake to the online store, and what the journal must know of it so that later decisions can
be recomputed. Not here: the format and its rules (``serving.online_store``), the windows (``activity``).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from switchyard.errors import StoreError
from switchyard.fraud import activity
from switchyard.fraud.bodies import label_body, transaction_body
from switchyard.fraud.columns import CUSTOMER_PROFILE, TERMINAL_PROFILE, Column, names
from switchyard.fraud.events import LABEL_DELAY_DAYS, fraud_verdicts
from switchyard.fraud.online import FraudDomain, FraudReader
from switchyard.fraud.requests import Parser
from switchyard.fraud.sliding import KEPT_US
from switchyard.lake import Lake, write_parquet
from switchyard.serving.cold_store import ColdStore
from switchyard.serving.engine import Taken
from switchyard.serving.journal import journal_of
from switchyard.serving.lease import Lease
from switchyard.serving.online_store import OnlineStore
from switchyard.settings import Settings

encode = msgspec.json.encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GROUP = 500
PROFILES: dict[str, tuple[str, str, tuple[Column, ...]]] = {
    "customer_profile": ("customer_profiles", "customer_id", CUSTOMER_PROFILE),
    "terminal_profile": ("terminal_profiles", "terminal_id", TERMINAL_PROFILE),
}
"""View -> its table in the lake, the table's key, its columns."""


@dataclass(frozen=True, slots=True)
class ActivityOnline:
    """What reached the store: keys loaded into an empty one, or events appended to a filled one."""

    keys: int
    events: int


def sync_profiles(lake: Lake, store: OnlineStore, day: date, cold: ColdStore | None = None) -> int:
    """Put the profiles of ``day`` online, and beside it into the cold store; rows written online.

    Rows older than what is there are skipped. Neither store waits for the other to be well: both are
    written, then StoreError is raised if one failed. Repeating it is safe.
    """
    written, failed = 0, []
    for view, (table, key, columns) in PROFILES.items():
        rows = lake.read(table, day)
        matrix = np.column_stack([rows[name].to_numpy() for name in names(columns)])
        profiles = (
            view,
            rows[key].to_pylist(),
            matrix.astype(np.int64),
            rows["available_at"].cast(pa.int64()).to_numpy(),
        )
        for each in (store, cold):
            try:
                rows_written = each.write_profiles(*profiles) if each else 0
            except StoreError as error:
                failed.append(str(error))
            else:
                written += rows_written if each is store else 0
    if failed:
        raise StoreError(f"the profiles of {day} are not everywhere; " + "; ".join(failed))
    return written


def sync_activity(
    lake: Lake, store: OnlineStore, settings: Settings, cutoff: datetime
) -> ActivityOnline:
    """Activity of the lake's events before ``cutoff``: whole into an empty store, else event by event.

    An event that the store holds already changes nothing, so repeating this is safe.
    """
    cutoff_us = _us(cutoff)
    with store.filling() as lease:
        if store.epoch() is None:
            return ActivityOnline(_load(lake, store, settings, cutoff, lease), 0)
    held = store.activity_cutoff()
    if held is None:  # begun by a service, empty
        held = cutoff_us - KEPT_US
    if held >= cutoff_us:
        return ActivityOnline(0, 0)
    return ActivityOnline(0, _catch_up(lake, store, settings, held, cutoff_us))


def _load(
    lake: Lake, store: OnlineStore, settings: Settings, cutoff: datetime, lease: Lease
) -> int:
    """The snapshot is written down and journalled before the first key is loaded, and the store used once
    the last one is."""
    snapshot, epoch, cutoff_us = activity.snapshot(lake, cutoff), secrets.token_hex(8), _us(cutoff)
    path = settings.activity / f"{epoch}.parquet"
    write_parquet(snapshot, path)
    with journal_of(settings) as journal:
        journal.append(
            [{"type": "baseline", "epoch": epoch, "cutoff_us": cutoff_us, "file": path.name}]
        )
    rows = zip(*(snapshot[name].to_pylist() for name in ("owner", "key", "blob")), strict=True)
    loaded = store.restore_activity(rows, lease)
    store.raise_activity_cutoff(cutoff_us)
    store.begin_epoch(epoch)
    return loaded


def _catch_up(
    lake: Lake, store: OnlineStore, settings: Settings, held_us: int, cutoff_us: int
) -> int:
    """Append what happened from ``held_us`` on, in order, journalled as the service journals it."""
    parser = Parser(settings.currency, future_limit=None)
    domain = FraudDomain(parser.minor_units)
    happened = _happened(lake, FraudReader(parser, domain), held_us, cutoff_us)
    with journal_of(settings) as journal:
        for start in range(0, len(happened), _GROUP):
            group = happened[start : start + _GROUP]
            journal.append([_of_source(taken) for taken in group])
            journal.append(_append(store, domain, group))
    store.raise_activity_cutoff(cutoff_us)
    return len(happened)


def _of_source(taken: Taken) -> Mapping[str, Any]:
    """Its record; of a verdict marked, since the label ledger holds those of others."""
    return {**taken.record, "from_source": True} if taken.kind == "label" else taken.record


def _append(store: OnlineStore, domain: FraudDomain, group: list[Taken]) -> list[Any]:
    """Journal records of the numbers that the group's events got."""
    written = store.write([append for taken in group for append in taken.appends])
    if written.refused or written.epoch is None:
        raise StoreError(
            f"the online store did not take an event: {(*written.refused, 'it was emptied')[0]}"
        )
    numbers = iter(written.numbers)
    return [
        domain.appended(taken.subject, taken.kind, [next(numbers) for _ in taken.appends])
        | {"epoch": written.epoch}
        for taken in group
    ]


def _happened(lake: Lake, reader: FraudReader, start_us: int, end_us: int) -> list[Taken]:
    """Transactions and verdicts 'fraud' of the lake with start <= time < end, in order of time."""
    first, last = (_EPOCH + timedelta(microseconds=us) for us in (start_us, end_us - 1))
    rows = lake.read("transactions", first.date(), last.date())
    labels = lake.read("labels", first.date() - timedelta(days=LABEL_DELAY_DAYS), last.date())
    events = [
        (row["event_timestamp"], reader.event(encode(transaction_body(row)), end_us))
        for row in rows.to_pylist()
    ]
    events += [
        (row["label_available_at"], reader.label(encode(label_body(row)), end_us))
        for row in fraud_verdicts(labels).to_pylist()
        if first <= row["label_available_at"] <= last
    ]
    return [taken for _, taken in sorted(events, key=lambda event: event[0])]


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)

"""Sources: where transactions come from. The simulator, a folder of the Handbook, anybody's files.

Each hands over raw days (``raw``); what is wrong with a row is for ``ingest`` to find, what is wrong with a
file is a SourceError of its day. Not here: somebody's own columns and formats (``files``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.errors import SourceError
from switchyard.fraud.column_map import load_column_map
from switchyard.fraud.files import FileSource
from switchyard.fraud.moments import parse_moments
from switchyard.fraud.raw import KEYS, RAW, RawDay, Source, label_table, raw_table
from switchyard.fraud.simulate import NEW_TACTICS, Shift, Simulator, SimulatorConfig
from switchyard.fraud.tombstones import Tombstones, WithoutTheForgotten
from switchyard.settings import Settings

__all__ = [
    "RAW",
    "FileSource",
    "HandbookSource",
    "RawDay",
    "SimulatorSource",
    "Source",
    "source_of",
]

_HANDBOOK = {
    "TRANSACTION_ID": pa.types.is_integer,
    "TX_DATETIME": pa.types.is_timestamp,
    "CUSTOMER_ID": pa.types.is_integer,
    "TERMINAL_ID": pa.types.is_integer,
    "TX_AMOUNT": pa.types.is_floating,
    "TX_FRAUD": pa.types.is_integer,
}
"""The columns read; the fraud's scenario, which nobody can know, is none of them."""


class SimulatorSource:
    """Days of a simulated world, ``days_held`` of them, or without end."""

    name = "simulator"

    def __init__(self, config: SimulatorConfig, days_held: int | None = None) -> None:
        self._config = config
        self._days_held = days_held

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self._config)

    def days(self) -> tuple[date, date] | None:
        first = self._config.first_day
        return (first, first + timedelta(days=self._days_held - 1)) if self._days_held else None

    def read(self, day: date) -> RawDay:
        """Raises SourceError for a day before or after those of the world."""
        bounds = self.days()
        if bounds and day > bounds[1]:
            raise SourceError(f"the simulated world ends on {bounds[1]}; {day} lies after it")
        simulated = self._simulator.day(day)
        columns = {name: simulated.transactions[name].combine_chunks() for name in RAW}
        file = f"simulator-{self._config.seed}"
        rows = simulated.transactions.num_rows
        return RawDay(raw_table(columns, rows, file), simulated.labels, file)


@dataclass(frozen=True, slots=True)
class HandbookSource:
    """A folder of daily Parquet files as the Handbook's simulator writes them, times in UTC.

    Source: Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection. Each verdict
    is known ``label_delay_days`` after its transaction. ``since`` leaves earlier days out.
    """

    folder: Path
    currency: str = "EUR"
    label_delay_days: int = 7
    since: date | None = None
    name: str = "handbook"

    def days(self) -> tuple[date, date]:
        """First and last day by the files' names. Raises SourceError if there is none."""
        found = sorted(day for p in self.folder.glob("*.parquet") if (day := _dated(p.stem)))
        inside = [day for day in found if self.since is None or day >= self.since]
        if not inside:
            raise SourceError(
                f"{self.folder} holds no daily file"
                + (f" from {self.since} on" if found else "")
                + "; the Handbook's are named like 2018-04-01.parquet"
            )
        return inside[0], inside[-1]

    def read(self, day: date) -> RawDay:
        """Raises SourceError, naming file and column, if the day's file is missing, cut off or another."""
        path = self.folder / f"{day.isoformat()}.parquet"
        table = self._table(path)
        moments = parse_moments(table["TX_DATETIME"], zone="UTC")
        keys = {ours: table[ours.upper()].combine_chunks().cast(pa.string()) for ours in KEYS}
        columns = keys | {
            "amount": table["TX_AMOUNT"].combine_chunks(),
            "currency": pa.array([self.currency] * table.num_rows, pa.string()),
            "event_timestamp": moments,
        }
        delay = pa.scalar(timedelta(days=self.label_delay_days), pa.duration("us"))
        is_fraud = _verdicts(table["TX_FRAUD"].combine_chunks(), path.name)
        labels = label_table(keys, moments, is_fraud, pc.add(moments, delay))
        return RawDay(raw_table(columns, table.num_rows, path.name), labels, path.name)

    def _table(self, path: Path) -> pa.Table:
        try:
            with pq.ParquetFile(path) as file:
                _check_handbook(path.name, file.schema_arrow)
                table = file.read(columns=list(_HANDBOOK))
        except FileNotFoundError:
            first, last = self.days()
            raise SourceError(
                f"{path} does not exist; the folder holds {first} to {last}"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"{path.name}: is no whole Parquet file (empty, cut off or damaged): "
                f"{str(error).splitlines()[0]}"
            ) from None
        if table.num_rows == 0:
            raise SourceError(f"{path.name}: holds no rows; it must hold at least one transaction")
        return table


def source_of(settings: Settings, *, now: datetime | None = None) -> Source:
    """The source that the settings name, without those whom the home has forgotten.

    With ``now``, rows of files that lie after its day are not filed under days to come but read with their
    file's first day, so that they are quarantined as 'future_time' at once. Raises SourceError if the
    setting ``data`` or ``column_map`` is missing or wrong.
    """
    return WithoutTheForgotten(_named(settings, now), Tombstones(settings.forgotten))


def _named(settings: Settings, now: datetime | None) -> Source:
    if settings.source == "simulator":
        return SimulatorSource(_config_of(settings), settings.simulated_days)
    if settings.data is None:
        raise SourceError(
            f"source '{settings.source}' needs its folder or file: --data, or SWITCHYARD_DATA"
        )
    if settings.source == "handbook":
        return HandbookSource(
            settings.data, settings.currency, settings.label_delay_days, settings.first_day
        )
    if settings.column_map is None:
        raise SourceError(
            "source 'file' needs a column map: --column-map, or SWITCHYARD_COLUMN_MAP"
        )
    return FileSource(
        path=settings.data,
        columns=load_column_map(settings.column_map),
        scratch=settings.home / "scratch",
        currency=settings.currency,
        since=settings.first_day,
        until=now.date() if now else None,
    )


def _config_of(settings: Settings) -> SimulatorConfig:
    return SimulatorConfig(
        seed=settings.seed,
        first_day=settings.start_day,
        customers=settings.customers,
        terminals=settings.terminals,
        transactions_per_day=settings.transactions_per_day,
        currency=settings.currency,
        shifts=_shifts_of(settings),
    )


def _shifts_of(settings: Settings) -> tuple[Shift, ...]:
    if settings.simulated_change_day is None:
        return ()
    day = settings.start_day + timedelta(days=settings.simulated_change_day)
    return (Shift(day, tactics=NEW_TACTICS),)


def _check_handbook(file: str, schema: pa.Schema) -> None:
    for name, is_right in _HANDBOOK.items():
        if schema.names.count(name) != 1:
            raise SourceError(
                f"{file}: column '{name}' is missing; the file has {', '.join(schema.names)}"
            )
        if not is_right(schema.field(name).type):
            raise SourceError(
                f"{file}: column '{name}' holds {schema.field(name).type}, which is not the Handbook's"
            )


def _verdicts(column: pa.Array, file: str) -> pa.Array:
    wrong = pc.invert(
        pc.fill_null(pc.is_in(column, value_set=pa.array([0, 1], column.type)), False)
    )
    rows = pc.indices_nonzero(wrong)
    if len(rows):
        row = rows[0].as_py()
        raise SourceError(
            f"{file}: column 'TX_FRAUD', row {row + 1} holds {column[row].as_py()}; it must be 0 or 1"
        )
    return pc.equal(column, pa.scalar(1, column.type))


def _dated(stem: str) -> date | None:
    try:
        return date.fromisoformat(stem)
    except ValueError:
        return None

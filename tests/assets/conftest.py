"""Folders of daily files as somebody else's system would deliver them, and homes that read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import csv

from switchyard.fraud.simulate import Simulator, SimulatorConfig
from tests.homes import Home

FIRST = date(2026, 1, 1)
COLUMN_MAP = {
    "columns": {
        "transaction_id": "id",
        "customer_id": "card",
        "terminal_id": "shop",
        "amount": "paid",
        "event_timestamp": "booked_at",
        "is_fraud": "fraud",
    },
    "label_delay_days": 7,
    "constants": {"currency": "EUR"},
}


@dataclass(frozen=True)
class Delivery:
    """A folder of files, one a day, and the map of their columns."""

    folder: Path
    column_map: Path

    def rows(self, day: date) -> pa.Table:
        """What happened on ``day``, with the deliverer's column names."""
        world = Simulator(SimulatorConfig(customers=60, terminals=20, transactions_per_day=80))
        simulated = world.day(day)
        rows = simulated.transactions
        columns = {theirs: rows[ours] for ours, theirs in COLUMN_MAP["columns"].items()
                   if ours != "is_fraud"}  # fmt: skip
        return pa.table(columns | {"fraud": simulated.labels["is_fraud"].cast(pa.int8())})

    def parquet(self, day: date, rows: pa.Table | None = None, name: str = "") -> Path:
        path = self.folder / (name or f"{day}.parquet")
        pq.write_table(rows if rows is not None else self.rows(day), path)
        return path

    def csv(self, day: date, rows: pa.Table | None = None) -> Path:
        path = self.folder / f"{day}.csv"
        table = rows if rows is not None else self.rows(day)
        texts = [pc.cast(column, pa.string()) for column in table.columns]
        csv.write_csv(pa.table(texts, names=table.column_names), path)
        return path


@pytest.fixture
def delivery(tmp_path: Path) -> Delivery:
    folder = tmp_path / "delivered"
    folder.mkdir()
    column_map = tmp_path / "map.yaml"
    column_map.write_text(yaml.safe_dump(COLUMN_MAP))
    return Delivery(folder, column_map)


@pytest.fixture
def reading(new_home: Callable[..., Home], delivery: Delivery) -> Callable[[], Home]:
    """Opens the home that reads the delivery, as it is by then."""

    def open_home() -> Home:
        return new_home(source="file", data=delivery.folder, column_map=delivery.column_map)

    return open_home


def days(count: int) -> list[date]:
    return [FIRST + timedelta(days=n) for n in range(count)]

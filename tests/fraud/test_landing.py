"""Landing: an id is a repeat for 35 days; after that it is another transaction, with its own verdict."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from switchyard.fraud.activity import build_activity
from switchyard.fraud.column_map import load_column_map
from switchyard.fraud.dataset import dataset_of
from switchyard.fraud.features import activity_of
from switchyard.fraud.files import FileSource
from switchyard.fraud.landing import REPEAT_DAYS, Validated, land_raw, validate_days
from switchyard.lake import Lake

FIRST = date(2026, 1, 5)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
MAP = """
columns: {transaction_id: id, customer_id: card, terminal_id: shop, amount: amount, event_timestamp: time,
          is_fraud: fraud, label_available_at: known}
"""


def landed_twice(folder: Path, days_apart: int) -> tuple[Lake, Validated, date]:
    """A lake that holds the id 'a' twice, fraudulent the second time."""
    again = FIRST + timedelta(days=days_apart)
    known = again + timedelta(days=3)
    (folder / "map.yaml").write_text(MAP)
    (folder / "a.csv").write_text(
        "id,card,shop,amount,time,fraud,known\n"
        f"a,C,T,1.00,{FIRST}T12:00:00Z,0,{known}T00:00:00Z\n"
        f"b,C,T,2.00,{again}T10:00:00Z,0,{known}T00:00:00Z\n"
        f"a,C,T,3.00,{again}T12:00:00Z,1,{known}T00:00:00Z\n"
    )
    columns = load_column_map(folder / "map.yaml")
    source = FileSource(folder / "a.csv", columns, folder / "scratch", "EUR")
    lake = Lake(folder / "lake")
    days = [FIRST, again]
    land_raw(source, lake, days)
    return lake, validate_days(lake, days, now=NOW, currency="EUR"), again


@pytest.mark.parametrize(
    ("days_apart", "repeats"), [(1, 1), (REPEAT_DAYS, 1), (REPEAT_DAYS + 1, 0)]
)
def test_an_id_is_a_repeat_for_35_days(tmp_path: Path, days_apart: int, repeats: int) -> None:
    _, found, again = landed_twice(tmp_path, days_apart)

    assert found.reasons["repeated_id"] == repeats
    assert found.clean == {FIRST: 1, again: 2 - repeats}


def test_an_id_that_comes_again_later_keeps_its_own_verdict_and_activity(tmp_path: Path) -> None:
    lake, _, again = landed_twice(tmp_path, REPEAT_DAYS + 1)
    build_activity(lake, FIRST, again)
    rows = lake.read("transactions", FIRST, again)

    data = dataset_of(rows, lake.read("labels", FIRST, again), np.zeros((3, 50)), NOW)
    customer, _ = activity_of(lake, rows)

    assert data.transaction_id.to_pylist() == ["a", "b", "a"]
    assert data.is_fraud.tolist() == [0, 0, 1]
    windows = lake.read("activity_windows", FIRST, again)
    assert customer[:, 0].tolist() == windows[windows.column_names[4]].to_pylist()
    assert customer[0].tolist() != customer[2].tolist()

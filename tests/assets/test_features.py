"""Profiles and activity by day and by range: the order and number of runs make no difference."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import pyarrow as pa

from tests.assets.conftest import Delivery, days
from tests.homes import Home

FEW = {"customers": 60, "terminals": 20, "transactions_per_day": 80, "simulated_days": 6, "days": 5}
TABLES = ("transactions", "quarantine", "labels", "customer_profiles", "terminal_profiles",
          "activity_windows")  # fmt: skip


def tables(home: Home, count: int) -> dict[str, pa.Table]:
    """Every table of the first days; when it was written is not what it says."""
    first, last = days(count)[0], days(count)[-1]
    read = {name: home.lake.read(name, first, last) for name in TABLES}
    return {
        name: rows.drop_columns(["created_at"]) if "created_at" in rows.column_names else rows
        for name, rows in read.items()
    }


def test_backfilling_a_range_again_gives_equal_tables(new_home: Callable[..., Home]) -> None:
    home = new_home(**FEW)
    home.run("land", days(5))
    before = tables(home, 5)

    home.run("land", days(5)[1:4])

    assert tables(home, 5) == before
    assert before["customer_profiles"].num_rows > 100


def test_days_run_one_by_one_equal_the_range_run_at_once(new_home: Callable[..., Home]) -> None:
    at_once, one_by_one = new_home("at-once", **FEW), new_home("one-by-one", **FEW)
    at_once.run("land", days(3))

    for day in days(3):
        one_by_one.run("land", [day])

    assert tables(one_by_one, 3) == tables(at_once, 3)


def test_a_day_without_a_readable_file_leaves_the_features_of_the_others(
    reading: Callable[[], Home], delivery: Delivery
) -> None:
    for day in days(4):
        delivery.parquet(day)
    (delivery.folder / "2026-01-03.parquet").write_bytes(b"no Parquet")
    home = reading()

    findings = home.run("land", days(4))

    def held(table: str) -> list[date]:
        return home.lake.days(table)

    assert [f.check for f in findings] == ["every_file_is_readable"]
    assert held("transactions") == held("activity_windows") == [days(4)[n] for n in (0, 1, 3)]
    assert set(held("customer_profiles")) >= set(held("transactions"))


def test_profiles_of_a_day_go_online_at_two_the_next_morning_and_not_before(
    new_home: Callable[..., Home],
) -> None:
    home = new_home(**FEW)
    home.run("land", days(3))
    online = {"ops": {"online_profiles": {"config": {"as_of": str(days(3)[-1])}}}}

    home.materialize("feature_registry")
    result = home.materialize("online_profiles", days=days(3), config=online)

    rows = result.asset_materializations_for_node("online_profiles")
    told = {m.partition: m.metadata["dagster/partition_row_count"].value for m in rows
            if "dagster/partition_row_count" in m.metadata}  # fmt: skip
    due = days(3)[0]
    assert told == {str(due): home.lake.read("customer_profiles", due).num_rows
                    + home.lake.read("terminal_profiles", due).num_rows}  # fmt: skip
    assert days(3)[-1] - due == timedelta(days=2)

"""The sensor on landed days asks for what is new, and says in words when nothing is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import dagster as dg
import pyarrow as pa

from switchyard.lake import Lake
from tests.homes import Home


def tick(home: Home, cursor: str | None = None) -> dg.SensorDefinition:
    """What one tick of ``on_new_day`` decided."""
    sensor = home.defs.resolve_sensor_def("on_new_day")
    repository = home.defs.get_repository_def()
    context = dg.build_sensor_context(
        home.instance, cursor, repository_def=repository,
        resources={"lake": home.lake, "source": home.source},
    )  # fmt: skip
    with context:
        return sensor.evaluate_tick(context)


def land(lake: Lake, *days: date) -> None:
    for day in days:
        lake.write("transactions", day, pa.table({"transaction_id": ["t"]}))


def test_it_asks_for_every_day_after_the_last_ingested_one(new_home: Callable[..., Home]) -> None:
    home = new_home(simulated_days=4)
    land(home.lake, date(2026, 1, 1))

    decided = tick(home)

    assert [r.partition_key for r in decided.run_requests] == [
        "2026-01-02", "2026-01-03", "2026-01-04",
    ]  # fmt: skip
    assert decided.cursor == "2026-01-04"


def test_it_asks_for_ten_days_at_a_tick_and_for_the_rest_at_the_next(
    new_home: Callable[..., Home],
) -> None:
    home = new_home(simulated_days=12)

    first = tick(home)
    second = tick(home, first.cursor)

    assert len(first.run_requests) == 10
    assert [r.partition_key for r in second.run_requests] == ["2026-01-11", "2026-01-12"]


def test_it_says_in_words_that_nothing_is_new(new_home: Callable[..., Home]) -> None:
    home = new_home(simulated_days=4)
    land(home.lake, date(2026, 1, 4))

    decided = tick(home)

    assert decided.run_requests == []
    assert decided.skip_message == (
        "No day has landed after 2026-01-04; the source ends with 2026-01-04."
    )

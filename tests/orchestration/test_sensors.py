"""The sensor on landed days asks for what is new, and says in words when nothing is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa

from switchyard.lake import Lake
from tests.homes import Home

MAP = """\
columns: {transaction_id: id, customer_id: card, terminal_id: shop, amount: paid, event_timestamp: at}
constants: {currency: EUR}
"""


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


def deliver(folder: Path, day: date) -> None:
    row = f"t-{day},c,s,1.00,{day}T12:00:00Z"
    (folder / f"{day}.csv").write_text(f"id,card,shop,paid,at\n{row}\n")


def file_home(new_home: Callable[..., Home], folder: Path, *days: date) -> Home:
    """A home that was loaded when ``days`` had been delivered."""
    (folder / "delivered").mkdir()
    for day in days:
        deliver(folder / "delivered", day)
    (folder / "map.yaml").write_text(MAP)
    return new_home(source="file", data=folder / "delivered", column_map=folder / "map.yaml")


def test_it_asks_for_a_file_delivered_after_the_definitions_were_loaded(
    new_home: Callable[..., Home], tmp_path: Path
) -> None:
    today = datetime.now(UTC).date()
    yesterday, before = today - timedelta(days=1), today - timedelta(days=2)
    home = file_home(new_home, tmp_path, before)
    land(home.lake, before)
    deliver(tmp_path / "delivered", yesterday)
    deliver(tmp_path / "delivered", today)

    decided = tick(home)
    then = tick(home, decided.cursor)

    assert [r.partition_key for r in decided.run_requests] == [str(yesterday)]
    assert then.skip_message is not None
    assert f"{today} to {today} have landed but are no partitions" in then.skip_message


def test_it_says_that_a_source_which_had_stopped_growing_needs_a_reload(
    new_home: Callable[..., Home], tmp_path: Path
) -> None:
    home = file_home(new_home, tmp_path, date(2026, 1, 1))
    land(home.lake, date(2026, 1, 1))
    deliver(tmp_path / "delivered", date(2026, 1, 2))

    decided = tick(home)

    assert decided.run_requests == []
    assert "when definitions are reloaded" in (decided.skip_message or "")

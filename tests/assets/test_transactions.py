"""Landing and ingest through the definitions: a bad file is its own day's matter, and nothing counts twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from orchestration.runs import GateClosedError
from tests.assets.conftest import FIRST, Delivery, days
from tests.homes import Home

TABLES = ("raw_transactions", "raw_labels", "transactions", "quarantine", "labels")


def lake_bytes(home: Home) -> dict[str, bytes]:
    """Every file of the lake by its place."""
    lake = home.settings.lake
    return {str(p.relative_to(lake)): p.read_bytes() for p in sorted(lake.rglob("*.parquet"))}


def of_day(files: dict[str, bytes], *wanted: date) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if Path(name).stem in map(str, wanted)}


def truncate(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


# ---------------------------------------------------------------- a bad file


def test_a_truncated_file_fails_its_own_day_and_no_other_and_lands_once_repaired(
    reading: Callable[[], Home], delivery: Delivery
) -> None:
    for day in days(4):
        delivery.parquet(day)
    truncate(delivery.folder / "2026-01-02.parquet")
    home = reading()

    findings = home.run("ingest", days(4))
    without = lake_bytes(home)
    delivery.parquet(days(4)[1])
    repaired = home.run("ingest", days(4)[1:2])

    assert [(f.check, f.severity) for f in findings] == [("every_file_is_readable", "WARN")]
    assert "2026-01-02.parquet: is no whole Parquet file" in findings[0].description
    assert repaired == []
    assert home.lake.days("transactions") == days(4)
    good = [day for day in days(4) if day != days(4)[1]]
    assert without == of_day(lake_bytes(home), *good)


def test_an_unreadable_only_day_stops_the_run_and_says_why(
    reading: Callable[[], Home], delivery: Delivery
) -> None:
    delivery.parquet(days(2)[0])
    truncate(delivery.parquet(days(2)[1]))
    home = reading()

    with pytest.raises(
        GateClosedError, match=r"every_file_is_readable failed: 2026-01-02: 2026-01-02\.parquet"
    ):
        home.run("ingest", days(2)[1:])

    assert home.lake.days("transactions") == []


def test_a_bad_redelivery_leaves_the_good_day_as_it_was(
    reading: Callable[[], Home], delivery: Delivery
) -> None:
    for day in days(2):
        delivery.parquet(day)
    home = reading()
    home.run("ingest", days(2))
    before = lake_bytes(home)
    truncate(delivery.folder / "2026-01-02.parquet")

    findings = home.run("ingest", days(2))

    assert [f.check for f in findings] == ["every_file_is_readable"]
    assert lake_bytes(home) == before


def no_column(delivery: Delivery) -> None:
    rows = delivery.rows(FIRST)
    delivery.csv(FIRST, rows.rename_columns({"paid": "price"}))


def empty(delivery: Delivery) -> None:
    (delivery.folder / f"{FIRST}.csv").touch()


def only_a_header(delivery: Delivery) -> None:
    delivery.csv(FIRST, delivery.rows(FIRST).slice(0, 0))


def no_zone(delivery: Delivery) -> None:
    rows = delivery.rows(FIRST)
    naive = rows["booked_at"].cast(pa.timestamp("us"))
    place = rows.column_names.index("booked_at")
    delivery.parquet(FIRST, rows.set_column(place, "booked_at", naive))


def no_verdict(delivery: Delivery) -> None:
    rows = delivery.rows(FIRST)
    said = pa.array(["maybe" if row == 2 else "0" for row in range(rows.num_rows)])
    delivery.csv(FIRST, rows.set_column(rows.column_names.index("fraud"), "fraud", said))


def a_row_too_short(delivery: Delivery) -> None:
    path = delivery.csv(FIRST)
    lines = path.read_text().splitlines()
    lines[3] = lines[3].rpartition(",")[0]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("deliver", "message"),
    [
        (
            no_column,
            r"\S+: 2026-01-01\.csv: column 'paid' \(our amount\) is missing; the file has .*",
        ),
        (empty, r"\S+: 2026-01-01\.csv: is empty; it must hold at least one transaction"),
        (only_a_header, r"\S+: 2026-01-01\.csv: holds no rows; .*"),
        (
            no_zone,
            r"\S+: 2026-01-01\.parquet: column 'booked_at' holds times without a time zone; .*",
        ),
        (no_verdict, r"\S+: 2026-01-01\.csv: column 'fraud', row 3 holds 'maybe', .*"),
        (a_row_too_short, r"\S+: 2026-01-01\.csv: row 3 has 5 columns; the header has 6"),
    ],
)
def test_a_bad_file_gets_one_message_naming_file_column_and_row(
    reading: Callable[[], Home],
    delivery: Delivery,
    deliver: Callable[[Delivery], None],
    message: str,
) -> None:
    deliver(delivery)
    delivery.parquet(days(2)[1])
    home = reading()

    (check,) = home.materialize("raw_transactions", days=days(2)).get_asset_check_evaluations()

    assert not check.passed
    assert re.fullmatch(message, check.description or "")
    assert home.lake.days("raw_transactions") == days(2)[1:]


# ---------------------------------------------------------------- a bad row


def test_a_bad_row_is_set_aside_with_its_reason_and_the_rest_goes_on(
    reading: Callable[[], Home], delivery: Delivery
) -> None:
    rows = delivery.rows(FIRST)
    paid = rows["paid"].cast(pa.string()).to_pylist()
    paid[:4] = ["a lot", "-1.00", "1.005", "NaN"]
    times = [t.isoformat() for t in rows["booked_at"].to_pylist()]
    times[4] = "yesterday"
    times[-1] = times[-1].replace("+00:00", "-01:00")  # zones may mix
    rows = rows.set_column(rows.column_names.index("paid"), "paid", pa.array(paid))
    rows = rows.set_column(rows.column_names.index("booked_at"), "booked_at", pa.array(times))
    delivery.csv(FIRST, rows)
    home = reading()

    findings = home.run("ingest", [FIRST])

    aside = home.lake.read("quarantine", FIRST)
    assert [f.check for f in findings] == ["few_rows_are_quarantined"]
    assert "rows were set aside: " in findings[0].description
    assert dict(zip(aside["source_row"].to_pylist(), aside["reason"].to_pylist(), strict=True)) == {
        "1": "bad_amount",
        "2": "negative_amount",
        "3": "too_many_decimals",
        "4": "bad_amount",
        "5": "bad_time",
    }
    clean = home.lake.read("transactions", FIRST)
    moved = clean.filter(pc.equal(clean["transaction_id"], delivery.rows(FIRST)["id"][-1]))
    later = delivery.rows(FIRST)["booked_at"][-1].as_py() + timedelta(hours=1)
    assert clean.num_rows == rows.num_rows - 5
    assert moved["event_timestamp"].to_pylist() == [later]


# ---------------------------------------------------------------- late and repeated


def test_running_the_same_days_again_leaves_the_same_bytes(
    reading: Callable[[], Home], delivery: Delivery
) -> None:
    for day in days(3):
        delivery.csv(day)
    home = reading()
    home.run("ingest", days(3))
    before = lake_bytes(home)

    home.run("ingest", days(3))

    assert {name.split("/")[0] for name in before} == set(TABLES)
    assert lake_bytes(home) == before


def test_a_file_delivered_again_under_another_name_adds_no_transaction(
    reading: Callable[[], Home], delivery: Delivery
) -> None:
    for day in days(2):
        delivery.parquet(day)
    first = reading()
    first.run("ingest", days(2))
    before = [first.lake.read("transactions", day) for day in days(2)]
    delivery.parquet(days(2)[1], name="again-2026-01-02.parquet")
    home = reading()

    findings = home.run("ingest", days(2))

    aside = home.lake.read("quarantine", days(2)[1])
    assert [home.lake.read("transactions", day) for day in days(2)] == before
    assert pc.unique(aside["reason"]).to_pylist() == ["repeated_id"]
    assert aside.num_rows == before[1].num_rows
    assert [f.check for f in findings] == ["few_rows_are_quarantined"]


def test_a_late_file_fills_its_day_and_changes_no_other(
    reading: Callable[[], Home], delivery: Delivery
) -> None:
    for day in (days(3)[0], days(3)[2]):
        delivery.parquet(day)
    home = reading()
    home.run("ingest", days(3))
    before = lake_bytes(home)
    delivery.parquet(days(3)[1])

    home.run("ingest", days(3))

    assert home.lake.read("transactions", days(3)[1]).num_rows > 0
    others = (days(3)[0], days(3)[2])
    assert of_day(lake_bytes(home), *others) == of_day(before, *others)

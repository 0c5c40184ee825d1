"""Sources: every kind hands over the same raw days, and every bad file gets one clear message."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchyard.errors import SourceError
from switchyard.fraud.column_map import ColumnMap, load_column_map
from switchyard.fraud.columns import LABEL, arrow_schema
from switchyard.fraud.files import FileSource
from switchyard.fraud.ingest import Ingested, ingest, labels_of
from switchyard.fraud.raw import PLACE, RAW, Source
from switchyard.fraud.simulate import SimulatorConfig
from switchyard.fraud.sources import HandbookSource, SimulatorSource, source_of
from switchyard.settings import load_settings

DAY = date(2026, 1, 5)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
NOW = datetime(2026, 2, 1, tzinfo=UTC)
MAP = """
columns: {transaction_id: id, customer_id: card, terminal_id: shop, amount: amount, event_timestamp: time}
"""
SMALL = SimulatorConfig(customers=100, terminals=50, transactions_per_day=120)


def make_csv(path: Path, *rows: str, header: str = "id,card,shop,amount,time") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def make_map(tmp_path: Path, text: str = MAP) -> ColumnMap:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    return load_column_map(path)


def make_source(path: Path, text: str = MAP, **overrides: Any) -> FileSource:
    home = path.parent
    options = {"columns": make_map(home, text), "scratch": home / "scratch", "currency": "EUR"}
    return FileSource(path=path, **(options | overrides))


def ingested(source: Source, day: date = DAY) -> Ingested:
    raw = source.read(day).transactions
    return ingest(raw, day, seen=pa.array([], pa.string()), now=NOW, currency="EUR")


def make_handbook_table(**overrides: pa.Array) -> pa.Table:
    columns = {
        "TRANSACTION_ID": pa.array([7, 8, 9]),
        "TX_DATETIME": pa.array([datetime(2018, 4, 1, 0, 0, s) for s in (31, 32, 33)], pa.timestamp("us")),
        "CUSTOMER_ID": pa.array([596, 12, 1], pa.int32()),
        "TERMINAL_ID": pa.array([3156, 0, 1], pa.int32()),
        "TX_AMOUNT": pa.array([57.16, 81.51, 146.0]),
        "TX_FRAUD": pa.array([0, 1, 0], pa.int8()),
        "TX_FRAUD_SCENARIO": pa.array([0, 2, 0], pa.int8()),
    }  # fmt: skip
    return pa.table(columns | overrides)


def write_handbook(folder: Path, day: str = "2018-04-01", **overrides: pa.Array) -> HandbookSource:
    folder.mkdir(exist_ok=True)
    pq.write_table(make_handbook_table(**overrides), folder / f"{day}.parquet")
    return HandbookSource(folder)


# the simulator


def test_a_simulated_day_is_raw_and_says_where_each_row_stood() -> None:
    raw = SimulatorSource(SMALL).read(DAY)

    assert raw.transactions.column_names == [*RAW, *PLACE]
    assert raw.transactions["source_row"].to_pylist() == list(
        range(1, raw.transactions.num_rows + 1)
    )
    assert raw.labels.schema.equals(arrow_schema(LABEL))
    assert raw.file == "simulator-7"


def test_a_simulated_world_of_so_many_days_ends() -> None:
    source = SimulatorSource(SMALL, days_held=3)

    assert source.days() == (date(2026, 1, 1), date(2026, 1, 3))
    assert SimulatorSource(SMALL).days() is None
    with pytest.raises(SourceError, match="ends on 2026-01-03; 2026-01-04"):
        source.read(date(2026, 1, 4))
    with pytest.raises(SourceError, match="begins on 2026-01-01; 2025-12-31"):
        source.read(date(2025, 12, 31))


# the Handbook


def test_a_handbook_day_has_plain_ids_exact_amounts_and_labels_after_the_delay(
    tmp_path: Path,
) -> None:
    source = write_handbook(tmp_path / "data")

    day = date(2018, 4, 1)
    raw, result = source.read(day), ingested(source, day)

    first = result.clean.to_pylist()[0]
    assert (first["transaction_id"], first["customer_id"], first["terminal_id"]) == (
        "7",
        "596",
        "3156",
    )
    assert result.clean["amount_minor"].to_pylist() == [5716, 8151, 14600]
    assert first["event_timestamp"] == datetime(2018, 4, 1, 0, 0, 31, tzinfo=UTC)
    assert first["channel"] is None
    labels = labels_of(result.clean, raw.labels)
    assert labels["is_fraud"].to_pylist() == [False, True, False]
    assert labels["label_available_at"][0].as_py() - first["event_timestamp"] == timedelta(days=7)


def test_the_fraud_scenario_changes_nothing(tmp_path: Path) -> None:
    day = date(2018, 4, 1)
    one = write_handbook(tmp_path / "one").read(day)
    other = write_handbook(
        tmp_path / "other", TX_FRAUD_SCENARIO=pa.array(["leak", "leak", "leak"])
    ).read(day)

    assert one.transactions.equals(other.transactions)
    assert one.labels.equals(other.labels)


def test_handbook_days_are_those_of_the_files(tmp_path: Path) -> None:
    write_handbook(tmp_path / "data", "2018-04-03")
    source = write_handbook(tmp_path / "data", "2018-04-01")

    assert source.days() == (date(2018, 4, 1), date(2018, 4, 3))
    later = HandbookSource(tmp_path / "data", since=date(2018, 4, 2))
    assert later.days() == (date(2018, 4, 3), date(2018, 4, 3))
    with pytest.raises(SourceError, match=r"2018-04-02.parquet does not exist"):
        source.read(date(2018, 4, 2))
    with pytest.raises(SourceError, match="holds no daily file"):
        HandbookSource(tmp_path / "nowhere").days()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"TX_AMOUNT": pa.array(["a", "b", "c"])}, "'TX_AMOUNT' holds string"),
        ({"TX_FRAUD": pa.array([0, 2, None], pa.int8())}, "'TX_FRAUD', row 2 holds 2"),
        ({"TX_FRAUD": pa.array([0, 1, None], pa.int8())}, "'TX_FRAUD', row 3 holds None"),
        ({"TX_DATETIME": pa.array(["x", "y", "z"])}, "'TX_DATETIME' holds string"),
    ],
)
def test_a_handbook_file_of_another_shape_is_an_error(
    tmp_path: Path, overrides: dict[str, pa.Array], message: str
) -> None:
    source = write_handbook(tmp_path / "data", **overrides)

    with pytest.raises(SourceError, match=f"2018-04-01.parquet: column {message}"):
        source.read(date(2018, 4, 1))


def test_a_handbook_file_without_a_column_is_an_error(tmp_path: Path) -> None:
    source = write_handbook(tmp_path / "data")
    pq.write_table(
        make_handbook_table().drop_columns(["TX_FRAUD"]), tmp_path / "data" / "2018-04-01.parquet"
    )

    with pytest.raises(
        SourceError, match="column 'TX_FRAUD' is missing; the file has TRANSACTION_ID"
    ):
        source.read(date(2018, 4, 1))


@pytest.mark.parametrize("size", [0, 3, 100, 700])
def test_a_cut_off_handbook_file_fails_its_own_day_alone(tmp_path: Path, size: int) -> None:
    source = write_handbook(tmp_path / "data", "2018-04-02")
    write_handbook(tmp_path / "data", "2018-04-01")
    bad = tmp_path / "data" / "2018-04-01.parquet"
    bad.write_bytes(bad.read_bytes()[:size])

    with pytest.raises(SourceError, match=r"2018-04-01.parquet: is no whole Parquet file"):
        source.read(date(2018, 4, 1))
    assert source.read(date(2018, 4, 2)).transactions.num_rows == 3


def test_an_empty_handbook_day_is_an_error(tmp_path: Path) -> None:
    source = write_handbook(tmp_path / "data")
    pq.write_table(make_handbook_table().slice(0, 0), tmp_path / "data" / "2018-04-01.parquet")

    with pytest.raises(SourceError, match="holds no rows"):
        source.read(date(2018, 4, 1))


# anybody's files: what is read


def test_a_csv_is_read_by_its_map(tmp_path: Path) -> None:
    path = make_csv(
        tmp_path / "a.csv",
        '1;C1;T1;57.16;"05.01.2026 13:00:00";NA;1;06.01.2026 00:00:00',
        "2;C2;T1;3;05.01.2026 13:00:01;;0;",
        "3;C3;T2;4.5;05.01.2026 13:00:02;FR;;",
        header="id;card;shop;amount;time;home;fraud;known",
    )
    text = """
columns: {transaction_id: id, customer_id: card, terminal_id: shop, amount: amount, event_timestamp: time,
          customer_country: home, is_fraud: fraud, label_available_at: known}
constants: {channel: pos, merchant_category: "5411"}
timezone: Europe/Paris
timestamp_format: "%d.%m.%Y %H:%M:%S"
delimiter: ";"
"""
    source = make_source(path, text)

    result = ingested(source)

    assert source.days() == (DAY, DAY)
    assert result.quarantined.num_rows == 0
    assert result.clean.to_pylist()[0] == {
        "transaction_id": "1", "customer_id": "C1", "terminal_id": "T1", "amount_minor": 5716,
        "currency": "EUR", "event_timestamp": NOON, "customer_country": "NA", "terminal_country": None,
        "device_id": None, "channel": "pos", "merchant_category": "5411",
    }  # fmt: skip
    assert result.clean["customer_country"].to_pylist() == ["NA", None, "FR"]
    labels = source.read(DAY).labels
    assert labels.schema.equals(arrow_schema(LABEL))
    assert labels.select(["transaction_id", "is_fraud", "label_available_at"]).to_pylist() == [
        {"transaction_id": "1", "is_fraud": True,
         "label_available_at": datetime(2026, 1, 5, 23, tzinfo=UTC)},
        {"transaction_id": "2", "is_fraud": False, "label_available_at": None},
    ]  # fmt: skip


def test_parquet_and_csv_of_the_same_rows_are_the_same_days(tmp_path: Path) -> None:
    times = [NOON, NOON + timedelta(days=1), NOON + timedelta(seconds=1)]
    table = pa.table(
        {
            "id": pa.array([1, 2, 3]),
            "card": pa.array(["C1", "C2", "C3"]).dictionary_encode(),
            "shop": pa.array([10.0, 11.0, None]),
            "amount": pa.array([57.16, 0.1, 1e-7], pa.float64()),
            "time": pa.array(times, pa.timestamp("ns", tz="America/New_York")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows = [
        f"1,C1,10,57.16,{times[0].isoformat()}",
        f"2,C2,11,0.1,{times[1].isoformat()}",
        f"3,C3,,1e-7,{times[2].isoformat()}",
    ]
    csv = make_source(make_csv(tmp_path / "a.csv", *rows))
    parquet = make_source(tmp_path / "a.parquet")

    assert csv.days() == parquet.days() == (DAY, DAY + timedelta(days=1))
    for day in (DAY, DAY + timedelta(days=1)):
        ours, theirs = (
            s.read(day).transactions.drop_columns("source_file") for s in (csv, parquet)
        )
        assert ours.equals(theirs)
    assert csv.read(DAY).transactions["source_row"].to_pylist() == [1, 3]


def test_a_float_amount_in_parquet_is_the_amount_it_lies_at(tmp_path: Path) -> None:
    path = make_parquet(tmp_path / "a.parquet", amount=pa.array([5 * 17.13]))

    assert ingested(make_source(path)).clean["amount_minor"].to_pylist() == [8565]


def test_labels_can_come_a_fixed_delay_after(tmp_path: Path) -> None:
    path = make_csv(
        tmp_path / "a.csv",
        "1,C,T,1,2026-01-05T12:00:00Z,YES",
        "2,C,T,1,2026-01-05T12:00:01Z,false",
        header="id,card,shop,amount,time,fraud",
    )
    text = MAP.replace("time}", "time, is_fraud: fraud}") + "label_delay_days: 0.5"

    labels = make_source(path, text).read(DAY).labels

    assert labels["is_fraud"].to_pylist() == [True, False]
    assert labels["label_available_at"][0].as_py() == NOON + timedelta(hours=12)


def test_a_folder_is_read_by_day_whatever_the_order_of_its_rows(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    make_csv(folder / "b.csv", "1,C,T,1,2026-01-07T12:00:00Z", "2,C,T,1,2026-01-05T12:00:00Z")
    make_csv(folder / "a.csv", "3,C,T,1,2026-01-05T13:00:00Z")
    (folder / "README.txt").write_text("no transactions")
    make_csv(folder / "_partial.csv", "garbage")
    source = make_source(folder)

    raw = source.read(DAY).transactions

    assert source.days() == (DAY, date(2026, 1, 7))
    assert raw["transaction_id"].to_pylist() == ["3", "2"]
    assert raw["source_file"].to_pylist() == ["a.csv", "b.csv"]
    assert source.read(date(2026, 1, 6)).transactions.num_rows == 0
    assert source.read(date(2026, 1, 6)).transactions.schema.equals(raw.schema)
    with pytest.raises(SourceError, match="2026-01-08 is not among these days"):
        source.read(date(2026, 1, 8))


def test_a_large_file_is_read_in_pieces_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.fraud.conversion._BLOCK_BYTES", 4096)
    monkeypatch.setattr("switchyard.fraud.conversion._BUFFERED_ROWS", 500)
    path = make_csv(
        tmp_path / "a.csv",
        *(f"{i},C,T,1,2026-01-0{5 + i % 3}T12:00:00Z" for i in range(2_000)),
    )
    source = make_source(path)

    by_day = [source.read(DAY + timedelta(days=i)).transactions for i in range(3)]
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = make_source(path).read(DAY).transactions

    assert [t.num_rows for t in by_day] == [667, 667, 666]
    assert by_day[1]["source_row"].to_pylist() == list(range(2, 2_001, 3))
    assert again.equals(by_day[0])


def test_a_changed_file_is_read_again_and_the_old_copy_goes(tmp_path: Path) -> None:
    path = make_csv(tmp_path / "a.csv", "1,C,T,1,2026-01-05T12:00:00Z")
    source = make_source(path)
    source.read(DAY)

    make_csv(path, "1,C,T,1,2026-01-05T12:00:00Z", "2,C,T,1,2026-01-05T12:00:00Z")

    assert source.read(DAY).transactions.num_rows == 2
    assert len(list((tmp_path / "scratch").iterdir())) == 1


def test_a_killed_conversion_leaves_nothing_that_counts(tmp_path: Path) -> None:
    path = make_csv(tmp_path / "a.csv", "1,C,T,1,2026-01-05T12:00:00Z")
    source = make_source(path)
    source.read(DAY)
    [folder] = (tmp_path / "scratch").iterdir()
    (folder / "index.json").unlink()
    folder.rename(folder.with_name(f".{folder.name}.{os.getpid()}.part"))

    assert make_source(path).read(DAY).transactions.num_rows == 1
    assert len(list((tmp_path / "scratch").iterdir())) == 1


# anybody's files: what is wrong with a row goes to quarantine


def test_bad_cells_pass_through_and_are_quarantined_while_the_rest_goes_on(tmp_path: Path) -> None:
    path = make_csv(
        tmp_path / "a.csv",
        "1,C,T,1.50,2026-01-05T12:00:00Z",
        "2,C,T,one euro,2026-01-05T12:00:00Z",
        "3,C,T,1,in the morning",
        "4,,T,1,2026-01-05T12:00:00Z",
        '5,C,T,"1,50",2026-01-05T12:00:00Z',
        "6,C,T,1,2026-01-05T12:00:00+01:00",
    )

    result = ingested(make_source(path))

    assert result.clean["transaction_id"].to_pylist() == ["6", "1"]
    bad = result.quarantined.select(["source_row", "source_file", "reason", "detail"]).to_pylist()
    assert [tuple(row.values()) for row in bad] == [
        ("2", "a.csv", "bad_amount", "amount is 'one euro'"),
        ("4", "a.csv", "null_key", "customer_id is null"),
        ("5", "a.csv", "bad_amount", "amount is '1,50'"),
        ("3", "a.csv", "bad_time", "event_timestamp is 'in the morning'"),
    ]


def test_of_mixed_times_the_naive_ones_are_quarantined(tmp_path: Path) -> None:
    path = make_csv(
        tmp_path / "a.csv", "1,C,T,1,2026-01-06T12:00:00Z", "2,C,T,1,2026-01-06 12:00:00",
        "3,C,T,1,2026-01-06T01:00:00+02:00",
    )  # fmt: skip
    source = make_source(path)

    first, second = ingested(source, DAY), ingested(source, date(2026, 1, 6))

    assert first.clean["transaction_id"].to_pylist() == ["3"]
    assert first.quarantined["detail"].to_pylist() == ["event_timestamp is '2026-01-06 12:00:00'"]
    assert first.reasons == {"bad_time": 1}
    assert second.clean["transaction_id"].to_pylist() == ["1"]
    assert second.quarantined.num_rows == 0


def test_of_mixed_times_with_a_time_zone_given_all_are_read(tmp_path: Path) -> None:
    path = make_csv(
        tmp_path / "a.csv", "1,C,T,1,2026-01-05T12:00:00Z", "2,C,T,1,2026-01-05 13:00:00"
    )

    result = ingested(make_source(path, MAP + "timezone: Europe/Paris"))

    assert result.clean["event_timestamp"].to_pylist() == [NOON, NOON]


def test_rows_of_the_future_come_with_the_file_s_first_day(tmp_path: Path) -> None:
    path = make_csv(
        tmp_path / "a.csv", "1,C,T,1,2026-01-05T12:00:00Z", "2,C,T,1,2062-01-05T12:00:00Z"
    )
    source = make_source(path, until=NOW.date())

    assert source.days() == (DAY, DAY)
    assert ingested(source).reasons == {"future_time": 1}
    assert make_source(path).days() == (DAY, date(2062, 1, 5))


def test_days_before_the_first_one_wanted_are_left_alone(tmp_path: Path) -> None:
    path = make_csv(
        tmp_path / "a.csv", "1,C,T,1,1999-01-05T12:00:00Z", "2,C,T,1,2026-01-05T12:00:00Z",
        "3,C,T,1,?",
    )  # fmt: skip
    source = make_source(path, since=date(2026, 1, 1))

    assert source.days() == (DAY, DAY)
    assert source.read(DAY).transactions["transaction_id"].to_pylist() == ["2", "3"]
    with pytest.raises(SourceError, match="holds no day between 2030-01-01 and ever"):
        make_source(path, since=date(2030, 1, 1)).days()


# anybody's files: what is wrong with a file


def error_of(source: FileSource) -> str:
    with pytest.raises(SourceError) as caught:
        source.days()
    return str(caught.value)


GOOD = "1,C,T,1,2026-01-05T12:00:00Z"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.csv: is empty"),
        (b"id,card,shop,amount,time\n", "a.csv: holds no rows"),
        (
            b"id,card,merchant,amount,time\n" + GOOD.encode(),
            "a.csv: column 'shop' (our terminal_id) is missing; the file has id, card, merchant",
        ),
        (
            b"id,card,shop,amount,time,time\n" + GOOD.encode(),
            "a.csv: column 'time' (our event_timestamp) is there twice",
        ),
        (
            b"id,card,shop,amount,time\n" + GOOD.encode() + b"\n2,C,T\n",
            "a.csv: row 2 has 3 columns; the header has 5",
        ),
        (
            b"id,card,shop,amount,time\n1,C,T,1,2026-01-05 12:00:00\n",
            "a.csv: column 'time' holds times without a time zone, such as '2026-01-05 12:00:00'",
        ),
        (
            b"id,card,shop,amount,time\n1,C,T,1,1767614400\n",
            "a.csv: column 'time' holds no time that can be read, in no row; the first is '1767614400'",
        ),
        (b"id,card,shop,amount,time\n1,C,T,1,\n", "a.csv: column 'time' is empty in every row"),
        (
            b"id,card,shop,amount,time\n" + GOOD.encode() + b"\n2,Caf\xe9,T,1,2026-01-05T12:00:00Z\n",
            "a.csv: column 'card', row 2 is not in UTF-8",
        ),
        (b"\xff\xfe\x00i\x00d", "a.csv: has no readable header in UTF-8"),
        (
            b"id,card,shop,amount,time\n" + GOOD.encode() + b'\n2,C,T,1,"2026\n' + GOOD.encode() + b"\n",
            "a.csv: column 'time', row 2 holds a line break: a quote is not closed",
        ),
    ],
)  # fmt: skip
def test_a_bad_csv_gets_one_clear_message(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)

    told = error_of(make_source(tmp_path / "a.csv"))

    assert message in told
    assert "\n" not in told
    assert not list((tmp_path / "scratch").glob(".*"))


def test_a_cut_off_csv_names_its_last_row(tmp_path: Path) -> None:
    path = make_csv(tmp_path / "a.csv", *([GOOD] * 1000))
    path.write_bytes(path.read_bytes()[:-24])

    assert "row 1000 has 3 columns; the header has 5" in error_of(make_source(path))


def make_parquet(path: Path, **overrides: pa.Array) -> Path:
    columns = {
        "id": pa.array(["1"]), "card": pa.array(["C"]), "shop": pa.array(["T"]),
        "amount": pa.array([1.5]), "time": pa.array([NOON], pa.timestamp("us", tz="UTC")),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns | overrides), path)
    return path


@pytest.mark.parametrize("size", [0, 5, 200, -20])
def test_a_cut_off_parquet_file_gets_one_clear_message(tmp_path: Path, size: int) -> None:
    path = make_parquet(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:size])

    told = error_of(make_source(path))

    expected = "is empty" if size == 0 else "is no whole Parquet file (cut off or damaged)"
    assert told.startswith(f"a.parquet: {expected}")
    assert "\n" not in told


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"time": pa.array([datetime(2026, 1, 5)])}, "'time' holds times without a time zone"),
        ({"time": pa.array([1767614400])}, "'time' can't be used: times are int64"),
        ({"card": pa.array([["C"]])}, "'card' holds list<element: string>"),
        ({"shop": pa.array([b"\xff"])}, "'shop' holds binary"),
    ],
)
def test_a_parquet_column_of_an_unusable_type_is_named(
    tmp_path: Path, overrides: dict[str, pa.Array], message: str
) -> None:
    path = make_parquet(tmp_path / "a.parquet", **overrides)

    assert f"a.parquet: column {message}" in error_of(make_source(path))


LABELLED = """
columns: {transaction_id: id, customer_id: card, terminal_id: shop, amount: amount, event_timestamp: time,
          is_fraud: fraud, label_available_at: known}
"""


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("maybe,2026-01-06T00:00:00Z", "column 'fraud', row 2 holds 'maybe', which is no verdict"),
        ("1,soon", "column 'known', row 2 holds 'soon', which is no time that can be read"),
        ("1,2026-01-05T11:00:00Z", "column 'known', row 2 holds '2026-01-05T11:00:00Z', which lies before"),
    ],
)  # fmt: skip
def test_a_verdict_that_can_t_be_understood_is_named(
    tmp_path: Path, row: str, message: str
) -> None:
    path = make_csv(
        tmp_path / "a.csv", f"{GOOD},0,", f"{GOOD},{row}",
        header="id,card,shop,amount,time,fraud,known",
    )  # fmt: skip

    assert message in error_of(make_source(path, LABELLED))


def test_a_bad_file_fails_the_day_in_its_name_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for day in (5, 6, 7):
        make_parquet(
            folder / f"sales_2026010{day}.parquet",
            time=pa.array([NOON + timedelta(days=day - 5)], pa.timestamp("us", tz="UTC")),
        )
    bad = folder / "sales_20260107.parquet"
    bad.write_bytes(bad.read_bytes()[:200])
    source = make_source(folder)

    assert source.days() == (DAY, date(2026, 1, 7))
    assert [source.read(date(2026, 1, d)).transactions.num_rows for d in (5, 6)] == [1, 1]
    with pytest.raises(SourceError, match=r"sales_20260107.parquet: is no whole Parquet"):
        source.read(date(2026, 1, 7))


def test_a_bad_file_without_a_date_fails_the_first_day_and_comes_back_when_repaired(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    make_csv(folder / "a.csv", GOOD, "2,C,T,1,2026-01-06T12:00:00Z")
    (folder / "b.csv").write_text("nonsense")
    source = make_source(folder)

    assert source.read(date(2026, 1, 6)).transactions.num_rows == 1
    with pytest.raises(SourceError, match=r"b.csv: column 'id'"):
        source.read(DAY)

    make_csv(folder / "b.csv", "3,C,T,1,2026-01-05T12:00:00Z")

    assert source.read(DAY).transactions["transaction_id"].to_pylist() == ["1", "3"]


def test_a_file_that_becomes_unreadable_fails_every_day_that_it_held(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    make_csv(folder / "a.csv", GOOD, "2,C,T,1,2026-01-06T12:00:00Z", "3,C,T,1,2026-01-07T12:00:00Z")
    make_csv(folder / "b.csv", "4,C,T,1,2026-01-06T13:00:00Z", "5,C,T,1,2026-01-07T13:00:00Z")
    assert make_source(folder).days() == (DAY, date(2026, 1, 7))

    (folder / "b.csv").write_bytes(b"")
    source = make_source(folder)

    assert source.days() == (DAY, date(2026, 1, 7))
    assert source.read(DAY).transactions["transaction_id"].to_pylist() == ["1"]
    for day in (6, 7):
        with pytest.raises(SourceError, match=r"b.csv: is empty"):
            source.read(date(2026, 1, day))


def test_the_only_file_keeps_its_days_when_it_becomes_unreadable(tmp_path: Path) -> None:
    path = make_csv(tmp_path / "a.csv", GOOD, "2,C,T,1,2026-01-06T12:00:00Z")
    make_source(path).days()

    path.write_text("nonsense")

    assert make_source(path).days() == (DAY, date(2026, 1, 6))
    with pytest.raises(SourceError, match=r"a.csv: column 'id'"):
        make_source(path).read(date(2026, 1, 6))


def test_no_file_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    assert "holds no .csv or .parquet file" in error_of(make_source(tmp_path / "data"))
    assert "does not exist" in error_of(make_source(tmp_path / "other"))


# column maps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {transaction_id: id}", "columns lack customer_id, terminal_id, amount, event"),
        (MAP.replace("amount:", "price:"), "columns holds 'price'; it may hold transaction_id"),
        (MAP + "constants: {currency: EUR, device_id: x}", "constants holds 'device_id'"),
        (
            MAP + "constants: {customer_country: NO}",
            "customer_country: Input should be a valid str",
        ),
        (MAP + "zone: UTC", "zone: Extra inputs"),
        (MAP + "timezone: Paris", "timezone 'Paris' is unknown"),
        (MAP + "timestamp_format: '%Q'", "timestamp_format '%Q' can't be used: '%Q' is not known"),
        (MAP + "label_delay_days: 7", "need the column is_fraud"),
        (MAP.replace("time}", "time, is_fraud: f}"), "is_fraud needs either"),
        (
            MAP.replace("time}", "time, channel: c}") + "constants: {channel: pos}",
            "both a column and",
        ),
        ("[1, 2]", "the whole file"),
        ("", "the whole file"),
        ("columns: {", "can't be read"),
    ],
)
def test_a_wrong_column_map_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        make_map(tmp_path, text)

    assert message in str(caught.value)
    assert "map.yaml" in str(caught.value)


def test_a_country_that_yaml_takes_for_a_no_is_to_be_quoted(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="quote it"):
        make_map(tmp_path, MAP + "constants: {customer_country: NO}")


def test_a_missing_column_map_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none.yaml can't be read"):
        load_column_map(tmp_path / "none.yaml")


# by the settings


def test_the_settings_name_the_source(tmp_path: Path) -> None:
    data = write_handbook(tmp_path / "data").folder
    (tmp_path / "map.yaml").write_text(MAP)
    csv = make_csv(tmp_path / "a.csv", GOOD)
    make = lambda **given: source_of(load_settings(home=tmp_path / "home", **given), now=NOW)  # noqa: E731

    assert make(simulated_days=10).days() == (date(2026, 1, 1), date(2026, 1, 10))
    assert make(source="handbook", data=data).days() == (date(2018, 4, 1), date(2018, 4, 1))
    files = make(source="file", data=csv, column_map=tmp_path / "map.yaml")
    assert files.read(DAY).transactions.num_rows == 1
    assert [s.name for s in (make(), make(source="handbook", data=data), files)] == [
        "simulator", "handbook", "file",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"source": "handbook"}, "--data"), ({"source": "file", "data": Path("x")}, "--column-map")],
)
def test_a_source_without_its_settings_is_an_error(
    tmp_path: Path, given: dict[str, Any], missing: str
) -> None:
    with pytest.raises(SourceError, match=missing):
        source_of(load_settings(home=tmp_path, **given))


def test_a_world_whose_tactics_change_is_the_same_world_until_then():
    small = {"customers": 300, "terminals": 80, "transactions_per_day": 800}
    usual, changing = (
        source_of(load_settings(source="simulator", simulated_change_day=day, **small))
        for day in (None, 20)
    )
    first = date(2026, 1, 1)

    def same(number: int) -> bool:
        day = first + timedelta(days=number)
        return usual.read(day).transactions.equals(changing.read(day).transactions)

    assert same(0)
    assert same(19)
    assert not any(same(number) for number in range(20, 24))

"""Files of verdicts: good rows count from their own moment on, bad ones are named, and a file counts once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchyard.errors import InputError
from switchyard.fraud.label_files import REFUSED, add_labels
from switchyard.fraud.labels import LEDGER, labels_as_of
from switchyard.lake import Lake
from switchyard.settings import Settings, load_settings
from tests.streams import NOON, land, make_transaction

NOW = datetime(2026, 6, 1, 8, tzinfo=UTC)
HEAD = "transaction_id,is_fraud,label_available_at\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with five payments, a day apart."""
    settings = load_settings(home=tmp_path / "home")
    payments = [
        make_transaction(
            transaction_id=f"t{n}", customer_id=f"c{n}", event_timestamp=NOON + timedelta(days=n)
        )
        for n in range(5)
    ]
    land(settings.lake, payments)
    return settings


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "chargebacks.csv"
        path.write_text(text)
        return path

    return write


def test_verdicts_of_a_file_count_from_their_own_moment_and_carry_their_transaction(
    settings: Settings, write: Callable[[str], Path]
) -> None:
    path = write(HEAD + "t0,1,2026-04-01T00:00:00Z\nt3,no,2026-05-01 02:00:00+02:00\n")

    done = add_labels(path, settings, NOW)

    lake, may = Lake(settings.lake), datetime(2026, 5, 1, tzinfo=UTC)
    assert (done.rows, done.added, done.known, len(done.refused)) == (2, 2, 0, 0)
    days = NOON.date(), NOON.date() + timedelta(days=9)
    before, then = (labels_as_of(lake, *days, at) for at in (may - timedelta(microseconds=1), may))
    assert before["transaction_id"].to_pylist() == ["t0"]
    assert then["is_fraud"].to_pylist() == [True, False]
    assert then["customer_id"].to_pylist() == ["c0", "c3"]
    assert then["event_timestamp"].to_pylist() == [NOON, NOON + timedelta(days=3)]
    (row,) = lake.read(LEDGER, NOON.date()).to_pylist()
    assert (row["source"], row["recorded_at"]) == ("chargeback", NOW)


def test_the_same_file_again_adds_nothing(settings: Settings, write: Callable[[str], Path]) -> None:
    path = write(HEAD + "t0,1,2026-04-01T00:00:00Z\nelse,1,2026-04-01T00:00:00Z\n")
    add_labels(path, settings, NOW)

    again = add_labels(path, settings, NOW + timedelta(hours=1))

    assert (again.added, again.known, len(again.refused)) == (0, 1, 1)
    assert len(Lake(settings.lake).read(REFUSED, NOW.date())) == 1


def test_bad_rows_are_set_aside_by_number_and_reason_and_the_good_ones_count(
    settings: Settings, write: Callable[[str], Path]
) -> None:
    path = write(
        HEAD
        + "t0,1,2026-04-01T00:00:00Z\n"
        + ",1,2026-04-01T00:00:00Z\n"
        + "t1,maybe,2026-04-01T00:00:00Z\n"
        + "t1,1,2026-04-01T00:00:00\n"
        + "t1,1\n"
        + "t1,1,2027-04-01T00:00:00Z\n"
        + "nobody,1,2026-04-01T00:00:00Z\n"
        + "t1,1,2026-02-01T00:00:00Z\n"
        + "t2,yes,2026-04-01T00:00:00Z\n"
    )

    done = add_labels(path, settings, NOW)

    assert done.added == 2
    kept = Lake(settings.lake).read(REFUSED, NOW.date()).to_pylist()
    assert [(row["source_row"], row["reason"].partition(";")[0]) for row in kept] == [
        (2, "transaction_id is missing"),
        (3, "is_fraud is no verdict"),
        (4, "label_available_at is no time with a zone, such as 2026-03-01T12:00:00Z"),
        (5, "has 2 columns"),
        (6, "label_available_at lies ahead"),
        (7, "the lake has no such transaction"),
        (8, "label_available_at lies before the transaction"),
    ]
    assert kept[1]["is_fraud"] == "maybe"
    assert {row["source_file"] for row in kept} == {"chargebacks.csv"}


def test_parquet_with_integer_ids_and_real_types_is_read_likewise(
    settings: Settings, tmp_path: Path
) -> None:
    land(settings.lake, [make_transaction(transaction_id="17")])
    moments = pa.array([NOON + timedelta(days=30)] * 2, pa.timestamp("ns", tz="Europe/Paris"))
    table = pa.table(
        {"transaction_id": [17, 18], "is_fraud": [True, False], "label_available_at": moments}
    )
    pq.write_table(table, tmp_path / "c.parquet")

    done = add_labels(tmp_path / "c.parquet", settings, NOW)

    assert (done.added, done.refused["source_row"].to_pylist()) == (1, [2])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("transaction_id,is_fraud\n", "column 'label_available_at' is missing; the file has"),
        ("is_fraud," + HEAD, "column 'is_fraud' is there twice"),
        ("", "column 'transaction_id' is missing"),
    ],
)
def test_a_file_that_is_none_is_refused_whole(
    settings: Settings, write: Callable[[str], Path], text: str, said: str
) -> None:
    with pytest.raises(InputError, match=f"chargebacks.csv: {said}"):
        add_labels(write(text), settings, NOW)

    assert not (settings.lake / LEDGER).exists()


def test_what_is_no_parquet_or_not_there_is_refused_by_name(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")

    with pytest.raises(InputError, match=r"torn\.parquet: is no whole"):
        add_labels(tmp_path / "torn.parquet", settings, NOW)
    with pytest.raises(InputError, match=r"gone\.csv does not exist"):
        add_labels(tmp_path / "gone.csv", settings, NOW)


def test_times_are_read_as_text_however_parquet_keeps_it_and_other_types_are_refused(
    settings: Settings, tmp_path: Path
) -> None:
    path, told = tmp_path / "c.parquet", pa.array(["2026-04-01T00:00:00Z"])
    table = pa.table({"transaction_id": ["t0"], "is_fraud": [1], "label_available_at": told})

    for times in (told.dictionary_encode(), told.cast(pa.string_view()), pa.array([1_775_000_000])):
        pq.write_table(table.set_column(2, "label_available_at", times), path)
        done = add_labels(path, settings, NOW)
        assert len(done.refused) == int(pa.types.is_integer(times.type))

    pq.write_table(table.set_column(0, "transaction_id", pa.array([["t0"]])), path)
    with pytest.raises(InputError, match=r"c\.parquet: column 'transaction_id' holds list<"):
        add_labels(path, settings, NOW)

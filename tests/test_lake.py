"""The lake: files appear whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchyard.errors import LakeError
from switchyard.lake import Lake, write_parquet, write_text

DAY, NEXT = date(2026, 1, 1), date(2026, 1, 2)
WRITING_FOR_EVER = """
import sys
from pathlib import Path
import pyarrow as pa
from switchyard.lake import write_parquet
for n in range(10**9):
    write_parquet(pa.table({"n": [n] * 100_000}), Path(sys.argv[1]))
    print(n, flush=True)
"""


def test_a_reader_sees_whole_files_only_while_they_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(pa.table({"n": [0] * 10_000}), path)
    done = threading.Event()

    def replace() -> None:
        for n in range(1, 60):
            write_parquet(pa.table({"n": [n] * 10_000}), path)
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    seen = []
    while not done.is_set():
        values = set(pq.read_table(path)["n"].to_pylist())
        seen.append(values)
    writer.join()

    assert all(len(values) == 1 for values in seen)
    assert len({next(iter(values)) for values in seen}) > 1


def test_a_writer_killed_at_work_leaves_the_last_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(3)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()

    values = set(pq.read_table(path)["n"].to_pylist())

    assert values in ({told[-1]}, {told[-1] + 1})


def test_a_write_that_fails_leaves_the_old_file_and_no_part_of_the_new(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(pa.table({"n": [1]}), path)
    unwritable = pa.table({"n": pa.array([None], pa.month_day_nano_interval())})

    with pytest.raises(pa.ArrowNotImplementedError):
        write_parquet(unwritable, path)
    with pytest.raises(UnicodeEncodeError):
        write_text("\ud800", tmp_path / "note.txt")

    assert pq.read_table(path)["n"].to_pylist() == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["table.parquet"]


def test_a_range_is_read_in_the_order_of_its_days_and_gaps_are_left_out(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write("numbers", NEXT, pa.table({"n": [2], "m": [4]}))
    lake.write("numbers", DAY, pa.table({"n": [1], "m": [3]}))

    rows = lake.read("numbers", date(2025, 12, 30), date(2026, 1, 5), columns=["n"])

    assert rows.to_pydict() == {"n": [1, 2]}
    assert lake.days("numbers") == [DAY, NEXT]


def test_days_that_are_not_there_are_asked_for_by_name(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write("numbers", DAY, pa.table({"n": [1]}))
    lake.drop("numbers", DAY)
    lake.drop("numbers", DAY)

    with pytest.raises(
        LakeError, match=r"no 'numbers' from 2026-01-01 to 2026-01-02 .*; materialize 'numbers'"
    ):
        lake.read("numbers", DAY, NEXT)

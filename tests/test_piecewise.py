"""Work through a table in pieces: each row once and in order, whatever came between."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchyard import piecewise
from switchyard.errors import InputError
from switchyard.piecewise import Parquet, work_through

SCHEMA = pa.schema([pa.field("n", pa.int64())])


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piecewise, "PIECE_ROWS", 100)
    monkeypatch.setattr(piecewise, "BATCH_ROWS", 30)


class Doubling:
    """Doubles ``n``; dies at the row ``dies_at``, as a process might."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at = dies_at
        self.seen: list[int] = []

    def __call__(self, table: pa.Table) -> pa.Table:
        values = table["n"].to_pylist()
        if self.dies_at in values:
            raise KeyboardInterrupt
        self.seen += values
        return pa.table([[2 * n for n in values]], schema=SCHEMA)


def write_numbers(file: Path, numbers: range, group_rows: int = 50) -> None:
    file.parent.mkdir(exist_ok=True)
    rows = pa.table({"n": list(numbers), "other": ["x"] * len(numbers)})
    pq.write_table(rows, file, row_group_size=group_rows)


def run(source: Path, output: Path, work: Any, identity: str = "doubling", **more: Any) -> int:
    return work_through(
        Parquet.at(source), output, work, columns=["n"], schema=SCHEMA, identity=identity, **more
    )


def numbers_in(output: Path) -> list[int]:
    found: list[int] = pq.read_table(output)["n"].to_pylist()
    return found


def left_beside(output: Path) -> list[str]:
    return [p.name for p in output.parent.iterdir() if p.name.startswith(f".{output.name}")]


def test_each_row_of_a_folder_is_written_once_in_order_and_nothing_else_is_left(
    tmp_path: Path,
) -> None:
    write_numbers(tmp_path / "in" / "a.parquet", range(330))
    write_numbers(tmp_path / "in" / "b.parquet", range(330, 400), group_rows=7)
    write_numbers(tmp_path / "in" / ".hidden.parquet", range(5))
    told: list[tuple[str, int, int]] = []

    rows = run(
        tmp_path / "in", tmp_path / "out.parquet", Doubling(), advance=lambda *a: told.append(a)
    )

    assert rows == 400
    assert numbers_in(tmp_path / "out.parquet") == [2 * n for n in range(400)]
    assert left_beside(tmp_path / "out.parquet") == []
    assert told[-1] == ("in", 400, 400)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_started_again_it_goes_on_behind_the_last_finished_piece(tmp_path: Path) -> None:
    write_numbers(tmp_path / "in.parquet", range(330))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in.parquet", tmp_path / "out.parquet", Doubling(dies_at=290))
    assert not (tmp_path / "out.parquet").exists()

    again = Doubling()
    run(tmp_path / "in.parquet", tmp_path / "out.parquet", again)

    assert min(again.seen) == 200
    assert numbers_in(tmp_path / "out.parquet") == [2 * n for n in range(330)]
    assert left_beside(tmp_path / "out.parquet") == []


@pytest.mark.parametrize("what", ["the input", "the work"])
def test_pieces_of_another_input_or_other_work_are_not_taken_over(
    tmp_path: Path, what: str
) -> None:
    write_numbers(tmp_path / "in.parquet", range(330))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in.parquet", tmp_path / "out.parquet", Doubling(dies_at=290))
    if what == "the input":
        write_numbers(tmp_path / "in.parquet", range(1_000, 1_330))

    again = Doubling()
    run(tmp_path / "in.parquet", tmp_path / "out.parquet", again,
        identity="doubling" if what == "the input" else "other")  # fmt: skip

    assert len(again.seen) == 330


def test_an_input_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    write_numbers(tmp_path / "in.parquet", range(330))

    def change(table: pa.Table) -> pa.Table:
        write_numbers(tmp_path / "in.parquet", range(331))
        return table.select(["n"])

    with pytest.raises(InputError, match="changed while it was read"):
        run(tmp_path / "in.parquet", tmp_path / "out.parquet", change)
    assert not (tmp_path / "out.parquet").exists()


def test_two_at_a_time_do_not_write_one_output(tmp_path: Path) -> None:
    write_numbers(tmp_path / "in.parquet", range(330))
    (tmp_path / ".out.parquet.pieces").mkdir()
    with (tmp_path / ".out.parquet.pieces" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(InputError, match="another process is writing"):
            run(tmp_path / "in.parquet", tmp_path / "out.parquet", Doubling())

    assert run(tmp_path / "in.parquet", tmp_path / "out.parquet", Doubling()) == 330


def test_an_input_without_rows_gives_an_output_without_rows(tmp_path: Path) -> None:
    write_numbers(tmp_path / "in.parquet", range(0))

    assert run(tmp_path / "in.parquet", tmp_path / "out.parquet", Doubling()) == 0
    assert pq.read_table(tmp_path / "out.parquet").schema == SCHEMA


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_bytes(b"n\n1\n")
    (tmp_path / "empty").mkdir()
    write_numbers(tmp_path / "mixed" / "a.parquet", range(3))
    pq.write_table(pa.table({"m": [1]}), tmp_path / "mixed" / "b.parquet")

    for source, words in (
        ("text.parquet", "can't be read as Parquet"),
        ("empty", "a folder without .parquet files"),
        ("nowhere.parquet", "is not there"),
        ("mixed", "b.parquet has other columns than a.parquet"),
    ):
        with pytest.raises(InputError, match=words):
            Parquet.at(tmp_path / source)


def test_a_file_damaged_in_its_middle_is_named(tmp_path: Path) -> None:
    write_numbers(tmp_path / "in.parquet", range(5_000))
    content = bytearray((tmp_path / "in.parquet").read_bytes())
    content[60:400] = b"\xff" * 340
    (tmp_path / "in.parquet").write_bytes(content)

    with pytest.raises(InputError, match="can't be read to its end"):
        run(tmp_path / "in.parquet", tmp_path / "out.parquet", Doubling())

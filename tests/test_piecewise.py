"""Work through a table in pieces: each row once and in order, whatever came between."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchyard import piecewise, storage
from switchyard.errors import InputError, StorageError
from switchyard.lake import whole_file
from switchyard.piecewise import MANIFEST, Parquet, work_through
from switchyard.storage import Place
from tests.object_store import ObjectStore, running_object_store

SCHEMA = pa.schema([pa.field("n", pa.int64())])


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piecewise, "PIECE_ROWS", 100)
    monkeypatch.setattr(piecewise, "BATCH_ROWS", 30)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_object_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(params=["disk", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A folder of this machine, and one of an object store."""
    if request.param == "disk":
        return tmp_path
    store: ObjectStore = request.getfixturevalue("store")
    return store.place(tmp_path.name)


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


def write_numbers(file: Place, numbers: range, group_rows: int = 50) -> None:
    rows = pa.table({"n": list(numbers), "other": ["x"] * len(numbers)})
    with whole_file(file) as opened:
        pq.write_table(rows, opened, row_group_size=group_rows)


def run(source: Place, output: Place, work: Any, identity: str = "doubling", **more: Any) -> int:
    return work_through(
        Parquet.at(source), output, work, columns=["n"], schema=SCHEMA, identity=identity, **more
    )


def numbers_in(output: Place) -> list[int]:
    with storage.reading(output) as given, pq.ParquetFile(**given) as file:
        found: list[int] = file.read()["n"].to_pylist()
    return found


def names_in(folder: Place) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


@pytest.mark.parametrize("group_rows", [7, 50, 120, 1_000])
def test_started_again_it_goes_on_behind_the_last_finished_piece(
    tmp_path: Path, group_rows: int
) -> None:
    """However the rows are grouped in the file: a group may be many pieces, or a piece many groups."""
    write_numbers(tmp_path / "in.parquet", range(330), group_rows)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in.parquet", tmp_path / "out.parquet", Doubling(dies_at=290))
    assert not (tmp_path / "out.parquet").exists()

    again = Doubling()
    run(tmp_path / "in.parquet", tmp_path / "out.parquet", again)

    assert 190 <= min(again.seen) <= 290
    assert again.seen == list(range(min(again.seen), 330))
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


# ---------------------------------------------------------------- disks and object stores alike


def test_killed_and_started_again_each_row_is_written_once_and_only_the_output_is_left(
    root: Any,
) -> None:
    write_numbers(root / "in" / "a.parquet", range(330))
    write_numbers(root / "in" / "b.parquet", range(330, 400))
    with pytest.raises(KeyboardInterrupt):
        run(root / "in", root / "out.parquet", Doubling(dies_at=290))
    assert not (root / "out.parquet").exists()

    again = Doubling()
    rows = run(root / "in", root / "out.parquet", again)

    assert rows == 400
    assert again.seen == list(range(200, 400))
    assert numbers_in(root / "out.parquet") == [2 * n for n in range(400)]
    assert names_in(root) == ["in", "out.parquet"]


def test_an_output_that_is_a_folder_has_the_files_of_the_input_and_tells_when_it_is_whole(
    root: Any,
) -> None:
    write_numbers(root / "in" / "day=1" / "a.parquet", range(330))
    write_numbers(root / "in" / "day=2" / "a.parquet", range(330, 400))
    with pytest.raises(KeyboardInterrupt):
        run(root / "in", root / "out", Doubling(dies_at=390))
    assert not (root / "out" / MANIFEST).exists()

    again = Doubling()
    run(root / "in", root / "out", again)

    names = ["day=1/a.parquet", "day=2/a.parquet"]
    assert again.seen == list(range(330, 400))
    assert [each.name for each in storage.files_in(root / "out")] == names
    assert numbers_in(root / "out" / names[0]) == [2 * n for n in range(330)]
    assert numbers_in(root / "out" / names[1]) == [2 * n for n in range(330, 400)]
    manifest = json.loads((root / "out" / MANIFEST).read_text())
    assert manifest == {"rows": 400, "files": {names[0]: 330, names[1]: 70}}
    assert names_in(root) == ["in", "out"]


def test_while_files_of_a_folder_are_replaced_it_has_no_manifest(
    root: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbers(root / "in" / "a.parquet", range(3))
    write_numbers(root / "in" / "b.parquet", range(3, 6))
    run(root / "in", root / "out", Doubling())
    join, seen = piecewise._join, []

    def joined(target: Any, schema: pa.Schema) -> None:
        seen.append((root / "out" / MANIFEST).exists())
        join(target, schema)

    monkeypatch.setattr(piecewise, "_join", joined)
    run(root / "in", root / "out", Doubling(), identity="another doubling")

    assert seen == [False, False]
    assert (root / "out" / MANIFEST).exists()


def test_an_output_folder_with_files_of_something_else_is_refused(root: Any) -> None:
    write_numbers(root / "in" / "a.parquet", range(3))
    write_numbers(root / "out" / "of_last_year.parquet", range(3))

    with pytest.raises(InputError, match=r"the input has none of \(of_last_year\.parquet\)"):
        run(root / "in", root / "out", Doubling())


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("in", "in/out.parquet"), ("in", "in"), ("out/in", "out"), ("in/a.parquet", "in/a.parquet"),
    ],
)  # fmt: skip
def test_input_and_output_lie_apart(root: Any, source: str, output: str) -> None:
    write_numbers(root / source / "a.parquet" if "." not in source else root / source, range(3))

    with pytest.raises(InputError, match="lie within one another"):
        run(root / source, root / output, Doubling())


def test_of_two_who_do_the_same_in_a_store_the_slower_says_that_it_is_done(
    store: ObjectStore,
) -> None:
    source, output = store.place("two/in.parquet"), store.place("two/out.parquet")
    write_numbers(source, range(330))
    faster_has_run = []

    class Slow(Doubling):
        def __call__(self, table: pa.Table) -> pa.Table:
            if 250 in table["n"].to_pylist() and not faster_has_run:
                faster_has_run.append(run(source, output, Doubling()))
            return super().__call__(table)

    with pytest.raises(
        InputError, match=r"another process has finished s3://bank/two/out\.parquet"
    ):
        run(source, output, Slow())

    assert faster_has_run == [330]
    assert numbers_in(output) == [2 * n for n in range(330)]


def test_a_store_that_dies_half_way_and_comes_back_has_no_half_of_a_file_and_the_pieces_are_kept(
    tmp_path: Path,
) -> None:
    with running_object_store(tmp_path, durable=True) as store:
        source, output = store.place("in"), store.place("out.parquet")
        write_numbers(source / "a.parquet", range(250))
        write_numbers(source / "b.parquet", range(250, 600))

        class Interrupted(Doubling):
            def __call__(self, table: pa.Table) -> pa.Table:
                if 400 in table["n"].to_pylist():
                    store.kill()
                return super().__call__(table)

        with pytest.raises(StorageError, match="the object store does not do what it should"):
            run(source, output, Interrupted())
        store.start()
        left = store.names()
        again = Doubling()
        run(source, output, again)

        assert "out.parquet" not in left
        assert len([name for name in left if name.startswith(".out.parquet.pieces/")]) == 4
        assert again.seen == list(range(350, 600))
        assert numbers_in(output) == [2 * n for n in range(600)]
        assert store.names() == ["in/a.parquet", "in/b.parquet", "out.parquet"]

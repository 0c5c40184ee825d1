"""A place is a path or an object, by its plain name; a file appears whole in both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchyard import storage
from switchyard.errors import InputError, StorageError
from switchyard.lake import whole_file, write_text
from switchyard.storage import files_in, place_of, within
from tests.object_store import ObjectStore, running_object_store

PART_BYTES = 5 * 1024 * 1024
"""The least that S3 takes as a part of a larger upload."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_object_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:secret@bank/in", "s3://secret@bank/in", "s3://bank/../other/in", "s3://bank/a/./b",
        "s3://bank/a//b", "s3:///in", "s3://", "s3://b*/in", "s3://bank/in*", "s3://bank/[ab]",
        "s3://bank/in?versionId=secret", "s3://bank/in#secret", "s3://bank/a\\b", "s3://bank/a\nb",
        "gs://bank/secret", "http://key:secret@bank/in", "s3a://bank/secret",
    ],
)  # fmt: skip
def test_a_url_that_is_no_plain_name_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(InputError) as caught:
        place_of(address)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("target", ["outside.parquet", "nowhere.parquet"])
def test_a_link_in_a_folder_that_leads_out_of_it_is_refused(tmp_path: Path, target: str) -> None:
    """Who may name the folder need not be allowed to read what it leads to."""
    write_text("rows", tmp_path / "outside.parquet")
    write_text("rows", tmp_path / "in" / "own.parquet")
    (tmp_path / "in" / "again.parquet").symlink_to(tmp_path / "in" / "own.parquet")
    assert [found.name for found in files_in(tmp_path / "in")] == ["again.parquet", "own.parquet"]

    (tmp_path / "in" / "link.parquet").symlink_to(tmp_path / target)

    with pytest.raises(InputError, match=r"link\.parquet is a link that leads out of the folder"):
        files_in(tmp_path / "in")


def test_what_a_place_is_called_leads_back_to_it(tmp_path: Path) -> None:
    for place in (tmp_path / "a b.parquet", place_of("s3://bank/scores/a b.parquet")):
        assert place_of(str(place)) == place


@pytest.mark.parametrize(
    ("place", "folder", "lies_within"),
    [
        ("s3://bank/a/b", "s3://bank/a", True),
        ("s3://bank/a", "s3://bank/a", True),
        ("s3://bank/a", "s3://bank", True),
        ("s3://bank/ab", "s3://bank/a", False),
        ("s3://bank2/a", "s3://bank", False),
        ("s3://bank", "s3://bank/a", False),
        ("/bank/a", "s3://bank", False),
        ("s3://bank/a", "/", False),
        ("/bank/a", "/bank", True),
        ("/bank2/a", "/bank", False),
    ],
)
def test_a_place_lies_within_a_folder_by_whole_segments_of_the_same_kind(
    place: str, folder: str, lies_within: bool
) -> None:
    assert within(place_of(place), place_of(folder)) == lies_within


def test_a_folder_gives_its_parquet_files_by_name_and_none_that_is_hidden(
    tmp_path: Path, store: ObjectStore
) -> None:
    names = ["b.parquet", "day=1/a.parquet", ".x.parquet", "_y/z.parquet", ".p/q.parquet", "n.json"]
    for root in (tmp_path / "in", store.place("listed")):
        for name in names:
            write_text(name, root / name)

        found = files_in(root)

        assert [each.name for each in found] == ["b.parquet", "day=1/a.parquet"]
        assert [each.place for each in found] == [root / each.name for each in found]
        assert [each.name for each in files_in(root / ".x.parquet")] == [".x.parquet"]
        assert files_in(root / "none") == []


def test_another_content_of_the_same_length_is_another_state(store: ObjectStore) -> None:
    place = store.place("state/a.parquet")
    write_text("one", place)
    before = files_in(place)[0].state

    write_text("two", place)

    assert files_in(place)[0].state != before


def test_an_object_whose_writing_fails_is_the_old_one_still(store: ObjectStore) -> None:
    place = store.place("whole/a")
    write_text("old", place)

    def write_half() -> None:
        with whole_file(place) as file:
            file.write(b"new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        write_half()

    assert place.read_text() == "old"


def test_a_large_object_goes_in_parts_and_leaves_none_of_them_if_one_fails(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store.place("parts/a")
    fs, call = place.fs, place.fs._call_s3
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_, **__: PART_BYTES)
    with whole_file(place) as file:
        file.write(b"1" * (2 * PART_BYTES + 1))

    async def failing(method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "upload_part" and kwargs.get("PartNumber") == 2:
            raise OSError("the line is cut")
        return await call(method, *args, **kwargs)

    monkeypatch.setattr(fs, "_call_s3", failing)
    with (
        pytest.raises(StorageError, match=r"parts/a: the object store does not .*the line is cut"),
        whole_file(place) as file,
    ):
        file.write(b"2" * (2 * PART_BYTES + 1))

    assert place.read_bytes() == b"1" * (2 * PART_BYTES + 1)
    assert store.unfinished_uploads() == 0


def test_a_store_that_is_gone_is_named(tmp_path: Path) -> None:
    with running_object_store(tmp_path) as store:
        store.kill()

        with pytest.raises(StorageError, match=r"s3://bank/in.*Could not connect to the endpoint"):
            files_in(store.place("in"))


def test_a_driver_that_is_not_installed_is_named(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    type(store.place("x").fs).clear_instance_cache()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3")  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=r"pip install 'switchyard\[s3\]'"):
        storage.there(place_of("s3://bank/in"))

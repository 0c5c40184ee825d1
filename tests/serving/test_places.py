"""A URI leads only under the allowed folders, whatever it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchyard.errors import RequestError
from switchyard.serving.places import allowed_place
from switchyard.storage import place_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "batch" / "inner").mkdir(parents=True)
    (tmp_path / "batch-other").mkdir()
    (tmp_path / "secret.parquet").write_bytes(b"")
    (tmp_path / "batch" / "out").symlink_to(tmp_path)
    (tmp_path / "batch" / "loop").symlink_to(tmp_path / "batch" / "loop")
    (tmp_path / "batch" / "in").symlink_to(tmp_path / "batch" / "inner")
    return tmp_path / "batch"


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("{root}/a.parquet", "a.parquet"),
        ("file://{root}/a.parquet", "a.parquet"),
        ("file://localhost{root}/a%20b.parquet", "a b.parquet"),
        ("{root}/inner/../a.parquet", "a.parquet"),
        ("{root}/in/a.parquet", "inner/a.parquet"),
        ("{root}/a%2Fb.parquet", "a%2Fb.parquet"),
    ],
)
def test_a_path_below_an_allowed_folder_is_resolved(root: Path, uri: str, found: str) -> None:
    assert (
        allowed_place(uri.format(root=root), [Path("/nowhere"), root], "input_uri") == root / found
    )


@pytest.mark.parametrize(
    "uri",
    [
        "{root}/../secret.parquet",
        "{root}/out/secret.parquet",
        "{root}-other/a.parquet",
        "file://{root}/%2e%2e/secret.parquet",
        "/etc/passwd",
        "/proc/self/environ",
        "/",
    ],
)
def test_a_path_that_leads_elsewhere_is_a_403(root: Path, uri: str) -> None:
    with pytest.raises(RequestError, match="leads outside the folders") as caught:
        allowed_place(uri.format(root=root), [root], "output_uri")

    assert (caught.value.status, caught.value.field) == (403, "output_uri")


@pytest.mark.parametrize(
    "uri",
    [
        "gs://bucket/a.parquet", "s3://key@bank/a", "s3://bank/batch/../a", "http://localhost/a", "a.parquet", "../a", "", "file:a.parquet",
        "file://host/a.parquet", "file:///a?b", "{root}/a\0b", "file://{root}/a%00b", "http://[",
        "{root}/loop/a", "{root}/" + "x" * 5_000,
    ],
)  # fmt: skip
def test_what_is_no_local_path_is_a_422(root: Path, uri: str) -> None:
    with pytest.raises(RequestError) as caught:
        allowed_place(uri.format(root=root), [root], "input_uri")

    assert (caught.value.status, caught.value.field) == (422, "input_uri")


@pytest.mark.parametrize("uri", ["s3://bank/batch/a.parquet", "s3://bank/batch"])
def test_an_object_below_an_allowed_url_is_found_without_asking_its_store(
    root: Path, uri: str
) -> None:
    roots = [root, place_of("s3://bank/batch")]

    assert str(allowed_place(uri, roots, "input_uri")) == uri


@pytest.mark.parametrize(
    "uri", ["s3://bank/other/a", "s3://bank/batch2/a", "s3://bank2/batch/a", "/batch/a"]
)
def test_an_object_that_lies_elsewhere_is_a_403(root: Path, uri: str) -> None:
    with pytest.raises(RequestError, match="leads outside the folders") as caught:
        allowed_place(uri, [root, place_of("s3://bank/batch")], "output_uri")

    assert (caught.value.status, caught.value.field) == (403, "output_uri")


def test_another_scheme_is_refused_by_its_name(root: Path) -> None:
    with pytest.raises(RequestError, match="scheme 'gs'; this service reads and writes local"):
        allowed_place("gs://bucket/a.parquet", [root], "input_uri")

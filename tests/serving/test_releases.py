"""A request for a named release: read strictly, and refused with the names of those that are loaded."""

from __future__ import annotations

import pytest

from switchyard.errors import RequestError
from switchyard.serving.releases import asked_for

ONE, OTHER = "0a" * 16, "f1" * 16
LOADED = {ONE: "champion", OTHER: "challenger"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", "champion"),
        (f"release={ONE}".encode(), "champion"),
        (f"release={OTHER}".encode(), "challenger"),
    ],
)
def test_the_named_release_decides_and_without_a_name_the_champion(
    query: bytes, found: str
) -> None:
    assert asked_for(LOADED, query, "champion") == found


def test_one_that_is_not_loaded_is_a_404_that_names_those_that_are() -> None:
    with pytest.raises(RequestError, match=f"loaded are {ONE}, {OTHER}") as caught:
        asked_for(LOADED, b"release=" + b"00" * 16, "champion")

    assert (caught.value.status, caught.value.field) == (404, "release")


@pytest.mark.parametrize(
    "query",
    [b"release=", b"release=latest", b"release=../../etc", b"colour=red", b"release", b"\xff\xfe",
     f"release={ONE}&release={OTHER}".encode(), f"release={ONE.upper()}".encode()],
)  # fmt: skip
def test_anything_else_in_the_query_is_a_422(query: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        asked_for(LOADED, query, "champion")

    assert caught.value.status == 422

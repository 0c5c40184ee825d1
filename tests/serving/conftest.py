"""One embedded Valkey and one Postgres for the tests of this folder; each test has a project, so keys, of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchyard.learning.release import Release
from switchyard.serving import valkey
from tests.postgres import running_postgres
from tests.releases import make_release

_numbers = itertools.count()


@pytest.fixture(scope="session")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home: Path = tmp_path_factory.mktemp("online-store")
    yield valkey.start(home)
    valkey.stop(home)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture
def project() -> str:
    return f"test{next(_numbers)}"


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("releases"))

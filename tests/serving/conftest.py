"""One embedded Valkey and one Postgres for the tests of this folder; each test has a project, so keys, of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from switchyard.fraud.online import VIEWS, FraudDomain
from switchyard.fraud.requests import Transaction
from switchyard.learning.release import Release
from switchyard.serving import valkey
from switchyard.serving.commands import Commands
from switchyard.serving.engine import Engine
from switchyard.serving.hot_store import HotStore
from switchyard.serving.journal import Journal
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


@pytest.fixture
def make_engine(
    tmp_path: Path, store_url: str, project: str, release: Release
) -> Iterator[Callable[..., Engine[Transaction]]]:
    """Makes engines on the embedded store, with other parts where they are given; ends them after the test."""
    made: list[Engine[Transaction]] = []

    def make(**overrides: Any) -> Engine[Transaction]:
        parts = {
            "domain": FraudDomain(100),
            "store": HotStore(store_url, Commands(project, VIEWS), budget_s=1.0),
            "journal": Journal(tmp_path / "journal"),
            "release": release,
        }
        made.append(Engine(**(parts | overrides)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()

"""What every test shares: hypothesis without deadlines (the machine is shared; timings are benchmarks')."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:  # imported where they are used: they bring Dagster, MLflow and Feast with them
    from tests.homes import Home

settings.register_profile(
    "switchyard",
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],  # the same: a matter of the machine's load
)
settings.load_profile("switchyard")


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables without content: making them takes seconds, copying them nothing."""
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def new_home(tmp_path: Path, mlflow_database: Path) -> Iterator[Callable[..., Home]]:
    """Opens homes below the test's own folder by name; what they started is stopped at the end."""
    from tests.homes import close, make_home

    opened: list[Home] = []

    def open_home(name: str = "home", **overrides: Any) -> Home:
        opened.append(make_home(tmp_path / name, mlflow_database, **overrides))
        return opened[-1]

    yield open_home
    for home in opened:
        close(home.settings)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Home]:
    """A small simulated home after ingest, features, training and its gates. Tests only read it."""
    from tests.homes import close, make_home, run_through_training

    home = make_home(tmp_path_factory.mktemp("home") / ".switchyard", mlflow_database)
    run_through_training(home)
    yield home
    close(home.settings)


@pytest.fixture(scope="session")
def served_home(home: Home) -> Home:
    """The same home after release and deployment, the day after landed: its Bento answers."""
    home.findings += home.run("publish")
    home.findings += home.run("land", [home.after])
    return home

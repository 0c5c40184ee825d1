"""The worker: a job over there raises what it raises here, and its death is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from pathlib import Path

import psutil
import pytest

from orchestration.home import exports
from orchestration.runs import RunFailedError
from orchestration.worker import Worker
from switchyard.errors import ServiceError
from tests.homes import close, open_small, own_environment


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Worker]:
    settings = open_small(tmp_path_factory.mktemp("worker") / "home", mlflow_database)
    try:
        with own_environment(**exports(settings)), Worker(settings) as worker:
            yield worker
    finally:
        close(settings)


def test_an_error_here_does_not_wait_for_what_loads_there(
    tmp_path: Path, mlflow_database: Path
) -> None:
    settings = open_small(tmp_path / "home", mlflow_database)
    try:
        with (
            own_environment(**exports(settings)),
            pytest.raises(ServiceError, match="an error here"),
            Worker(settings) as worker,
        ):
            raise ServiceError("an error here")
    finally:
        close(settings)

    assert isinstance(worker.loaded.exception(), BrokenProcessPool)


def test_a_job_that_fails_there_says_why_here(worker: Worker) -> None:
    with pytest.raises(RunFailedError, match="materialize 'transactions'"):
        worker.run_job("build_features", days=(date(2026, 1, 1), date(2026, 1, 2)))


def test_a_killed_worker_is_told_in_one_line(worker: Worker) -> None:
    for child in psutil.Process().children():
        if "spawn_main" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(ServiceError, match="the job 'train' was killed"):
        worker.run_job("train")

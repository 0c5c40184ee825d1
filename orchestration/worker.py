"""A second process that runs jobs: it loads the frameworks while the first one already ingests.

Here: starting and ending it, and what it loads beforehand. Not here: what a job is (``jobs``, ``runs``).
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any

from orchestration.process import settle
from switchyard.errors import ServiceError
from switchyard.settings import Settings

if TYPE_CHECKING:
    from orchestration.runs import Finding

_PR_SET_PDEATHSIG = 1
"""prctl(2)"""


class Worker:
    """One process beside this one; ends with it, also when it is killed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_end_with_parent,
        )
        others = multiprocessing.active_children()
        self.loaded: Future[None] = self._pool.submit(_load, settings)
        self._processes = [p for p in multiprocessing.active_children() if p not in others]

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.loaded.done():  # an error came first, and nobody will wait for what it loads
            for process in self._processes:
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    def run_job(
        self,
        name: str,
        *,
        days: tuple[date, date] | None = None,
        config: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
    ) -> list[Finding]:
        """``runs.run_job`` over there; raises what it raises, and ServiceError if the process is gone."""
        try:
            self.loaded.result()
            return self._pool.submit(_run_job, self._settings, name, days, config, tags).result()
        except BrokenProcessPool:
            raise ServiceError(
                f"the process that ran the job '{name}' was killed, or ran out of memory; run it again"
            ) from None


def _end_with_parent() -> None:
    """Linux ends this process the moment its parent is gone; elsewhere a thread does, a little later."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in the second process"
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _load(settings: Settings) -> None:
    """Import what jobs import inside their functions, and what is compiled."""
    settle()
    import evidently  # noqa: F401
    import great_expectations  # noqa: F401
    import shap  # noqa: F401
    import xgboost  # noqa: F401

    from orchestration.feast import feature_store
    from orchestration.home import prepare_mlflow, spare_the_disk
    from switchyard.fraud.compiling import compile_all

    spare_the_disk()
    prepare_mlflow(settings)
    feature_store(settings)
    compile_all()
    _definitions(settings)


def _run_job(
    settings: Settings,
    name: str,
    days: tuple[date, date] | None,
    config: dict[str, Any] | None,
    tags: dict[str, str] | None,
) -> list[Finding]:
    import dagster as dg

    from orchestration.runs import run_job

    with dg.DagsterInstance.get() as instance:
        return run_job(_definitions(settings), name, instance, days=days, config=config, tags=tags)


@cache
def _definitions(settings: Settings) -> Any:
    from orchestration.definitions import build_definitions

    return build_definitions(settings)

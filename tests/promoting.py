"""A process that promotes or rolls back, and is killed by SIGKILL, or held, just before a given step. No tests.

They are forked from one that has imported what they need, so that a kill costs no seconds of importing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psutil

from orchestration import promotion, rollout
from orchestration.home import exports
from switchyard.settings import Settings

WHO, WHY = "a test", "to see what is left"
KILLED = -signal.SIGKILL

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["tests.promoting", "mlflow.tracking"])


def run(
    settings: Settings,
    what: str,
    release: str = "",
    *,
    killed_before: str,
    at: datetime | None = None,
) -> int | None:
    """'promote', 'roll_back', 'recover' or 'step the rollout' (``at`` a moment of event time) in a process of its own;
    how it ended."""
    process = _started(settings, what, release, killed_before, signal.SIGKILL, at)
    process.join()
    return process.exitcode


@contextmanager
def held(settings: Settings, what: str, release: str = "", *, before: str) -> Iterator[None]:
    """The same, standing still before a step until the block ends; then it goes on to its end."""
    process = _started(settings, what, release, before, signal.SIGSTOP)
    pid = process.pid
    assert pid is not None
    try:
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            assert process.is_alive(), "it ended before that step"
            time.sleep(0.02)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        process.join()
    assert process.exitcode == 0


def _started(
    settings: Settings,
    what: str,
    release: str,
    step: str,
    how: signal.Signals,
    at: datetime | None = None,
) -> Any:
    arguments = (settings, what, release, step, how, at)
    process = _forking.Process(target=_move, args=arguments)
    process.start()
    return process


def _move(
    settings: Settings, what: str, release: str, step: str, how: signal.Signals, at: datetime | None
) -> None:
    os.environ.update(exports(settings))
    told = partial(_at, step, how)
    moves: dict[str, Callable[[], Any]] = {
        "promote": lambda: promotion.promote(settings, release, who=WHO, why=WHY, step=told),
        "roll_back": lambda: promotion.roll_back(settings, who=WHO, why=WHY, step=told),
        "recover": lambda: promotion.recover(settings, told),
        "step the rollout": lambda: rollout.step(settings, at or datetime.now(UTC), told=told),
    }
    moves[what]()


def _at(step: str, how: signal.Signals, name: str) -> None:
    if name == step:
        os.kill(os.getpid(), how)

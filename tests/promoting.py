"""A process that promotes or rolls back, and is killed by SIGKILL just before a given step. No tests.

They are forked from one that has imported what they need, so that a kill costs no seconds of importing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from orchestration import promotion
from orchestration.home import exports
from switchyard.settings import Settings, load_settings

WHO, WHY = "a test", "to see what is left"
KILLED = -signal.SIGKILL

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["tests.promoting", "mlflow.tracking"])


def run(settings: Settings, what: str, release: str = "", *, killed_before: str) -> int | None:
    """'promote', 'roll_back' or 'recover' in a process of its own; how it ended."""
    arguments = (str(settings.home), settings.port, what, release, killed_before)
    process = _forking.Process(target=_move, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def _move(home: str, port: int, what: str, release: str, step: str) -> None:
    settings = load_settings(home=home, port=port)
    os.environ.update(exports(settings))
    moves: dict[str, Callable[..., Any]] = {
        "promote": partial(promotion.promote, settings, release, who=WHO, why=WHY),
        "roll_back": partial(promotion.roll_back, settings, who=WHO, why=WHY),
        "recover": partial(promotion.recover, settings),
    }
    moves[what](step=partial(_kill_at, step))


def _kill_at(step: str, name: str) -> None:
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)

"""A process that promotes or rolls back, and is killed by SIGKILL just before a given step. No tests.

``python -m tests.promoting HOME promote RELEASE STEP``, ``... HOME roll_back - STEP``, ``... HOME recover - STEP``;
the step '-' is none, and it then runs to its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from orchestration import promotion
from orchestration.home import exports
from switchyard.settings import Settings, load_settings

WHO, WHY = "a test", "to see what is left"


def killed_before(step: str) -> Callable[[str], None]:
    def hook(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def run(settings: Settings, what: str, release: str = "-", step: str = "-") -> int:
    """In a process of its own; how it ended (-9: killed)."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.promoting",
        str(settings.home),
        str(settings.port),
    ]
    return subprocess.run([*command, what, release, step], check=False).returncode


def main(home: str, port: str, what: str, release: str, step: str) -> None:
    settings = load_settings(home=home, port=int(port))
    os.environ.update(exports(settings))
    moves: dict[str, Callable[..., Any]] = {
        "promote": partial(promotion.promote, settings, release, who=WHO, why=WHY),
        "roll_back": partial(promotion.roll_back, settings, who=WHO, why=WHY),
        "recover": partial(promotion.recover, settings),
    }
    moves[what](step=killed_before(step))


if __name__ == "__main__":
    main(*sys.argv[1:])

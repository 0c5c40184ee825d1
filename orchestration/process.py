"""What every process of the command line sets for itself before the frameworks are imported, and processes
that outlive it: how they are started and found again.

Not here: the environment that a home needs (``home``), what is started (``deployment``, ``gateway``).
"""

from __future__ import annotations

import contextlib
import gc
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil


def settle() -> None:
    """Silence the frameworks' deprecations, which tests see all of, and look for garbage seldom: each
    search walks the millions of objects that the frameworks keep for good."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    gc.set_threshold(50_000, 20, 50)


def start_apart(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(environment),
            preexec_fn=_listen_to_signals,
        )


def process_of(arguments: Sequence[str]) -> psutil.Process | None:
    """The living process of this user whose command line ends with ``arguments``, None if there is none.

    A name that is in nobody's memory: it holds from before a process is started until after it ended, and
    across a restart of the machine.
    """
    wanted, me = list(arguments), psutil.Process().uids().real
    for process in psutil.process_iter(["cmdline", "uids", "status"]):
        with contextlib.suppress(psutil.Error):
            about = process.info
            if (about["cmdline"] or [])[-len(wanted) :] != wanted or about["uids"].real != me:
                continue
            if about["status"] != psutil.STATUS_ZOMBIE:
                return process
    return None


def alive_after(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Which of them still run after at most so long. One that has ended counts as such although its parent
    has not asked for its end yet: that may be a process that never will."""
    deadline = time.monotonic() + seconds
    while alive := [p for p in processes if not has_ended(p)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return alive


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _listen_to_signals() -> None:
    """A process started in the background of a script inherits SIGINT as ignored; undo that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

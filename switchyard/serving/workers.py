"""The folder that one running service's processes share, and what each of its workers says of itself.

It is named by the supervising process and lives as long as that does: ``run/<its id>`` of the home. Here:
who serves which releases. Not here: what workers count (``tally``), what is to be served (``plan``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from switchyard.lake import write_text
from switchyard.serving.tally import lives

_SERVICE = "service.json"
_SUFFIX = ".worker.json"


class Service(msgspec.Struct, frozen=True):
    """A supervising process and the release of its Bento."""

    pid: int
    bento: str


class Worker(msgspec.Struct, frozen=True):
    """What one worker serves. ``plan`` is the number of the plan it has last read (0: none); ``refused`` says
    in words what of it it did not follow, and why."""

    pid: int
    champion: str
    previous: str | None
    challenger: str | None
    plan: int
    refused: str | None = None


def run_folder(home: Path, supervisor: int) -> Path:
    """The folder of the service whose supervising process has that id."""
    return home / "run" / str(supervisor)


def open_run_folder(home: Path, bento: str) -> Path:
    """Make the folder of this supervising process, and remove those of ended ones."""
    for folder in _folders(home):
        if int(folder.name) == os.getpid() or not lives(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
    own = run_folder(home, os.getpid())
    _write(Service(os.getpid(), bento), own / _SERVICE)
    return own


def services(home: Path) -> list[Service]:
    """The services of ``home`` whose supervising process lives."""
    found = []
    for folder in _folders(home):
        if lives(int(folder.name)) and (folder / _SERVICE).exists():
            found.append(msgspec.json.decode((folder / _SERVICE).read_bytes(), type=Service))
    return found


def tell(folder: Path, worker: Worker) -> None:
    """Let others know what this worker serves."""
    _write(worker, folder / f"{worker.pid}{_SUFFIX}")


def workers(folder: Path) -> list[Worker]:
    """The living workers of a service that have something to say."""
    files = sorted(folder.glob(f"*{_SUFFIX}"))
    told = [msgspec.json.decode(file.read_bytes(), type=Worker) for file in files]
    return [worker for worker in told if lives(worker.pid)]


def _folders(home: Path) -> Iterator[Path]:
    return (f for f in sorted((home / "run").glob("*")) if f.is_dir() and f.name.isdigit())


def _write(said: msgspec.Struct, file: Path) -> None:
    write_text(msgspec.json.encode(said).decode() + "\n", file)

"""One job's folder: what was asked, how far it is, how it ended, and whose it is at the moment.

The files appear whole; ``lock`` is held by the process that does the job, and the kernel drops it when that
process dies. Not here: which job is next, and what is told of them (``jobs``).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from switchyard.lake import write_text

T = TypeVar("T")
_EVERY_S = 0.5
"""Least time between two notes of progress."""


class Job(msgspec.Struct, frozen=True):
    """What was asked for: read ``input_uri``, score it with the release, write ``output_uri``; or, where
    these are None, deploy the release for ``who``, because of ``why``."""

    job_id: str
    release: str
    release_folder: str
    submitted_at: float
    input_uri: str | None = None
    output_uri: str | None = None
    who: str | None = None
    why: str | None = None


class Progress(msgspec.Struct):
    """``started_at``: of the first process; ``since`` and ``rows_before``: of the one that runs now."""

    starts: int = 0
    started_at: float | None = None
    since: float | None = None
    rows_before: int | None = None
    rows: int = 0
    rows_in_all: int | None = None
    noted_at: float = 0.0

    @property
    def share(self) -> float | None:
        """Of all rows, from 0 to 1."""
        return self.rows / self.rows_in_all if self.rows_in_all else None

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end, at the pace of the process that runs now: an earlier one may have had other
        company."""
        if self.rows_in_all is None or self.since is None or self.rows_before is None:
            return None
        done, seconds = self.rows - self.rows_before, self.noted_at - self.since
        if done <= 0 or seconds <= 0:
            return None
        return round((self.rows_in_all - self.rows) * seconds / done, 1)


class End(msgspec.Struct, frozen=True):
    """How a job ended, and why if it failed."""

    status: Literal["done", "failed"]
    finished_at: float
    error: str | None = None


class JobFolder:
    """The files of one job, whose id is the folder's name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def job(self) -> Job | None:
        """What was asked for; None if there is no such job."""
        return self._read("job", Job)

    @property
    def progress(self) -> Progress:
        return self._read("progress", Progress) or Progress()

    @property
    def end(self) -> End | None:
        return self._read("end", End)

    @property
    def ended(self) -> bool:
        return (self.path / "end.json").exists()

    def write(self, content: Job | Progress | End) -> None:
        name = type(content).__name__.lower()
        write_text(msgspec.json.encode(content).decode(), self.path / f"{name}.json")

    @property
    def running(self) -> bool:
        """Whether a process does the job."""
        with suppress(FileNotFoundError), (self.path / "lock").open() as lock:
            return not locked(lock.fileno(), fcntl.LOCK_SH)
        return False

    @property
    def process(self) -> int | None:
        """The process that does the job; None if none does."""
        if not self.running:
            return None
        text = (self.path / "lock").read_text()
        return int(text) if text.isdigit() else None

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Whether this process may do the job, alone."""
        with (self.path / "lock").open("a+") as lock:
            own = locked(lock.fileno(), fcntl.LOCK_EX)
            if own:
                lock.truncate(0)
                lock.write(str(os.getpid()))
                lock.flush()
            yield own

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            content = (self.path / f"{name}.json").read_bytes()
        except FileNotFoundError:
            return None
        return msgspec.json.decode(content, type=kind)


class Notes:
    """How far a job is, as the process finds out that begins to do it now."""

    def __init__(self, folder: JobFolder, clock: Callable[[], float]) -> None:
        self._folder, self._clock = folder, clock
        now, before = clock(), folder.progress
        self.progress = msgspec.structs.replace(
            before,
            starts=before.starts + 1,
            started_at=before.started_at or now,
            since=now,
            rows_before=None,
            noted_at=now,
        )

    def write(self) -> None:
        self._folder.write(self.progress)

    def forgive(self) -> None:
        """This process was asked to end: that is no death of its own."""
        self.progress.starts -= 1
        self.write()

    def advance(self, _what: str, rows: int, rows_in_all: int) -> None:
        """Told of progress; it is written now and then."""
        due = self._clock() >= self.progress.noted_at + _EVERY_S
        if due or self.progress.rows_in_all is None:
            self.take(rows, rows_in_all)

    def take(self, rows: int, rows_in_all: int) -> None:
        """Write how far it is."""
        if self.progress.rows_before is None:
            self.progress.rows_before = rows
        self.progress.rows, self.progress.rows_in_all = rows, rows_in_all
        self.progress.noted_at = self._clock()
        self.write()


def locked(file: int, how: int) -> bool:
    """Lock an open file if nobody holds it; whether that was so."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

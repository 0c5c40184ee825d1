"""Batch jobs as folders of files: ``jobs/<id>/`` holds what was asked, how far it is and how it ended.

No state is kept anywhere else, so a job outlives the service, and whoever reads the folder knows as much as
anybody. A running job's process holds a lock on its folder; the kernel drops it when that process dies, and
the job is queued again. Here: the queue and its words. Not here: what a job does (the use case's module),
starting processes, HTTP bodies (``job_api``).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from switchyard.errors import RequestError, SwitchyardError
from switchyard.lake import write_text
from switchyard.serving.replies import bounded

T = TypeVar("T")
Status = Literal["queued", "running", "done", "failed"]
JOB_ID = re.compile(r"[0-9a-f]{32}")
MOST_OPEN = 100
"""Jobs that wait or run at a time; more are refused."""
KEPT_ENDED = 1_000
"""Ended jobs whose folders are kept, newest first."""
MOST_STARTS = 5
"""A job whose process died so often is not started again."""
ARRIVAL_S = 20.0
"""A launched process that has not arrived by then is not expected any more."""
_EVERY_S = 0.5
"""Least time between two notes of progress."""
_LOG = "the log of jobs in the service's home may say why"


class Job(msgspec.Struct, frozen=True):
    """What was asked for: read ``input_uri``, score it with the release, write ``output_uri``."""

    job_id: str
    input_uri: str
    output_uri: str
    release: str
    release_folder: str
    submitted_at: float


class JobStatus(msgspec.Struct, frozen=True):
    """How far a job is. Times are in seconds since 1970; ``share`` is of ``rows_in_all``, from 0 to 1.

    ``rows`` counts finished ones, ``eta_s`` the seconds until the end at the present pace; null where it
    is not known (yet). ``error`` says why a job failed.
    """

    job_id: str
    status: Status
    input_uri: str
    output_uri: str
    release: str
    rows: int
    rows_in_all: int | None
    share: float | None
    eta_s: float | None
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    error: str | None


class _Progress(msgspec.Struct):
    """``started_at``: of the first process; ``since`` and ``rows_before``: of the one that runs now."""

    starts: int = 0
    started_at: float | None = None
    since: float | None = None
    rows_before: int | None = None
    rows: int = 0
    rows_in_all: int | None = None
    noted_at: float = 0.0


class _End(msgspec.Struct):
    status: Literal["done", "failed"]
    finished_at: float
    error: str | None = None


Run = Callable[[Job, Callable[[str, int, int], None]], int]
"""Does a job, telling of progress (what, rows done, rows in all); returns the rows written."""


class Jobs:
    """The jobs below ``folder``. ``clock`` is the wall clock in seconds since 1970."""

    def __init__(self, folder: Path, clock: Callable[[], float], most_running: int = 1) -> None:
        self._folder, self._clock, self._most_running = folder, clock, most_running
        self._coming = folder / "coming"
        folder.mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------ for those who ask

    def submit(self, input_uri: str, output_uri: str, release: str, release_folder: Path) -> str:
        """The id of a new job, or of one that is open and the same. Raises RequestError 503 if too many
        are open."""
        with self._alone():
            open_jobs = list(self._open_jobs())
            for job in open_jobs:
                if (job.input_uri, job.output_uri, job.release) == (input_uri, output_uri, release):
                    return job.job_id
            if len(open_jobs) >= MOST_OPEN:
                raise RequestError(
                    f"{len(open_jobs)} batch jobs are waiting; send it again later",
                    status=503,
                    retry_after_s=60,
                )
            self._forget_old()
            now = self._clock()
            job_id = f"{int(now * 1e6):016x}{os.urandom(8).hex()}"  # in the order of submission
            job = Job(job_id, input_uri, output_uri, release, str(release_folder), now)
            self._write(job_id, "job", job)
        return job_id

    def status(self, job_id: str) -> JobStatus:
        """Raises RequestError 404 if there is no such job."""
        job = self._read(job_id, "job", Job) if JOB_ID.fullmatch(job_id) else None
        if job is None:
            raise RequestError("there is no job of this id", status=404, field="job_id")
        running = self._is_running(job_id)
        end = self._read(job_id, "end", _End)
        progress = self._read(job_id, "progress", _Progress) or _Progress()
        done = end is not None and end.status == "done"
        return JobStatus(
            job_id=job_id,
            status=end.status if end else "running" if running else "queued",
            input_uri=job.input_uri,
            output_uri=job.output_uri,
            release=job.release,
            rows=progress.rows,
            rows_in_all=progress.rows_in_all,
            share=1.0 if done else _share(progress),
            eta_s=_eta_s(progress) if running and end is None else None,
            submitted_at=job.submitted_at,
            started_at=progress.started_at,
            finished_at=end.finished_at if end else None,
            error=end.error if end else None,
        )

    def idle(self) -> bool:
        """Whether a job waits although one more may run."""
        running = [self._is_running(job.job_id) for job in self._open_jobs()]
        return not all(running) and sum(running) < self._most_running

    def attend(self, launch: Callable[[], None]) -> None:
        """``launch`` a process to do what waits, unless it is being done or one is on its way."""
        with self._alone():
            if _age_s(self._coming) > ARRIVAL_S and self.idle():
                self._coming.touch()
                launch()

    # ------------------------------------------------------------ for the process that does them

    def arrive(self) -> None:
        """The process that was launched is there."""
        self._coming.unlink(missing_ok=True)

    def do_next(self, run: Run) -> bool:
        """Do the oldest job that waits, if fewer than ``most_running`` run; whether there was one.

        What ``run`` raises on purpose ends the job as failed, with those words; anything else too, and is
        raised.
        """
        with self._slot() as slot:
            if slot is None:
                return False
            for job in self._waiting():
                with self._held(job.job_id) as held:
                    if held and not self._has(job.job_id, "end"):
                        self._do(job, run)
                        return True
        return False

    def _do(self, job: Job, run: Run) -> None:
        notes = _Notes(self._read(job.job_id, "progress", _Progress) or _Progress(), self._clock)
        if notes.progress.starts > MOST_STARTS:
            self._end(job, "failed", f"its process died {MOST_STARTS} times; {_LOG}")
            return

        def write() -> None:
            self._write(job.job_id, "progress", notes.progress)

        write()
        try:
            rows = run(job, notes.advance(write))
        except SwitchyardError as error:
            self._end(job, "failed", bounded(str(error)))
        except Exception:
            self._end(job, "failed", f"the job failed; {_LOG}")
            raise
        else:
            notes.take(rows, rows)
            write()
            self._end(job, "done", None)

    def _end(self, job: Job, status: Literal["done", "failed"], error: str | None) -> None:
        self._write(job.job_id, "end", _End(status, self._clock(), error))

    # ------------------------------------------------------------ files

    def _open_jobs(self) -> Iterator[Job]:
        """Jobs that have not ended, oldest first."""
        for folder in sorted(self._folder.glob("[0-9a-f]*")):
            if JOB_ID.fullmatch(folder.name) and not self._has(folder.name, "end"):
                job = self._read(folder.name, "job", Job)
                if job is not None:
                    yield job

    def _waiting(self) -> Iterator[Job]:
        return (job for job in self._open_jobs() if not self._is_running(job.job_id))

    def _is_running(self, job_id: str) -> bool:
        with suppress(FileNotFoundError), (self._folder / job_id / "lock").open() as lock:
            return not _locked(lock.fileno(), fcntl.LOCK_SH)
        return False

    @contextmanager
    def _held(self, job_id: str) -> Iterator[bool]:
        with (self._folder / job_id / "lock").open("w") as lock:
            yield _locked(lock.fileno(), fcntl.LOCK_EX)

    @contextmanager
    def _slot(self) -> Iterator[int | None]:
        """One of ``most_running`` places to run in, None if all are taken."""
        for number in range(self._most_running):
            with (self._folder / f"slot-{number}.lock").open("w") as lock:
                if _locked(lock.fileno(), fcntl.LOCK_EX):
                    yield number
                    return
        yield None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._folder / "submit.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _forget_old(self) -> None:
        ended = sorted(path.parent for path in self._folder.glob("*/end.json"))
        for folder in ended[: max(0, len(ended) - KEPT_ENDED)]:
            shutil.rmtree(folder, ignore_errors=True)

    def _has(self, job_id: str, name: str) -> bool:
        return (self._folder / job_id / f"{name}.json").exists()

    def _read(self, job_id: str, name: str, kind: type[T]) -> T | None:
        try:
            content = (self._folder / job_id / f"{name}.json").read_bytes()
        except FileNotFoundError:
            return None
        return msgspec.json.decode(content, type=kind)

    def _write(self, job_id: str, name: str, content: msgspec.Struct) -> None:
        text = msgspec.json.encode(content).decode()
        write_text(text, self._folder / job_id / f"{name}.json")


class _Notes:
    """How far a job is, as its process finds out."""

    def __init__(self, before: _Progress, clock: Callable[[], float]) -> None:
        self._clock = clock
        now = clock()
        self.progress = msgspec.structs.replace(
            before,
            starts=before.starts + 1,
            started_at=before.started_at or now,
            since=now,
            rows_before=None,
            noted_at=now,
        )

    def advance(self, write: Callable[[], None]) -> Callable[[str, int, int], None]:
        """What to tell of progress; it is written now and then."""

        def advance(_what: str, rows: int, rows_in_all: int) -> None:
            due = self._clock() >= self.progress.noted_at + _EVERY_S
            if due or self.progress.rows_in_all is None:
                self.take(rows, rows_in_all)
                write()

        return advance

    def take(self, rows: int, rows_in_all: int) -> None:
        progress = self.progress
        if progress.rows_before is None:
            progress.rows_before = rows
        progress.rows, progress.rows_in_all = rows, rows_in_all
        progress.noted_at = self._clock()


def _share(progress: _Progress) -> float | None:
    return progress.rows / progress.rows_in_all if progress.rows_in_all else None


def _eta_s(progress: _Progress) -> float | None:
    """From the pace of the process that runs now: an earlier one may have had other company."""
    if progress.rows_in_all is None or progress.since is None or progress.rows_before is None:
        return None
    done = progress.rows - progress.rows_before
    seconds = progress.noted_at - progress.since
    if done <= 0 or seconds <= 0:
        return None
    return round((progress.rows_in_all - progress.rows) * seconds / done, 1)


def _age_s(file: Path) -> float:
    """Infinite if it is not there."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _locked(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

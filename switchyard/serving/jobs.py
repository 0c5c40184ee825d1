"""Jobs, of batch scoring or of deployment: a queue of folders. Who asks is told how far one is, who can does the next.

No state is kept anywhere else, so a job outlives the service, and whoever reads the folder knows as much as
anybody. A job whose process died is queued again. Here: the queue and its words. Not here: the files of one
job (``job_files``), what a job does (the use case's module), HTTP bodies (``job_api``).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from switchyard.errors import RequestError, SwitchyardError
from switchyard.serving.job_files import End, Job, JobFolder, Notes, locked
from switchyard.serving.replies import bounded

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
_LOG = "the log of jobs in the service's home may say why"
Run = Callable[[Job, Callable[[str, int, int], None]], int]
"""Does a job, telling of progress (what, rows done, rows in all); returns the rows written."""


class JobStatus(msgspec.Struct, frozen=True):
    """How far a job is. Times are in seconds since 1970; ``share`` is of ``rows_in_all``, from 0 to 1.
    A deployment has no URIs and no rows.

    ``rows`` counts finished ones, ``eta_s`` the seconds until the end at the present pace; null where it
    is not known (yet). ``error`` says why a job failed.
    """

    job_id: str
    status: Status
    input_uri: str | None
    output_uri: str | None
    release: str
    rows: int
    rows_in_all: int | None
    share: float | None
    eta_s: float | None
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    error: str | None


class Jobs:
    """The jobs below ``folder``. ``clock`` is the wall clock in seconds since 1970."""

    def __init__(self, folder: Path, clock: Callable[[], float], most_running: int = 1) -> None:
        self._folder, self._clock, self._most_running = folder, clock, most_running
        self._coming = folder / "coming"
        folder.mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------ for those who ask

    def submit(self, release: str, release_folder: Path, **asked: str) -> str:
        """The id of a new job, or of one that is open and the same; ``asked`` is what a Job has besides.

        Raises RequestError 503 if too many are open.
        """
        with self._alone():
            jobs = [job for job, _ in self._open()]
            for job in jobs:
                if job.release == release and all(getattr(job, k) == v for k, v in asked.items()):
                    return job.job_id
            if len(jobs) >= MOST_OPEN:
                raise RequestError(
                    f"{len(jobs)} jobs are waiting; send it again later",
                    status=503,
                    retry_after_s=60,
                )
            self._forget_old()
            now = self._clock()
            job_id = f"{int(now * 1e6):016x}{os.urandom(8).hex()}"  # in the order of submission
            job = Job(job_id, release, str(release_folder), now, **asked)
            JobFolder(self._folder / job_id).write(job)
        return job_id

    def status(self, job_id: str) -> JobStatus:
        """Raises RequestError 404 if there is no such job."""
        folder = JobFolder(self._folder / job_id)
        job = folder.job if JOB_ID.fullmatch(job_id) else None
        if job is None:
            raise RequestError("there is no job of this id", status=404, field="job_id")
        running = folder.running
        end, progress = folder.end, folder.progress
        return JobStatus(
            job_id=job_id,
            status=end.status if end else "running" if running else "queued",
            input_uri=job.input_uri,
            output_uri=job.output_uri,
            release=job.release,
            rows=progress.rows,
            rows_in_all=progress.rows_in_all,
            share=1.0 if end and end.status == "done" else progress.share,
            eta_s=progress.eta_s if running and end is None else None,
            submitted_at=job.submitted_at,
            started_at=progress.started_at,
            finished_at=end.finished_at if end else None,
            error=end.error if end else None,
        )

    def idle(self) -> bool:
        """Whether a job waits although one more may run."""
        running = [folder.running for _, folder in self._open()]
        return not all(running) and sum(running) < self._most_running

    def attend(self, launch: Callable[[], None]) -> None:
        """``launch`` a process to do what waits, unless it is being done or one is on its way."""
        with self._alone():
            if _age_s(self._coming) > ARRIVAL_S and self.idle():
                self._coming.touch()
                launch()

    def interrupt(self) -> int:
        """End the processes that do jobs; these wait until somebody asks for them again. How many ended."""
        processes = [process for _, folder in self._open() if (process := folder.process)]
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        return len(processes)

    # ------------------------------------------------------------ for the process that does them

    def arrive(self) -> None:
        """The process that was launched is there."""
        self._coming.unlink(missing_ok=True)

    def do_next(self, run: Run) -> bool:
        """Do the oldest job that waits, if fewer than ``most_running`` run; whether there was one.

        What ``run`` raises on purpose ends the job as failed, with those words; so does any other error,
        which is raised. SystemExit leaves it waiting.
        """
        with self._slot() as slot:
            if slot is None:
                return False
            for job, folder in self._open():
                with folder.held() as held:
                    if held and not folder.ended:
                        self._do(job, folder, run)
                        return True
        return False

    def _do(self, job: Job, folder: JobFolder, run: Run) -> None:
        notes = Notes(folder, self._clock)
        if notes.progress.starts > MOST_STARTS:
            self._fail(folder, f"its process died {MOST_STARTS} times; {_LOG}")
            return
        notes.write()
        try:
            rows = run(job, notes.advance)
        except SwitchyardError as error:
            self._fail(folder, bounded(str(error)))
        except Exception:
            self._fail(folder, f"the job failed; {_LOG}")
            raise
        except SystemExit:
            notes.forgive()
            raise
        else:
            notes.take(rows, rows)
            folder.write(End("done", self._clock()))

    def _fail(self, folder: JobFolder, error: str) -> None:
        folder.write(End("failed", self._clock(), error))

    # ------------------------------------------------------------ the queue

    def _open(self) -> Iterator[tuple[Job, JobFolder]]:
        """Jobs that have not ended, oldest first."""
        for path in sorted(self._folder.glob("[0-9a-f]*")):
            folder = JobFolder(path)
            if JOB_ID.fullmatch(path.name) and not folder.ended and (job := folder.job):
                yield job, folder

    @contextmanager
    def _slot(self) -> Iterator[int | None]:
        """One of ``most_running`` places to run in, None if all are taken."""
        for number in range(self._most_running):
            with (self._folder / f"slot-{number}.lock").open("w") as lock:
                if locked(lock.fileno(), fcntl.LOCK_EX):
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


def _age_s(file: Path) -> float:
    """Infinite if it is not there."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return float("inf")

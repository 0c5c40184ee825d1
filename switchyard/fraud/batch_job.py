"""The process that does batch jobs: ``python -m switchyard.fraud.batch_job HOME``.

It does the oldest job that waits, then begins anew as a fresh process, until none waits or others do them. It
outlives the service that started it, and gives way to it: lowest priority, half of the processors. Not here:
the queue (``serving.jobs``), scoring (``batch``).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import switchyard
from switchyard.lake import Lake
from switchyard.learning.release import load_release, read_manifest
from switchyard.serving.job_api import JobApi
from switchyard.serving.job_files import Job
from switchyard.serving.jobs import Jobs
from switchyard.serving.places import allowed_place
from switchyard.settings import Settings, load_settings

NICENESS = 15
_PAUSE_S = 0.1
_log = logging.getLogger(__name__)


def jobs_of(settings: Settings) -> Jobs:
    """The home's batch jobs."""
    return Jobs(settings.jobs, time.time, settings.batch_jobs)


def job_api_of(settings: Settings, own: Path, champion: Callable[[], str]) -> JobApi:
    """Their part of the service; ``own`` is the folder of its release, ``champion`` tells which decides."""
    if settings.batch_roots is None:
        settings.batch_folders[0].mkdir(parents=True, exist_ok=True)
    return JobApi(
        jobs_of(settings),
        roots=settings.batch_folders,
        releases=settings.releases,
        own=(str(read_manifest(own)["id"]), own),
        champion=champion,
        launch=lambda: launch(settings),
    )


def launch(settings: Settings) -> None:
    """Start the process; it is nobody's child to wait for, and runs the code that this process runs."""
    log = settings.home / "logs" / "jobs.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    code = str(Path(switchyard.__file__).parents[1])
    path = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))
    with log.open("ab") as output:
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(settings.home)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": path},
        )


def do_job(settings: Settings, job: Job, advance: Callable[[str, int, int], None]) -> int:
    """Do one job; its rows. Where its files lie is checked once more: a link may have changed."""
    from switchyard.fraud.batch import score_rows

    roots = settings.batch_folders
    return score_rows(
        Lake(settings.lake),
        load_release(Path(job.release_folder), threads=max(1, (os.cpu_count() or 1) // 2)),
        allowed_place(job.input_uri or "", roots, "input_uri"),
        allowed_place(job.output_uri or "", roots, "output_uri"),
        advance,
    )


def main(home: str) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(message)s", level="INFO")
    settings = load_settings(home=home)
    jobs = jobs_of(settings)
    jobs.arrive()
    while True:
        try:
            done = jobs.do_next(lambda job, advance: do_job(settings, job, advance))
        except Exception:  # the entry point: the job's folder says that it failed, the log why
            _log.exception("a job failed")
            done = True
        if not jobs.idle():
            return
        if done:
            os.execv(sys.executable, [sys.executable, "-m", __spec__.name, home])
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1])

"""The process that does deployments asked for over HTTP: ``python -m orchestration.deploy_job HOME``.

Each is a run of the job 'promote'. One that is killed is taken up again: what it left is first completed or undone.
Not here: the queue (``switchyard.serving.jobs``), what a promotion does (``promotion``).
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from orchestration.home import open_home
from orchestration.process import settle
from switchyard.errors import SwitchyardError
from switchyard.serving.job_files import Job
from switchyard.serving.jobs import Jobs
from switchyard.settings import Settings

_log = logging.getLogger(__name__)


def main(home: Path) -> None:
    settle()
    logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(message)s", level="INFO")
    settings = open_home(home=home)
    jobs = Jobs(settings.deployments, time.time)
    jobs.arrive()
    while jobs.do_next(lambda job, _advance: deploy(settings, job)):
        continue


def deploy(settings: Settings, job: Job) -> int:
    """Do one; no rows. Raises SwitchyardError with its first line: what a client may know."""
    from orchestration.manual import run_promotion

    _log.info("%s deploys %s: %s", job.who, job.release, job.why)
    try:
        run_promotion(settings, job.release, who=str(job.who), why=str(job.why))
    except SwitchyardError as error:
        _log.error("%s", error)
        raise SwitchyardError(str(error).splitlines()[0]) from None
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))

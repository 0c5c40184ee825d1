"""``POST /v1/models/{name}/deploy``: a release of the store is to answer and to decide; a job that can be asked for.

The service that answers this is replaced by what it asks for, so a process of the orchestrator does it, which is
launched by name: nothing of it is imported here. Not here: how a service is replaced, the queue (``jobs``).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from switchyard.errors import RequestError
from switchyard.learning.release import MANIFEST
from switchyard.serving.job_api import WaitingJobs
from switchyard.serving.jobs import Jobs
from switchyard.serving.reading import read
from switchyard.serving.releases import checked_id
from switchyard.serving.replies import Answer

ORCHESTRATOR = "orchestration"
"""The package that replaces services on this host."""
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class DeployBody(msgspec.Struct, forbid_unknown_fields=True):
    """Deploy ``release``; ``by`` is the person who asks for it, ``why`` the reason: both are recorded."""

    release: str
    by: Words
    why: Words


_decode = msgspec.json.Decoder(DeployBody).decode


class DeployApi(WaitingJobs):
    """Answers for the deployments of one home. ``releases`` is the release store."""

    def __init__(self, jobs: Jobs, releases: Path, launch: Callable[[], None]) -> None:
        super().__init__(jobs, launch)
        self._releases = releases

    def submit(self, body: bytes) -> Answer:
        """202 with the job's id. Raises RequestError: 404 for a release that is not in the store, 422 for
        what is wrong with the body, 503 where nothing can replace a service."""
        asked = read(_decode, body)
        folder = self._releases / checked_id(asked.release)
        if not (folder / MANIFEST).is_file():
            raise RequestError(
                f"there is no release {asked.release} in the store", status=404, field="release"
            )
        if importlib.util.find_spec(ORCHESTRATOR) is None:
            raise RequestError(
                "this service was not deployed by Switchyard's orchestrator, which alone can replace it",
                status=503,
            )
        return self._accepted(asked.release, folder, who=asked.by, why=asked.why)


def launch(home: Path) -> None:
    """Start the process as nobody's child: the service that asks for it ends before it does, and takes those
    below it along."""
    log = home / "logs" / "deployments.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = [sys.executable, "-m", f"{ORCHESTRATOR}.deploy_job", str(home)]
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *process],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=home,  # not the Bento's folder, whose copy of the package is the service's alone
            env=os.environ,
        )

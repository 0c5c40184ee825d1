"""``POST /v1/batch_predict`` and ``GET /v1/jobs/{job_id}``: bodies in, answers out; both touch files alone, so
they run in a thread. Not here: the queue itself (``jobs``), what a job does (the use case's module).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from switchyard.errors import InputError, RequestError
from switchyard.learning.release import MANIFEST
from switchyard.piecewise import check_apart
from switchyard.serving.jobs import Jobs
from switchyard.serving.places import allowed_place
from switchyard.serving.reading import read
from switchyard.serving.releases import checked_id
from switchyard.serving.replies import Answer, encode
from switchyard.storage import Place

Uri = Annotated[str, msgspec.Meta(min_length=1, max_length=2_048)]
_NAMED = 10
"""Releases named in a refusal, at most."""


class JobBody(msgspec.Struct, forbid_unknown_fields=True):
    """Score every row of ``input_uri`` (a Parquet file or a folder of them) into ``output_uri``: one file if
    it ends in ``.parquet``, else a folder with a file for each of the input's.

    Without ``release`` the one that decides now does it.
    """

    input_uri: Uri
    output_uri: Uri
    release: str | None = None


class JobAccepted(msgspec.Struct, frozen=True):
    """Ask ``GET /v1/jobs/{job_id}`` how far it is."""

    job_id: str


_decode = msgspec.json.Decoder(JobBody).decode


class WaitingJobs:
    """What is answered alike for every kind of job. ``launch`` starts a process that does what waits."""

    def __init__(self, jobs: Jobs, launch: Callable[[], None]) -> None:
        self._jobs, self._launch = jobs, launch

    def status(self, job_id: str) -> Answer:
        """200 with how far it is. Raises RequestError 404."""
        status = self._jobs.status(job_id)
        if status.status == "queued":
            self.wake()
        return Answer(200, encode(status))

    def wake(self) -> None:
        """Have what waits done, if nothing does it: after a kill, or a start of the machine."""
        self._jobs.attend(self._launch)

    def _accepted(self, release: str, folder: Path, **told: str) -> Answer:
        """Queue a job for a release in ``folder``; 202 with the job's id. Raises RequestError 503."""
        job_id = self._jobs.submit(release, folder, **told)
        self.wake()
        return Answer(202, encode(JobAccepted(job_id)))


class JobApi(WaitingJobs):
    """Answers for the batch jobs of one home.

    ``releases`` is the release store, ``own`` a release that is at hand beside it, ``champion`` tells which
    decides now; ``launch`` starts a process that does what waits.
    """

    def __init__(
        self,
        jobs: Jobs,
        *,
        roots: Sequence[Place],
        releases: Path,
        own: tuple[str, Path],
        champion: Callable[[], str],
        launch: Callable[[], None],
    ) -> None:
        super().__init__(jobs, launch)
        self._roots, self._releases = roots, releases
        self._own, self._champion = own, champion

    def submit(self, body: bytes) -> Answer:
        """202 with the job's id. Raises RequestError: 403 for a path that is not allowed, 404 for a release
        that is not there, 422 for what is wrong with the body, 503 if too many jobs wait."""
        asked = read(_decode, body)
        source = allowed_place(asked.input_uri, self._roots, "input_uri")
        output = allowed_place(asked.output_uri, self._roots, "output_uri")
        _check(source, output)
        release, folder = self._release(asked.release)
        uris = {"input_uri": source.as_uri(), "output_uri": output.as_uri()}
        return self._accepted(release, folder, **uris)

    def _release(self, named: str | None) -> tuple[str, Path]:
        release = checked_id(named) if named is not None else self._champion()
        kept = self._releases / release
        if (kept / MANIFEST).is_file():
            return release, kept
        if release == self._own[0]:
            return self._own
        there = sorted(p.parent.name for p in self._releases.glob(f"*/{MANIFEST}"))
        more = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
        raise RequestError(
            f"there is no release {release} in the store; there are {', '.join(there[:_NAMED])}{more}",
            status=404,
            field="release",
        )


def _check(source: Place, output: Place) -> None:
    """What can be said without asking an object store: that is for the job."""
    if isinstance(source, Path) and not source.exists():
        raise RequestError(f"input_uri: there is nothing at {source}", field="input_uri")
    try:
        check_apart(source, output)
    except InputError as error:
        raise RequestError(f"output_uri: {error}", field="output_uri") from None

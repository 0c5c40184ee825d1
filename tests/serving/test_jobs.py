"""Batch jobs as folders: what is told of them, and that none is lost, doubled or done for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from switchyard.errors import InputError, RequestError
from switchyard.serving import jobs as jobs_module
from switchyard.serving.job_files import Job
from switchyard.serving.jobs import MOST_STARTS, Jobs

RELEASE = "0a" * 16


class Clock:
    """The wall clock: a second later each time that it is asked."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "jobs", Clock())


def submit(jobs: Jobs, name: str = "a") -> str:
    uris = {"input_uri": f"file:///in/{name}", "output_uri": f"file:///out/{name}"}
    return jobs.submit(RELEASE, Path("/releases"), **uris)


def ten_rows(_job: Job, advance: Callable[[str, int, int], None]) -> int:
    for rows in range(11):
        advance("in", rows, 10)
    return 10


def test_a_job_waits_then_runs_then_is_done(jobs: Jobs) -> None:
    job_id = submit(jobs)
    waiting = jobs.status(job_id)
    seen = []

    def run(job: Job, advance: Callable[[str, int, int], None]) -> int:
        advance("in", 0, 10)
        advance("in", 4, 10)
        seen.append(jobs.status(job.job_id))
        return 10

    assert jobs.do_next(run)
    running, done = seen[0], jobs.status(job_id)
    assert (waiting.status, waiting.rows, waiting.rows_in_all, waiting.share) == (
        "queued",
        0,
        None,
        None,
    )
    assert (running.status, running.rows, running.rows_in_all, running.share) == (
        "running",
        4,
        10,
        0.4,
    )
    assert running.eta_s is not None
    assert running.eta_s > 0
    assert (done.status, done.rows, done.share, done.eta_s) == ("done", 10, 1.0, None)
    assert done.submitted_at < (done.started_at or 0) < (done.finished_at or 0)
    assert not jobs.do_next(run)


def test_an_open_job_that_is_the_same_is_the_same_job_and_an_ended_one_is_not(jobs: Jobs) -> None:
    first = submit(jobs)

    again, other = submit(jobs), submit(jobs, "b")
    jobs.do_next(ten_rows)
    anew = submit(jobs)

    assert first == again
    assert len({first, other, anew}) == 3


def test_jobs_run_in_the_order_they_came(jobs: Jobs) -> None:
    submitted = [submit(jobs, name) for name in "cab"]
    done: list[str] = []

    def run(job: Job, _advance: Callable[[str, int, int], None]) -> int:
        done.append(job.job_id)
        return 0

    while jobs.do_next(run):
        pass

    assert done == submitted


def test_only_so_many_run_at_a_time(tmp_path: Path) -> None:
    clock = Clock()
    one, two = Jobs(tmp_path, clock), Jobs(tmp_path, clock, most_running=2)
    for name in "abc":
        submit(one, name)
    depth: list[bool] = []

    def run(job: Job, _advance: Callable[[str, int, int], None]) -> int:
        if not depth:
            depth.extend([one.do_next(ten_rows), one.idle(), two.idle(), two.do_next(ten_rows)])
        return 0

    assert one.do_next(run)
    assert depth == [False, False, True, True]


def test_one_process_is_called_for_what_waits_until_it_has_come(jobs: Jobs) -> None:
    called: list[str] = []

    def call() -> None:
        jobs.attend(lambda: called.append("called"))

    call()
    assert not called
    submit(jobs)
    call()
    call()
    assert len(called) == 1
    jobs.arrive()
    call()
    assert len(called) == 2
    jobs.arrive()
    jobs.do_next(ten_rows)
    call()
    assert len(called) == 2


def test_a_job_that_cant_be_done_fails_with_the_words_of_its_error(jobs: Jobs) -> None:
    job_id = submit(jobs)

    def run(_job: Job, _advance: Callable[[str, int, int], None]) -> int:
        raise InputError("/in/a is a folder without .parquet files")

    assert jobs.do_next(run)
    status = jobs.status(job_id)
    assert (status.status, status.error) == ("failed", "/in/a is a folder without .parquet files")


def test_a_defect_fails_the_job_without_its_trace_and_is_raised(jobs: Jobs) -> None:
    job_id = submit(jobs)

    def run(_job: Job, _advance: Callable[[str, int, int], None]) -> int:
        raise ZeroDivisionError("internals")

    with pytest.raises(ZeroDivisionError):
        jobs.do_next(run)
    assert jobs.status(job_id).status == "failed"
    assert "internals" not in str(jobs.status(job_id).error)


def test_a_running_job_is_interrupted_and_waits_again(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, Clock())
    job_id = submit(jobs)
    assert jobs.interrupt() == 0
    running = (
        "import time; from pathlib import Path; from switchyard.serving.jobs import Jobs\n"
        f"Jobs(Path({str(tmp_path)!r}), time.time).do_next(lambda *_: print(1, flush=True) or time.sleep(60))"
    )
    with subprocess.Popen([sys.executable, "-c", running], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        assert jobs.interrupt() == 1

        assert process.wait() == -signal.SIGTERM
    assert jobs.status(job_id).status == "queued"


def test_an_end_that_was_asked_for_is_no_death(jobs: Jobs) -> None:
    job_id = submit(jobs)

    def end(_job: Job, advance: Callable[[str, int, int], None]) -> int:
        advance("in", 3, 10)
        raise SystemExit

    for _ in range(2 * MOST_STARTS):
        with pytest.raises(SystemExit):
            jobs.do_next(end)

    assert (jobs.status(job_id).status, jobs.status(job_id).rows) == ("queued", 3)
    assert jobs.do_next(ten_rows)
    assert jobs.status(job_id).status == "done"


def test_the_job_of_a_killed_process_waits_again_and_is_given_up_after_some_deaths(
    tmp_path: Path,
) -> None:
    jobs = Jobs(tmp_path, Clock())
    job_id = submit(jobs)
    dying = (
        "import os, signal, time; from pathlib import Path; from switchyard.serving.jobs import Jobs\n"
        "def run(job, advance):\n"
        "    advance('in', 3, 10)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"Jobs(Path({str(tmp_path)!r}), time.time).do_next(run)"
    )

    for _ in range(MOST_STARTS):
        died = subprocess.run([sys.executable, "-c", dying], check=False)
        assert died.returncode == -signal.SIGKILL
        assert (jobs.status(job_id).status, jobs.status(job_id).rows) == ("queued", 3)
        assert jobs.idle()

    assert jobs.do_next(ten_rows)
    assert jobs.status(job_id).status == "failed"
    assert "died 5 times" in str(jobs.status(job_id).error)


def test_too_many_waiting_jobs_are_refused_with_a_time_to_come_back(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MOST_OPEN", 2)
    submit(jobs, "a")
    submit(jobs, "b")

    with pytest.raises(RequestError, match="2 jobs are waiting") as caught:
        submit(jobs, "c")

    assert (caught.value.status, caught.value.retry_after_s) == (503, 60)
    assert submit(jobs, "a")


def test_only_the_newest_ended_jobs_are_kept(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "KEPT_ENDED", 2)
    ended = [submit(jobs, name) for name in "abcd"]
    while jobs.do_next(ten_rows):
        pass

    submit(jobs, "e")

    kept = {p.name for p in (tmp_path / "jobs").iterdir() if p.is_dir()}
    assert kept & set(ended) == set(ended[2:])


@pytest.mark.parametrize("job_id", ["", "0" * 32, "../jobs", "x" * 32, "0" * 31, "slot-0.lock"])
def test_what_is_no_job_is_a_404(jobs: Jobs, job_id: str) -> None:
    with pytest.raises(RequestError) as caught:
        jobs.status(job_id)

    assert (caught.value.status, caught.value.field) == (404, "job_id")


def test_what_is_written_of_a_job_is_whole_and_plain_json(jobs: Jobs, tmp_path: Path) -> None:
    job_id = submit(jobs)
    jobs.do_next(ten_rows)

    folder = tmp_path / "jobs" / job_id
    assert sorted(os.listdir(folder)) == ["end.json", "job.json", "lock", "progress.json"]
    assert json.loads((folder / "end.json").read_text())["status"] == "done"

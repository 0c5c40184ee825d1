"""Batch jobs as processes: started by the API, outliving it, going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchyard import storage
from switchyard.errors import RequestError
from switchyard.fraud import batch_job
from switchyard.fraud.batch_job import job_api_of
from switchyard.lake import whole_file
from switchyard.learning.release import Release
from switchyard.serving.job_api import JobApi
from switchyard.serving.job_files import Job
from switchyard.settings import Settings, load_settings
from switchyard.storage import Place
from tests.object_store import running_object_store
from tests.releases import COLUMNS, make_release

WAIT_S = 60.0
ROWS = 300_000
"""Three pieces of work."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [n for n in os.environ if n.startswith("SWITCHYARD_")]:
        monkeypatch.delenv(name)
    return load_settings(home=tmp_path / "home")


@pytest.fixture
def release(settings: Settings) -> Release:
    return make_release(settings.releases)


@pytest.fixture
def api(settings: Settings, release: Release) -> Iterator[JobApi]:
    yield job_api_of(settings, release.folder, lambda: release.id)
    for process in processes(settings):
        process.kill()


def processes(settings: Settings) -> list[psutil.Process]:
    """Those that do this home's jobs."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if batch_job.__name__ in command and str(settings.home) in command:
            found.append(process)
    return found


def write_vectors(file: Place, rows: int, group_rows: int) -> None:
    X = np.random.default_rng(1).integers(0, 200, (rows, len(COLUMNS))) * 10.0
    columns = {name: X[:, i] for i, name in enumerate(COLUMNS)}
    table = pa.table({"transaction_id": [f"t{i}" for i in range(rows)], **columns})
    with whole_file(file) as opened:
        pq.write_table(table, opened, row_group_size=group_rows)


def submit(api: JobApi, **body: Any) -> str:
    answer = api.submit(json.dumps(body).encode())
    assert answer.status == 202
    return str(json.loads(answer.body)["job_id"])


def status(api: JobApi, job_id: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(api.status(job_id).body)
    return told


def wait_until(
    api: JobApi, job_id: str, reached: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        told = status(api, job_id)
        if reached(told):
            return told
        time.sleep(0.02)
    pytest.fail(f"it took too long: {told}")


def ended(told: dict[str, Any]) -> bool:
    return told["status"] in ("done", "failed")


def test_killed_half_way_a_job_goes_on_and_writes_each_row_once(
    api: JobApi, settings: Settings, release: Release
) -> None:
    folder = settings.batch_folders[0]
    write_vectors(folder / "in.parquet", rows=ROWS, group_rows=10_000)
    paths = {"input_uri": f"file://{folder}/in.parquet", "output_uri": f"{folder}/out.parquet"}
    job_id = submit(api, **paths)
    pieces = folder / ".out.parquet.pieces"
    deadline = time.monotonic() + WAIT_S
    while not list(pieces.glob("*/[0-9]*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.005)

    for process in processes(settings):
        process.send_signal(signal.SIGKILL)
    again = submit(api, **paths)
    told = wait_until(api, job_id, ended)

    scored = pq.read_table(folder / "out.parquet")
    assert again == job_id
    assert (told["status"], told["error"], told["rows"], told["share"]) == (
        "done",
        None,
        ROWS,
        1,
    )
    assert scored["transaction_id"].to_pylist() == [f"t{i}" for i in range(ROWS)]
    assert scored["release"].unique().to_pylist() == [release.id]
    assert json.loads((settings.jobs / job_id / "progress.json").read_text())["starts"] == 2
    assert sorted(p.name for p in folder.iterdir()) == ["in.parquet", "out.parquet"]


def test_a_job_in_an_object_store_goes_on_after_a_kill_likewise(
    settings: Settings, release: Release, tmp_path: Path
) -> None:
    """Each of two files is a piece; the process dies while the second is scored."""
    with running_object_store(tmp_path / "store") as store:
        root = store.place("batch")
        allowed = settings.model_copy(update={"batch_roots": (str(root),)})
        (settings.home / "switchyard.toml").write_text(f'batch_roots = ["{root}"]')
        api = job_api_of(allowed, release.folder, lambda: release.id)
        for name in ("a.parquet", "b.parquet"):
            write_vectors(root / "in" / name, rows=60_000, group_rows=60_000)
        uris = {"input_uri": f"{root}/in", "output_uri": f"{root}/out"}
        job_id = submit(api, **uris)
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline and not any(
            name.startswith("batch/.out.pieces/") for name in store.names()
        ):
            time.sleep(0.005)

        for process in processes(settings):
            process.send_signal(signal.SIGKILL)
        assert submit(api, **uris) == job_id
        told = wait_until(api, job_id, ended)

        assert (told["status"], told["error"], told["rows"]) == ("done", None, 120_000)
        for name in ("a.parquet", "b.parquet"):
            with storage.reading(root / "out" / name) as given:
                scored = pq.ParquetFile(**given).read()
            assert scored["transaction_id"].to_pylist() == [f"t{i}" for i in range(60_000)]
        written = [name for name in store.names() if not name.startswith("batch/in/")]
        assert written == [
            f"batch/out/{name}" for name in ("_manifest.json", "a.parquet", "b.parquet")
        ]


def test_jobs_that_wait_are_all_done_each_by_its_release_and_one_that_cant_be_says_why(
    api: JobApi, settings: Settings, release: Release
) -> None:
    other = make_release(settings.releases, training={"seed": 8})
    folder = settings.batch_folders[0]
    write_vectors(folder / "in.parquet", rows=300, group_rows=300)
    pq.write_table(pa.table({"n": [1]}), folder / "other.parquet")
    bodies: list[dict[str, str]] = [
        {"input_uri": f"{folder}/other.parquet", "output_uri": f"{folder}/0.parquet"},
        {"input_uri": f"{folder}/in.parquet", "output_uri": f"{folder}/1.parquet"},
        {"input_uri": f"{folder}/in.parquet", "output_uri": f"{folder}/2.parquet",
         "release": other.id},
    ]  # fmt: skip
    submitted = [submit(api, **body) for body in bodies]

    told = [wait_until(api, job_id, ended) for job_id in submitted]

    by = [pq.read_table(folder / f"{n}.parquet")["release"][0].as_py() for n in (1, 2)]
    assert [t["status"] for t in told] == ["failed", "done", "done"], told
    assert "holds neither transactions" in told[0]["error"]
    assert by == [t["release"] for t in told[1:]] == [release.id, other.id]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"output_uri": "{folder}/out.parquet"}, 422, "input_uri"),
        ({"input_uri": "{folder}/none.parquet"}, 422, "input_uri"),
        ({"input_uri": "s3://bucket/in.parquet"}, 403, "input_uri"),
        ({"input_uri": "gs://bucket/in.parquet"}, 422, "input_uri"),
        ({"input_uri": "/etc/hostname"}, 403, "input_uri"),
        ({"output_uri": "/etc/hostname"}, 403, "output_uri"),
        ({"output_uri": "{folder}"}, 422, "output_uri"),
        ({"output_uri": "{folder}/in/out.parquet"}, 422, "output_uri"),
        ({"output_uri": "{folder}/in"}, 422, "output_uri"),
        ({"release": "0a" * 16}, 404, "release"),
        ({"release": "../../etc"}, 422, "release"),
        ({"priority": 1}, 422, "priority"),
    ],
)
def test_a_job_that_must_not_be_is_refused(
    api: JobApi, settings: Settings, body: dict[str, Any], status: int, field: str
) -> None:
    folder = settings.batch_folders[0]
    (folder / "in").mkdir()
    whole = {"input_uri": "{folder}/in", "output_uri": "{folder}/out.parquet"} | body
    if body == {"output_uri": "{folder}/out.parquet"}:
        del whole["input_uri"]
    sent = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in whole.items()}

    with pytest.raises(RequestError) as caught:
        api.submit(json.dumps(sent).encode())

    assert (caught.value.status, caught.value.field) == (status, field)
    assert not processes(settings)


def test_a_link_that_leads_outside_by_the_time_of_the_job_fails_it(
    settings: Settings, release: Release, tmp_path: Path
) -> None:
    folder = settings.batch_folders[0]
    folder.mkdir()
    (tmp_path / "outside.parquet").write_bytes(b"")
    (folder / "in.parquet").symlink_to(tmp_path / "outside.parquet")
    job = Job("0" * 32, release.id, str(release.folder), 0.0,
              f"file://{folder}/in.parquet", f"file://{folder}/out.parquet")  # fmt: skip

    with pytest.raises(RequestError, match="leads outside the folders"):
        batch_job.do_job(settings, job, lambda _what, _rows, _of: None)

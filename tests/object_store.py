"""A real S3 server of the test's own (moto's), a process that can be killed and keeps what was acknowledged.
Factories only, no tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from switchyard.storage import place_of
from tests.homes import free_port

BUCKET = "bank"
START_S = 30.0


class ObjectStore:
    """The server, whose files lie in ``folder``. One that is ``durable`` has what it was told recorded, and
    told again when it is started anew: for few small objects, written one after another."""

    def __init__(self, folder: Path, durable: bool) -> None:
        self.address = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._recording = folder / "requests.jsonl"
        self._environment = {"MOTO_RECORDER_FILEPATH": str(self._recording)} | (
            {"MOTO_ENABLE_RECORDING": "1"} if durable else {}
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = self.address.rpartition(":")[2]
        recorded = self._whole_requests()
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
                env=os.environ | self._environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while not _answers(int(port)):
            assert time.monotonic() < deadline, (self._folder / "server.log").read_text()
            time.sleep(0.02)
        if recorded:
            replay = f"{self.address}/moto-api/recorder/replay-recording"
            urllib.request.urlopen(urllib.request.Request(replay, method="POST")).close()

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def place(self, key: str) -> Any:
        """An object of the test's bucket: everything that a UPath can do."""
        place = place_of(f"s3://{BUCKET}/{key}")
        assert isinstance(place, UPath)
        return place

    def names(self) -> list[str]:
        """Of all objects that there are."""
        root = self.place("x").parent
        return sorted(path.removeprefix(f"{BUCKET}/") for path in root.fs.find(BUCKET))

    def unfinished_uploads(self) -> int:
        fs = self.place("x").fs
        return len(fs.list_multipart_uploads(BUCKET))

    def _whole_requests(self) -> int:
        if not self._recording.exists():
            return 0
        lines = self._recording.read_bytes().split(b"\n")[
            :-1
        ]  # a torn last line was not acknowledged
        self._recording.write_bytes(b"".join(line + b"\n" for line in lines))
        return len(lines)


@contextmanager
def running_object_store(folder: Path, *, durable: bool = False) -> Iterator[ObjectStore]:
    """A fresh server with one bucket; this process and its children speak to it while it runs."""
    from s3fs import S3FileSystem

    folder.mkdir(exist_ok=True)
    store = ObjectStore(folder, durable)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": store.address,
            "AWS_ACCESS_KEY_ID": "a key",
            "AWS_SECRET_ACCESS_KEY": "a secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            environment.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # one that is kept would ask the server of another test
        store.start()
        try:
            store.place("x").fs.mkdir(BUCKET)
            yield store
        finally:
            store.kill()
            S3FileSystem.clear_instance_cache()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

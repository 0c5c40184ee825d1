"""A real Postgres of the test's own, on a socket in a temporary folder. Debian's package ``postgresql`` has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a fresh Postgres; it is stopped and forgotten at the end."""
    folder = Path(tempfile.mkdtemp(prefix="switchyard-postgres-"))
    user: str | None = None
    if os.getuid() == 0:  # Postgres refuses to run as root
        user = "postgres"
        shutil.chown(folder, user)
    try:
        _run(user, "initdb", "-D", str(folder / "data"), "-U", "switchyard", "-A", "trust", "-N")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        log = str(folder / "log")
        _run(user, "pg_ctl", "-D", str(folder / "data"), "-l", log, "-o", options, "-w", "start")
        try:
            yield f"postgresql://switchyard@/postgres?host={folder}"
        finally:
            _run(user, "pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(user: str | None, program: str, *arguments: str) -> None:
    subprocess.run(
        [str(_found(program)), *arguments],
        check=True,
        user=user,
        cwd="/",
        stdout=subprocess.DEVNULL,
    )


def _found(program: str) -> Path:
    """On the PATH, or where Debian puts it."""
    named = shutil.which(program)
    places = (
        [Path(named)] if named else sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    )
    if not places:
        raise FileNotFoundError(
            f"{program} is not here: these tests need a real Postgres (apt-get install postgresql)"
        )
    return places[-1]

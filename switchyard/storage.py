"""Files wherever they lie: a path of this machine, or an object of a store that is named by a URL.

A :data:`Place` is either. What differs between the two stands here: finding, reading and deleting files, and how
one appears whole (``lake.whole_file`` renames, a store shows an object when all of it has arrived). Drivers are
fsspec's, imported when a store is first asked. Not here: what files hold, and who may name which place
(``serving.places``).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from switchyard.errors import InputError, StorageError

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = "Path | UPath"

DRIVERS = {"s3": "s3"}
"""Schemes of object stores, and the extra of this project that installs the driver of each."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PATTERN = re.compile(r"[*?\[\]#\\\x00-\x1f\x7f]")
"""What drivers take for a pattern, a query or a fragment."""
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/\s]*|[^/\s:]*:\S*)@")
"""A secret may hold slashes; a bucket's name holds no colon."""
_BLOCK_BYTES = 8 * 1024 * 1024
"""Of an object, read at a time."""
_BUFFER_BYTES = 1024 * 1024
"""Of a column of a local file, read at a time: so that its row groups may be of any size."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file, its name within the folder that was looked into, and what changes when its content does."""

    place: Place
    name: str
    state: str


def place_of(address: str) -> Place:
    """The place that a path, a ``file://`` or an object store's URL names.

    Raises InputError for another scheme, and for a URL that holds credentials, empty or dotted segments
    or a pattern.

    >>> place_of("s3://bucket/scores/a.parquet").name
    'a.parquet'
    """
    scheme, found, rest = address.partition("://")
    if not found:
        return Path(address).expanduser().resolve()
    if scheme == "file":
        return Path(rest).resolve()
    return _object_at(scheme, rest)


def is_url(address: str) -> bool:
    """Whether an object store is meant."""
    return address.partition("://")[0] in DRIVERS


def within(place: Place, folder: Place) -> bool:
    """Whether ``place`` is ``folder`` or lies below it: by whole segments, in the same bucket.

    >>> within(Path("/batch-other/a"), Path("/batch"))
    False
    """
    if isinstance(place, Path) or isinstance(folder, Path):
        return isinstance(place, Path) and isinstance(folder, Path) and place.is_relative_to(folder)
    ours, theirs = (str(each).rstrip("/").split("/") for each in (place, folder))
    return ours[: len(theirs)] == theirs


def without_credentials(text: str) -> str:
    """For messages that quote what somebody wrote.

    >>> without_credentials("batch_roots is 's3://key:secret@bucket/in'")
    "batch_roots is 's3://...@bucket/in'"
    >>> without_credentials("s3://key:se/cr+et@bucket/in, s3://bucket/a@b")
    's3://...@bucket/in, s3://bucket/a@b'
    """
    return _CREDENTIALS.sub("...@", text)


# ---------------------------------------------------------------- reading


def files_in(source: Place) -> list[Found]:
    """``source`` if it is a file, else all of the folder's Parquet files, sorted by name.

    In a folder names that begin with a dot or an underscore are passed over, with all below them. Raises
    InputError if a link in it leads out of it, StorageError if the object store can't be asked.
    """
    found = _local_files(source) if isinstance(source, Path) else _objects(source)
    shown = (e for e in found if e.place == source or not re.search(r"(^|/)[._]", e.name))
    return sorted(shown, key=lambda each: each.name)


@contextmanager
def reading(place: Place) -> Iterator[dict[str, Any]]:
    """What ``pyarrow.parquet.ParquetFile`` needs to read a place. Raises StorageError."""
    if isinstance(place, Path):
        yield {"source": place, "buffer_size": _BUFFER_BYTES}
        return
    with _answering(place):
        file = place.fs.open(place.path, "rb", block_size=_BLOCK_BYTES)
    with file, _answering(place, of=_driver_errors):  # an OSError may be the reader's own
        yield {"source": file}


def there(place: Place) -> bool:
    """Whether there is such a file or folder. Raises StorageError."""
    if isinstance(place, Path):
        return place.exists()
    with _answering(place):
        return bool(place.exists())


# ---------------------------------------------------------------- writing


@contextmanager
def whole_object(place: UPath) -> Iterator[BinaryIO]:
    """A file to write, put into the store at the end: nobody ever sees a part of it.

    Until then it is a local file. A large one goes in parts that are put together when all are there, and
    withdrawn if one fails. Raises StorageError.
    """
    descriptor, name = tempfile.mkstemp(prefix="switchyard-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        with _answering(place):
            place.fs.put_file(name, place.path)
    finally:
        Path(name).unlink()


def remove(place: Place) -> None:
    """Delete a file, if it is there. Raises StorageError."""
    with _answering(place):
        place.unlink(missing_ok=True)


def remove_folder(folder: Place) -> None:
    """Delete a folder with all that lies in it. Raises StorageError."""
    if isinstance(folder, Path):
        shutil.rmtree(folder)
        return
    with _answering(folder), suppress(FileNotFoundError):
        folder.fs.rm(folder.path, recursive=True)


# ---------------------------------------------------------------- object stores


def _object_at(scheme: str, rest: str) -> UPath:
    if scheme not in DRIVERS:
        raise InputError(
            f"the scheme '{scheme}' is none that is read and written here: "
            f"{', '.join(f'{known}://bucket/key' for known in DRIVERS)}, or a path"
        )
    bucket, _, key = rest.rstrip("/").partition("/")
    if "@" in bucket:
        raise InputError(
            "a URL must not hold credentials; the store's driver takes them from its environment"
        )
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"the URL names no bucket; {scheme}://bucket/key is needed")
    dotted = {"", ".", ".."}.intersection(key.split("/")) if key else set()
    if dotted or _PATTERN.search(key):
        raise InputError(
            "the URL has an empty or dotted segment, a wildcard or a control character; "
            f"{scheme}://bucket/key is needed, by its plain name"
        )
    from upath import UPath

    # no cache: what others have written meanwhile has to be seen
    return UPath(f"{scheme}://{bucket}/{key}", use_listings_cache=False)


def _local_files(source: Path) -> Iterator[Found]:
    paths = [source] if source.is_file() else source.rglob("*.parquet")
    for path in paths:
        if path != source and path.is_symlink():
            _check_link(path, source)
        stat = path.stat()
        name = source.name if path == source else path.relative_to(source).as_posix()
        yield Found(path, name, f"{stat.st_size} {stat.st_mtime_ns}")


def _check_link(link: Path, folder: Path) -> None:
    """Whoever may name the folder gets to see what is in it, and no other file."""
    to = link.resolve()
    if not (to.exists() and to.is_relative_to(folder.resolve())):
        raise InputError(
            f"{link} is a link that leads out of the folder, or nowhere; put the file itself there"
        )


def _objects(source: UPath) -> Iterator[Found]:
    with _answering(source):
        listed = source.fs.find(source.path, detail=True)
    for path, info in listed.items():
        name = source.name if path == source.path else path[len(source.path) :].lstrip("/")
        if path == source.path or name.endswith(".parquet"):
            place = source if path == source.path else source / name
            yield Found(place, name, f"{info['size']} {info.get('ETag') or info['LastModified']}")


def _driver_errors() -> tuple[type[Exception], ...]:
    """What drivers raise besides OSError; those of a driver that was never loaded can't have been raised."""
    botocore, aiohttp = sys.modules.get("botocore.exceptions"), sys.modules.get("aiohttp")
    return (
        *((botocore.BotoCoreError, botocore.ClientError) if botocore else ()),
        *((aiohttp.ClientError,) if aiohttp else ()),
    )


def _any_error() -> tuple[type[Exception], ...]:
    return (OSError, *_driver_errors())


@contextmanager
def _answering(
    place: Place, of: Callable[[], tuple[type[Exception], ...]] = _any_error
) -> Iterator[None]:
    """Tell of a store's trouble in our words; a missing object is a FileNotFoundError as elsewhere."""
    if isinstance(place, Path):
        yield
        return
    try:
        yield
    except FileNotFoundError:
        raise
    except ImportError as error:
        extra = DRIVERS[str(place.protocol)]
        raise StorageError(
            f"{place} needs a driver that is not installed ({error}): "
            f"pip install 'switchyard[{extra}]'"
        ) from None
    except of() as error:
        raise StorageError(
            f"{place}: the object store does not do what it should: {type(error).__name__}: "
            f"{without_credentials(str(error))}"
        ) from error

"""URIs that a request names, to places that the service may read or write, and no others.

The one door from a request to files and object stores. Not here: what is read or written there, and what a URL
may look like (``storage``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from switchyard.errors import InputError, RequestError
from switchyard.storage import Place, is_url, place_of, within


def allowed_place(uri: str, roots: Sequence[Place], field: str) -> Place:
    """The place that ``uri`` names: ``file:///a/b`` or ``/a/b``, symbolic links and ``..`` resolved, or
    ``s3://bucket/key``. No object store is asked for it.

    Raises RequestError naming ``field``: 422 for another scheme or what is no absolute path or plain URL,
    403 for a place that lies under none of ``roots``.

    >>> allowed_place("file:///tmp/in.parquet", [Path("/tmp")], "input_uri").name
    'in.parquet'
    """
    place = _object(uri, field) if is_url(uri) else _resolved(uri, field)
    if not any(within(place, _followed(root)) for root in roots):
        raise RequestError(
            f"{field} leads outside the folders that batch jobs may use (setting 'batch_roots'): "
            f"{', '.join(map(str, roots))}",
            status=403,
            field=field,
        )
    return place


def _followed(root: Place) -> Place:
    return root.resolve() if isinstance(root, Path) else root


def _object(uri: str, field: str) -> Place:
    try:
        return place_of(uri)
    except InputError as error:
        raise RequestError(f"{field}: {error}", field=field) from None


def _resolved(uri: str, field: str) -> Path:
    named = _named(uri, field)
    try:
        path = named.resolve()
        path.exists()
    except (OSError, RuntimeError):  # a name that is too long, links that go in circles
        raise RequestError(f"{field} names no path that can be followed", field=field) from None
    return path


def _named(uri: str, field: str) -> Path:
    if "\0" in uri:
        raise RequestError(f"{field} holds a zero byte", field=field)
    if uri.startswith("/"):
        return Path(uri)
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise RequestError(f"{field} is no URI", field=field) from None
    if parts.scheme not in ("", "file"):
        raise RequestError(
            f"{field} has the scheme '{parts.scheme}'; this service reads and writes local files "
            "(file:///folder/file.parquet, or an absolute path) and objects (s3://bucket/key)",
            field=field,
        )
    path = unquote(parts.path)
    local = parts.netloc in ("", "localhost") and not parts.query and not parts.fragment
    if not local or not path.startswith("/") or "\0" in path:
        raise RequestError(
            f"{field} must be an absolute path, or file:// and one: file:///folder/file.parquet",
            field=field,
        )
    return Path(path)

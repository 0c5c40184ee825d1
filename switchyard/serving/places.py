"""URIs that a request names, to paths that the service may read or write, and no others.

The one door: a further scheme (object stores through fsspec) comes in here and nowhere else. Not here: what is
read or written there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from switchyard.errors import RequestError


def allowed_path(uri: str, roots: Sequence[Path], field: str) -> Path:
    """The path that ``uri`` (``file:///a/b``, or ``/a/b``) names, symbolic links and ``..`` resolved.

    Raises RequestError naming ``field``: 422 for another scheme or what is no absolute path, 403 for a
    path that lies under none of ``roots`` once it is resolved.

    >>> allowed_path("file:///tmp/in.parquet", [Path("/tmp")], "input_uri").name
    'in.parquet'
    """
    named = _named(uri, field)
    try:
        path = named.resolve()
        path.exists()
    except (OSError, RuntimeError):  # a name that is too long, links that go in circles
        raise RequestError(f"{field} names no path that can be followed", field=field) from None
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        raise RequestError(
            f"{field} leads outside the folders that batch jobs may use (setting 'batch_roots'): "
            f"{', '.join(map(str, roots))}",
            status=403,
            field=field,
        )
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
            f"{field} has the scheme '{parts.scheme}'; this service reads and writes local files: "
            "file:///folder/file.parquet, or an absolute path",
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

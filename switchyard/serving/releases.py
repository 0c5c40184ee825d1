"""Which of the loaded releases a request asks for: ``?release=<id>``, or the champion if it names none.

Here: reading the query and the words of a refusal. Not here: loading releases (``learning.release``), who is
champion (the traffic plan).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from switchyard.errors import RequestError

RELEASE_ID = re.compile(r"[0-9a-f]{32}")
"""How a release is named."""
_FIELD = "release"
T = TypeVar("T")


def release_named(query: bytes) -> str | None:
    """The release that a query string names; None if it is empty.

    Raises RequestError 422 for another parameter, or what is no release's id.

    >>> release_named(b""), release_named(b"release=" + b"0f" * 16)
    (None, '0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f')
    """
    if not query:
        return None
    name, _, value = query.decode("ascii", "replace").partition("=")
    if name != _FIELD:
        raise RequestError("the only parameter of this path is 'release'", field=name or None)
    return checked_id(value)


def checked_id(text: str) -> str:
    """``text`` if it can be a release's id: only then may it become part of a path. RequestError 422."""
    if not RELEASE_ID.fullmatch(text):
        raise RequestError("release must be an id of 32 hex digits in lower case", field=_FIELD)
    return text


def asked_for(loaded: Mapping[str, T], query: bytes, champion: T) -> T:
    """What decides a request with that query. Raises RequestError 404 naming the releases that are loaded."""
    named = release_named(query)
    if named is None:
        return champion
    found = loaded.get(named)
    if found is None:
        raise RequestError(
            f"release {named} is not loaded here; loaded are {', '.join(sorted(loaded))}",
            status=404,
            field=_FIELD,
        )
    return found

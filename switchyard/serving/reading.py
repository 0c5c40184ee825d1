"""JSON bodies to typed values, strictly: what is wrong is a RequestError that names the field.

Not here: which types a body has (each path's own module), bounds on its length (``http``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from switchyard.errors import RequestError

Body = TypeVar("Body")


def read(decode: Callable[[bytes], Body], body: bytes) -> Body:
    """``body`` as a msgspec decoder's type.

    Raises RequestError: 400 for what is no JSON, 422 naming the field for what is wrong.
    """
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        named = re.search("field `([^`]+)`", message)
        field = named.group(1) if named else path.strip("`.").split("[")[0] or None
        raise RequestError(message, field=field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}", status=400) from None

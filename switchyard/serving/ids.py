"""Ids that nobody else gives out, without asking the kernel for random bytes each time.

Eight random bytes name the process, a counter what it made. They are unique, not secret.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable


def unique_tokens() -> Callable[[], bytes]:
    """A source of 16-byte tokens; make one in each process (a fork would repeat its parent's).

    >>> new = unique_tokens()
    >>> len(new()), new() != new()
    (16, True)
    """
    process, numbers = os.urandom(8), itertools.count()
    return lambda: process + next(numbers).to_bytes(8, "big")

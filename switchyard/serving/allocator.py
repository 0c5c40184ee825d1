"""The C library's allocator of a worker, told to give large blocks back and to keep one heap.

By itself glibc raises the size from which a block is given back to the system to that of the largest block that
was ever freed, and gives each new thread a heap of its own: a worker that seals a journal's index now and then
grows for no reason. Nothing happens under another C library. Not here: the interpreter's collector (``collector``).
"""

from __future__ import annotations

import ctypes

LARGE_BYTES = 1024 * 1024
"""Blocks from this size on are the system's again once they are freed; a trip's are smaller."""
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8


def tame_allocator() -> bool:
    """To be called before a process has many threads; whether this C library can be told so."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all([mallopt(_M_ARENA_MAX, 1), mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)])

"""What the allocator was told holds: large blocks go back to the system although small ones lie behind them."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import psutil
from switchyard.serving.allocator import LARGE_BYTES, tame_allocator

if sys.argv[1] == "tamed":
    assert tame_allocator()
bytes(24 * LARGE_BYTES)  # glibc learns from this that such blocks are worth keeping
kept, held = [], []
for _ in range(16):
    held.append(b"x" * (LARGE_BYTES * 3 // 2))
    kept.append(b"y" * 4096)
before = psutil.Process().memory_info().rss
del held
print(before - psutil.Process().memory_info().rss)
"""


def given_back(how: str) -> int:
    """Bytes that a process gives back when it frees sixteen large blocks with small ones between them."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_large_blocks_go_back_to_the_system() -> None:
    assert given_back("tamed") > 20 * 1024 * 1024
    assert given_back("as it is") < 4 * 1024 * 1024

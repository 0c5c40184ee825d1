"""What was compiled once is found by any copy of the same sources, and by no other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import switchyard

PROGRAM = """
from switchyard.fraud import features, sliding
features._ratio(1.0, 2.0)
print(sliding.__file__, sum(features._ratio.stats.cache_hits.values()))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    source = Path(switchyard.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, tmp_path / "first" / "switchyard", ignore=ignore)
    shutil.copytree(source, tmp_path / "second" / "switchyard", ignore=ignore)
    return tmp_path


def found_compiled(folder: Path, cache: Path) -> bool:
    """Whether the package in ``folder`` found its compiled code instead of compiling it."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    file, hits = done.stdout.split()
    assert Path(file).is_relative_to(folder)
    return int(hits) > 0


def test_a_copy_elsewhere_finds_it_until_a_module_compiled_in_changes(copy: Path) -> None:
    cache = copy / "cache"

    assert not found_compiled(copy / "first", cache)
    assert found_compiled(copy / "second", cache)
    with (copy / "second" / "switchyard" / "fraud" / "columns.py").open("a") as columns:
        columns.write("# another constant\n")
    assert not found_compiled(copy / "second", cache)
    assert found_compiled(copy / "first", cache)

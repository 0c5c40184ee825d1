"""Numbers in mapped files: read and added up by others while they are counted, kept when their owner ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from switchyard.serving.tally import (
    CAPACITY,
    Tally,
    keep_ended,
    own_file,
    read_all,
    read_tally,
)

COUNT_IN_A_CHILD = """
import os, signal, sys
from pathlib import Path
from switchyard.serving.tally import Tally, own_file
tally = Tally(own_file(Path(sys.argv[1])))
tally.values[tally.slot("answers")] += 5
os.kill(os.getpid(), signal.SIGKILL)
"""


def count_and_die(folder: Path) -> int:
    child = subprocess.Popen([sys.executable, "-c", COUNT_IN_A_CHILD, str(folder)])
    child.wait()
    return child.pid


def test_numbers_are_read_while_they_are_counted(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "a.tally")

    tally.values[tally.slot("answers")] += 2
    before = read_tally(tally.file)
    tally.values[tally.slot("answers")] += 1

    assert before == {"answers": 2.0}
    assert read_tally(tally.file) == {"answers": 3.0}


def test_a_name_keeps_its_slot_and_one_too_many_is_refused_with_words(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "a.tally")
    slots = [tally.slot(str(i)) for i in range(CAPACITY)]

    with pytest.raises(ValueError, match="'one more' is one too many"):
        tally.slot("one more")

    assert slots == list(range(CAPACITY))
    assert tally.slot("7") == 7


def test_a_file_that_is_no_tally_has_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "1.tally").write_bytes(b"")

    assert read_tally(tmp_path / "1.tally") == {}
    assert read_tally(tmp_path / "absent.tally") == {}


def test_what_a_killed_process_counted_is_kept_and_counted_once(tmp_path: Path) -> None:
    first, second = count_and_die(tmp_path), count_and_die(tmp_path)

    unfolded = read_all(tmp_path)
    keep_ended(tmp_path)
    folded = read_all(tmp_path)
    keep_ended(tmp_path)

    assert {f"{first}.tally", f"{second}.tally"}.isdisjoint(os.listdir(tmp_path))
    assert unfolded == folded == read_all(tmp_path) == ({}, {"answers": 10.0})


def test_a_living_process_is_told_from_ended_ones(tmp_path: Path) -> None:
    count_and_die(tmp_path)
    keep_ended(tmp_path)
    tally = Tally(own_file(tmp_path))
    tally.values[tally.slot("answers")] = 1

    assert read_all(tmp_path) == ({os.getpid(): {"answers": 1.0}}, {"answers": 5.0})


def test_a_file_of_ones_own_process_id_is_an_earlier_processs(tmp_path: Path) -> None:
    tally = Tally(own_file(tmp_path))
    tally.values[tally.slot("answers")] = 4
    tally.close()

    keep_ended(tmp_path)

    assert read_all(tmp_path) == ({}, {"answers": 4.0})

"""Decisions are found by their ids, whatever state the segments and their indexes are in."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from switchyard.serving.decided import DecidedIndex
from switchyard.serving.index import (
    SortedIndex,
    growing_path,
    key_of_decision,
    mend,
    sorted_path,
)
from switchyard.serving.journal import Journal
from switchyard.serving.segments import TornTail, frame, read_journal, segments

START_US = 1_772_366_400_000_000


def decision(number: int, **overrides: Any) -> dict[str, Any]:
    return {
        "type": "decision",
        "decision_id": f"d{number}",
        "transaction": {"transaction_id": f"t{number}"},
        "received_at": START_US + number,
    } | overrides


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    ticks = count(START_US)
    with Journal(tmp_path, segment_bytes=2_000, clock=lambda: next(ticks)) as opened:
        yield opened


def found_ids(index: DecidedIndex, *numbers: int, since_us: int = 0) -> set[str]:
    return set(index.first_of([f"t{n}" for n in numbers], since_us))


def write_until_killed(folder: Path, decisions: int) -> None:
    """Another process journals that many decisions one by one, and is killed."""
    program = (
        "import sys, time, pathlib\n"
        "from switchyard.serving.journal import Journal\n"
        "from tests.serving.test_decided import decision\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "for n in range(int(sys.argv[2])):\n"
        "    journal.append([decision(n), {'type': 'appended', 'transaction_id': f't{n}'}])\n"
        "print('done', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(decisions)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"done\n"
        writer.send_signal(signal.SIGKILL)


def test_every_decision_is_found_in_open_and_in_closed_segments(journal: Journal) -> None:
    index = DecidedIndex(journal.folder)
    for n in range(60):
        journal.append([decision(n), {"type": "appended", "transaction_id": f"t{n}"}])

        assert found_ids(index, n) == {f"t{n}"}

    assert len(segments(journal.folder)) > 3
    assert found_ids(index, *range(70)) == {f"t{n}" for n in range(60)}
    assert (index.newest(decision_id="d7") or {})["transaction"] == {"transaction_id": "t7"}
    assert index.newest(decision_id="d70") is None


def test_given_keys_and_found_keys_make_the_same_index(tmp_path: Path) -> None:
    records = [decision(n) for n in range(20)]
    for name, keys in (
        ("given", [key_of_decision(f"t{n}", f"d{n}") for n in range(20)]),
        ("found", None),
    ):
        with Journal(tmp_path / name) as journal:
            journal.append(records, keys)

    (given,), (found,) = (
        [sorted_path(s).read_bytes() for s in segments(tmp_path / name)]
        for name in ("given", "found")
    )
    assert given == found


def test_the_first_decision_since_a_moment_counts(journal: Journal) -> None:
    for n, received in enumerate((START_US, START_US + 10, START_US + 20)):
        of_one = {"decision_id": f"d{n}", "transaction": {"transaction_id": "t"}}
        journal.append([decision(n, **of_one, received_at=received)])

    found = DecidedIndex(journal.folder).first_of(["t"], START_US + 5)

    assert b'"decision_id":"d1"' in found["t"]
    assert DecidedIndex(journal.folder).first_of(["t"], START_US + 21) == {}


def test_a_decision_whose_index_entry_was_never_written_is_found_in_the_segment(
    journal: Journal,
) -> None:
    journal.append([decision(n) for n in range(5)])
    (segment,) = segments(journal.folder)
    growing_path(segment).write_bytes(growing_path(segment).read_bytes()[:30])

    assert found_ids(DecidedIndex(journal.folder), *range(6)) == {f"t{n}" for n in range(5)}


def test_an_index_that_is_no_index_is_made_again(journal: Journal) -> None:
    journal.append([decision(n) for n in range(5)])
    journal.close()
    (segment,) = segments(journal.folder)
    sorted_path(segment).write_bytes(bytes(4096))  # what a power cut leaves

    mend(journal.folder)

    assert SortedIndex.of(segment) is not None
    assert found_ids(DecidedIndex(journal.folder), *range(6)) == {f"t{n}" for n in range(5)}


def test_the_torn_tail_of_a_killed_process_is_cut_and_its_segment_sealed(tmp_path: Path) -> None:
    write_until_killed(tmp_path, decisions=30)
    (segment,) = segments(tmp_path)
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(frame(decision(30))[:-20])
    before = DecidedIndex(tmp_path)
    assert found_ids(before, *range(31)) == {f"t{n}" for n in range(30)}

    cut = mend(tmp_path)

    assert [(tail.file, tail.offset) for _, tail in cut if tail] == [(segment, size)]
    assert segment.stat().st_size == size
    assert mend(tmp_path) == []
    assert len(list(read_journal(tmp_path))) == 60
    for index in (before, DecidedIndex(tmp_path)):
        assert found_ids(index, *range(31)) == {f"t{n}" for n in range(30)}
    assert not growing_path(segment).exists()


def test_what_a_living_process_writes_is_left_alone(journal: Journal) -> None:
    journal.append([decision(0)])
    (segment,) = segments(journal.folder)
    with segment.open("ab") as file:
        file.write(b"half of the next rec")

    assert mend(journal.folder) == []
    assert segment.read_bytes().endswith(b"half of the next rec")
    assert SortedIndex.of(segment) is None


def test_a_segment_damaged_in_its_middle_is_not_cut_and_gives_what_is_whole(tmp_path: Path) -> None:
    write_until_killed(tmp_path, decisions=3)
    (segment,) = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    content[20] ^= 1
    segment.write_bytes(content)

    assert mend(tmp_path) == [(segment, None)]
    assert segment.read_bytes() == content
    assert found_ids(DecidedIndex(tmp_path), *range(3)) == {"t1", "t2"}


def test_a_torn_tail_tells_file_place_and_loss(tmp_path: Path) -> None:
    write_until_killed(tmp_path, decisions=1)
    (segment,) = segments(tmp_path)
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"torn")

    assert mend(tmp_path) == [(segment, TornTail(segment, size, 4))]

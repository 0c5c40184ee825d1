"""The journal: what is appended comes back, and damage is either cut and reported or refused."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import JournalError
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.journal import Journal
from switchyard.serving.segments import TornTail, frame, read_journal, segments, unframe


def ticking() -> Any:
    ticks = count(1_700_000_000_000_000)
    return lambda: next(ticks)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal", clock=ticking())
    yield opened
    opened.close()


def test_records_come_back_in_the_order_they_were_appended(journal: Journal) -> None:
    journal.append([{"type": "event", "n": 1}, {"type": "event", "n": 2}])
    journal.append([{"type": "label", "n": 3}])

    assert [r["n"] for r in read_journal(journal.folder)] == [1, 2, 3]


@given(st.lists(st.floats(allow_infinity=False), max_size=60), st.text())
def test_every_number_of_a_vector_comes_back_to_the_bit_and_nan_as_null(
    vector: list[float], text: str
) -> None:
    record = unframe(frame({"vector": vector, "id": text})[:-1])

    assert record["vector"] == [None if math.isnan(x) else x for x in vector]
    assert record["id"] == text


def test_a_full_segment_is_followed_by_the_next_and_their_names_sort(tmp_path: Path) -> None:
    journal = Journal(tmp_path, clock=ticking(), segment_bytes=200)

    for n in range(20):
        journal.append([{"type": "event", "n": n, "filler": "x" * 60}])
    journal.close()

    assert len(segments(tmp_path)) > 3
    assert all(s.stat().st_size < 400 for s in segments(tmp_path))
    assert [r["n"] for r in read_journal(tmp_path)] == list(range(20))


def test_two_writers_of_one_folder_never_share_a_segment(tmp_path: Path) -> None:
    writers = [Journal(tmp_path, clock=lambda: 1) for _ in range(2)]

    for n, writer in enumerate(writers):
        writer.append([{"type": "event", "n": n}])
        writer.close()

    assert len(segments(tmp_path)) == 2
    assert {r["n"] for r in read_journal(tmp_path)} == {0, 1}


@pytest.mark.parametrize("cut", [1, 5, 12, 30])
def test_a_torn_tail_ends_its_segment_and_is_reported_with_file_and_offset(
    tmp_path: Path, cut: int
) -> None:
    journal = Journal(tmp_path, clock=ticking(), segment_bytes=1)
    journal.append([{"type": "event", "n": 0}, {"type": "event", "n": 1, "filler": "long enough"}])
    journal.append([{"type": "event", "n": 2}])
    journal.close()
    first = segments(tmp_path)[0]
    os.truncate(first, first.stat().st_size - cut)
    torn: list[TornTail] = []

    records = list(read_journal(tmp_path, torn.append))

    whole = len(frame({"type": "event", "n": 0}))
    assert [r["n"] for r in records] == [0, 2]
    assert torn == [TornTail(first, whole, first.stat().st_size - whole)]


def test_a_tail_of_zeros_after_a_power_cut_is_a_torn_tail(journal: Journal) -> None:
    journal.append([{"type": "event", "n": 0}])
    (segment,) = segments(journal.folder)
    with segment.open("ab") as file:
        file.write(bytes(4096))
    torn: list[TornTail] = []

    records = list(read_journal(journal.folder, torn.append))

    assert len(records) == 1
    assert torn[0].lost_bytes == 4096


def test_damage_before_whole_records_is_refused_with_file_and_offset(journal: Journal) -> None:
    journal.append([{"type": "event", "n": n} for n in range(3)])
    (segment,) = segments(journal.folder)
    content = bytearray(segment.read_bytes())
    second = content.index(b"\n") + 1
    content[second + 20] ^= 1
    segment.write_bytes(content)

    with pytest.raises(JournalError, match=f"{segment.name} is damaged at byte {second}"):
        list(read_journal(journal.folder))


def test_a_decision_is_found_by_its_id_and_an_unknown_one_is_none(journal: Journal) -> None:
    journal.append([{"type": "decision", "decision_id": f"d{n}", "n": n} for n in range(5)])
    journal.append([{"type": "appended", "transaction_id": "d3"}])

    found = DecidedIndex(journal.folder).newest(decision_id="d3")

    assert found is not None
    assert found["n"] == 3
    assert DecidedIndex(journal.folder).newest(decision_id="d9") is None


def test_of_a_transaction_the_newest_decision_is_found(tmp_path: Path) -> None:
    for n, clock in enumerate((1, 2)):
        with Journal(tmp_path, clock=lambda clock=clock: clock) as journal:
            transaction = {"transaction_id": "t", "customer_id": "t2"}
            journal.append([{"type": "decision", "n": n, "transaction": transaction}])

    found = DecidedIndex(tmp_path).newest(transaction_id="t")

    assert found is not None
    assert found["n"] == 1
    assert DecidedIndex(tmp_path).newest(transaction_id="t2") is None


def test_an_empty_or_missing_folder_holds_no_records(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path / "nothing")) == []


def test_a_failed_write_leaves_no_part_of_its_batch_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    """A real EFBIG from the kernel stands for the full disk: both end a write half-way."""
    journal = Journal(tmp_path, clock=ticking())
    journal.append([{"type": "event", "n": 0}])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(JournalError, match=r"40 records can't be written.*free space"):
            journal.append([{"type": "event", "n": 1, "filler": "x" * 40}] * 40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    journal.append([{"type": "event", "n": 2}])
    journal.close()

    torn: list[TornTail] = []
    assert [r["n"] for r in read_journal(tmp_path, torn.append)] == [0, 2]
    assert torn == []


def test_a_folder_that_cannot_be_made_is_a_journal_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(JournalError, match="can't be written to the journal"):
        Journal(tmp_path / "file" / "journal", clock=ticking()).append([{"type": "event"}])


def test_fsync_always_writes_the_same_records(tmp_path: Path) -> None:
    journal = Journal(tmp_path, clock=ticking(), fsync=True)

    journal.append([{"type": "event", "n": 0}])
    journal.close()

    assert [r["n"] for r in read_journal(tmp_path)] == [0]


def test_acknowledged_records_survive_a_kill_of_the_process(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from switchyard.serving.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "for n in range(10**9):\n"
        "    journal.append([{'type': 'event', 'n': n}])\n"
        "    print(n, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)

    assert max(r["n"] for r in read_journal(tmp_path)) >= acknowledged

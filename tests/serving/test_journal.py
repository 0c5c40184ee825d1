"""The journal: what is appended comes back, and damage is either cut and reported or refused."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import JournalError
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.journal import Journal
from switchyard.serving.segments import (
    TornTail,
    closed_segment,
    frame,
    read_journal,
    segments,
    unframe,
)


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


# ---------------------------------------------------------------- rotation, room, policies


def test_a_segment_is_closed_by_age_and_the_next_record_opens_another(tmp_path: Path) -> None:
    now = [1_700_000_000_000_000]
    journal = Journal(tmp_path, clock=lambda: now[0], segment_seconds=60)
    journal.append([{"type": "event", "n": 0}])
    now[0] += 59_000_000
    journal.append([{"type": "event", "n": 1}])
    now[0] += 1_000_000

    journal.append([{"type": "event", "n": 2}])
    journal.close()

    assert [len(list(unframed(s))) for s in segments(tmp_path)] == [2, 1]


def test_an_idle_segment_is_closed_once_its_time_is_over(tmp_path: Path) -> None:
    now = [1_700_000_000_000_000]
    journal = Journal(tmp_path, clock=lambda: now[0], segment_seconds=60)
    journal.append([{"type": "event", "n": 0}])

    journal.close_aged()
    (segment,) = segments(tmp_path)
    with closed_segment(segment) as descriptor:
        assert descriptor is None
    now[0] += 60_000_000
    journal.close_aged()
    journal.close()

    with closed_segment(segment) as descriptor:
        assert descriptor is not None


def test_records_that_are_encoded_already_are_written_as_they_are(journal: Journal) -> None:
    journal.append([b'{"type":"event","n":1.50}', {"type": "event", "n": 2}])

    content = segments(journal.folder)[0].read_bytes()

    assert b'{"type":"event","n":1.50}\n' in content
    assert [r["n"] for r in read_journal(journal.folder)] == [1.5, 2]


def test_a_full_allowance_refuses_names_its_setting_and_ends_when_segments_go(
    tmp_path: Path,
) -> None:
    filler = {"type": "event", "filler": "x" * 5_000}
    journal = Journal(tmp_path, clock=ticking(), segment_bytes=20_000, max_bytes=200_000)
    assert journal.writable()

    with pytest.raises(JournalError, match=r"of at most 200,000 \(setting 'journal_max_bytes'\)"):
        append_often(journal, filler, times=100)

    assert "journal_max_bytes" in str(journal.trouble())
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 200_000
    written = len(list(read_journal(tmp_path)))
    for segment in segments(tmp_path)[:-1]:
        segment.unlink()
    until(journal.writable)
    journal.append([filler])
    assert written > len(list(read_journal(tmp_path))) > 1


def test_a_disk_with_less_free_than_is_to_stay_free_takes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, clock=ticking(), min_free_bytes=1 << 60)

    with pytest.raises(JournalError, match="setting 'journal_min_free_bytes'"):
        journal.append([{"type": "event"}])

    assert not journal.writable()
    assert segments(tmp_path) == []


FULL_DISK = """
import os, pathlib, resource, signal, sys, time
from switchyard.errors import JournalError
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.journal import Journal
from switchyard.serving.ledger import Ledger
from switchyard.serving.segments import read_journal

folder, how = pathlib.Path(sys.argv[1]), sys.argv[2]
ballast = folder / "ballast"


def fill():
    if how == "tmpfs":  # down to the last page
        file = os.open(ballast, os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(file, bytes(4096))
        except OSError:
            os.close(file)
    else:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


def free():
    if how == "tmpfs":
        ballast.unlink()
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


journal, torn, written = Journal(folder / "journal"), [], 0


def batch(n):
    return [
        {"type": "decision", "decision_id": f"d{n}-{i}", "filler": "x" * 900,
         "transaction": {"transaction_id": f"t{n}-{i}"}}
        for i in range(8)
    ]


journal.append(batch(0))
fill()
try:
    while True:
        written += 1
        journal.append(batch(written))
except JournalError as error:
    assert "free space or mend the folder" in str(error), error
assert not journal.writable(), "said to be writable on a full disk"
if how == "tmpfs":
    ledger = Ledger(folder / "journal")
    try:
        ledger.hold("t")
        raise AssertionError("a ledger can be opened on a full disk")
    except JournalError as error:
        assert "free space or mend the folder" in str(error), error
records = list(read_journal(folder / "journal", torn.append))
assert len(records) == 8 * written, (len(records), written)
assert torn == [], torn
free()
deadline = time.monotonic() + 10
while not journal.writable():
    assert time.monotonic() < deadline, "still not writable"
    time.sleep(0.05)
journal.append(batch(-1))
found = DecidedIndex(folder / "journal")
for record in [*records, *batch(-1)]:
    assert found.newest(decision_id=record["decision_id"]) == record, record
assert found.newest(decision_id=f"d{written}-0") is None, "the refused one is found"
print("as it should be")
"""


def test_a_really_full_disk_leaves_no_half_record_and_writing_goes_on_once_it_has_room(
    tmp_path: Path,
) -> None:
    """A small tmpfs of its own where mounting is allowed, else the kernel's limit on a file's size."""
    program = tmp_path / "full_disk.py"
    program.write_text(FULL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=300k tmpfs {disk}"
    can_mount = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode
    command = f"{sys.executable} {program} {disk}"
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && {command} tmpfs"]
        if can_mount == 0
        else ["sh", "-c", f"{command} limit"],
        capture_output=True,
        text=True,
    )

    assert (ran.stdout, ran.stderr) == ("as it should be\n", "")


def test_with_fsync_a_batch_is_written_at_once_and_synced_when_asked(tmp_path: Path) -> None:
    """What can be seen of it: the sync runs in another thread, and nothing is written twice."""
    journal = Journal(tmp_path, clock=ticking(), fsync=True)
    journal.write([{"type": "event", "n": 0}])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(journal.sync).result()
    journal.close()

    assert [r["n"] for r in read_journal(tmp_path)] == [0]


def unframed(segment: Path) -> Iterator[Any]:
    for line in segment.read_bytes().splitlines():
        yield unframe(line)


def append_often(journal: Journal, record: Any, times: int) -> None:
    for _ in range(times):
        journal.append([record])


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)

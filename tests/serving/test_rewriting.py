"""A segment is written anew without some lines: the others stay byte for byte, and are found as before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from switchyard.errors import JournalError
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.journal import Journal
from switchyard.serving.rewriting import (
    Rewritten,
    concerned,
    finish_rewriting,
    rewrite,
    successor_of,
)
from switchyard.serving.segments import frame, marker_of, read_journal, segments


def decision(number: int, customer: str) -> dict[str, Any]:
    transaction = {"transaction_id": f"t{number}", "customer_id": customer}
    return {"type": "decision", "decision_id": f"d{number}", "transaction": transaction, "received_at": number}  # fmt: skip


def write(folder: Path) -> Path:
    with Journal(folder) as journal:
        journal.append([decision(n, "gone" if n % 3 == 0 else "stays") for n in range(12)])
    (segment,) = segments(folder)
    return segment


def is_gone(line: bytes) -> bool:
    return b'"gone"' in line


def hidden(record: dict[str, Any]) -> dict[str, Any] | None:
    number = record["received_at"]
    return {"type": "event", "received_at": number} if number else None


def test_every_other_line_stays_and_is_found_under_the_new_name(tmp_path: Path) -> None:
    segment = write(tmp_path)
    before = [line for line in segment.read_bytes().splitlines() if not is_gone(line)]
    marker_of(segment).touch()
    os.utime(segment, (1_000, 1_000))
    found = DecidedIndex(tmp_path)
    assert found.newest(decision_id="d3") is not None

    done = rewrite(segment, is_gone, hidden)

    assert segments(tmp_path) == [done.new] == [successor_of(segment)]
    lines = done.new.read_bytes().splitlines()
    assert [line for line in lines if b'"stays"' in line] == before
    assert [r["received_at"] for r in read_journal(tmp_path)] == list(range(1, 12))
    assert [found.newest(decision_id=f"d{n}") is None for n in range(4)] == [
        True,
        False,
        False,
        True,
    ]
    assert marker_of(done.new).exists()
    assert done.new.stat().st_mtime == 1_000
    assert concerned(done.new, is_gone) == concerned(segment, is_gone) == 0
    assert {file.suffix for file in tmp_path.iterdir()} == {".journal", ".sorted", ".compacted"}


def test_a_reader_goes_on_behind_the_line_where_it_was(tmp_path: Path) -> None:
    segment = write(tmp_path)
    content = segment.read_bytes()
    fifth = content.index(b'"d5"')
    position = content.rindex(b"\n", 0, fifth) + 1

    done = rewrite(segment, is_gone, hidden)

    rest = done.new.read_bytes()[done.place(position) :]
    assert rest.splitlines()[0] == content[position:].splitlines()[0]
    assert done.place(0) == 0
    assert done.place(len(content)) == done.new.stat().st_size


def test_the_reader_is_told_before_the_new_one_appears(tmp_path: Path) -> None:
    seen: list[list[Path]] = []

    def told(_done: Rewritten) -> None:
        seen.append(segments(tmp_path))

    segment = write(tmp_path)
    rewrite(segment, is_gone, hidden, told)

    assert seen == [[segment]]


def test_a_damaged_line_that_is_concerned_goes_and_another_one_stays(tmp_path: Path) -> None:
    segment = write(tmp_path)
    damaged = [
        b'00000000 {"type":"event","of":"gone"}\n',
        b'00000000 {"type":"event","of":"stays"}\n',
    ]
    segment.write_bytes(segment.read_bytes() + b"".join(damaged) + frame({"type": "event"}))

    done = rewrite(segment, is_gone, hidden)

    assert damaged[0] not in done.new.read_bytes()
    assert damaged[1] in done.new.read_bytes()


def test_a_segment_that_is_being_written_is_not_rewritten(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append([decision(0, "gone")])
        (segment,) = segments(tmp_path)

        with pytest.raises(JournalError, match="is being written"):
            rewrite(segment, is_gone, hidden)


def test_of_a_segment_and_its_successor_the_successor_counts(tmp_path: Path) -> None:
    segment = write(tmp_path)
    content = segment.read_bytes()
    done = rewrite(segment, is_gone, hidden)
    segment.write_bytes(content)  # as if it had been killed just before

    assert finish_rewriting(tmp_path) == 1
    assert segments(tmp_path) == [done.new]
    assert finish_rewriting(tmp_path) == 0

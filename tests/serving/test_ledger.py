"""The ledger of a host: one process decides a transaction at a time, and an earlier reply comes back to the byte."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import JournalError
from switchyard.fraud.requests import Transaction
from switchyard.serving.journal import Journal, wall_clock_us
from switchyard.serving.ledger import (
    Decided,
    Ledger,
    decided_in,
    note_what_the_dead_left,
)
from switchyard.serving.replies import Reason, Reply, encode

DAY_US = 86_400_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path)
    yield opened
    opened.close()


@contextmanager
def another_worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with a ledger of the same folder; it evaluates a line and prints the result."""
    program = (
        "import sys, pathlib\n"
        "from switchyard.serving.ledger import Ledger\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]))\n"
        "for line in sys.stdin:\n"
        "    print(eval(line), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        yield worker
        worker.kill()


def tell(worker: subprocess.Popen[str], line: str) -> str:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()
    return worker.stdout.readline().strip()


def make_transaction(transaction_id: str = "t1") -> Transaction:
    return Transaction(
        transaction_id=transaction_id,
        customer_id="c1",
        terminal_id="s1",
        amount_minor=5_000,
        currency="EUR",
        event_timestamp_us=1_772_366_400_000_000,
        customer_country="FR",
        terminal_country=None,
        device_id="d1",
        channel="pos",
        merchant_category="5411",
    )


def make_reply(transaction_id: str = "t1", **overrides: Any) -> Reply:
    fields = {
        "decision_id": "ab" * 16,
        "transaction_id": transaction_id,
        "score": 0.1 + 0.2,
        "decision": "review",
        "reasons": [Reason("FAR", "amount", math.nan, 1 / 3), Reason("RULE", None, 1e-7, None)],
        "release": "f" * 32,
        "variant": "champion",
        "degraded": ["stale_profile"],
        "latency_ms": 1.875,
    }
    return Reply(**(fields | overrides))


def record(transaction: Transaction, reply: Reply, received_at: int) -> dict[str, Any]:
    """As the engine journals it."""
    fields = {name: getattr(reply, name) for name in reply.__struct_fields__}
    del fields["transaction_id"]
    head = {"type": "decision", "transaction": transaction, "received_at": received_at}
    return head | fields | {"vector": [1.5, math.nan], "customer_seq_seen": 3}


def journal_decision(folder: Path, transaction_id: str = "t1", age_us: int = 0) -> Decided:
    transaction, reply = make_transaction(transaction_id), make_reply(transaction_id)
    with Journal(folder) as journal:
        journal.append([record(transaction, reply, wall_clock_us() - age_us)])
    return Decided(transaction.digest, encode(reply))


# ---------------------------------------------------------------- who decides


def test_an_id_is_held_once_until_it_is_let_go(ledger: Ledger) -> None:
    assert ledger.hold("t1")
    assert not ledger.hold("t1")
    assert ledger.hold("t2")

    ledger.let_go("t1")

    assert ledger.hold("t1")


def test_of_two_processes_one_holds_an_id(ledger: Ledger, tmp_path: Path) -> None:
    with another_worker(tmp_path) as worker:
        assert ledger.hold("mine")

        assert tell(worker, "ledger.hold('mine')") == "False"
        assert tell(worker, "ledger.hold('theirs')") == "True"
        assert not ledger.hold("theirs")

        ledger.let_go("mine")
        assert tell(worker, "ledger.hold('mine')") == "True"


def test_a_killed_process_holds_nothing(ledger: Ledger, tmp_path: Path) -> None:
    with another_worker(tmp_path) as worker:
        assert tell(worker, "ledger.hold('t1')") == "True"
        assert not ledger.hold("t1")

        worker.send_signal(signal.SIGKILL)
        worker.wait()

        assert ledger.hold("t1")


def test_two_processes_that_fight_over_ids_never_hold_one_together(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Both run through the same ids; each that is held writes into a file that must not be there."""
    fight = (
        "sum(1 for i in range(3000) if ledger.hold(str(i % 7)) and "
        "not (open(folder / str(i % 7), 'x').close(), (folder / str(i % 7)).unlink(), "
        "ledger.let_go(str(i % 7)))[1])"
    )
    names = {"ledger": ledger, "folder": tmp_path}
    with another_worker(tmp_path) as worker, ThreadPoolExecutor(1) as pool:
        tell(worker, "globals().update(folder=pathlib.Path(sys.argv[1]))")
        theirs = pool.submit(tell, worker, fight)
        mine = eval(fight, names)

        assert int(theirs.result()) > 0
        assert mine > 0


# ---------------------------------------------------------------- what was decided


def test_a_journalled_decision_gives_digest_and_reply_to_the_byte(
    ledger: Ledger, tmp_path: Path
) -> None:
    decided = journal_decision(tmp_path)

    assert ledger.look_up(["t1", "t2"], wall_clock_us()) == {"t1": decided}


@given(
    st.text(min_size=1),
    st.floats(allow_nan=False),
    st.lists(st.tuples(st.text(), st.floats(), st.floats(allow_nan=False))),
)
def test_any_reply_comes_back_to_the_byte(
    name: str, score: float, reasons: list[tuple[str, float, float]]
) -> None:
    transaction = make_transaction(name)
    reply = make_reply(name, score=score, reasons=[Reason(c, c, v, p) for c, v, p in reasons])

    body = msgspec.json.encode(record(transaction, reply, 1))

    assert decided_in(body) == Decided(transaction.digest, encode(reply))


def test_a_record_without_a_field_of_the_reply_is_refused_by_name() -> None:
    old = record(make_transaction(), make_reply(), 1)
    del old["variant"]

    with pytest.raises(JournalError, match="lacks 'variant'"):
        decided_in(msgspec.json.encode(old))


def test_a_decision_older_than_24_hours_is_forgotten(ledger: Ledger, tmp_path: Path) -> None:
    journal_decision(tmp_path, "old", age_us=DAY_US + 1_000_000)
    fresh = journal_decision(tmp_path, "fresh", age_us=DAY_US - 60_000_000)

    assert ledger.look_up(["old", "fresh"], wall_clock_us()) == {"fresh": fresh}


# ---------------------------------------------------------------- what the store may not know


def test_nothing_is_unsettled_at_first(ledger: Ledger, tmp_path: Path) -> None:
    journal_decision(tmp_path)

    assert ledger.unsettled(["t1"], wall_clock_us()) == {}


def test_what_one_worker_noted_every_worker_finds_until_it_is_settled(
    ledger: Ledger, tmp_path: Path
) -> None:
    decided = journal_decision(tmp_path)
    with another_worker(tmp_path) as worker:
        tell(worker, "ledger.note_unsettled(['t1', 'other'])")
        assert ledger.unsettled(["t1", "t2"], wall_clock_us()) == {"t1": decided}
        assert ledger.all_unsettled() == ["t1", "other"]

        ledger.settle(["t1"])
        assert tell(worker, "ledger.all_unsettled()") == "['other']"
        assert ledger.unsettled(["t1"], wall_clock_us()) == {}

        tell(worker, "ledger.settle(['other'])")
        assert ledger.all_unsettled() == []


def test_an_id_that_was_noted_but_never_decided_is_new(ledger: Ledger) -> None:
    ledger.note_unsettled(["t1"])

    assert ledger.unsettled(["t1"], wall_clock_us()) == {}


def test_the_file_begins_anew_once_all_is_settled_and_readers_follow(
    ledger: Ledger, tmp_path: Path
) -> None:
    with another_worker(tmp_path) as worker:
        sizes = set()
        for n in range(5):  # the same length each time: a reader must not mistake it for the last
            ledger.note_unsettled([f"t{n}"])
            assert tell(worker, "ledger.all_unsettled()") == f"['t{n}']"
            ledger.settle([f"t{n}"])
            sizes.add((tmp_path / "unsettled").stat().st_size)

    assert sizes == {8}


def test_what_was_noted_outlives_the_process_and_a_torn_line_hurts_no_other(
    ledger: Ledger, tmp_path: Path
) -> None:
    with another_worker(tmp_path) as worker:
        tell(worker, "ledger.note_unsettled(['t1'])")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    with (tmp_path / "unsettled").open("ab") as file:
        file.write(b'+"to')

    ledger.note_unsettled(["t2"])

    assert ledger.all_unsettled() == ["t1", "t2"]


def test_an_id_noted_again_after_it_was_settled_is_noted(ledger: Ledger) -> None:
    ledger.note_unsettled(["t1", "t2"])
    ledger.settle(["t1"])
    ledger.note_unsettled(["t1"])

    assert ledger.all_unsettled() == ["t2", "t1"]


def test_decisions_of_a_dead_process_without_a_number_are_noted(
    ledger: Ledger, tmp_path: Path
) -> None:
    dying = Journal(tmp_path)
    for name in ("written", "not written"):
        dying.append([record(make_transaction(name), make_reply(name), wall_clock_us())])
    dying.append([{"type": "appended", "kind": "transaction", "transaction_id": "written"}])
    assert note_what_the_dead_left(tmp_path) == 0
    abandon(dying)

    assert note_what_the_dead_left(tmp_path) == 1
    assert ledger.all_unsettled() == ["not written"]
    assert note_what_the_dead_left(tmp_path) == 0


def abandon(journal: Journal) -> None:
    """Close its file as the death of its process does: nothing is sealed."""
    assert journal._segment is not None
    os.close(journal._segment._file)


def test_a_batch_that_a_dying_process_began_in_the_segment_before_is_noted_too(
    ledger: Ledger, tmp_path: Path
) -> None:
    """The next batch opened a new segment while this one's write trip was under way; then came the kill."""
    dying = Journal(tmp_path, segment_bytes=1)
    dying.append([record(make_transaction("t1"), make_reply("t1"), wall_clock_us())])
    dying.append([record(make_transaction("t2"), make_reply("t2"), wall_clock_us())])
    for thread in dying._sealing:
        thread.join()
    abandon(dying)

    note_what_the_dead_left(tmp_path)

    assert ledger.all_unsettled() == ["t1", "t2"]


def test_settling_a_few_of_very_many_does_not_read_them_all_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    """While it reads, nobody else can note or ask: an hour without the store leaves a million ids."""
    ledger.note_unsettled(f"transaction-{n:06}" for n in range(50_000))
    ledger.settle(["transaction-000000"])
    size = (tmp_path / "unsettled").stat().st_size

    before = bytes_read()
    for n in range(1, 21):
        ledger.settle([f"transaction-{n:06}"])

    assert bytes_read() - before < size


def bytes_read() -> int:
    """What this process has read so far, from whatever file."""
    (line,) = [n for n in Path("/proc/self/io").read_text().splitlines() if n.startswith("rchar")]
    return int(line.split()[1])

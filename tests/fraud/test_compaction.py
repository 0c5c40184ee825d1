"""The journal's segments reach the lake once each, whenever the compaction is repeated or killed."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchyard.errors import JournalError
from switchyard.fraud.compaction import (
    SCHEMAS,
    compact,
    compacted_names,
    marker_of,
    remove_old,
    segments_in,
)
from switchyard.lake import Lake
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.journal import Journal
from switchyard.serving.ledger import Ledger, note_what_the_dead_left
from switchyard.serving.segments import read_journal, segments

MIDNIGHT_US = 1_772_409_600_000_000  # 2026-03-02 00:00 UTC
DAYS = date(2026, 3, 1), date(2026, 3, 2)


def decision(number: int, received_at: int, **overrides: Any) -> dict[str, Any]:
    return {
        "type": "decision",
        "decision_id": f"d{number}",
        "transaction": transaction(number),
        "received_at": received_at,
        "score": 0.25,
        "decision": "review",
        "reasons": [{"code": "FAR", "feature": "amount", "value": None, "contribution": 1.5}],
        "release": "r",
        "variant": "challenger",
        "experiment": "5a17",
        "plan": 7,
        "model_us": 41.5,
        "degraded": ["stale_profile"],
        "latency_ms": 1.5,
        "vector": [1.5, math.nan, 3.0],
        "epoch": "e",
        "customer_profile_day": None,
        "terminal_profile_day": 20_500,
        "customer_seq_seen": 3,
        "terminal_seq_seen": 0,
    } | overrides


def transaction(number: int) -> dict[str, Any]:
    return {
        "transaction_id": f"t{number}",
        "customer_id": "c1",
        "terminal_id": "s1",
        "amount_minor": 5_000 + number,
        "currency": "EUR",
        "event_timestamp_us": MIDNIGHT_US - 60_000_000,
        "customer_country": "FR",
        "terminal_country": None,
        "device_id": None,
        "channel": "pos",
        "merchant_category": "5411",
    }


def write_journal(folder: Path, *, numbers: range = range(12)) -> None:
    """Records around midnight in several closed segments: four decisions to an event and a verdict."""
    with Journal(folder, segment_bytes=3_000) as journal:
        for n in numbers:
            received = MIDNIGHT_US + (n - 6) * 1_000_000
            number = {"type": "appended", "kind": "transaction", "transaction_id": f"t{n}"}
            journal.append([decision(n, received), number])
            if n % 4 == 0:
                shadow = {
                    "type": "shadow",
                    "decision_id": f"d{n}",
                    "received_at": received,
                    "release": "c",
                    "score": None if n == 4 else 0.5,
                    "decision": None if n == 4 else "block",
                    "experiment": "5a17",
                    "plan": 6,
                    "model_us": 40.0,
                }
                event = {"type": "event", "received_at": received, "transaction": transaction(n)}
                verdict = {
                    "type": "label",
                    "received_at": received,
                    "transaction_id": f"t{n}",
                    "customer_id": "c1",
                    "terminal_id": "s1",
                    "event_timestamp_us": MIDNIGHT_US - 60_000_000,
                    "is_fraud": n == 4,
                    "label_available_at_us": received,
                }
                journal.append([shadow, event, verdict])


def rows_of(lake: Lake, table: str) -> pa.Table:
    return pa.concat_tables([lake.read(table, day) for day in lake.days(table)])


def decision_ids(lake: Lake) -> list[str]:
    found: list[str] = rows_of(lake, "decisions")["decision_id"].to_pylist()
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    write_journal(tmp_path / "journal")
    assert len(segments(tmp_path / "journal")) > 2
    return tmp_path / "journal"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_every_record_becomes_a_row_of_its_day_with_its_types(journal: Path, lake: Lake) -> None:
    done = compact(journal, lake)

    assert done.rows == {"decisions": 12, "shadows": 3, "served_events": 3, "label_ledger": 3}
    assert done.segments == len(segments(journal))
    assert tuple(lake.days("decisions")) == DAYS
    assert len(lake.read("decisions", DAYS[0])) == 6
    for table, schema in SCHEMAS.items():
        assert rows_of(lake, table).schema.equals(schema)
    row = rows_of(lake, "decisions").slice(6, 1).to_pylist()[0]
    assert row["received_at"] == datetime(2026, 3, 2, tzinfo=UTC)
    assert row["event_timestamp"] == datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
    assert row["vector"] == [1.5, None, 3.0]
    assert (row["transaction_id"], row["amount_minor"], row["score"]) == ("t6", 5_006, 0.25)
    assert row["degraded"] == ["stale_profile"]
    assert (row["variant"], row["experiment"], row["plan"]) == ("challenger", "5a17", 7)
    assert [r["score"] for r in rows_of(lake, "shadows").to_pylist()] == [0.5, None, 0.5]
    assert [r["is_fraud"] for r in rows_of(lake, "label_ledger").to_pylist()] == [
        False,
        True,
        False,
    ]


def test_a_repeated_run_adds_nothing_and_a_later_one_what_is_new(journal: Path, lake: Lake) -> None:
    compact(journal, lake)

    again = compact(journal, lake)
    write_journal(journal, numbers=range(12, 15))
    later = compact(journal, lake)

    assert again.rows == dict.fromkeys(SCHEMAS, 0)
    assert later.rows["decisions"] == 3
    assert sorted(decision_ids(lake)) == sorted(f"d{n}" for n in range(15))
    assert compacted_names(journal) == {segment.name for segment in segments(journal)}


def test_a_verdict_that_the_journal_has_from_the_source_is_none_of_the_ledger(
    tmp_path: Path, lake: Lake
) -> None:
    verdict = {
        "type": "label",
        "received_at": MIDNIGHT_US,
        "transaction_id": "t1",
        "customer_id": "c1",
        "terminal_id": "s1",
        "event_timestamp_us": MIDNIGHT_US - 60_000_000,
        "is_fraud": True,
        "label_available_at_us": MIDNIGHT_US,
    }
    with Journal(tmp_path / "journal") as journal:
        journal.append(
            [verdict | {"from_source": True}, verdict | {"transaction_id": "t2"}, verdict]
        )

    compact(tmp_path / "journal", lake)

    rows = rows_of(lake, "label_ledger").to_pylist()
    assert [row["transaction_id"] for row in rows] == ["t2", "t1"]
    assert {row["source"] for row in rows} == {"investigator"}
    assert lake.days("label_ledger") == [DAYS[0]]


class Killed(BaseException):
    """Ends a run as a kill does: nobody catches it."""


class DyingLake(Lake):
    """Dies before or after its nth write."""

    deadly = 0
    after = False
    written = 0

    def write(self, table: str, day: date, rows: pa.Table) -> Path:
        type(self).written += 1
        mine = self.written == self.deadly
        if mine and not self.after:
            raise Killed
        path = super().write(table, day, rows)
        if mine:
            raise Killed
        return path


@pytest.mark.parametrize("deadly", range(1, 7))
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_write_the_next_run_leaves_each_row_once(
    journal: Path, lake: Lake, deadly: int, after: bool
) -> None:
    class Dying(DyingLake):
        pass

    Dying.deadly, Dying.after = deadly, after
    with pytest.raises(Killed):
        compact(journal, Dying(lake.root))

    compact(journal, lake)

    assert sorted(decision_ids(lake)) == sorted(f"d{n}" for n in range(12))
    assert len(rows_of(lake, "served_events")) == len(rows_of(lake, "label_ledger")) == 3


def test_killed_before_any_segment_was_marked_nothing_is_doubled(journal: Path, lake: Lake) -> None:
    compact(journal, lake)
    for segment in segments(journal)[1:]:
        marker_of(segment).unlink()

    done = compact(journal, lake)

    assert done.rows == dict.fromkeys(SCHEMAS, 0)
    assert len(decision_ids(lake)) == 12


def test_a_run_that_is_killed_by_the_system_is_made_good_by_the_next(
    journal: Path, lake: Lake
) -> None:
    """Killed while it waits for a file that never ends, in the middle of its segments."""
    held = segments(journal)[-1]
    content = held.read_bytes()
    held.unlink()
    os.mkfifo(held)
    program = (
        "import sys, pathlib\n"
        "from switchyard.fraud import compaction\n"
        "from switchyard.lake import Lake\n"
        "compaction.mend = lambda folder: []\n"
        "compaction.SEGMENTS_AT_ONCE = 1\n"
        "print('runs', flush=True)\n"
        "compaction.compact(pathlib.Path(sys.argv[1]), Lake(pathlib.Path(sys.argv[2])))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(journal), str(lake.root)], stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        while len(compacted_names(journal)) < len(segments(journal)) - 1:
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    held.unlink()
    held.write_bytes(content)

    compact(journal, lake)

    assert sorted(decision_ids(lake)) == sorted(f"d{n}" for n in range(12))


def test_a_segment_that_is_being_written_waits_for_its_end(journal: Path, lake: Lake) -> None:
    with Journal(journal) as writing:
        writing.append([decision(100, MIDNIGHT_US)])
        assert "d100" not in (compact(journal, lake), decision_ids(lake))[1]

    assert compact(journal, lake).rows["decisions"] == 1
    assert "d100" in decision_ids(lake)


def test_old_segments_go_once_they_are_in_the_lake_and_younger_ones_stay(
    journal: Path, lake: Lake
) -> None:
    old, *rest = segments(journal)
    long_ago = time.time() - 100 * 86_400
    os.utime(old, (long_ago, long_ago))
    oldest = datetime.now(UTC) - timedelta(days=90)

    assert remove_old(journal, oldest) == 0
    compact(journal, lake)

    assert remove_old(journal, oldest) == 1
    assert segments(journal) == rest
    assert not any(file.name.startswith(old.stem) for file in journal.iterdir())
    assert old.name in segments_in(lake.path("decisions", DAYS[0]))
    assert len(decision_ids(lake)) == 12
    assert DecidedIndex(journal).newest(decision_id="d0") is None
    assert DecidedIndex(journal).newest(decision_id="d11") is not None
    assert len(list(read_journal(journal))) > 0


def test_a_record_that_is_no_row_is_refused_by_segment_and_column(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.append([decision(1, MIDNIGHT_US, latency_ms="quick")])

    with pytest.raises(JournalError, match=r"\.journal.* are no rows of 'decisions'"):
        compact(tmp_path / "journal", Lake(tmp_path / "lake"))


@pytest.mark.parametrize("wrong", [{"latency_ms": "quick"}, {"received_at": "yesterday"}])
def test_a_segment_that_is_refused_keeps_no_other_from_the_lake(
    journal: Path, lake: Lake, wrong: dict[str, Any]
) -> None:
    good = segments(journal)
    with Journal(journal) as writer:
        writer.append([decision(100, MIDNIGHT_US) | wrong])
    (bad,) = set(segments(journal)) - set(good)

    with pytest.raises(JournalError, match=rf"1 of \d+ segments stay.*{bad.name}"):
        compact(journal, lake)

    assert len(decision_ids(lake)) == 12
    assert compacted_names(journal) == {segment.name for segment in good}


def test_a_home_that_never_served_has_nothing_to_compact(tmp_path: Path, lake: Lake) -> None:
    assert compact(tmp_path / "nothing", lake).segments == 0
    assert not (tmp_path / "nothing").exists()


def test_a_day_that_an_earlier_version_began_is_gone_on_with(journal: Path, lake: Lake) -> None:
    compact(journal, lake)
    path = lake.path("decisions", DAYS[1])
    metadata = pq.read_schema(path).metadata
    old = pq.read_table(path).drop_columns(["experiment"]).replace_schema_metadata(metadata)
    lake.write("decisions", DAYS[1], old)

    write_journal(journal, numbers=range(12, 15))
    compact(journal, lake)

    rows = lake.read("decisions", DAYS[1])
    assert rows.schema.equals(SCHEMAS["decisions"])
    assert set(rows["experiment"].to_pylist()) == {None, "5a17"}


def test_what_a_dead_worker_left_undone_is_noted_also_if_the_compaction_finds_it_first(
    journal: Path, lake: Lake
) -> None:
    """Once its segment is sealed, a worker that starts no longer looks into it."""
    dying = Journal(journal)
    dying.append([decision(99, MIDNIGHT_US)])
    assert dying._segment is not None
    os.close(dying._segment._file)

    compact(journal, lake)

    assert note_what_the_dead_left(journal) == 0
    with closing(Ledger(journal)) as ledger:
        assert ledger.all_unsettled() == ["t99"]

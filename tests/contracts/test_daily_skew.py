"""The daily check: every journalled decision is judged once, at whatever moments it looks, and none is passed over.

Store, engine, journal, lake and snapshots are the real ones.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from switchyard.fraud import checkpoint, skew
from switchyard.fraud.compaction import compact
from switchyard.fraud.skew import measure_skew
from switchyard.fraud.sliding import KEPT_US
from switchyard.fraud.sync import sync_profiles
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReports
from switchyard.learning.policy import Verdict
from switchyard.learning.release import Release
from switchyard.serving import valkey
from switchyard.serving.segments import frame, read_journal, segments, whole_bodies
from switchyard.settings import load_settings
from tests.contracts.test_served_parity import (
    DAY,
    WRITTEN,
    Traffic,
    cold_of,
    lose_the_store,
    make_engine,
    serve,
    store_of,
    traffic,
)
from tests.releases import make_release
from tests.streams import NOON, Row, land, make_transaction

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("skew")
    yield folder
    valkey.stop(folder)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("releases"))


def totals(home: Path, lake: Lake) -> Counter[str]:
    """The sums over all days' reports."""
    reports, total = DayReports(load_settings(home=home).monitoring), Counter[str]()
    for day in reports.days("skew"):
        report = reports.load("skew", day)
        assert report
        names = ("decisions", "recomputed", "differing_values", "waiting", "incomplete")
        total.update({name: report.verdict.figures[name] for name in names})
    return total


def any_later_than_a_checkpoint_remembers(batches: Sequence[Sequence[tuple[str, Row]]]) -> bool:
    """Whether an event comes so long after its time that a check between can't answer for it (docs/skew.md)."""
    newest = NOON - timedelta(days=10_000)
    for row in (row for batch in batches for _, row in batch):
        if row["event_timestamp"] < newest - timedelta(microseconds=KEPT_US):
            return True
        newest = max(newest, row["event_timestamp"])
    return False


@settings(max_examples=10)
@given(traffic(), st.data())
def test_whenever_it_looks_every_decision_is_judged_once(
    home: Path, release: Release, sent: Traffic, data: st.DataObject
) -> None:
    transactions, labels, batches = sent
    assume(not any_later_than_a_checkpoint_remembers(batches))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lake = land(root / "lake", transactions, labels)
        last = max(row["event_timestamp"] for row in transactions).date()
        build_profiles(lake, last - 3 * DAY, last, created_at=WRITTEN)
        engine = make_engine(valkey.start(home), release, root / "journal")
        store_of(engine).begin_epoch("first")
        places = st.integers(0, len(batches))
        sync_before = data.draw(places)
        losses = data.draw(st.lists(places, max_size=2))
        looks = data.draw(st.lists(places, max_size=4))
        for number, batch in enumerate(batches):
            for _ in range(losses.count(number)):
                lose_the_store(engine, root)
            if number in looks:
                measure_skew(load_settings(home=root), lake, last)
            if number == sync_before:
                sync_profiles(lake, store_of(engine), last - DAY, cold_of(engine))
            serve(engine, batch)
        engine.close()
        measure_skew(load_settings(home=root), lake, last)
        decided = sum(r["type"] == "decision" for r in read_journal(root / "journal"))

        total = totals(root, lake)

    assert total == {"decisions": decided, "recomputed": decided} | dict.fromkeys(
        ("differing_values", "waiting", "incomplete"), 0
    )


# ---------------------------------------------------------------- what can't be judged


class Served:
    """A home in which a few payments were decided, each with a segment of the journal of its own."""

    def __init__(self, root: Path, home: Path, release: Release) -> None:
        self.settings = load_settings(home=root)
        self.rows = [
            make_transaction(transaction_id=f"t{n}", event_timestamp=NOON + n * MINUTE)
            for n in range(4)
        ]
        self.day = NOON.date()
        self.lake = land(root / "lake", self.rows)
        build_profiles(self.lake, self.day - 2 * DAY, self.day, created_at=WRITTEN)
        engine = make_engine(valkey.start(home), release, root / "journal")
        store_of(engine).begin_epoch("first")
        for row in self.rows:
            serve(engine, [("decide", row)])
            engine.journal.close()
        engine.close()
        self.segments = segments(root / "journal")

    def check(self) -> Verdict:
        return measure_skew(self.settings, self.lake, self.day)[0].verdict

    def rewrite(self, segment: int, **fields: Any) -> None:
        """The decisions of a segment with other ``fields``."""
        path = self.segments[segment]
        records = list(read_journal(path.parent))
        mine = {r["decision_id"] for r in _decisions(path)}
        lines = [
            frame(r | fields if r.get("decision_id") in mine else r)
            for r in records
            if r.get("decision_id") in mine or r["type"] == "appended"
        ]
        path.write_bytes(b"".join(lines))


def _decisions(path: Path) -> list[dict[str, Any]]:
    return [r for body in whole_bodies(path) if (r := json.loads(body))["type"] == "decision"]


@pytest.fixture
def served(tmp_path: Path, home: Path, release: Release) -> Served:
    return Served(tmp_path, home, release)


def test_a_right_service_passes_and_the_next_look_counts_nothing_twice(served: Served) -> None:
    first, again = served.check(), served.check()

    assert first.reasons == ("all values of 4 decisions came out again to the bit",)
    assert first.passed
    assert again == first


def test_a_day_without_decisions_passes_and_says_so(served: Served) -> None:
    served.check()

    report, *_ = measure_skew(served.settings, served.lake, served.day - DAY)

    assert report.verdict.reasons == ("no decision of the day is in the journal",)
    assert report.verdict.passed


def test_what_precedes_a_segment_that_is_gone_is_no_silent_pass(served: Served) -> None:
    served.segments[1].unlink()

    first = served.check()
    served.segments[3].touch()
    make_it_grow(served.segments[3])
    second = served.check()

    assert (first.figures["recomputed"], first.figures["waiting"]) == (1, 2)
    assert "can't be judged yet" in first.reasons[0]
    assert (second.figures["waiting"], second.figures["incomplete"]) == (0, 2)
    assert "has no number in the journal" in second.reasons[0]
    assert not first.passed
    assert not second.passed


def test_decisions_that_only_the_lake_has_are_no_silent_pass(served: Served) -> None:
    compact(served.settings.journal, served.lake)
    received = served.lake.days("decisions")[0]
    rows = served.lake.read("decisions", received)
    served.lake.write("decisions", served.day, rows)
    for segment in served.segments:
        segment.unlink()

    verdict = served.check()

    assert not verdict.passed
    assert verdict.reasons[0].startswith("4 decisions can't be judged: they are in the lake")


def test_a_look_at_another_day_does_not_forget_what_only_the_lake_has(served: Served) -> None:
    compact(served.settings.journal, served.lake)
    rows = served.lake.read("decisions", served.lake.days("decisions")[0])
    served.lake.write("decisions", served.day, rows)
    for segment in served.segments[:3]:
        segment.unlink()

    _, other = measure_skew(served.settings, served.lake, served.day + DAY)

    assert (other.day, other.verdict.figures["unread"]) == (served.day, 3)


def test_a_profile_that_is_gone_from_the_lake_is_no_difference_and_no_pass(
    served: Served,
) -> None:
    served.rewrite(3, customer_profile_day=1)

    served.check()
    make_it_grow(served.segments[3])
    verdict = served.check()

    assert (verdict.figures["differing_values"], verdict.figures["incomplete"]) == (0, 1)
    assert not verdict.passed


def test_vectors_of_another_versions_code_are_told_apart(served: Served) -> None:
    served.rewrite(0, vector=[1.0])
    served.rewrite(1, vector=None)
    served.rewrite(2, release="older")
    manifest = served.settings.releases / "older" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"code_hash": "of another time"}')

    verdict = served.check()

    assert verdict.passed
    counts = ("decisions", "recomputed", "of_another_version", "without_vector")
    assert [verdict.figures[name] for name in counts] == [4, 1, 2, 1]
    assert "another version" in verdict.reasons[1]


def test_one_changed_value_fails_the_day_with_feature_key_and_both_values(served: Served) -> None:
    (decision,) = _decisions(served.segments[2])
    served.rewrite(2, vector=[8.5, *decision["vector"][1:]])

    verdict = served.check()

    assert not verdict.passed
    assert verdict.reasons[0] == "values differ from what they are recomputed to: 1 of amount"
    named = f"amount of decision {decision['decision_id']} at terminal s1 was served as 8.5, "
    assert verdict.reasons[1] == named + "recomputed as 10.0"
    (difference,) = verdict.figures["differences"]
    assert (difference["customer_id"], difference["terminal_id"]) == ("c1", "s1")


def test_a_check_that_was_killed_before_its_checkpoint_counts_nothing_twice(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(checkpoint, "write_parquet", die)
        with pytest.raises(InterruptedError):
            served.check()

    assert served.check().figures["decisions"] == 4


def test_a_segment_that_was_rewritten_after_it_was_read_is_read_no_further(served: Served) -> None:
    first = served.check()
    (decision,) = _decisions(served.segments[2])
    served.rewrite(2, reasons=[*decision["reasons"], {"code": "LONGER_THAN_BEFORE"}] * 9)

    assert served.check() == first


def test_journals_of_any_size_are_read_in_steps(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skew, "AT_ONCE_BYTES", 1)

    verdict = served.check()

    assert len(verdict.figures["steps"]) == 4
    assert verdict.reasons == ("all values of 4 decisions came out again to the bit",)


def die(*_: object) -> None:
    raise InterruptedError


def make_it_grow(segment: Path) -> None:
    """Something was journalled since the last check."""
    with segment.open("ab") as file:
        file.write(frame({"type": "note"}))

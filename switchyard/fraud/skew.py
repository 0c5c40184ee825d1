"""Skew: whether what was served is what the lake and the journal give, value for value, for every decision.

The journal is read on from where the last check ended (``checkpoint``), each decision is recomputed once by
``recompute``, and what came out is kept by the day of its event. Here: what can be compared, the day's
verdict. Not here: drift of values that were computed rightly (the level 'data').
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow.compute as pc

from switchyard.fraud import checkpoint
from switchyard.fraud.checkpoint import Checkpoint, carry_on
from switchyard.fraud.columns import FEATURES
from switchyard.fraud.features import code_hash
from switchyard.fraud.recompute import Difference, Part, recompute_story
from switchyard.fraud.sliding import DAY_US
from switchyard.fraud.stories import Record, stories
from switchyard.lake import Lake
from switchyard.learning.day_reports import DayReport, DayReports
from switchyard.learning.policy import Verdict
from switchyard.learning.release import MANIFEST
from switchyard.lock import alone
from switchyard.serving.segments import body_of, segments
from switchyard.settings import Settings

LOCK = "checking"
"""File beside the checkpoint: each decision is counted once."""
AT_ONCE_BYTES = 192 * 1024 * 1024
"""Of the journal, read in one step: bounds the memory, whatever waits."""
NAMED = 20
"""Differences of a day that its report names; all are counted."""
RECEIVED_WITHIN_DAYS = 2
"""The lake files a decision under the day it was received: that of its event, or one so near to it."""
_EPOCH = date(1970, 1, 1)
_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def measure_skew(settings: Settings, lake: Lake, day: date) -> list[DayReport]:
    """Check what the journal holds since the last check, and save the report of ``day`` and of every other day
    that decisions came in of; that of ``day`` is the first.

    Raises JournalError if a snapshot that the journal names is gone.
    """
    reports = DayReports(settings.monitoring)
    with alone(settings.activity / LOCK):
        touched = _read_on(settings, lake, reports)
        own = _report(day, _figures(reports, day), _in_lake(lake, day))
        reports.save(own)
    others = [reports.load("skew", other) for other in sorted(touched - {day})]
    return [own, *(report for report in others if report)]


def checkpoint_path(settings: Settings) -> Path:
    """Where the check's checkpoint lies; without it the journal is read from its beginning again."""
    return settings.activity / "checkpoint.parquet"


# ---------------------------------------------------------------- reading on


class _Stretch(NamedTuple):
    """Bytes of a segment that were not read yet."""

    segment: Path
    start: int
    end: int


def _read_on(settings: Settings, lake: Lake, reports: DayReports) -> set[date]:
    """Judge what was not read yet, step by step; the days of the decisions.

    Reports are saved before the checkpoint: a killed step is done again, and replaces what it found.
    """
    path = checkpoint_path(settings)
    last = checkpoint.load(path)
    steps = _steps(settings.journal, last)
    touched: set[date] = set()
    for place, step in enumerate(steps, start=1):
        now, found = _judged(settings, lake, last, step, is_last=place == len(steps))
        for day, findings in found.items():
            figures = _merged(_figures(reports, day), now.lineage, now.number, findings)
            reports.save(_report(day, figures, _in_lake(lake, day)))
        checkpoint.save(now, path)
        last = now
        touched |= found.keys()
    return touched


def _steps(journal: Path, last: Checkpoint) -> list[list[_Stretch]]:
    """What was not read yet, oldest first, in parts of about AT_ONCE_BYTES."""
    steps: list[list[_Stretch]] = []
    room = 0
    for segment in segments(journal):
        stretch = _Stretch(segment, last.offsets.get(segment.name, 0), segment.stat().st_size)
        if (size := stretch.end - stretch.start) <= 0 or not _begins_a_line(stretch):
            continue
        if room < size:
            steps.append([])
            room = max(AT_ONCE_BYTES, size)
        steps[-1].append(stretch)
        room -= size
    return steps


def _begins_a_line(stretch: _Stretch) -> bool:
    """Not in a segment that was rewritten after it was read, to forget a customer: it is read no further, and what
    it held besides is missed in the lake."""
    if not stretch.start:
        return True
    with stretch.segment.open("rb") as lines:
        lines.seek(stretch.start - 1)
        whole = lines.read(1) == b"\n"
    if not whole:
        _log.warning("%s was rewritten after it was read", stretch.segment)
    return whole


def _judged(
    settings: Settings, lake: Lake, last: Checkpoint, step: list[_Stretch], *, is_last: bool
) -> tuple[Checkpoint, dict[date, Findings]]:
    baselines = settings.activity
    there = {segment.name for segment in segments(settings.journal)}
    offsets = {name: at for name, at in last.offsets.items() if name in there}
    found: dict[date, Findings] = defaultdict(Findings)
    taken = last.taken()
    records = _comparable(_new_records(last, step, offsets), settings, found)
    told = stories(records, taken=taken, held=last.held)
    waiting: list[Record] = []
    for story in told:
        if story.decisions:
            part = recompute_story(story, lake, baselines)
            waiting += _note(story.decisions, part, found, is_last=is_last)
    return carry_on(last, told, taken, waiting, offsets, baselines), found


def _new_records(
    last: Checkpoint, step: list[_Stretch], offsets: dict[str, int]
) -> Iterator[Record]:
    """Decisions that waited, then the whole lines of the stretches; ``offsets`` follow."""
    yield from last.waiting
    for segment, start, end in step:
        at = start
        with segment.open("rb") as lines:
            lines.seek(start)
            for line in lines:
                if not line.endswith(b"\n") or at + len(line) > end:
                    break
                at += len(line)
                try:
                    record = _decode(body_of(line[:-1]))
                except ValueError:  # msgspec.DecodeError is one too
                    _log.warning("%s: a damaged line before byte %d is passed over", segment, at)
                    continue
                yield record
        offsets[segment.name] = at


# ---------------------------------------------------------------- what can be compared

_WAITED = "waited"
"""Set in a decision that is asked again: whether everything that there was had been read before."""
_SEEN = ("customer_seq_seen", "terminal_seq_seen", "customer_profile_day", "terminal_profile_day")


def _comparable(
    records: Iterable[Record], settings: Settings, found: Mapping[date, Findings]
) -> Iterator[Record]:
    """The records; a decision that can't be compared is counted, and goes on as an event without a vector."""

    @lru_cache
    def code_of(release: str) -> str | None:
        """The code that computed its columns; None if the release is gone."""
        manifest = settings.releases / release / MANIFEST
        return str(json.loads(manifest.read_text())["code_hash"]) if manifest.exists() else None

    mine = code_hash()
    for record in records:
        if record["type"] == "decision":
            findings = found[_day_of(record)]
            findings.decisions += _WAITED not in record
            if record.get("vector") is None:
                findings.without_vector += 1
            elif (
                len(record["vector"]) != len(FEATURES)
                or any(name not in record for name in _SEEN)
                or code_of(record["release"]) not in (mine, None)
            ):
                findings.of_another_version += 1
                record = record | {"vector": None}
        yield record


def _day_of(decision: Record) -> date:
    return _EPOCH + timedelta(days=decision["transaction"]["event_timestamp_us"] // DAY_US)


# ---------------------------------------------------------------- what was found


@dataclass(slots=True)
class Findings:
    """Counts of one day's decisions. ``decisions`` are those journalled; of these ``recomputed`` were compared.

    ``waiting``: not all that they saw has a number in the journal yet; ``incomplete``: it had none at the next
    check either, or a profile is gone. ``stale``, ``late``, ``simultaneous`` as in ``Recomputed``, of those
    compared; ``by_rung`` and ``by_variant`` too. ``by_feature`` counts values that differ.
    """

    decisions: int = 0
    recomputed: int = 0
    without_vector: int = 0
    of_another_version: int = 0
    waiting: int = 0
    incomplete: int = 0
    stale: int = 0
    late: int = 0
    simultaneous: int = 0
    by_rung: dict[str, int] = field(default_factory=dict)
    by_variant: dict[str, int] = field(default_factory=dict)
    by_feature: dict[str, int] = field(default_factory=dict)
    differences: list[dict[str, Any]] = field(default_factory=list)


def _note(
    decisions: Sequence[Record], part: Part, found: Mapping[date, Findings], *, is_last: bool
) -> list[Record]:
    """Count what came out of a story by day; the decisions that are to be asked again."""
    waiting = []
    compared: dict[str, Findings] = {}
    for row, decision in enumerate(decisions):
        findings = found[_day_of(decision)]
        if part.whole[row]:
            findings.recomputed += 1
            findings.stale += int(part.stale[row])
            findings.late += int(part.late[row])
            findings.simultaneous += int(part.simultaneous[row])
            _count(findings.by_variant, decision["variant"])
            for rung in decision["degraded"]:
                _count(findings.by_rung, rung)
            compared[decision["decision_id"]] = findings
        elif decision.get(_WAITED):
            findings.incomplete += 1
        else:
            findings.waiting += 1
            waiting.append(decision | {_WAITED: is_last})
    for difference in part.differences:
        if findings_of := compared.get(difference.decision_id):
            _count(findings_of.by_feature, difference.feature)
            if len(findings_of.differences) < NAMED:
                findings_of.differences.append(_named(difference))
    return waiting


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _named(difference: Difference) -> dict[str, Any]:
    """As JSON, which knows no NaN."""
    customer, terminal = difference.key
    return {
        "feature": difference.feature,
        "customer_id": customer,
        "terminal_id": terminal,
        "served": None if difference.served != difference.served else difference.served,
        "recomputed": None
        if difference.recomputed != difference.recomputed
        else difference.recomputed,
        "decision_id": difference.decision_id,
    }


# ---------------------------------------------------------------- a day's report


def _figures(reports: DayReports, day: date) -> Mapping[str, Any]:
    """What is known of the day: ``{"lineage": ..., "steps": {number: findings}}`` and their sums."""
    report = reports.load("skew", day)
    return report.verdict.figures if report else {}


def _merged(
    known: Mapping[str, Any], lineage: str, number: int, findings: Findings
) -> Mapping[str, Any]:
    """With what a step found; of another reading of the journal nothing is kept. What waited was asked again."""
    earlier = known.get("steps", {}) if known.get("lineage") == lineage else {}
    steps = {name: step | {"waiting": 0} for name, step in earlier.items()}
    return {"lineage": lineage, "steps": steps | {str(number): asdict(findings)}}


def _report(day: date, known: Mapping[str, Any], in_lake: int) -> DayReport:
    """The day's verdict; ``in_lake``: of how many of its decisions the lake knows."""
    steps = known.get("steps", {})
    total = _total(Findings(**step) for step in steps.values())
    total.incomplete += (unread := max(0, in_lake - total.decisions))
    total.decisions += unread
    compared = total.recomputed or 1
    shares = {name: getattr(total, name) / compared for name in ("stale", "late", "simultaneous")}
    figures = {
        **asdict(total),
        "differing_values": sum(total.by_feature.values()),
        "unread": unread,
        **{f"{name}_share": share for name, share in shares.items()},
        "lineage": known.get("lineage"),
        "steps": steps,
    }
    reasons = _reasons(total, unread)
    passed = not (total.by_feature or total.incomplete or total.waiting)
    return DayReport("skew", day, Verdict(passed, reasons, figures))


def _total(parts: Iterable[Findings]) -> Findings:
    total = Findings()
    for part in parts:
        for name, value in asdict(part).items():
            held = getattr(total, name)
            if isinstance(value, dict):
                setattr(total, name, dict(Counter(held) + Counter(value)))
            else:
                setattr(total, name, held + value)
    total.differences = total.differences[:NAMED]
    return total


def _reasons(total: Findings, unread: int) -> tuple[str, ...]:
    """What the figures say, in sentences: the verdict's own first. No card is named: they go on into records and
    messages out of which nobody can be forgotten."""
    said = []
    if total.by_feature:
        counts = ", ".join(f"{n} of {name}" for name, n in _largest(total.by_feature))
        said.append(f"values differ from what they are recomputed to: {counts}")
        said += [
            f"{d['feature']} of decision {d['decision_id']} at terminal {d['terminal_id']} was served as "
            f"{d['served']}, recomputed as {d['recomputed']}"
            for d in total.differences
        ]
    if unread:
        said.append(
            f"{unread} decisions can't be judged: they are in the lake, but their segments were gone before "
            "this check read them"
        )
    if lost := total.incomplete - unread:
        said.append(
            f"{lost} decisions can't be judged: an event that they saw has no number in the journal, or the "
            "profile that they saw is not in the lake"
        )
    if total.waiting:
        said.append(
            f"{total.waiting} decisions can't be judged yet: not all that they saw is in the journal; the next "
            "check asks again"
        )
    if not said:
        said.append(
            f"all values of {total.recomputed} decisions came out again to the bit"
            if total.recomputed
            else "no decision of the day is in the journal"
        )
    if total.of_another_version:
        said.append(
            f"{total.of_another_version} decisions were not compared: another version of the features' code made "
            "their vectors"
        )
    if total.without_vector:
        said.append(f"{total.without_vector} decisions were not compared: they have no vector")
    return tuple(said)


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _in_lake(lake: Lake, day: date) -> int:
    """Decisions of the day that the lake knows, of those received about then."""
    around = timedelta(days=RECEIVED_WITHIN_DAYS)
    if not lake.paths("decisions", day - around, day + around):
        return 0
    rows = lake.read("decisions", day - around, day + around, columns=["event_timestamp"])
    of_day = pc.floor_temporal(rows["event_timestamp"], unit="day").cast("date32")
    return int(pc.sum(pc.equal(of_day, day)).as_py() or 0)

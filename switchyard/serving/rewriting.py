"""Closed segments written anew without some of what they held; every other line stays byte for byte.

The new one appears whole, with its index and marker, under the next name (``<stem>-1``, ``-2``), since readers keep
what they know of a segment under its name; then the old one goes. Interrupted in between, both are there, and
``finish_rewriting`` removes the old one. Not here: which lines change, and into what.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from switchyard.errors import JournalError
from switchyard.lake import whole_file
from switchyard.serving.index import entries_of, growing_path, sorted_path, write_sorted
from switchyard.serving.segments import SUFFIX, closed_segment, frame, marker_of, segments, whole

Concerns = Callable[[bytes], bool]
"""Whether a line (with its line break) is to be changed."""
Change = Callable[[dict[str, Any]], dict[str, Any] | None]
"""From a record to what stands in its place; None: nothing."""

_UNNAMED = ".rewritten"


class Rewritten(NamedTuple):
    """A segment and the one that takes its place; ``ends``: where each line ends in the one and in the other."""

    old: Path
    new: Path
    ends: list[tuple[int, int]]

    def place(self, position: int) -> int:
        """Where a reader that had read ``position`` bytes of the old one goes on in the new one."""
        return max((new for old, new in self.ends if old <= position), default=0)


def successor_of(segment: Path) -> Path:
    """The name under which a segment is written anew.

    >>> successor_of(Path("0001-12-ab.journal")).name, successor_of(Path("0001-12-ab-1.journal")).name
    ('0001-12-ab-1.journal', '0001-12-ab-2.journal')
    """
    opened, process, name, *generation = segment.stem.split("-")
    number = int(generation[0]) + 1 if generation else 1
    return segment.with_name(f"{opened}-{process}-{name}-{number}{SUFFIX}")


def origin_of(name: str) -> str:
    """The name under which a segment was written first, however often it was written anew.

    >>> origin_of("0001-12-ab-2.journal"), origin_of("0001-12-ab.journal")
    ('0001-12-ab.journal', '0001-12-ab.journal')
    """
    return "-".join(name.removesuffix(SUFFIX).split("-")[:3]) + SUFFIX


def finish_rewriting(journal: Path) -> int:
    """Remove the segments whose successor is there: somebody was killed between the two; how many."""
    left = [segment for segment in segments(journal) if successor_of(segment).exists()]
    for segment in left:
        _remove(segment)
    for unnamed in journal.glob(f"*{_UNNAMED}"):
        unnamed.unlink()
    return len(left)


def concerned(segment: Path, concerns: Concerns) -> int:
    """How many lines of the segment are to be changed; 0 if it is gone."""
    try:
        with segment.open("rb") as lines:
            return sum(map(concerns, lines))
    except FileNotFoundError:
        return 0


def rewrite(
    segment: Path,
    concerns: Concerns,
    change: Change,
    before_it_appears: Callable[[Rewritten], None] = lambda _done: None,
) -> Rewritten:
    """Write a closed segment anew, its time of writing kept; a line that ``concerns`` and is damaged is left out.

    Raises JournalError if somebody writes the segment.
    """
    new = successor_of(segment)
    unnamed = new.with_suffix(_UNNAMED)
    with closed_segment(segment) as descriptor:
        if descriptor is None:
            raise JournalError(f"{segment} is being written; it can be rewritten once it is closed")
        times = os.fstat(descriptor)
        done = Rewritten(segment, new, _write_changed(segment, unnamed, concerns, change))
        os.utime(unnamed, ns=(times.st_atime_ns, times.st_mtime_ns))
        before_it_appears(done)
        write_sorted(new, entries_of(unnamed))
        if marker_of(segment).exists():
            marker_of(new).touch()
        unnamed.rename(new)
        _remove(segment)
    return done


def _write_changed(
    segment: Path, target: Path, concerns: Concerns, change: Change
) -> list[tuple[int, int]]:
    ends, read, written = list[tuple[int, int]](), 0, 0
    with segment.open("rb") as lines, whole_file(target) as file:
        for line in lines:
            kept = _changed(line, change) if concerns(line) else line
            read += len(line)
            written += file.write(kept)
            ends.append((read, written))
    return ends


def _changed(line: bytes, change: Change) -> bytes:
    record = whole(line)
    changed = change(record) if record is not None else None
    return frame(changed) if changed is not None else b""


def _remove(segment: Path) -> None:
    """The segment first: an index without one is nothing."""
    for file in (segment, sorted_path(segment), growing_path(segment), marker_of(segment)):
        file.unlink(missing_ok=True)

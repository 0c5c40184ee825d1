"""A word to all workers that share a journal: close your segment, and drop what you hold of earlier requests.

It is the time of change of one small file beside the segments, looked at once a second. Not here: what is
done with the segments that are closed then (``rewriting``).
"""

from __future__ import annotations

import time
from pathlib import Path

from switchyard.errors import JournalError
from switchyard.lake import write_text
from switchyard.serving.segments import closed_segment, segments

FILE = "turnover"
PATIENCE_S = 20.0
"""A worker looks once a second; one that has not closed its segment by then hangs."""
_LOOKS_EVERY_S = 0.05


class Turnover:
    """What one worker has seen of the word; what was said before it began is none of its concern."""

    def __init__(self, journal: Path) -> None:
        self._path = journal / FILE
        self._followed = self._said()

    def is_asked(self) -> bool:
        """Whether the word was given since it was followed last."""
        return self._said() != self._followed

    def followed(self) -> None:
        """Say that this worker has done it."""
        self._followed = self._said()

    def _said(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def turn_over(journal: Path, patience_s: float = PATIENCE_S) -> None:
    """Have every worker close its segment; those that are open now are closed when this returns.

    Raises JournalError, naming the segment, if one is still written after ``patience_s``.
    """
    open_ones = [segment for segment in segments(journal) if not is_closed(segment)]
    write_text(f"{time.time_ns()}\n", journal / FILE)
    deadline = time.monotonic() + patience_s
    for segment in open_ones:
        while not is_closed(segment):
            if time.monotonic() > deadline:
                raise JournalError(
                    f"{segment} is still written after {patience_s:.0f} s: process {segment.name.split('-')[1]} "
                    "hangs, or is no service of this version; end it, and run this again"
                )
            time.sleep(_LOOKS_EVERY_S)


def is_closed(segment: Path) -> bool:
    """Whether nobody writes the segment; also if it is gone."""
    with closed_segment(segment) as descriptor:
        return descriptor is not None or not segment.exists()

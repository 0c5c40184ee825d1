"""What monitoring found of a day, one file per level and day: written whole, read by sensors and people.

Not here: what is measured (the use case), or what follows from a verdict (``orchestration``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from switchyard.errors import InputError
from switchyard.lake import write_text
from switchyard.learning.policy import Verdict

Level = Literal["data", "model", "system", "skew"]


@dataclass(frozen=True, slots=True)
class DayReport:
    """A level's verdict on a window of days that ends with ``day``. The verdict's figures must be JSON."""

    level: Level
    day: date
    verdict: Verdict


class DayReports:
    """The reports below ``folder``: ``folder/<level>/<YYYY-MM-DD>.json``, and pages of HTML beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, level: Level, day: date, suffix: str = ".json") -> Path:
        """Where a day's report lies, or with ``suffix='.html'`` its page."""
        return self.folder / level / f"{day.isoformat()}{suffix}"

    def save(self, report: DayReport) -> Path:
        """Write it; a report of the same level and day is replaced. Raises InputError if a figure is not finite."""
        verdict = report.verdict
        said = {"passed": verdict.passed, "reasons": verdict.reasons, "figures": verdict.figures}
        path = self.path(report.level, report.day)
        try:
            text = json.dumps(said, indent=1, allow_nan=False)
        except ValueError as error:
            raise InputError(
                f"{path.name} of the level '{report.level}' is not written: a figure that is not finite is no JSON "
                f"({error}); what is not defined is null"
            ) from None
        write_text(text, path)
        return path

    def load(self, level: Level, day: date) -> DayReport | None:
        """The report of that day, if there is one. Raises InputError if the file is no report."""
        path = self.path(level, day)
        try:
            said = json.loads(path.read_text())
            verdict = Verdict(said["passed"], tuple(said["reasons"]), said["figures"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is no report of a day ({error}); remove it and make it again"
            ) from None
        return DayReport(level, day, verdict)

    def days(self, level: Level) -> list[date]:
        """Days that have a report, oldest first."""
        files = (self.folder / level).glob("????-??-??.json")
        return sorted(date.fromisoformat(file.stem) for file in files)

    def newest(self, level: Level) -> DayReport | None:
        """The report of the latest day, if there is any."""
        days = self.days(level)
        return self.load(level, days[-1]) if days else None

    def before(self, level: Level, day: date) -> DayReport | None:
        """The report of the latest day before ``day``, if there is any."""
        days = [earlier for earlier in self.days(level) if earlier < day]
        return self.load(level, days[-1]) if days else None

"""A page of a day: what each level found, with links to the levels' own pages. Plain HTML, no scripts.

Not here: what a level measures, or its own page.
"""

from __future__ import annotations

from datetime import date
from html import escape
from pathlib import Path
from typing import get_args

from switchyard.lake import write_text
from switchyard.learning.day_reports import DayReport, DayReports, Level

_STYLE = "body{font:15px sans-serif;margin:2em}td,th{text-align:left;vertical-align:top;padding:.3em 1em .3em 0}"


def write_page(reports: DayReports, day: date) -> Path:
    """Write the page of ``day`` beside the levels' folders, from the reports that are there."""
    held = [report for level in get_args(Level) if (report := reports.load(level, day))]
    rows = "".join(_row(reports, report) for report in held)
    path = reports.folder / f"{day.isoformat()}.html"
    write_text(
        f"<!doctype html><meta charset='utf-8'><title>{day}</title><style>{_STYLE}</style><h1>{day}</h1>"
        f"<table><tr><th>level<th>verdict<th>why<th>figures</tr>{rows}</table>\n",
        path,
    )
    return path


def _row(reports: DayReports, report: DayReport) -> str:
    verdict = report.verdict
    links = [
        f"<a href='{report.level}/{path.name}'>{name}</a>"
        for name, path in (
            ("figures", reports.path(report.level, report.day)),
            ("page", reports.path(report.level, report.day, ".html")),
        )
        if path.exists()
    ]
    said = "<br>".join(map(escape, verdict.reasons))
    passed = "well" if verdict.passed else "<b>look at it</b>"
    return f"<tr><td>{report.level}<td>{passed}<td>{said}<td>{', '.join(links)}</tr>"

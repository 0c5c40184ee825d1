"""The journal's asset: what a home journalled is in its lake after the job, and again after another run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from switchyard.serving.journal import journal_of
from tests.fraud.test_compaction import MIDNIGHT_US, decision

if TYPE_CHECKING:
    from tests.homes import Home


def test_the_job_brings_the_journal_into_the_lake_once(new_home: Callable[..., Any]) -> None:
    home: Home = new_home()
    with journal_of(home.settings) as journal:
        journal.append([decision(n, MIDNIGHT_US + n) for n in range(3)])

    home.run("compact_journal")
    home.run("compact_journal")

    (day,) = home.lake.days("decisions")
    assert len(home.lake.read("decisions", day)) == 3

"""The plan: which release decides, named in one small file of the home that all workers watch.

It holds for the Bento that it was written for; another one begins with its own release and keeps to what
it serves, as one does without a plan. Here: the file. Not here: loading what it names (``reload``), what stands loaded (``lineup``).
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from switchyard.errors import ReleaseError
from switchyard.lake import write_text

PLAN = "traffic.json"

_ID = re.compile(r"[0-9a-f]{32}")


class Plan(msgspec.Struct, frozen=True):
    """Ids of releases: the Bento this is for, who decides in it, who did before; and why it is so."""

    bento: str
    champion: str
    previous: str | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        for release in (self.bento, self.champion, self.previous):
            if release is not None and not _ID.fullmatch(release):
                raise ValueError(f"{release!r} is no release id; 32 hex characters are needed")


def plan_file(home: Path) -> Path:
    return home / PLAN


def write_plan(home: Path, plan: Plan) -> int:
    """Write the plan whole; returns its stamp, by which a worker says that it has read it."""
    write_text(msgspec.json.format(msgspec.json.encode(plan)).decode() + "\n", plan_file(home))
    return stamp_of(home)


def read_plan(home: Path) -> Plan | None:
    """The plan, None if there is none. Raises ReleaseError if the file is not one."""
    try:
        return msgspec.json.decode(plan_file(home).read_bytes(), type=Plan)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise ReleaseError(
            f"{plan_file(home)} can't be read as a plan: {error}; "
            "name a release again with `switchyard reload RELEASE`"
        ) from None


def decides(home: Path, bento: str) -> str:
    """The release that decides in a Bento by the plan. Raises ReleaseError if the plan can't be read."""
    plan = read_plan(home)
    return plan.champion if plan and plan.bento == bento else bento


def stamp_of(home: Path) -> int:
    """Changes with every writing of the plan; 0 if there is none."""
    try:
        return plan_file(home).stat().st_mtime_ns
    except FileNotFoundError:
        return 0

"""Four eyes: who has said that a release may decide, and whether that is enough. Files of the home.

A name is taken as it is given: who may write into the home, or has an admin's key, can give any. Not here: what a
release has to show (the policies of ``learning``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from switchyard.errors import PlanError
from switchyard.lake import write_text
from switchyard.learning.release import check_release
from switchyard.settings import Settings


class Approval(msgspec.Struct, frozen=True):
    """A person's word that a release may decide."""

    release: str
    who: str
    why: str
    when: datetime


def approve(settings: Settings, release_id: str, *, who: str, why: str) -> None:
    """Write down that ``who`` approves of the release. Raises ReleaseError if it is not whole."""
    check_release(settings.releases / release_id)
    approval = Approval(release_id, who, why, datetime.now(UTC))
    write_text(msgspec.json.encode(approval).decode() + "\n", _file(settings, release_id))


def approver(settings: Settings, release_id: str, who: str) -> str | None:
    """Who approved of what ``who`` wants to promote. Raises PlanError where the setting 'four_eyes' asks for
    a second person and there is none."""
    try:
        content = _file(settings, release_id).read_bytes()
        by = msgspec.json.decode(content, type=Approval).who
    except FileNotFoundError:
        by = None
    if settings.four_eyes and by in (None, who):
        lacks = "nobody has approved of it" if by is None else f"{who} alone has approved of it"
        raise PlanError(
            f"release {release_id} is not promoted by {who}: {lacks}; somebody else has to: "
            f"`switchyard approve {release_id} --who NAME --why WORDS`"
        )
    return by


def _file(settings: Settings, release_id: str) -> Path:
    return settings.home / "approvals" / f"{release_id}.json"

"""What the gates said of the candidate, kept beside it: a release made in a later run asks them again.

A failed check stops its own run only. Here: noting, forgetting and asking. Not here: how a gate judges
(``policy``) or what it is called.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from switchyard.errors import ReleaseError
from switchyard.lake import write_text

PASSED = ""


def note_gates(file: Path, said: Mapping[str, str]) -> None:
    """Add what was said of each gate: why it failed, or PASSED."""
    write_text(json.dumps(_read(file) | dict(said), indent=1, sort_keys=True), file)


def forget_gates(file: Path, names: Iterable[str]) -> None:
    """What was judged is being made anew: it has passed nothing yet."""
    forgotten = set(names)
    kept = {name: said for name, said in _read(file).items() if name not in forgotten}
    write_text(json.dumps(kept, indent=1, sort_keys=True), file)


def refuse_unless_passed(file: Path, names: Iterable[str]) -> None:
    """Raises ReleaseError naming each gate of ``names`` that failed, with its reason, or was not asked."""
    said = _read(file)
    closed = [
        f"{name} failed: {said[name]}" if name in said else f"{name} was not asked"
        for name in names
        if said.get(name) != PASSED
    ]
    if closed:
        raise ReleaseError(
            "the candidate has not passed its gates, so there is no release of it; "
            f"{'; '.join(closed)}; run the job 'train' on better data or a better model"
        )


def _read(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    said: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return said

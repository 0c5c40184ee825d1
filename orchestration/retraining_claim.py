"""The newest training that was asked for, in a small file of the home, written before its run begins.

Sensors read it so as not to ask twice, the rollout so as to know whether a new release replaces the one on trial.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from switchyard.lake import write_text
from switchyard.learning.retraining import Trigger
from switchyard.settings import Settings

CLAIM_TAG = "switchyard/retraining"
CLAIM_S = 600.0
"""A claim whose run has not appeared after so long (wall clock) is void."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A training that was asked for: by which trigger, about what, why; ``instead_of`` names the release on trial that its
    release is to replace."""

    trigger: Trigger
    ask: str
    because: str
    instead_of: str | None = None

    @property
    def name(self) -> str:
        """One for each ask of each trigger."""
        return f"{self.trigger} {self.ask}"

    @property
    def tags(self) -> dict[str, str]:
        """Of its run."""
        return {CLAIM_TAG: self.name, "switchyard/because": self.because[:500]}

    def save(self, settings: Settings) -> None:
        write_text(json.dumps(asdict(self), indent=1), _file(settings))


def last_claim(settings: Settings) -> Claim | None:
    """The newest claim of the home, whatever became of it."""
    try:
        return Claim(**json.loads(_file(settings).read_text()))
    except FileNotFoundError:
        return None


def fresh_claim(settings: Settings) -> Claim | None:
    """The newest claim, while its run may still be about to begin."""
    claim = last_claim(settings)
    return claim if claim and time.time() - _file(settings).stat().st_mtime < CLAIM_S else None


def _file(settings: Settings) -> Path:
    return settings.home / "retraining.json"

"""What assets need from the outside beyond ``switchyard``'s own objects, as types.

``orchestration.resources`` implements these; so assets import neither Feast's set-up nor the Bentos.
Not here: implementations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa


class FeatureStore(Protocol):
    """The feature registry, its point-in-time join and its book-keeping of what is online."""

    def apply(self) -> list[str]:
        """Register entities, views and services; returns their names."""
        ...

    def historical(self, transactions: pa.Table) -> pa.Table:
        """Both profiles as of each transaction, in the rows' order; integers with real nulls."""
        ...

    def tell_materialized(self, view: str, start: datetime, end: datetime) -> None:
        """Record in the registry that ``view`` is online for ``start`` to ``end``."""
        ...


@dataclass(frozen=True, slots=True)
class Deployed:
    """The service that answers: its Bento's release, the hash of the source that the Bento was built from,
    its own port on the loopback, and the address of the gateway in front of it."""

    release: str
    code: str
    port: int
    url: str


@dataclass(frozen=True, slots=True)
class Moved:
    """What a promotion or a rollback came to: who answers, who decides, who did, and after how long."""

    deployed: Deployed
    champion: str
    replaced: str | None
    seconds: float


class Serving(Protocol):
    """Packs a release as a Bento and lets releases decide on this host."""

    def build(self, release_folder: Path) -> tuple[str, float]:
        """The Bento's tag and the seconds its build took (0.0 if it was there)."""
        ...

    def promote(self, release_id: str, *, who: str, why: str, verdict: Sequence[str] = ()) -> Moved:
        """Let the release's Bento answer and the release decide: aliases, record, plan and service at once."""
        ...

    def roll_back(self, *, who: str, why: str) -> Moved:
        """Let the champion before decide again."""
        ...

    def recover(self) -> str | None:
        """Complete or undo what a killed process left half-way; in words what was done."""
        ...


Days = Sequence[str]
"""Partition keys of a run: days as YYYY-MM-DD."""

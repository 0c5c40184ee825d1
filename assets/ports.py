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
    """A running decision service; ``code`` is the hash of the source that it was built from."""

    url: str
    pid: int
    release: str
    replaced: str | None
    seconds: float
    code: str = ""


class Serving(Protocol):
    """Packs a release as a Bento and runs it on this host."""

    def build(self, release_folder: Path) -> tuple[str, float]:
        """The Bento's tag and the seconds its build took (0.0 if it was there)."""
        ...

    def deploy(self, release_id: str) -> Deployed:
        """Start the release's Bento; replace the running one once the new one is ready."""
        ...


Days = Sequence[str]
"""Partition keys of a run: days as YYYY-MM-DD."""

"""The cold store: the newest profile of every entity, written beside each online sync, read when the store is gone.

It holds profiles only; activity is too quick for it. Whole days arrive at once, with the moment up to which
a view is complete. Not here: its two tables (``cold_tables``), when it is read (``ladder``), how old a
profile may be (``freshness``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from switchyard.errors import StoreError
from switchyard.serving.cold_tables import Mark, PostgresTables, Row, SqliteTables, Tables
from switchyard.serving.feast_format import MISSING, Ints, View


class ColdProfile(NamedTuple):
    """A profile int64[features], MISSING for null, and from when on it counts (microseconds)."""

    available_at: int
    profile: Ints


class ColdView(NamedTuple):
    """What was found of a view: profiles by entity, those that are there, and the newest available_at
    whose sync is complete (MISSING: none)."""

    profiles: Mapping[str, ColdProfile]
    synced_through: int


class ColdStore:
    """Profiles of ``views``. Any number of processes may read while one writes; one reads from one thread.

    All methods raise StoreError if the database can't be reached, is damaged, or holds other features.
    ``quick``: a read takes well under a millisecond, so it may be done on an event loop.
    """

    def __init__(self, tables: Tables, views: tuple[View, ...]) -> None:
        self.views = views
        self.quick = tables.quick
        self._tables = tables
        self._fingerprints = {view.name: _fingerprint(view) for view in views}

    def read(self, entities: Sequence[Sequence[str]]) -> list[ColdView]:
        """Profiles of the entities wanted of each view, in the views' order."""
        wanted = {view.name: of_view for view, of_view in zip(self.views, entities, strict=True)}
        marks, rows = self._tables.read(wanted)
        return [self._view(view, marks.get(view.name), rows[view.name]) for view in self.views]

    def write_profiles(
        self,
        view_name: str,
        ids: Sequence[str],
        rows: Ints,
        available_at: Ints,
        synced_through: int | None = None,
    ) -> int:
        """Write profiles of a view and its mark, all at once; how many rows were written.

        As ``OnlineStore.write_profiles``: a row is skipped if a newer one is there, one of the same time
        is replaced, and the mark (default: the newest row's time) never goes back.
        """
        if synced_through is None:
            synced_through = int(available_at.max()) if len(available_at) else MISSING
        packed, width = rows.astype("<i8").tobytes(), 8 * rows.shape[1]
        profiles = (packed[i * width : (i + 1) * width] for i in range(len(rows)))
        listed = list(zip(ids, available_at.tolist(), profiles, strict=True))
        mark = self._fingerprints[view_name], synced_through
        return self._tables.write(view_name, listed, mark)

    def has(self, view_name: str, entity: str) -> bool:
        """Whether there is a profile of the entity."""
        return self._tables.has(view_name, entity)

    def remove(self, view_name: str, entity: str) -> int:
        """Remove the profile of an entity; how many there were."""
        return self._tables.remove(view_name, entity)

    def close(self) -> None:
        """Close the connection that reads."""
        self._tables.close()

    def _view(self, view: View, mark: Mark | None, rows: Sequence[Row]) -> ColdView:
        if mark is None:
            return ColdView({}, MISSING)
        if mark[0] != self._fingerprints[view.name]:
            raise StoreError(
                f"the cold store holds {view.name!r} with other features than this code reads; sync "
                "its profiles again"
            )
        return ColdView(
            {
                entity: ColdProfile(moment, _unpacked(view, packed))
                for entity, moment, packed in rows
            },
            mark[1],
        )


def open_cold_store(url: str | None, file: Path, views: tuple[View, ...]) -> ColdStore:
    """The cold store in the Postgres at ``url``, without one in the SQLite ``file``; connects when used."""
    return ColdStore(PostgresTables(url) if url else SqliteTables(file), views)


def _fingerprint(view: View) -> str:
    return hashlib.sha256("\0".join(view.features).encode()).hexdigest()[:16]


def _unpacked(view: View, packed: bytes) -> Ints:
    if len(packed) != 8 * len(view.features):
        raise StoreError(
            f"a profile of {view.name!r} in the cold store has {len(packed)} bytes; right are "
            f"{8 * len(view.features)}; sync its profiles again"
        )
    return np.frombuffer(packed, "<i8")

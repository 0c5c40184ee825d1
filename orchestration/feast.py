"""Feast's SDK, wherever the lifecycle needs it: registering, the point-in-time join, book-keeping.

Feast takes seconds to import and is imported inside the functions. Not here: the definitions
(``feature_repo``), the hot path's reader and writer (``switchyard.serving.online_store``).
"""

from __future__ import annotations

import contextlib
import os
import runpy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import LakeError
from switchyard.fraud.columns import (
    CUSTOMER_PROFILE,
    FEATURE_SERVICE,
    TERMINAL_PROFILE,
    arrow_schema,
    names,
)
from switchyard.lake import Lake
from switchyard.serving import valkey
from switchyard.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore

FEATURE_REPO = Path(__file__).resolve().parents[1] / "feature_repo"
_ENTITY_COLUMNS = ["customer_id", "terminal_id", "event_timestamp"]
_ROW = "row_number"


@dataclass(frozen=True, slots=True)
class FeastFeatureStore:
    """The functions below, bound to one home: what assets see as their feature store."""

    settings: Settings

    def apply(self) -> list[str]:
        return apply(self.settings)

    def historical(self, transactions: pa.Table) -> pa.Table:
        return historical(self.settings, transactions)

    def tell_materialized(self, view: str, start: datetime, end: datetime) -> None:
        tell_materialized(self.settings, view, start, end)


def feature_store(settings: Settings) -> FeatureStore:
    """Feast's own object for the home; starts the embedded online store if need be."""
    with _environment(settings):
        from feast import FeatureStore

        return FeatureStore(repo_path=str(FEATURE_REPO))


def apply(settings: Settings) -> list[str]:
    """Register what ``feature_repo`` defines, as ``feast apply`` does; the names, sorted.

    A registry torn by a killed process is made anew: it holds nothing that is not defined or re-told.
    """
    with _environment(settings):
        from feast import Entity, FeatureService, FeatureView
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        defined = runpy.run_path(str(FEATURE_REPO / "definitions.py"))
    objects = [o for o in defined.values() if isinstance(o, Entity | FeatureView | FeatureService)]
    try:
        feature_store(settings).apply(objects)
    except DecodeError:
        (settings.home / "feast" / "registry.db").unlink()
        feature_store(settings).apply(objects)
    return sorted(o.name for o in objects)


def historical(settings: Settings, transactions: pa.Table) -> pa.Table:
    """Both profiles as of each transaction: Feast's point-in-time join, one row per row, in its order.

    ``transactions``: transaction_id, customer_id, terminal_id, event_timestamp (UTC) and whatever else.
    Returns transaction_id, then CUSTOMER_PROFILE and TERMINAL_PROFILE, int64 with nulls where no profile
    was available in time. Raises LakeError if the lake has no profiles.
    """
    columns = CUSTOMER_PROFILE + TERMINAL_PROFILE
    for table in ("customer_profiles", "terminal_profiles"):
        if not Lake(settings.lake).days(table):
            raise LakeError(
                f"the lake has no '{table}' below {settings.lake}; materialize it first"
            )
    ids = transactions["transaction_id"]
    if not len(transactions):
        return arrow_schema(columns).empty_table().add_column(0, "transaction_id", ids)
    store = feature_store(settings)
    # Feast keeps no order of rows, so each carries its number
    asked = transactions.select(_ENTITY_COLUMNS).append_column(_ROW, pa.array(np.arange(len(ids))))
    with warnings.catch_warnings():  # ibis 12 calls what DuckDB 2 has renamed
        warnings.filterwarnings("ignore", r"fetch_arrow_table\(\)", DeprecationWarning)
        joined = store.get_historical_features(
            entity_df=asked.to_pandas(), features=store.get_feature_service(FEATURE_SERVICE)
        ).to_arrow()  # via pandas, integers with nulls would become floats
    close_duckdb()
    ordered = joined.take(pc.sort_indices(joined[_ROW])).select(names(columns))
    nullable = pa.schema([field.with_nullable(True) for field in arrow_schema(columns)])
    return ordered.cast(nullable).add_column(0, "transaction_id", ids)


def close_duckdb() -> None:
    """Close the connection that Feast opened through ibis, which would keep it, and its memory, to the end
    of the process; there DuckDB's binding then complains of leaks."""
    import ibis

    ibis.get_backend().disconnect()
    ibis.options.default_backend = None


def tell_materialized(settings: Settings, view: str, start: datetime, end: datetime) -> None:
    """Note in the registry that ``view`` is online for the event times from ``start`` to ``end``."""
    store = feature_store(settings)
    store.registry.apply_materialization(
        store.get_feature_view(view), store.project, start, end, commit=True
    )


@contextlib.contextmanager
def _environment(settings: Settings) -> Iterator[None]:
    """The variables that ``feature_repo`` reads, set for the moment, and Feast's own traces removed.

    On import Feast shows every deprecation of everybody's, and sets ``PROMETHEUS_MULTIPROC_DIR``, which
    every process started later would inherit. Both are undone; prometheus_client is loaded first, so
    that it never sees the variable. And six of the nine seconds of its import are typeguard rewriting
    the source of Feast's methods to check their arguments: that is left out.
    """
    import prometheus_client  # noqa: F401
    import typeguard

    checking = typeguard.typechecked
    wanted = {
        "SWITCHYARD_HOME": str(settings.home),
        "SWITCHYARD_FEAST_REDIS": valkey.address_of(settings).feast,
    }
    before = {name: os.environ.get(name) for name in (*wanted, "PROMETHEUS_MULTIPROC_DIR")}
    settings.home.joinpath("feast").mkdir(parents=True, exist_ok=True)
    os.environ.update(wanted)
    typeguard.typechecked = lambda target: target
    try:
        with warnings.catch_warnings():
            yield
    finally:
        typeguard.typechecked = checking
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

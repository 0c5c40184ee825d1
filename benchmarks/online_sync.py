"""Profiles into the online store: rows per second by the project's own sync and by ``feast materialize``.

Both take the same day of the same lake into the same emptied store, in turn; afterwards every byte there has
to be equal, and what ``get_online_features`` reads equal to the lake. Then a correction of that day has to
arrive. That an interrupted sync shows no mixture of two days, ``tests/serving/test_online_store.py`` says.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import redis

from benchmarks.demo import ROOT
from orchestration import feast
from orchestration.home import exports, open_home
from switchyard.errors import SettingsError
from switchyard.fraud.columns import FEATURE_SERVICE
from switchyard.fraud.events import KEY, Owner
from switchyard.fraud.online import VIEWS, online_store_of
from switchyard.fraud.sync import sync_profiles
from switchyard.fraud.windows import COLUMNS, available_at, profile_schema
from switchyard.lake import Lake
from switchyard.serving import valkey
from switchyard.serving.online_store import OnlineStore
from switchyard.settings import Settings

BAR = 10.0
DAY = date(2026, 3, 1)
KEYS = 30_000
"""Cards, and as many terminals."""
READ_BACK = 300
_SPAN = (available_at(DAY) - timedelta(hours=1), available_at(DAY))
Figures = dict[str, Any]
Told = Callable[[str], None]


def run(console: Any = None, *, quick: bool = False, rounds: int = 3, **source: Any) -> Figures:
    """Median rows/s of both, their ratio within a round, and values that differ. ``quick``: few rows."""
    if given := [name for name, value in source.items() if value is not None]:
        raise SettingsError(f"this measures a world of its own; leave out {', '.join(given)}")
    told: Told = console.print if console is not None else lambda _: None
    keys, rounds = (KEYS // 10, 1) if quick else (KEYS, rounds)
    with tempfile.TemporaryDirectory(prefix="switchyard-sync-") as folder:
        settings = open_home(home=Path(folder) / "home")
        try:
            return measure(settings, keys, rounds, told)
        finally:
            valkey.stop(settings.home)


def measure(settings: Settings, keys: int, rounds: int, told: Told) -> Figures:
    """The figures of ``keys`` cards and as many terminals."""
    lake = Lake(settings.lake)
    land_profiles(lake, keys, seed=1)
    feast.apply(settings)
    their_store, url = feast.feature_store(settings), valkey.address_of(settings).url
    store = online_store_of(url)
    own, theirs, unchecked = [], [], []
    with redis.Redis.from_url(url) as raw:
        for number in range(rounds):
            told(f"round {number + 1} of {rounds}: feast materialize, then our own sync")
            raw.flushall()
            theirs.append(2 * keys / _plain(settings))
            by_feast = contents(raw)
            raw.flushall()
            unchecked.append(2 * keys / _unchecked(their_store))
            raw.flushall()
            own.append(2 * keys / _seconds(lambda: sync_profiles(lake, store, DAY)))
            differing = differences(by_feast, contents(raw))
    wrong = misread(settings, lake, store)
    told("a correction of the same day")
    land_profiles(lake, keys, seed=2)
    again = 2 * keys / _seconds(lambda: sync_profiles(lake, store, DAY))
    wrong_again = misread(settings, lake, store)
    store.close()
    ratio = statistics.median(a / b for a, b in zip(own, theirs, strict=True))
    fine = not (differing or wrong or wrong_again)
    return {
        "rows": 2 * keys, "columns": sum(len(view.features) for view in VIEWS),
        "sync_rows_per_second": round(statistics.median(own)),
        "feast_materialize_rows_per_second": round(statistics.median(theirs)),
        "feast_without_type_checks_rows_per_second": round(statistics.median(unchecked)),
        "sync_to_feast": round(ratio, 1),
        "correction_rows_per_second": round(again),
        "stored_hashes_that_differ": differing,
        "values_misread_by_get_online_features": wrong,
        "corrected_values_misread": wrong_again,
        "reached": ratio >= BAR and fine,
    }  # fmt: skip


def land_profiles(lake: Lake, keys: int, seed: int) -> None:
    """One day's profiles of ``keys`` cards and as many terminals, values of all sizes."""
    for owner in KEY:
        lake.write(f"{owner}_profiles", DAY, profiles(owner, keys, seed))


def profiles(owner: Owner, keys: int, seed: int) -> pa.Table:
    """Rows as ``build_profiles`` writes them, made up."""
    rng = np.random.default_rng([seed, len(owner)])
    columns: dict[str, Any] = {
        KEY[owner]: [str(i) for i in range(keys)],
        "available_at": [available_at(DAY)] * keys,
        "created_at": [datetime(2026, 3, 2 + seed, tzinfo=UTC)] * keys,
    }
    for column in COLUMNS[owner]:
        values: npt.NDArray[np.int64] = rng.integers(0, 2**40, keys)
        columns[column.name] = values >> rng.integers(0, 40, keys)
    return pa.table(columns, profile_schema(owner))


def _plain(settings: Settings) -> float:
    """Seconds of ``feast materialize`` in a process of its own, where Feast checks its types as it ships."""
    span = [moment.isoformat() for moment in _SPAN]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.feast_materialize", *span],
        env=os.environ | exports(settings), cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout.splitlines()[-1])


def _unchecked(store: Any) -> float:
    """Seconds of the same in this process, where ``orchestration.feast`` leaves Feast's type checks out."""
    said = io.StringIO()
    started = time.perf_counter()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said):
        warnings.simplefilter("ignore", DeprecationWarning)
        store.materialize(*_SPAN)
    seconds = time.perf_counter() - started
    feast.close_duckdb()
    return seconds


def contents(raw: redis.Redis) -> dict[bytes, dict[bytes, bytes]]:
    """Every profile hash in the store; what lies beside them is the project's own bookkeeping."""
    found = [key for key in raw.scan_iter(count=10_000) if not key.startswith(b"fraud:")]
    pipe = raw.pipeline(transaction=False)
    for key in found:
        pipe.hgetall(key)
    return dict(zip(found, pipe.execute(), strict=True))


def differences(
    one: dict[bytes, dict[bytes, bytes]], other: dict[bytes, dict[bytes, bytes]]
) -> int:
    """Keys whose hashes are not the same."""
    return sum(one.get(key) != other.get(key) for key in one.keys() | other.keys())


def misread(settings: Settings, lake: Lake, store: OnlineStore) -> int:
    """Values of the first READ_BACK cards and terminals that Feast reads otherwise than the lake has them."""
    theirs = feast.feature_store(settings)
    ids = [str(i) for i in range(READ_BACK)]
    rows = [{"customer_id": i, "terminal_id": i} for i in ids]
    service = theirs.get_feature_service(FEATURE_SERVICE)
    read = theirs.get_online_features(service, rows).to_dict()
    wrong = 0
    for view in store.views:
        held = lake.read(f"{view.name}s", DAY).slice(0, READ_BACK)
        for name in view.features:
            wrong += sum(a != b for a, b in zip(read[name], held[name].to_pylist(), strict=True))
    return wrong


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started

"""The world that serving is measured in: a home of its own, made in about a minute, no demo needed.

5,000 cards and 10,000 terminals with current profiles and recent activity, taken the way any home takes
them (lake, profiles, sync, journalled baseline), and a release of 500 trees of depth 6 on the FEATURES
columns, trained on noise: the point of comparison is cost per decision, not quality. Its thresholds let
1 % of the load be reviewed or blocked. Not here: starting a service (``served``), load (``load``).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.load import AMOUNTS, CUSTOMERS, TERMINALS, transactions
from bentos.fraud.build import build_bento
from orchestration.home import exports, open_home
from switchyard.errors import ServiceError
from switchyard.fraud.columns import (
    FEATURE_SERVICE,
    FEATURES,
    LABEL,
    TRANSACTION,
    arrow_schema,
    names,
)
from switchyard.fraud.features import code_hash
from switchyard.fraud.online import FraudDomain, cold_store_of, online_store_of
from switchyard.fraud.requests import Parser
from switchyard.fraud.sync import sync_activity, sync_profiles
from switchyard.fraud.windows import available_at, build_profiles
from switchyard.lake import Lake
from switchyard.learning.calibration import Calibration
from switchyard.learning.models import GradientBoosting, LogisticRegression
from switchyard.learning.release import Release, load_release, write_release
from switchyard.learning.thresholds import Thresholds
from switchyard.serving import valkey
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.trip import Wanted
from switchyard.settings import Settings

Floats = npt.NDArray[np.float64]

DAYS = 33
"""Days in the lake, enough for 30 before any moment."""
PAYMENTS = TERMINALS + TERMINALS // 4
"""In a day: more than one at each terminal, so that it has 30 within 30 days before any moment of the next."""
CARD_EVERY_DAYS = 2
"""Each card of the load pays every second day; the rest of a day's payments are made by passing cards."""
PASSING_CARDS = 25_000
TREES = 500
DEPTH = 6
TRAINING_ROWS = 50_000
FLAGGED_AMOUNT = 4 + AMOUNTS
"""The load's largest amount, one transaction in 90: what the trees learn to flag."""
NOISE = 0.05
SAMPLE = 4_500
COLUMNS = names(FEATURES)


@dataclass(frozen=True)
class World:
    """A prepared home and the release whose Bento is built in it."""

    settings: Settings
    release: Release

    @property
    def tag(self) -> str:
        return f"fraud:{self.release.id}"

    def environment(self) -> dict[str, str]:
        """A shell's after ``eval "$(switchyard env)"``, without any other variable of the project's."""
        own = ("SWITCHYARD_", "BENTOML_", "OMP_")
        rest = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        return rest | exports(self.settings)


def make_world(folder: Path, *, trees: int = TREES, rows: int = TRAINING_ROWS) -> World:
    """Make or refresh the world in ``folder``; starts its online store (``close_world`` stops it).

    Raises ServiceError if the trees do not tell the transactions that are to be flagged from the rest.
    """
    settings = open_home(home=folder)
    store = online_store_of(valkey.address_of(settings).url)
    try:
        fill(settings, store, datetime.now(UTC))
        sample = vectors_of_load(settings, store)
    finally:
        store.close()
    release = make_release(settings, sample, trees, rows)
    build_bento(release.folder, settings.home / "bentoml")
    return World(settings, release)


def close_world(world: World) -> None:
    """Stop the world's store; its data stays."""
    valkey.stop(world.settings.home)


# ---------------------------------------------------------------- cards and terminals


def fill(settings: Settings, store: OnlineStore, now: datetime) -> None:
    """Land the days up to the newest whose profile is available at ``now``; put profiles and activity
    online."""
    last = newest_day(now)
    lake = Lake(settings.lake)
    if lake.has("customer_profiles", last):
        return
    for back in range(DAYS):
        day = last - timedelta(days=back)
        rows = payments_of(day)
        lake.write("transactions", day, rows)
        lake.write("labels", day, verdicts_on(rows))
    build_profiles(lake, last, last, created_at=now)
    sync_activity(lake, store, settings, datetime.combine(last + timedelta(days=1), time(), UTC))
    cold = cold_store_of(settings.cold_store_url, settings.cold_store)
    sync_profiles(lake, store, last, cold)
    cold.close()


def newest_day(now: datetime) -> date:
    """The day whose profile became available at the last 02:00 UTC.

    >>> newest_day(datetime(2026, 1, 3, 1, 59, tzinfo=UTC)).isoformat()
    '2026-01-01'
    """
    day = now.date() - timedelta(days=1)
    return day if available_at(day) <= now else day - timedelta(days=1)


def payments_of(day: date) -> pa.Table:
    """The day's payments in order of time: one at each terminal, a second one at every fourth; half of the
    load's cards pay once."""
    number = day.toordinal()
    place = np.arange(PAYMENTS)
    rng = np.random.default_rng(number)
    due = (place < CUSTOMERS) & (place % CARD_EVERY_DAYS == number % CARD_EVERY_DAYS)
    passing = rng.integers(0, PASSING_CARDS, PAYMENTS)
    terminals = np.concatenate([np.arange(TERMINALS), np.arange(number % 4, TERMINALS, 4)])
    midnight = int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000
    rows: dict[str, Any] = {
        "transaction_id": [f"{day:%y%m%d}-{i}" for i in place],
        "customer_id": [
            str(i) if mine else f"p{other}"
            for i, mine, other in zip(place, due, passing, strict=True)
        ],
        "terminal_id": [str(i) for i in rng.permutation(terminals)],
        "amount_minor": rng.integers(500, 9_500, PAYMENTS),
        "currency": ["EUR"] * PAYMENTS,
        "event_timestamp": pa.array(midnight + place * (86_400_000_000 // PAYMENTS)).cast(
            pa.timestamp("us", tz="UTC")
        ),
    }
    rows |= {name: [None] * PAYMENTS for name in names(TRANSACTION) if name not in rows}
    schema = arrow_schema(TRANSACTION)
    return pa.table({name: rows[name] for name in schema.names}, schema)


def verdicts_on(rows: pa.Table) -> pa.Table:
    """A verdict on each transaction, a week later; one in 500 is a fraud."""
    count = len(rows)
    arrival = rows["event_timestamp"].cast(pa.int64()).to_numpy() + 7 * 86_400_000_000
    columns = {name: rows[name] for name in names(LABEL)[:4]} | {
        "is_fraud": np.arange(count) % 500 == 0,
        "label_available_at": pa.array(arrival).cast(pa.timestamp("us", tz="UTC")),
    }
    return pa.table(columns, arrow_schema(LABEL))


# ---------------------------------------------------------------- the release


def vectors_of_load(settings: Settings, store: OnlineStore) -> Floats:
    """Vectors float64[SAMPLE, 50] of the load's first transactions, by the code that serves them."""
    parser = Parser(settings.currency, future_limit=timedelta(minutes=5))
    domain, now = FraudDomain(parser.minor_units), datetime.now(UTC)
    requests = [parser.transaction(body, now) for body in islice(transactions(), SAMPLE)]
    parts = []
    for start in range(0, SAMPLE, 500):
        some = requests[start : start + 500]
        trip = store.read([Wanted(domain.entities(request)) for request in some])
        parts.append(domain.assemble(some, trip).vectors)
    vectors: Floats = np.concatenate(parts)
    return vectors


def make_release(settings: Settings, sample: Floats, trees: int, rows: int) -> Release:
    """Train on noise around the ``sample`` and write the release; the same input gives the same one."""
    X, y = noise_around(sample, rows)
    params = {"rounds": trees, "max_depth": DEPTH}
    model = GradientBoosting.train(X, y, columns=COLUMNS, params=params)
    return write_release(
        settings.releases,
        model=model,
        calibration=Calibration(1.0, 0.0),
        baseline=LogisticRegression.train(X, y, columns=COLUMNS),
        baseline_calibration=Calibration(1.0, 0.0),
        thresholds=thresholds_for(model, sample),
        feature_service=FEATURE_SERVICE,
        columns=COLUMNS,
        code_hash=code_hash(),
        training={"trees": trees, "depth": DEPTH, "rows": rows, "seed": 0},
        metrics={},
    )


def noise_around(sample: Floats, rows: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Rows whose columns vary apart from each other, counts of the last hours up to what load makes of
    them; the verdict is the amount's, but for NOISE of the rows, which keep the trees growing."""
    rng = np.random.default_rng(0)
    X = sample[rng.integers(0, len(sample), rows)] * rng.lognormal(0, 0.5, (rows, len(COLUMNS)))
    for i, column in enumerate(FEATURES):
        if column.freshness == "event" and column.unit in ("transactions", "cards", "terminals"):
            X[:, i] = np.floor(256 ** rng.random(rows)) - 1
    amounts = rng.integers(5, 5 + AMOUNTS, rows)
    X[:, COLUMNS.index("amount")] = amounts
    return X, ((amounts == FLAGGED_AMOUNT) ^ (rng.random(rows) < NOISE)).astype(np.int64)


def thresholds_for(model: GradientBoosting, sample: Floats) -> Thresholds:
    """Between the flagged transactions of the load and the rest; half of the flagged are blocked."""
    score = Calibration(1.0, 0.0).score(model.margin(sample))
    flagged = sample[:, COLUMNS.index("amount")] == FLAGGED_AMOUNT
    rest, least = np.quantile(score[~flagged], 0.999), np.quantile(score[flagged], 0.02)
    if rest >= least:
        raise ServiceError(
            f"the benchmark's trees do not tell flagged transactions (scores from {least:.3f}) from the "
            f"rest (up to {rest:.3f}); train more of them, or on more rows"
        )
    return Thresholds(float(rest + least) / 2, float(np.median(score[flagged])))


def adopt(world: World, home: Path) -> World:
    """The champion of ``home`` (``switchyard demo`` leaves one), its Bento built in this world.

    Raises ServiceError or ReleaseError if there is none that this code serves.
    """
    from assets.fraud.registry import release_of

    database = home / "mlflow" / "mlflow.db"
    champion = release_of(f"sqlite:///{database}", "champion") if database.exists() else None
    if champion is None:
        raise ServiceError(
            f"{home} has no champion: run `switchyard demo` to have it measured, too"
        )
    folder = world.settings.releases / champion
    shutil.copytree(home / "releases" / champion, folder, dirs_exist_ok=True)
    release = load_release(folder, computes={code_hash()})
    build_bento(folder, world.settings.home / "bentoml")
    return World(world.settings, release)

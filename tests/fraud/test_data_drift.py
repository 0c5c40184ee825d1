"""The level 'data' on a small lake: healthy days ask for nothing, a changed market does, a day again says the same."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from switchyard.errors import InputError
from switchyard.fraud.activity import build_activity
from switchyard.fraud.compaction import SCHEMAS
from switchyard.fraud.data_drift import REFERENCE_DAYS, measure_data, reference_days, rows_of
from switchyard.fraud.features import vectors_of
from switchyard.fraud.ingest import ingest
from switchyard.fraud.simulate import Shift, Simulator, SimulatorConfig
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake, days_between
from switchyard.settings import Settings, load_settings
from tests.releases import make_release

FIRST = date(2026, 1, 1)
LEARNED = FIRST + timedelta(days=57)
CHANGED = LEARNED + timedelta(days=3)
LAST = CHANGED + timedelta(days=5)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of 66 days in which everybody spends three times as much from ``CHANGED`` on, and a release of before."""
    home = tmp_path_factory.mktemp("drift")
    lake = Lake(home / "lake")
    simulator = Simulator(
        SimulatorConfig(
            seed=3, first_day=FIRST, customers=150, terminals=60, transactions_per_day=160,
            shifts=(Shift(CHANGED, spending_factor=3.0),),
        )
    )  # fmt: skip
    for day in days_between(FIRST, LAST):
        simulated = simulator.day(day)
        none_seen, now = pa.array([], pa.string()), datetime(2027, 1, 1, tzinfo=UTC)
        clean = ingest(simulated.transactions, day, seen=none_seen, now=now, currency="EUR").clean
        lake.write("transactions", day, clean)
        lake.write("labels", day, simulated.labels)
    begin = LEARNED - timedelta(days=REFERENCE_DAYS)
    build_profiles(
        lake, begin - timedelta(days=2), LAST, created_at=datetime(2027, 1, 1, tzinfo=UTC)
    )
    build_activity(lake, begin, LAST)
    split = {
        "train": {"start": f"{FIRST}T00:00:00+00:00"},
        "test": {"end": f"{LEARNED + timedelta(days=1)}T00:00:00+00:00"},
    }
    make_release(home / "releases", training={"split": split})
    return home


@pytest.fixture
def settings(world: Path, tmp_path: Path) -> Settings:
    """A home of its own that shares the world's lake and release."""
    settings = load_settings(home=tmp_path / "home")
    settings.home.mkdir()
    for name in ("lake", "releases"):
        shutil.copytree(world / name, settings.home / name)
    return settings


@pytest.fixture
def champion(settings: Settings) -> str:
    return next(settings.releases.iterdir()).name


def measured(settings: Settings, champion: str, first: date, pages: int = 0) -> list[Any]:
    return measure_data(settings, Lake(settings.lake), first, LAST, champion=champion, pages=pages)


@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning:evidently.legacy")
@pytest.mark.filterwarnings("ignore:Use of deprecated class 'DependencyKwarg':DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Call to deprecated function 'Dependency':DeprecationWarning")
def test_a_changed_market_is_asked_about_on_its_third_day_and_a_healthy_one_is_not(
    settings: Settings, champion: str
) -> None:
    reports = {
        report.day: report.verdict for report in measured(settings, champion, FIRST, pages=1)
    }

    assert min(reports) == LEARNED + timedelta(days=1)  # no day that the champion learned from
    asks = [day for day, verdict in reports.items() if not verdict.passed]
    assert asks[0] == CHANGED + timedelta(days=2)
    figures = reports[asks[0]].figures
    assert figures["asked_on"] == str(asks[0])
    assert {"amount", "amount_to_mean_30d"} <= {*figures["alarms"]}
    assert figures["served"] == 0
    assert reports[LAST].figures["by_feature"]["amount"]["evidently_psi"] > 0.1
    pages = (settings.monitoring / "data").glob("*.html")
    assert [page.name for page in pages] == [f"{LAST}.html"]


def test_the_same_days_again_say_the_same_also_without_the_reference_days(
    settings: Settings, champion: str
) -> None:
    first = LAST - timedelta(days=1)
    settings = settings.model_copy(update={"drift_days": 1})
    before = [json.dumps(r.verdict.figures) for r in measured(settings, champion, first)]
    for day in days_between(FIRST, LEARNED):
        Lake(settings.lake).drop("transactions", day)

    again = measured(settings, champion, first)

    assert [json.dumps(r.verdict.figures) for r in again] == before
    assert json.loads(before[1])["asked_on"] == str(
        first
    )  # carried on from the first to the second


def test_without_the_champions_days_it_says_which_are_needed(
    settings: Settings, champion: str
) -> None:
    for day in days_between(FIRST, LEARNED):
        Lake(settings.lake).drop("transactions", day)

    with pytest.raises(
        InputError, match=f"at least 2 of {LEARNED - timedelta(days=27)} to {LEARNED}"
    ):
        measured(settings, champion, LAST)


def test_a_new_country_is_named_with_its_share(settings: Settings, champion: str) -> None:
    lake = Lake(settings.lake)
    rows = lake.read("transactions", LAST)
    place = rows.schema.get_field_index("terminal_country")
    countries = ["JP", *rows["terminal_country"].to_pylist()[1:]]
    lake.write(
        "transactions", LAST, rows.set_column(place, rows.schema.field(place), pa.array(countries))
    )

    report = measured(settings, champion, LAST)[0]

    assert report.verdict.figures["new_categories"] == {"terminal_country": {"JP": 1 / len(rows)}}


def test_served_vectors_come_before_computed_ones(settings: Settings) -> None:
    lake = Lake(settings.lake)
    rows = lake.read("transactions", LAST)
    computed = vectors_of(lake, rows)
    half = rows.slice(0, len(rows) // 2)
    vectors = np.where(np.isnan(computed), np.nan, computed + 1)[: len(half)]
    _write_decisions(lake, LAST + timedelta(days=1), half, vectors)

    found = rows_of(lake, LAST)

    assert found.served == len(half)
    assert len(found.X) == len(rows)
    assert np.array_equal(found.X[: len(half)], vectors, equal_nan=True)
    assert np.array_equal(found.X[len(half) :], computed[len(half) :], equal_nan=True)
    assert found.transactions["transaction_id"].to_pylist() == rows["transaction_id"].to_pylist()


def _write_decisions(lake: Lake, day: date, rows: pa.Table, vectors: np.ndarray) -> None:
    """Decisions on ``rows``, received on ``day``."""
    lists = [[None if np.isnan(v) else v for v in row] for row in vectors.tolist()]
    given = [
        row | {
            "vector": vector, "received_at": row["event_timestamp"], "segment": "s", "decision_id": f"d{i}",
            "score": 0.1, "decision": "allow", "release": "r", "variant": "champion", "degraded": [],
            "reasons": [], "latency_ms": 1.0,
        }
        for i, (row, vector) in enumerate(zip(rows.to_pylist(), lists, strict=True))
    ]  # fmt: skip
    lake.write("decisions", day, pa.Table.from_pylist(given, SCHEMAS["decisions"]))


def test_a_short_training_is_its_own_reference() -> None:
    split = {
        "train": {"start": "2026-03-01T00:00:00+00:00"},
        "test": {"end": "2026-03-20T00:00:00+00:00"},
    }

    assert reference_days({"training": {"split": split}}) == (date(2026, 3, 1), date(2026, 3, 19))

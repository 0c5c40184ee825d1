"""Feast and the project's own code agree: on the bytes online, on what is read, on the point-in-time join."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis
from click.testing import CliRunner, Result

from orchestration import feast
from switchyard.errors import LakeError, SettingsError
from switchyard.fraud import windows
from switchyard.fraud.columns import (
    CUSTOMER_PROFILE,
    FEATURE_SERVICE,
    PROFILE_TTL_DAYS,
    TERMINAL_PROFILE,
    names,
)
from switchyard.fraud.online import VIEWS, online_store_of
from switchyard.lake import Lake
from switchyard.serving import valkey
from switchyard.serving.feast_format import MISSING
from switchyard.serving.freshness import profile_state
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.trip import Wanted
from switchyard.settings import Settings, load_settings

# ibis 12 calls what DuckDB 2 has renamed
pytestmark = pytest.mark.filterwarnings(
    r"ignore:fetch_arrow_table\(\) is deprecated:DeprecationWarning:ibis"
)
DAYS = [date(2026, 1, 1) + timedelta(days=n) for n in range(8)]
IDS = {
    "customer": [
        "1",
        "01",
        "Ä-ß 😀",
        "a:b",
        "with\nbreak",
        "*?[x]",
        " ",
        "x" * 128,
        "\x00\x01",
        "none'\"",
    ]
    + [f"card-{n}" for n in range(30)],
    "terminal": ["1", "é", "t"] + [f"terminal-{n}" for n in range(10)],
}
US = timedelta(microseconds=1)


@dataclass(frozen=True)
class Home:
    """A home with profiles in its lake, registered with Feast."""

    settings: Settings
    feast: Any
    raw: redis.Redis
    store: OnlineStore

    def profiles_in_feasts_format(self) -> dict[bytes, dict[bytes, bytes]]:
        """Every hash of the store that is not the project's own bookkeeping."""
        keys = [key for key in self.raw.scan_iter() if not key.startswith(b"fraud:")]
        return {key: self.raw.hgetall(key) for key in keys}


def profile_rows(owner: windows.Owner, day: date) -> pa.Table:
    """A row for about two keys in three, values of all sizes and signs."""
    generator = np.random.default_rng([day.toordinal(), len(owner)])
    keys = [key for key in IDS[owner] if generator.random() < 0.65]
    schema = windows.profile_schema(owner)
    columns: dict[str, Any] = {
        schema.names[0]: keys,
        "available_at": [windows.available_at(day)] * len(keys),
        "created_at": [datetime(2026, 2, 1, tzinfo=UTC)] * len(keys),
    }
    for name in schema.names[3:]:
        whole = generator.integers(-(2**63) + 1, 2**63 - 1, len(keys))
        columns[name] = whole >> generator.integers(0, 64, len(keys))
    return pa.table(columns, schema)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    settings = load_settings(home=tmp_path_factory.mktemp("ho me"))
    lake = Lake(settings.lake)
    for day in DAYS:
        lake.write("customer_profiles", day, profile_rows("customer", day))
        lake.write("terminal_profiles", day, profile_rows("terminal", day))
    feast.apply(settings)
    url = valkey.address_of(settings).url
    with redis.Redis.from_url(url) as raw:
        yield Home(settings, feast.feature_store(settings), raw, online_store_of(url))
    valkey.stop(settings.home)


@pytest.fixture(autouse=True)
def _an_empty_store(home: Home) -> None:
    home.raw.flushall()


def sync(home: Home, days: list[date]) -> None:
    """What the lifecycle does, by the project's own writer."""
    for day in days:
        for view in VIEWS:
            rows = Lake(home.settings.lake).read(f"{view.name}s", day)
            matrix = np.column_stack([rows[name].to_numpy() for name in view.features])
            times = rows["available_at"].cast(pa.int64()).to_numpy()
            home.store.write_profiles(view.name, rows[view.key].to_pylist(), matrix, times)


def materialize(home: Home, first: date, last: date) -> None:
    home.feast.materialize(windows.available_at(first), windows.available_at(last))


def read_by_feast(home: Home, customer: str, terminal: str) -> dict[str, list[Any]]:
    rows = [{"customer_id": customer, "terminal_id": terminal}]
    service = home.feast.get_feature_service(FEATURE_SERVICE)
    return dict(
        home.feast.get_online_features(service, rows).to_dict(include_event_timestamps=True)
    )


def feast_cli(settings: Settings, *arguments: str, without: str | None = None) -> Result:
    """``feast -c feature_repo …`` as from a shell after ``eval "$(switchyard env)"``."""
    from feast.cli.cli import cli

    environment = {
        "SWITCHYARD_HOME": str(settings.home),
        "SWITCHYARD_FEAST_REDIS": valkey.address_of(settings).feast,
    }
    sys.modules.pop("definitions", None)  # as in a new process
    with contextlib.chdir(Path.cwd()):
        return CliRunner().invoke(
            cli,
            ["-c", str(feast.FEATURE_REPO), *arguments],
            env={name: value if name != without else None for name, value in environment.items()},
        )


def make_transactions(count: int) -> pa.Table:
    """Keys known and unknown, times from before the first profile to after the last has expired, some of
    them exactly on an edge, rows in no order, some twice."""
    generator = np.random.default_rng(5)
    start = windows.available_at(DAYS[0]) - timedelta(days=1)
    seconds = generator.integers(0, 12 * 86_400, count)
    edges = [windows.available_at(day) + offset for day in DAYS for offset in (-US, 0 * US, US)]
    edges += [moment + timedelta(days=PROFILE_TTL_DAYS) for moment in edges]
    moments = edges + [start + timedelta(seconds=int(s)) for s in seconds[len(edges) :]]
    moments[-5:] = moments[:5]
    transactions = {
        "transaction_id": [f"t{n}" for n in range(count)],
        "customer_id": generator.choice([*IDS["customer"], "nobody"], count).tolist(),
        "terminal_id": generator.choice([*IDS["terminal"], "nowhere"], count).tolist(),
        "event_timestamp": pa.array(moments, pa.timestamp("us", tz="UTC")),
    }
    return pa.table(transactions).take(generator.permutation(count))


# ---------------------------------------------------------------- online


def test_the_projects_writer_and_feasts_leave_the_same_bytes(home: Home) -> None:
    materialize(home, DAYS[0], DAYS[-1])
    by_feast = home.profiles_in_feasts_format()
    home.raw.flushall()

    sync(home, DAYS)

    assert len(by_feast) == len(IDS["customer"]) + len(IDS["terminal"])
    assert home.profiles_in_feasts_format() == by_feast


def test_null_and_one_row_are_the_same_bytes_too(home: Home) -> None:
    import pandas as pd

    view = VIEWS[0]
    moment = datetime(2026, 1, 5, 2, 0, 0, 123456, tzinfo=UTC)
    row: dict[str, Any] = {name: [n] for n, name in enumerate(view.features)}
    row[view.features[3]] = pd.array([None], dtype="Int64")
    frame = pd.DataFrame(
        {"customer_id": ["n"], **row, "available_at": moment, "created_at": moment}
    )
    home.feast.write_to_online_store(view.name, frame)
    by_feast = home.profiles_in_feasts_format()
    home.raw.flushall()

    matrix = np.arange(len(view.features))[None, :].copy()
    matrix[0, 3] = MISSING
    home.store.write_profiles(
        view.name, ["n"], matrix, np.array([(moment - datetime(1970, 1, 1, tzinfo=UTC)) // US])
    )

    assert home.profiles_in_feasts_format() == by_feast
    assert home.store.read([Wanted(("n", "t"))]).profiles[0].tolist() == matrix.tolist()


def test_get_online_features_reads_what_the_projects_writer_wrote(home: Home) -> None:
    sync(home, DAYS)
    pairs = [(customer, IDS["terminal"][n % 13]) for n, customer in enumerate(IDS["customer"])]
    trip = home.store.read([Wanted(pair) for pair in pairs])

    for n, pair in enumerate(pairs):
        read = read_by_feast(home, *pair)
        for v, view in enumerate(VIEWS):
            assert [read[name][0] for name in view.features] == trip.profiles[v][n].tolist()
            assert read[f"{view.features[0]}__ts"] == [int(trip.available_at[v][n]) // 1_000_000]


def test_an_unknown_key_is_null_to_both(home: Home) -> None:
    sync(home, DAYS)

    read = read_by_feast(home, "nobody", "nowhere")
    trip = home.store.read([Wanted(("nobody", "nowhere"))])

    assert {read[name][0] for view in VIEWS for name in view.features} == {None}
    assert all((matrix == MISSING).all() for matrix in trip.profiles)


def test_a_correction_replaces_what_feast_wrote_and_feast_reads_it(home: Home) -> None:
    materialize(home, DAYS[0], DAYS[-1])
    view, rows = VIEWS[1], profile_rows("terminal", DAYS[-1])
    terminal = rows["terminal_id"][0].as_py()
    corrected = np.arange(len(view.features))[None, :]

    home.store.write_profiles(
        view.name, [terminal], corrected, rows["available_at"].cast(pa.int64()).to_numpy()[:1]
    )

    read = read_by_feast(home, "1", terminal)
    assert [read[name][0] for name in view.features] == corrected[0].tolist()


def test_online_with_syncs_on_time_finds_the_row_that_the_offline_join_finds(home: Home) -> None:
    moment = windows.available_at(DAYS[4]) + timedelta(hours=9)
    sync(home, DAYS[:5])
    pairs = [(c, t) for c in [*IDS["customer"], "nobody"] for t in ("é", "t")]
    transactions = pa.table(
        {
            "transaction_id": [f"{n}" for n in range(len(pairs))],
            "customer_id": [c for c, _ in pairs],
            "terminal_id": [t for _, t in pairs],
            "event_timestamp": pa.array([moment] * len(pairs), pa.timestamp("us", tz="UTC")),
        }
    )

    offline = windows.profiles_as_of(Lake(home.settings.lake), transactions)
    trip = home.store.read([Wanted(pair) for pair in pairs])

    t = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // US
    ttl_us = PROFILE_TTL_DAYS * 86_400_000_000
    for v in range(len(VIEWS)):
        synced = trip.synced_through[v]
        states = [profile_state(int(a), t, synced, ttl_us) for a in trip.available_at[v]]
        usable = np.array([state == "current" for state in states])
        assert "stale" not in states
        assert {True, False} <= set(usable.tolist()) or v == 1
        assert (np.where(usable[:, None], trip.profiles[v], MISSING) == offline[v]).all()


# ---------------------------------------------------------------- offline


def test_feasts_join_equals_the_projects_row_by_row(home: Home) -> None:
    transactions = make_transactions(1500)

    joined = feast.historical(home.settings, transactions)

    customers, terminals = windows.profiles_as_of(Lake(home.settings.lake), transactions)
    columns = names(CUSTOMER_PROFILE + TERMINAL_PROFILE)
    assert joined.column_names == ["transaction_id", *columns]
    assert joined["transaction_id"].equals(transactions["transaction_id"])
    by_feast = np.column_stack([joined[name].fill_null(MISSING).to_numpy() for name in columns])
    assert by_feast.dtype == np.int64
    assert (by_feast == np.column_stack([customers, terminals])).all()
    assert 0.1 < np.mean(by_feast[:, 0] == MISSING) < 0.9


def test_no_transactions_join_to_no_rows(home: Home) -> None:
    nothing = make_transactions(100).slice(0, 0)

    joined = feast.historical(home.settings, nothing)

    assert joined.num_rows == 0
    assert joined.column_names[1:] == names(CUSTOMER_PROFILE + TERMINAL_PROFILE)


def test_no_feature_name_is_one_that_feast_would_drop_or_confuse() -> None:
    columns = names(CUSTOMER_PROFILE + TERMINAL_PROFILE)

    assert len(set(columns)) == len(columns)
    assert not [name for name in columns if name.endswith("_y")]


# ---------------------------------------------------------------- registry and command line


def test_what_is_registered_says_what_it_is(home: Home) -> None:
    service = home.feast.get_feature_service(FEATURE_SERVICE)

    for view in VIEWS:
        registered = home.feast.get_feature_view(view.name)
        assert sorted(f.name for f in registered.features) == sorted(view.features)
        assert {str(f.dtype) for f in registered.features} == {"Int64"}
        assert [(c.name, str(c.dtype)) for c in registered.entity_columns] == [(view.key, "String")]
        assert registered.ttl == timedelta(days=PROFILE_TTL_DAYS)
        assert registered.description
        assert registered.owner
    assert [p.name for p in service.feature_view_projections] == [view.name for view in VIEWS]


def test_the_registry_is_told_what_was_synced(home: Home) -> None:
    start, end = windows.available_at(DAYS[0]), windows.available_at(DAYS[1])

    feast.tell_materialized(home.settings, "terminal_profile", start, end)

    view = feast.feature_store(home.settings).get_feature_view("terminal_profile")
    told = view.materialization_intervals[-1]
    assert (told[0], told[1]) == (start, end)


def test_feasts_own_commands_work_from_a_shell(home: Home) -> None:
    applied = feast_cli(home.settings, "apply")
    materialized = feast_cli(
        home.settings, "materialize", "2026-01-01T00:00:00", "2026-01-04T00:00:00"
    )

    assert (applied.exit_code, materialized.exit_code) == (0, 0), applied.output
    assert read_by_feast(home, "card-1", "terminal-1")["customer_profile_day"] != [None]


@pytest.mark.parametrize("name", ["SWITCHYARD_HOME", "SWITCHYARD_FEAST_REDIS"])
def test_without_its_variables_feast_stops_and_makes_no_folder(
    home: Home, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name, raising=False)
    before = sorted(os.listdir(feast.FEATURE_REPO))

    applied = feast_cli(home.settings, "apply", without=name)
    materialized = feast_cli(
        home.settings, "materialize", "2026-01-01T00:00:00", "2026-01-04T00:00:00", without=name
    )

    assert isinstance(applied.exception, SettingsError)
    assert f'{name} is not set; run: eval "$(switchyard env)"' in str(applied.exception)
    assert materialized.exit_code != 0
    assert sorted(os.listdir(feast.FEATURE_REPO)) == before


def test_a_home_without_data_can_be_registered_but_not_joined(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)

    applied = feast.apply(settings)

    assert applied == [
        "customer",
        "customer_profile",
        FEATURE_SERVICE,
        "terminal",
        "terminal_profile",
    ]
    with pytest.raises(LakeError, match="customer_profiles"):
        feast.historical(settings, make_transactions(100))
    valkey.stop(tmp_path)


def test_a_registry_torn_by_a_killed_process_is_made_anew(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    feast.apply(settings)
    registry = tmp_path / "feast" / "registry.db"
    whole = registry.read_bytes()
    registry.write_bytes(whole[: len(whole) // 2])

    feast.apply(settings)

    assert feast.feature_store(settings).get_feature_service(FEATURE_SERVICE)
    valkey.stop(tmp_path)


def test_registering_leaves_the_environment_as_it_was(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCHYARD_HOME", "/elsewhere")
    monkeypatch.delenv("SWITCHYARD_FEAST_REDIS", raising=False)

    feast.apply(home.settings)

    assert os.environ["SWITCHYARD_HOME"] == "/elsewhere"
    assert "SWITCHYARD_FEAST_REDIS" not in os.environ
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ

"""What is too old goes, by its setting; what is named or needed stays."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchyard.fraud.compaction import LOCK, SCHEMAS
from switchyard.fraud.retention import HISTORY, SET_ASIDE, retain
from switchyard.fraud.skew import checkpoint_path
from switchyard.lake import Lake, write_parquet, write_text
from switchyard.lock import alone
from switchyard.serving.journal import Journal
from switchyard.settings import Settings, load_settings
from tests.streams import NOON, make_transaction

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ROW = pa.table({"x": [1]})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path, keep_history_days=100, keep_served_days=200)


def age(path: Path, days: float) -> Path:
    moment = (NOW - timedelta(days=days)).timestamp()
    os.utime(path, (moment, moment))
    return path


def decisions_of(day: datetime) -> pa.Table:
    row = make_transaction(event_timestamp=day) | {
        "received_at": day, "segment": "s.journal", "decision_id": "d", "score": 0.5, "decision": "allow",
        "release": "r", "variant": "champion", "degraded": [], "latency_ms": 1.0, "vector": [1.0] * 50,
        "reasons": [{"code": "c", "feature": "f", "value": 1.0, "contribution": 1.0}],
    }  # fmt: skip
    return pa.Table.from_pylist([row], SCHEMAS["decisions"])


def test_days_go_by_the_setting_of_their_table_and_unknown_tables_stay(settings: Settings) -> None:
    lake, day = Lake(settings.lake), NOW.date()
    for table in (*HISTORY, "served_events", *SET_ASIDE, "somebody_elses"):
        for days in (89, 91, 100, 101, 199, 201):
            lake.write(table, day - timedelta(days=days), ROW)

    gone = retain(settings, NOW, set())

    left = {
        table: [(day - d).days for d in lake.days(table)] for table in os.listdir(settings.lake)
    }
    assert {table: left[table] for table in HISTORY} == {t: [100, 91, 89] for t in HISTORY}
    assert left["served_events"] == [199, 101, 100, 91, 89]
    assert left["quarantine"] == left["refused_labels"] == [89]
    assert len(left["somebody_elses"]) == 6
    assert {(o.place, o.count, o.setting) for o in gone} == {
        *((f"lake/{table}", 3, "keep_history_days") for table in HISTORY),
        ("lake/served_events", 1, "keep_served_days"),
        *((f"lake/{table}", 5, "keep_quarantine_days") for table in SET_ASIDE),
    }


def test_without_settings_nothing_of_the_lake_goes_but_quarantine(tmp_path: Path) -> None:
    settings, day = load_settings(home=tmp_path), NOW.date() - timedelta(days=5_000)
    for table in (*HISTORY, "served_events"):
        Lake(settings.lake).write(table, day, ROW)

    assert retain(settings, NOW, set()) == []


def test_a_dry_run_says_the_same_and_removes_nothing(settings: Settings) -> None:
    lake = Lake(settings.lake)
    lake.write("labels", NOW.date() - timedelta(days=300), ROW)
    lake.write("decisions", NOW.date() - timedelta(days=199), decisions_of(NOON))
    before = {path: path.read_bytes() for path in settings.lake.rglob("*.parquet")}
    shorter = settings.model_copy(update={"keep_vectors_days": 100})

    said = retain(shorter, NOW, set(), dry_run=True)

    assert {path: path.read_bytes() for path in settings.lake.rglob("*.parquet")} == before
    assert [(o.what, o.count) for o in retain(shorter, NOW, set())] == [
        (o.what, o.count) for o in said
    ]
    assert len(said) == 2


def test_older_decisions_lose_vectors_and_reasons_once_and_nothing_else(settings: Settings) -> None:
    shorter = settings.model_copy(update={"keep_vectors_days": 100})
    lake, old, new = Lake(settings.lake), NOW - timedelta(days=101), NOW - timedelta(days=99)
    for moment in (old, new):
        table = decisions_of(moment).replace_schema_metadata({"switchyard.segments": '["s"]'})
        lake.write("decisions", moment.date(), table)

    first = retain(shorter, NOW, set())
    again = retain(shorter, NOW, set())

    stripped = pq.read_table(lake.path("decisions", old.date()))
    before = decisions_of(old).drop_columns(["vector", "reasons"])
    assert stripped.drop_columns(["vector", "reasons"]).to_pylist() == before.to_pylist()
    assert stripped.select(["vector", "reasons"]).to_pylist() == [{"vector": None, "reasons": []}]
    assert stripped.schema.metadata[b"switchyard.segments"] == b'["s"]'
    assert lake.read("decisions", new.date())["vector"].null_count == 0
    assert ([o.count for o in first], again) == ([1], [])


def test_a_day_is_not_written_anew_while_another_writes_the_lake_s_decisions(
    settings: Settings,
) -> None:
    shorter = settings.model_copy(update={"keep_vectors_days": 100})
    lake, old = Lake(settings.lake), NOW - timedelta(days=101)
    lake.write("decisions", old.date(), decisions_of(old))
    retaining = threading.Thread(target=retain, args=(shorter, NOW, set()))

    with alone(settings.journal / LOCK):
        retaining.start()
        retaining.join(0.3)
        waited = retaining.is_alive()
        # as a customer is forgotten meanwhile
        lake.write("decisions", old.date(), decisions_of(old).slice(1))
    retaining.join()

    assert waited
    assert len(lake.read("decisions", old.date())) == 0


def test_a_bento_that_is_named_or_young_stays(settings: Settings) -> None:
    for name, days in (("named", 400), ("young", 6), ("old", 8)):
        write_text("bento", settings.bentos / name / "bento.yaml")
        age(settings.bentos / name, days)
    age(Path(write_latest(settings)), 400)

    (gone,) = retain(settings, NOW, {"named"})

    assert sorted(os.listdir(settings.bentos)) == ["latest", "named", "young"]
    assert (gone.place, gone.count, gone.size_bytes) == ("bentoml/", 1, 5)


def write_latest(settings: Settings) -> Path:
    """The file in which BentoML says which one is the newest."""
    write_text("young", settings.bentos / "latest")
    return settings.bentos / "latest"


def test_a_snapshot_goes_once_no_segment_names_it(settings: Settings) -> None:
    for name in ("named", "unnamed", "young"):
        write_parquet(ROW, settings.activity / f"{name}.parquet")
        age(settings.activity / f"{name}.parquet", 1 if name == "young" else 91)
    with Journal(settings.journal) as journal:
        baseline = {"type": "baseline", "epoch": "e", "cutoff_us": 1, "file": "named.parquet"}
        journal.append([baseline])

    retain(settings, NOW, set())

    assert sorted(os.listdir(settings.activity)) == ["named.parquet", "young.parquet"]


def test_reports_on_data_of_long_ago_are_as_old_as_they_are_behind_the_newest(
    settings: Settings,
) -> None:
    """As in a home of the Handbook's data, where all days are of 2018."""
    for day in ("2016-08-30", "2018-04-01", "2018-09-30"):
        write_text("{}", settings.monitoring / "data" / f"{day}.json")

    retain(settings, NOW, set())

    left = sorted(path.name for path in settings.monitoring.rglob("*.json"))
    assert left == ["2018-04-01.json", "2018-09-30.json"]


def test_the_skew_checks_checkpoint_stays_however_old(settings: Settings) -> None:
    write_parquet(ROW, checkpoint_path(settings))
    age(checkpoint_path(settings), 400)

    assert retain(settings, NOW, set()) == []
    assert checkpoint_path(settings).exists()


def test_what_was_explored_goes_with_the_logs_but_never_yesterdays(settings: Settings) -> None:
    for day in ("2026-05-29", "2026-05-30", "2026-05-31", "2026-06-01"):
        write_text("", settings.exploration / day)
    shortest = settings.model_copy(update={"keep_logs_days": 1})

    retain(shortest, NOW, set())

    assert sorted(os.listdir(settings.exploration)) == ["2026-05-31", "2026-06-01"]


def test_logs_and_reports_go_by_their_age(settings: Settings) -> None:
    logs = settings.home / "logs"
    for name, days in (("old.log", 91), ("new.log", 89)):
        write_text("line", logs / name)
        age(logs / name, days)
    for day in ("2024-05-31", "2024-06-01", "2026-06-01"):
        write_text("{}", settings.monitoring / "data" / f"{day}.json")
        write_text("<p>", settings.monitoring / "data" / f"{day}.html")

    retain(settings, NOW, set())

    assert os.listdir(logs) == ["new.log"]
    left = sorted(path.name for path in settings.monitoring.rglob("*.*"))
    assert left == [
        f"{day}.{kind}" for day in ("2024-06-01", "2026-06-01") for kind in ("html", "json")
    ]

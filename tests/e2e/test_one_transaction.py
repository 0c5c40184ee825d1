"""One transaction, followed all the way: from the source over features, model and release to its decision,
and back from the journal. The order of the tests is the order of its way."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from assets.fraud import registry
from assets.fraud.gates import ALL_GATES, gates_of
from orchestration import deployment, feast
from orchestration.cli import main
from switchyard.fraud.bodies import transaction_body
from switchyard.fraud.columns import (
    CUSTOMER_PROFILE,
    FEATURE_SERVICE,
    FEATURES,
    PROFILE_AVAILABLE_HOUR,
    TERMINAL_PROFILE,
    names,
)
from switchyard.fraud.dataset import UNKNOWN, Dataset
from switchyard.fraud.features import code_hash, profile_matrices, vectors_of
from switchyard.fraud.online import online_store_of
from switchyard.fraud.recompute import recompute_journal
from switchyard.fraud.sync import sync_activity
from switchyard.learning.gates import PASSED
from switchyard.learning.release import check_release, load_release
from switchyard.serving import valkey
from switchyard.serving.decided import DecidedIndex
from tests.homes import Home, in_home, midnight

Row = dict[str, Any]
EPOCH = date(1970, 1, 1)


@pytest.fixture(scope="module")
def morning(served_home: Home) -> Home:
    """The served home after the nightly job put yesterday's profiles online."""
    served_home.run("sync_profiles", [served_home.days[1]])
    return served_home


@pytest.fixture(scope="module")
def transaction(morning: Home) -> pa.Table:
    """The one: of a card and a terminal that were seen before, after the night's profiles went online."""
    home = morning
    rows = home.lake.read("transactions", home.after)
    past = home.lake.read("transactions", home.days[1] - timedelta(days=6), home.days[1])
    two = midnight(home.after) + timedelta(hours=PROFILE_AVAILABLE_HOUR)
    known = pc.and_(
        pc.is_in(rows["customer_id"], value_set=past["customer_id"].combine_chunks()),
        pc.is_in(rows["terminal_id"], value_set=past["terminal_id"].combine_chunks()),
    )
    later = pc.greater_equal(rows["event_timestamp"], pa.scalar(two, rows["event_timestamp"].type))
    return rows.filter(pc.and_(known, later)).slice(50, 1)


@pytest.fixture(scope="module")
def row(transaction: pa.Table) -> Row:
    return transaction.to_pylist()[0]


@pytest.fixture(scope="module")
def reply(served_home: Home, transaction: pa.Table, row: Row) -> Row:
    """What the running service answered, everything before the transaction being online."""
    home = served_home
    store = online_store_of(valkey.address_of(home.settings).url)
    sync_activity(home.lake, store, home.settings, row["event_timestamp"])
    answer = httpx.post(f"{url_of(home)}/v1/predict", json=transaction_body(row), timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def url_of(home: Home) -> str:
    running = deployment.current(home.settings)
    assert running is not None
    return running.url


def vector_of(home: Home, transaction: pa.Table) -> Any:
    """The transaction's vector by Feast's point-in-time join and the lake's activity."""
    joined = feast.historical(home.settings, transaction)
    return vectors_of(home.lake, transaction, profile_matrices(joined))[0]


# ---------------------------------------------------------------- source -> raw -> clean


def test_it_landed_as_the_source_gave_it(served_home: Home, row: Row) -> None:
    given = served_home.source.read(served_home.after).transactions
    landed = served_home.lake.read("raw_transactions", served_home.after)

    mine = pc.equal(landed["transaction_id"], row["transaction_id"])
    assert landed.filter(mine).to_pylist() == given.filter(mine).to_pylist()


def test_it_became_clean_with_money_as_an_integer_and_nothing_was_set_aside(
    served_home: Home, row: Row
) -> None:
    raw = served_home.lake.read("raw_transactions", served_home.after)
    (landed,) = raw.filter(pc.equal(raw["transaction_id"], row["transaction_id"])).to_pylist()

    assert row["amount_minor"] == Decimal(landed["amount"]) * 100
    assert row["event_timestamp"] == landed["event_timestamp"]
    assert served_home.lake.read("quarantine", served_home.after).num_rows == 0


# ---------------------------------------------------------------- profiles -> Feast


def test_its_cards_profile_counts_the_whole_days_before(served_home: Home, row: Row) -> None:
    last = served_home.days[1]
    profiles = served_home.lake.read("customer_profiles", last)
    (profile,) = profiles.filter(pc.equal(profiles["customer_id"], row["customer_id"])).to_pylist()

    def of_card(days: int) -> list[int]:
        rows = served_home.lake.read("transactions", last - timedelta(days=days - 1), last)
        mine = rows.filter(pc.equal(rows["customer_id"], row["customer_id"]))
        return mine["amount_minor"].to_pylist()

    assert profile["customer_tx_count_7d"] == len(of_card(7)) > 0
    assert profile["customer_tx_count_30d"] == len(of_card(30))
    assert profile["available_at"] == midnight(served_home.after) + timedelta(hours=2)


def test_feast_gives_the_same_profiles_offline_and_online(
    served_home: Home, transaction: pa.Table, row: Row
) -> None:
    keys = {key: row[key] for key in ("customer_id", "terminal_id")}
    with in_home(served_home.settings):
        offline = feast.historical(served_home.settings, transaction).to_pylist()[0]
        store = feast.feature_store(served_home.settings)
        online = store.get_online_features(store.get_feature_service(FEATURE_SERVICE), [keys])
        served = online.to_dict()

    wanted = names(CUSTOMER_PROFILE + TERMINAL_PROFILE)
    assert {name: served[name][0] for name in wanted} == {name: offline[name] for name in wanted}
    assert offline["customer_profile_day"] == (served_home.days[1] - EPOCH).days


# ---------------------------------------------------------------- training set -> models -> gates


def test_the_training_set_holds_the_vectors_of_the_days_before_and_no_verdict_of_the_future(
    home: Home,
) -> None:
    data = Dataset.load(home.settings.training / "training_set.parquet")
    rows = home.lake.read("transactions", home.days[1])
    labels = home.lake.read("labels", home.days[1])

    newest = data.between(midnight(home.days[1]), midnight(home.after))
    as_of = pa.scalar(midnight(home.after), labels["label_available_at"].type)
    known = pc.fill_null(pc.less(labels["label_available_at"], as_of), False)
    assert newest.transaction_id.to_pylist() == rows["transaction_id"].to_pylist()
    assert np.array_equal(newest.X, vectors_of(home.lake, rows), equal_nan=True)
    assert (newest.is_fraud != UNKNOWN).sum() == pc.sum(known).as_py() < rows.num_rows


def test_every_gate_was_passed_before_there_was_a_release(served_home: Home) -> None:
    said = json.loads(gates_of(served_home.settings).read_text())

    assert said == dict.fromkeys(ALL_GATES, PASSED)


# ---------------------------------------------------------------- release -> Bento -> deployment


def test_the_release_is_named_by_its_content_everywhere(served_home: Home) -> None:
    settings = served_home.settings
    (folder,) = settings.releases.iterdir()
    running = deployment.current(settings)

    manifest = check_release(folder)

    assert manifest["id"] == folder.name
    assert manifest["columns"] == names(FEATURES)
    assert manifest["code_hash"] == code_hash()
    assert running is not None
    assert running.release == folder.name
    assert registry.release_of(settings.mlflow_tracking_uri, "champion") == folder.name
    assert registry.release_of(settings.mlflow_tracking_uri, "challenger") is None
    assert (settings.home / "bentoml" / "bentos" / "fraud" / folder.name / "bento.yaml").exists()


def test_publishing_the_same_again_changes_neither_version_nor_service(served_home: Home) -> None:
    settings = served_home.settings
    before = deployment.current(settings)

    served_home.run("publish")

    (folder,) = settings.releases.iterdir()
    assert deployment.current(settings) == before
    assert registry.version_of(settings.mlflow_tracking_uri, folder.name) == "1"


# ---------------------------------------------------------------- decision -> journal -> recompute


def test_the_service_decides_on_exactly_the_vector_that_training_would_have_seen(
    served_home: Home, transaction: pa.Table, reply: Row
) -> None:
    record = DecidedIndex(served_home.settings.journal).newest(decision_id=reply["decision_id"])

    assert record is not None
    served = np.array(record["vector"], np.float64)  # null becomes NaN
    assert np.array_equal(served, vector_of(served_home, transaction), equal_nan=True)
    assert (reply["degraded"], reply["variant"]) == ([], "champion")


def test_the_journal_recomputes_to_the_bit(served_home: Home, reply: Row) -> None:
    checked = recompute_journal(served_home.settings, served_home.lake)

    assert checked.rows >= 1
    assert checked.differences == ()
    assert checked.stale_share == 0


def test_the_batch_score_of_the_same_transaction_is_the_served_one(
    served_home: Home, row: Row, reply: Row
) -> None:
    served_home.run("score_batch", [served_home.after])

    scores = served_home.lake.read("batch_scores", served_home.after)
    (scored,) = scores.filter(pc.equal(scores["transaction_id"], row["transaction_id"])).to_pylist()
    assert scores.num_rows == served_home.lake.read("transactions", served_home.after).num_rows
    assert {name: scored[name] for name in ("score", "decision", "release")} == {
        name: reply[name] for name in ("score", "decision", "release")
    }


def test_the_decision_can_be_explained_from_the_command_line(
    served_home: Home, reply: Row, tmp_path: Any
) -> None:
    file = tmp_path / "explanation.json"
    with in_home(served_home.settings):
        result = CliRunner().invoke(main, ["explain", reply["decision_id"], "--json", str(file)])

    told = json.loads(file.read_text())
    release = load_release(served_home.settings.releases / reply["release"])
    log_odds = sum(c["contribution"] for c in told["contributions"]) + told["base"]
    assert result.exit_code == 0
    assert (told["score"], told["equal"]) == (reply["score"], True)
    assert told["decision"] == release.thresholds.decide(reply["score"])
    assert 1 / (1 + np.exp(-log_odds)) == pytest.approx(reply["score"], rel=1e-4)


def test_the_status_names_champion_service_and_store(served_home: Home, tmp_path: Any) -> None:
    file = tmp_path / "status.json"
    with in_home(served_home.settings):
        result = CliRunner().invoke(main, ["status", "--json", str(file)])

    told = json.loads(file.read_text())
    (folder,) = served_home.settings.releases.iterdir()
    assert result.exit_code == 0
    assert told["champion"] == folder.name
    assert told["service"] == "ready"
    assert told["store"].startswith("ready at unix://")

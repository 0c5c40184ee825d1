"""Batch scores are serving's scores, whichever of the two forms the rows have."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchyard.errors import InputError, LakeError, ReleaseError
from switchyard.fraud import batch
from switchyard.fraud.activity import build_activity
from switchyard.fraud.batch import score_days, score_rows
from switchyard.fraud.features import vectors_of
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake
from switchyard.learning.release import Release
from tests.releases import COLUMNS, SUSPICIOUS_AMOUNT, make_release
from tests.streams import land, make_transaction

FIRST, DAYS = date(2026, 1, 5), 20


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Twenty days of two cards, every third amount a suspicious one."""
    noon = datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC)
    rows = [
        make_transaction(
            transaction_id=f"t{n}",
            customer_id=f"c{n % 2}",
            amount_minor=100 * (SUSPICIOUS_AMOUNT + 300 if n % 3 == 0 else 20 + n),
            event_timestamp=noon + timedelta(days=n // 3, minutes=n),
        )
        for n in range(3 * DAYS)
    ]
    made = land(tmp_path_factory.mktemp("lake"), rows)
    last = FIRST + timedelta(days=DAYS - 1)
    build_profiles(made, FIRST, last, created_at=noon + timedelta(days=60))
    build_activity(made, FIRST, last)
    return made


def all_transactions(lake: Lake) -> pa.Table:
    return lake.read("transactions", FIRST, FIRST + timedelta(days=DAYS - 1))


def vector_rows(n: int = 200) -> pa.Table:
    X = np.random.default_rng(3).uniform(0, 2 * SUSPICIOUS_AMOUNT, (n, len(COLUMNS)))
    X[::7, 3] = np.nan
    columns = {name: X[:, i] for i, name in enumerate(COLUMNS)}
    return pa.table({"transaction_id": [f"v{i}" for i in range(n)], **columns})


def test_vectors_get_the_scores_and_decisions_of_the_release(
    tmp_path: Path, lake: Lake, release: Release
) -> None:
    rows = vector_rows()
    pq.write_table(rows.select(rows.column_names[::-1]), tmp_path / "in.parquet")

    count = score_rows(lake, release, tmp_path / "in.parquet", tmp_path / "out.parquet")

    found = pq.read_table(tmp_path / "out.parquet")
    expected = release.score(np.column_stack([rows[c].to_numpy() for c in COLUMNS]))
    assert count == found.num_rows == 200
    assert found.schema == batch.SCHEMA
    assert found["transaction_id"].to_pylist() == rows["transaction_id"].to_pylist()
    assert found["score"].to_pylist() == expected.tolist()
    assert found["decision"].to_pylist() == [release.thresholds.decide(s) for s in expected]
    assert set(found["decision"].to_pylist()) >= {"allow", "block"}
    assert found["release"].unique().to_pylist() == [release.id]


def test_whole_numbers_and_nulls_are_taken_as_vectors_too(
    tmp_path: Path, lake: Lake, release: Release
) -> None:
    rows = vector_rows(3)
    place = rows.column_names.index("amount")
    whole = rows.set_column(place, "amount", pa.array([1_700, None, 5], pa.int32()))
    pq.write_table(whole, tmp_path / "in.parquet")

    score_rows(lake, release, tmp_path / "in.parquet", tmp_path / "out.parquet")

    X = np.column_stack([rows[c].to_numpy() for c in COLUMNS])
    X[:, COLUMNS.index("amount")] = [1_700, np.nan, 5]
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["score"].to_pylist() == release.score(X).tolist()


def test_transactions_in_any_order_get_the_scores_of_their_own_moment(
    tmp_path: Path, lake: Lake, release: Release
) -> None:
    rows = all_transactions(lake)
    expected = dict(
        zip(
            rows["transaction_id"].to_pylist(),
            release.score(vectors_of(lake, rows)).tolist(),
            strict=True,
        )
    )
    shuffled = rows.take(np.random.default_rng(5).permutation(len(rows)))
    pq.write_table(shuffled, tmp_path / "in.parquet")

    score_rows(lake, release, tmp_path / "in.parquet", tmp_path / "out.parquet")

    found = pq.read_table(tmp_path / "out.parquet")
    ids = shuffled["transaction_id"].to_pylist()
    assert found["transaction_id"].to_pylist() == ids
    assert found["score"].to_pylist() == [expected[i] for i in ids]
    assert found["event_timestamp"] == shuffled["event_timestamp"]


def test_the_days_of_the_lake_get_the_same_scores(lake: Lake, release: Release) -> None:
    days = [FIRST, FIRST + timedelta(days=1), FIRST + timedelta(days=400)]

    rows = score_days(lake, release, days)

    expected = release.score(vectors_of(lake, lake.read("transactions", FIRST, days[1])))
    assert rows == {FIRST: 3, days[1]: 3}
    assert lake.days("batch_scores") == days[:2]
    assert lake.read("batch_scores", FIRST, days[1])["score"].to_pylist() == expected.tolist()


def test_rows_of_neither_form_are_refused_with_what_is_missing(
    tmp_path: Path, lake: Lake, release: Release
) -> None:
    pq.write_table(vector_rows().drop_columns(["amount"]), tmp_path / "in.parquet")

    with pytest.raises(InputError, match=r"nor vectors of release .* \(missing amount\)"):
        score_rows(lake, release, tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_a_feature_that_is_text_and_a_row_without_an_id_are_refused(
    tmp_path: Path, lake: Lake, release: Release
) -> None:
    rows = vector_rows(2)
    text = rows.set_column(1, COLUMNS[0], pa.array(["1", "2"]))
    nameless = rows.set_column(0, "transaction_id", pa.array([None, "b"]))

    for table, words in ((text, "is string; a feature is a number"), (nameless, "1 rows have no")):
        pq.write_table(table, tmp_path / "in.parquet")
        with pytest.raises(InputError, match=words):
            score_rows(lake, release, tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_transactions_that_the_lake_does_not_know_are_refused(
    tmp_path: Path, lake: Lake, release: Release
) -> None:
    later = all_transactions(lake).slice(0, 3)
    ids = pa.array(["other-1", "other-2", "other-3"])
    pq.write_table(later.set_column(0, later.schema.field(0), ids), tmp_path / "in.parquet")

    with pytest.raises(LakeError, match="lacks 3 of 3"):
        score_rows(lake, release, tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_a_release_of_other_code_scores_vectors_but_no_transactions(
    tmp_path: Path, lake: Lake
) -> None:
    other = make_release(tmp_path / "releases", code_hash="0" * 64)
    pq.write_table(vector_rows(), tmp_path / "vectors.parquet")
    pq.write_table(all_transactions(lake), tmp_path / "transactions.parquet")

    rows = score_rows(lake, other, tmp_path / "vectors.parquet", tmp_path / "out.parquet")

    assert rows == 200
    with pytest.raises(ReleaseError, match="only rows that hold them already"):
        score_rows(lake, other, tmp_path / "transactions.parquet", tmp_path / "out.parquet")

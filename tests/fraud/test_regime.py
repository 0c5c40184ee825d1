"""A change of the world in hindsight: each span by every label, and who knew what."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from switchyard.errors import TrainingError
from switchyard.fraud.activity import build_activity
from switchyard.fraud.backtest import land
from switchyard.fraud.features import vectors_of
from switchyard.fraud.regime import Spans, regime_of, scores_of
from switchyard.fraud.simulate import SimulatorConfig
from switchyard.fraud.sources import SimulatorSource
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake
from switchyard.learning.release import Release
from switchyard.serving.segments import frame
from tests.releases import make_release

FIRST = date(2026, 1, 1)
LAST = FIRST + timedelta(days=23)
SPANS = Spans(FIRST, FIRST + timedelta(days=8), FIRST + timedelta(days=16), LAST)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("regime"))
    world = SimulatorConfig(customers=200, terminals=60, transactions_per_day=400)
    land(SimulatorSource(world, 24), lake, FIRST, LAST, "EUR", lambda *_: None)
    build_profiles(lake, FIRST, LAST, created_at=datetime(2026, 3, 1, tzinfo=UTC))
    build_activity(lake, FIRST, LAST)
    return lake


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("releases"))


@pytest.fixture
def served(lake: Lake, champion: Release) -> dict[str, float]:
    """As if the first champion had decided all of it."""
    rows = lake.read("transactions", FIRST, LAST)
    score = champion.score(vectors_of(lake, rows))
    return dict(zip(rows["transaction_id"].to_pylist(), score.tolist(), strict=True))


def test_what_was_decided_by_the_first_champion_is_what_it_was_left_alone(
    lake: Lake, served: dict[str, float], champion: Release
) -> None:
    found = regime_of(lake, SPANS, served, champion, seed=7)

    assert found.after == found.left_alone_after
    assert found.as_served == found.left_alone
    assert list(found.as_served) == [FIRST + timedelta(days=n) for n in range(6, 24)]


def test_a_model_that_knows_every_label_of_the_new_days_is_better_than_one_that_knows_none(
    lake: Lake, served: dict[str, float], champion: Release
) -> None:
    found = regime_of(lake, SPANS, served, champion, seed=7)

    assert found.oracle is not None
    assert found.after is not None
    assert found.oracle > 1.5 * found.after
    assert found.share_of_oracle == found.after / found.oracle
    assert found.as_dict()["fell_by"] == 1 - found.trough / found.before


def test_verdicts_that_come_after_the_renewal_are_not_what_the_span_before_is_of(
    lake: Lake, served: dict[str, float], champion: Release
) -> None:
    perfect = lake.read("labels", SPANS.change, SPANS.change + timedelta(days=7))
    knows = dict(
        zip(perfect["transaction_id"].to_pylist(), perfect["is_fraud"].to_pylist(), strict=True)
    )
    found = regime_of(
        lake, SPANS, served | {k: float(v) for k, v in knows.items()}, champion, seed=7
    )

    assert found.trough == 1.0
    assert found.before == regime_of(lake, SPANS, served, champion, seed=7).before < 1.0


def test_without_a_renewal_there_is_no_after(
    lake: Lake, served: dict[str, float], champion: Release
) -> None:
    spans = Spans(SPANS.served, SPANS.change, None, SPANS.last)

    found = regime_of(lake, spans, served, champion, seed=7)

    assert (found.after, found.oracle, found.share_of_oracle) == (None, None, None)


def test_a_transaction_that_nobody_decided_is_told(lake: Lake, champion: Release) -> None:
    with pytest.raises(TrainingError, match="were not decided"):
        regime_of(lake, SPANS, {}, champion, seed=7)


def test_scores_are_those_of_the_journal_s_decisions(tmp_path: Path) -> None:
    records = [
        {"type": "decision", "score": 0.25, "transaction": {"transaction_id": "a"}},
        {"type": "shadow", "score": 0.5},
        {"type": "decision", "score": None, "transaction": {"transaction_id": "b"}},
        {"type": "decision", "score": 0.75, "transaction": {"transaction_id": "c"}},
    ]
    (tmp_path / "1-1-a.journal").write_bytes(b"".join(map(frame, records)))

    assert scores_of(tmp_path) == {"a": 0.25, "c": 0.75}
    assert np.isfinite(list(scores_of(tmp_path).values())).all()

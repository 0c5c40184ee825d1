"""Variants in the running service, on a real Valkey and a real journal: who judges whom, and the shadow afterwards."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from switchyard.errors import JournalError
from switchyard.fraud.online import VIEWS, FraudDomain, FraudReader
from switchyard.fraud.requests import Parser
from switchyard.learning.release import Release
from switchyard.learning.thresholds import Thresholds
from switchyard.serving.assignment import Assignment
from switchyard.serving.commands import Commands
from switchyard.serving.engine import Engine
from switchyard.serving.hot_store import HotStore
from switchyard.serving.journal import Journal
from switchyard.serving.judging import Scorer
from switchyard.serving.lineup import Standing
from switchyard.serving.metrics import MODEL_FAILURES, SHADOWED, Metrics, series, total_of
from switchyard.serving.plan import Mode, Plan
from switchyard.serving.segments import read_journal
from switchyard.serving.service import DecisionService
from switchyard.serving.variants import MOST_WAITING
from tests import loops
from tests.releases import make_release
from tests.serving.test_judging import Faulty

NOON_US = 1_772_366_400_000_000
READER = FraudReader(Parser("EUR", future_limit=timedelta(minutes=5)), FraudDomain(100))
Open = Callable[[Standing], DecisionService]


@pytest.fixture(scope="module")
def challenger(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """It would block sooner; and it has another id."""
    folder = tmp_path_factory.mktemp("challenger")
    return make_release(folder, thresholds=Thresholds(0.1, 0.2))


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(tmp_path / "run")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def opened(store_url: str, project: str, journal: Path, metrics: Metrics) -> Iterator[Open]:
    made: list[DecisionService] = []

    def open_service(standing: Standing) -> DecisionService:
        store = HotStore(store_url, Commands(project, VIEWS), budget_s=1.0)
        engine = Engine(
            FraudDomain(100), store, Journal(journal), standing.champion, metrics=metrics
        )
        engine.lineup.replace(standing)
        made.append(DecisionService(engine, READER, lambda: NOON_US, json.loads, metrics))
        return made[-1]

    yield open_service
    for service in made:
        service.close()


def on_trial(champion: Scorer, challenger: Scorer, mode: Mode, share: float = 0.0) -> Standing:
    plan = Plan(
        bento=champion.id,
        champion=champion.id,
        challenger=challenger.id,
        mode=mode,
        share=share,
        salt="an experiment",
        number=7,
    )
    return Standing(champion, challenger=challenger, plan=plan)


def body(number: int) -> bytes:
    content = {
        "transaction_id": f"t{number}",
        "customer_id": f"c{number}",
        "terminal_id": f"s{number % 3}",
        "amount": number,
        "event_timestamp": "2026-03-01T12:00:00Z",
    }
    return json.dumps(content).encode()


def decide(service: DecisionService, count: int, then: float = 0.0) -> list[dict[str, Any]]:
    """The replies to so many at once; ``then`` seconds more for what goes on afterwards."""

    async def scene() -> list[dict[str, Any]]:
        answers = await asyncio.gather(*(service.predict(body(n)) for n in range(count)))
        if then:
            async with asyncio.timeout(then):
                while service.engine.shadow.waiting:
                    await asyncio.sleep(0.002)
        return [json.loads(answer.body) for answer in answers]

    return loops.run(service.engine.store, scene())


def of_type(journal: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_journal(journal) if record["type"] == kind]


def vector_of(record: dict[str, Any]) -> Any:
    return np.array([[np.nan if v is None else v for v in record["vector"]]])


# ---------------------------------------------------------------- canary


def test_in_a_canary_each_customer_is_judged_by_the_release_of_its_variant(
    opened: Open, journal: Path, release: Release, challenger: Release
) -> None:
    standing = on_trial(release, challenger, "canary", 0.3)

    replies = decide(opened(standing), 200)

    assignment = Assignment(standing.plan)
    judges = {"champion": release, "control": release, "challenger": challenger}
    assert Counter(reply["variant"] for reply in replies).keys() == judges.keys()
    for n, reply in enumerate(replies):
        assert reply["variant"] == assignment.variant_of(f"c{n}")
        assert reply["release"] == judges[reply["variant"]].id
    for record in of_type(journal, "decision"):
        judge = judges[record["variant"]]
        assert record["score"] == judge.score(vector_of(record))[0]
        assert record["decision"] == judge.thresholds.decide(record["score"])
        assert (record["plan"], record["experiment"]) == (7, "an experiment")
        assert record["model_us"] > 0


def test_without_a_trial_decisions_are_the_champions_and_of_no_experiment(
    opened: Open, journal: Path, release: Release
) -> None:
    replies = decide(opened(Standing(release)), 5)

    assert {reply["variant"] for reply in replies} == {"champion"}
    assert {(r["plan"], r["experiment"]) for r in of_type(journal, "decision")} == {(0, None)}


def test_a_challenger_that_could_not_be_loaded_has_no_variant(
    opened: Open, release: Release, challenger: Release
) -> None:
    plan = on_trial(release, challenger, "canary", 0.5).plan

    replies = decide(opened(Standing(release, plan=plan)), 20)

    assert {reply["variant"] for reply in replies} == {"champion"}


def test_a_challenger_that_raises_is_stood_in_for_and_it_counts_as_its_error(
    opened: Open, metrics: Metrics, release: Release, challenger: Release
) -> None:
    def boom(_: Any) -> Any:
        raise ValueError("no such tree")

    standing = on_trial(release, Faulty(challenger, {"score": boom}), "canary", 0.5)

    replies = decide(opened(standing), 60)

    of_challenger = [r for r in replies if r["variant"] == "challenger"]
    counted = total_of(metrics.folder)
    assert of_challenger
    assert {r["release"] for r in replies} == {release.id}
    assert all(r["degraded"] == ["champion_instead"] for r in of_challenger)
    assert all(r["degraded"] == [] for r in replies if r["variant"] == "control")
    assert counted[series(MODEL_FAILURES, ("challenger",))] == len(of_challenger)
    assert counted[series(MODEL_FAILURES, ("control",))] == 0


def test_who_names_a_release_is_in_no_variant(
    opened: Open, journal: Path, release: Release, challenger: Release
) -> None:
    service = opened(on_trial(release, challenger, "canary", 0.5))
    query = f"release={challenger.id}".encode()

    answer = loops.run(service.engine.store, service.predict_by(body(1), query))

    reply = json.loads(answer.body)
    assert (reply["variant"], reply["release"]) == ("named", challenger.id)


def test_a_change_of_the_plan_counts_from_the_next_batch_on(
    opened: Open, release: Release, challenger: Release
) -> None:
    service = opened(on_trial(release, challenger, "canary", 0.5))
    before = decide(service, 40)

    service.engine.lineup.replace(Standing(release))

    answer = loops.run(service.engine.store, service.predict(body(1_000)))
    assert "challenger" in {reply["variant"] for reply in before}
    assert json.loads(answer.body)["variant"] == "champion"


# ---------------------------------------------------------------- shadow


def test_in_shadow_the_champion_decides_and_both_stand_in_the_journal_by_the_same_vector(
    opened: Open, journal: Path, metrics: Metrics, release: Release, challenger: Release
) -> None:
    replies = decide(opened(on_trial(release, challenger, "shadow")), 50, then=20)

    assert {(r["variant"], r["release"]) for r in replies} == {("champion", release.id)}
    decisions = {r["decision_id"]: r for r in of_type(journal, "decision")}
    shadows = {r["decision_id"]: r for r in of_type(journal, "shadow")}
    assert decisions.keys() == shadows.keys()
    for decision_id, shadow in shadows.items():
        vector = vector_of(decisions[decision_id])
        assert shadow["score"] == challenger.score(vector)[0]
        assert shadow["decision"] == challenger.thresholds.decide(shadow["score"])
        assert shadow["release"] == challenger.id
        assert shadow["model_us"] > 0
        assert (shadow["plan"], shadow["experiment"]) == (7, "an experiment")
        assert shadow["received_at"] == decisions[decision_id]["received_at"]
    assert total_of(metrics.folder)[series(SHADOWED, ("judged",))] == 50


def test_the_shadow_comes_after_the_reply(
    opened: Open, journal: Path, release: Release, challenger: Release
) -> None:
    decide(opened(on_trial(release, challenger, "shadow")), 1, then=20)

    assert [record["type"] for record in read_journal(journal)] == [
        "decision", "appended", "shadow",
    ]  # fmt: skip


def test_a_shadow_that_fails_fails_nobody_and_is_journalled_as_such(
    opened: Open, journal: Path, metrics: Metrics, release: Release, challenger: Release
) -> None:
    broken = Faulty(challenger, {"score": lambda X: np.full(len(X), np.nan)})

    replies = decide(opened(on_trial(release, broken, "shadow")), 10, then=20)

    assert all(reply["degraded"] == [] for reply in replies)
    assert {(r["score"], r["decision"]) for r in of_type(journal, "shadow")} == {(None, None)}
    assert total_of(metrics.folder)[series(SHADOWED, ("failed",))] == 10


def test_while_others_wait_the_shadow_waits_and_in_the_end_goes_without(
    opened: Open, journal: Path, metrics: Metrics, release: Release, challenger: Release
) -> None:
    service = opened(on_trial(release, challenger, "shadow"))
    service.engine.shadow.busy = lambda: True

    replies = decide(service, MOST_WAITING + 40)

    assert len(replies) == MOST_WAITING + 40
    assert of_type(journal, "shadow") == []
    assert service.engine.shadow.waiting == MOST_WAITING
    assert total_of(metrics.folder)[series(SHADOWED, ("dropped",))] == 40


def test_what_the_shadow_can_not_write_is_dropped_and_decisions_go_on(
    opened: Open,
    metrics: Metrics,
    release: Release,
    challenger: Release,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = opened(on_trial(release, challenger, "shadow"))
    write = service.engine.journal.write

    def full_for_shadows(records: Any, keys: Any = None) -> None:
        if records[0]["type"] == "shadow":
            raise JournalError("no room")
        write(records, keys)

    monkeypatch.setattr(service.engine.journal, "write", full_for_shadows)

    replies = decide(service, 10, then=20)

    assert len(replies) == 10
    assert total_of(metrics.folder)[series(SHADOWED, ("dropped",))] == 10

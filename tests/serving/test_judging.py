"""The model ladder: on real releases, of which single parts are replaced by ones that fail."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.online import FraudDomain
from switchyard.learning.calibration import sigmoid
from switchyard.learning.release import Release
from switchyard.learning.thresholds import Thresholds
from switchyard.serving.domain import Floats
from switchyard.serving.judging import Judgement, ModelLadder
from tests.releases import SUSPICIOUS_AMOUNT, make_release
from tests.serving.test_breaker import Clock
from tests.serving.test_engine import make_transaction

AMOUNT = names(FEATURES).index("amount")
DOMAIN = FraudDomain(100)


@dataclass
class Faulty:
    """A release of which some parts are replaced. Counts how often its champion was asked to score."""

    release: Release
    faults: dict[str, Callable[[Floats], Any]] = field(default_factory=dict)
    asked: int = 0

    @property
    def id(self) -> str:
        return self.release.id

    @property
    def thresholds(self) -> Thresholds:
        return self.release.thresholds

    def score(self, X: Floats) -> Floats:
        self.asked += 1
        return self.faults.get("score", self.release.score)(X)

    def explain(self, X: Floats) -> Floats:
        return self.faults.get("explain", self.release.explain)(X)

    def fallback_score(self, X: Floats) -> Floats:
        return self.faults.get("fallback_score", self.release.fallback_score)(X)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release that would block less; it has another id."""
    folder = tmp_path_factory.mktemp("earlier")
    return make_release(folder, thresholds=Thresholds(0.4, 0.7))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_vectors(*amounts: float) -> Floats:
    X = np.random.default_rng(3).uniform(0, 5, (len(amounts), len(FEATURES)))
    X[:, AMOUNT] = amounts
    return X


def judge(ladder: ModelLadder[Any], *amounts: float) -> list[Judgement]:
    requests = [make_transaction(n) for n in range(len(amounts))]
    return ladder.judge(requests, make_vectors(*amounts))


LARGE, SMALL = 1.9 * SUSPICIOUS_AMOUNT, 10.0


def boom(error: Exception) -> Callable[[Floats], Any]:
    def fail(_X: Floats) -> Any:
        raise error

    return fail


FAULTS: dict[str, Callable[[Floats], Any]] = {
    "an error of its library": boom(ValueError("xgboost is unhappy")),
    "an error nobody thought of": boom(KeyError("tree 7")),
    "no memory": boom(MemoryError()),
    "NaN": lambda X: np.full(len(X), np.nan),
    "infinity": lambda X: np.full(len(X), np.inf),
    "no probability": lambda X: np.full(len(X), 1.5),
    "too few scores": lambda X: np.full(len(X) + 1, 0.5),
    "two columns": lambda X: np.full((len(X), 2), 0.5),
    "words": lambda X: ["high"] * len(X),
    "nothing": lambda _X: None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_champion_that_answers_so_is_followed_by_its_predecessor_by_name(
    release: Release, earlier: Release, fault: str
) -> None:
    ladder = ModelLadder(Faulty(release, {"score": FAULTS[fault]}), DOMAIN, earlier)

    large, small = judge(ladder, LARGE, SMALL)

    assert [j.degraded for j in (large, small)] == [("previous_champion",)] * 2
    assert [j.release for j in (large, small)] == [earlier.id] * 2
    assert large.score == earlier.score(make_vectors(LARGE, SMALL))[0]
    assert (large.decision, small.decision) == ("block", "allow")
    assert large.reasons[0].code == "LARGE_AMOUNT"


@pytest.mark.parametrize("fault", FAULTS)
def test_without_any_champion_the_regression_decides_and_at_last_the_rules(
    release: Release, earlier: Release, fault: str
) -> None:
    no_trees = {"score": FAULTS[fault]}
    nothing = no_trees | {"fallback_score": FAULTS[fault]}

    (linear,) = judge(
        ModelLadder(Faulty(release, no_trees), DOMAIN, Faulty(earlier, no_trees)), LARGE
    )
    (ruled,) = judge(ModelLadder(Faulty(release, nothing), DOMAIN), LARGE)

    assert (linear.degraded, linear.release) == (("fallback_logistic",), release.id)
    assert linear.score == release.fallback_score(make_vectors(LARGE))[0]
    assert (ruled.score, ruled.degraded) == (None, ("fallback_rules",))
    assert ruled.reasons[0].code == "service_unavailable_fallback"


def test_a_vector_that_the_champion_cannot_score_goes_down_alone(release: Release) -> None:
    def nan_for_the_second(X: Floats) -> Floats:
        scores = release.score(X).copy()
        scores[1] = np.nan
        return scores

    ladder = ModelLadder(Faulty(release, {"score": nan_for_the_second}), DOMAIN)

    first, second, third = judge(ladder, LARGE, LARGE, SMALL)

    assert [j.degraded for j in (first, second, third)] == [(), ("fallback_logistic",), ()]
    assert second.score == release.fallback_score(make_vectors(LARGE, LARGE, SMALL))[1]
    assert first.reasons
    assert ladder.breakers[0].state == "closed"


def test_a_broken_champion_costs_five_tries_then_one_a_pause(
    release: Release, clock: Clock
) -> None:
    champion = Faulty(release, {"score": FAULTS["NaN"]})
    ladder = ModelLadder(champion, DOMAIN, clock=clock)

    for _ in range(50):
        judge(ladder, SMALL)
    while_broken = champion.asked
    champion.faults.clear()
    clock.now_s += 2
    (mended,) = judge(ladder, SMALL)

    assert while_broken == 5
    assert (mended.degraded, ladder.breakers[0].state) == ((), "closed")


def test_each_step_down_is_logged_once_a_minute(
    release: Release, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    ladder = ModelLadder(Faulty(release, {"score": FAULTS["no memory"]}), DOMAIN, clock=clock)

    with caplog.at_level(logging.ERROR, "switchyard.serving.judging"):
        for _ in range(4):
            judge(ladder, SMALL)

    said = [r.getMessage() for r in caplog.records if r.name == "switchyard.serving.judging"]
    assert said == [f"the model 'champion' of release {release.id} can't score: MemoryError: "]


# ---------------------------------------------------------------- reasons


def off_by(push: float) -> Callable[[Release], Callable[[Floats], Floats]]:
    def explain(release: Release) -> Callable[[Floats], Floats]:
        def shifted(X: Floats) -> Floats:
            contributions = release.explain(X).copy()
            contributions[0, 0] += push
            return contributions

        return shifted

    return explain


@pytest.mark.parametrize(
    "explain",
    [
        lambda _release: boom(RuntimeError("no tree paths")),
        lambda _release: lambda X: np.zeros((len(X) + 1, 51)),
        lambda _release: lambda X: np.full((len(X), 51), np.nan),
        off_by(2e-4),
    ],
    ids=["an error", "a wrong shape", "NaN", "a sum beside the score"],
)
def test_reasons_that_do_not_come_or_do_not_add_up_are_withheld_and_the_decision_stands(
    release: Release, explain: Callable[[Release], Callable[[Floats], Any]]
) -> None:
    ladder = ModelLadder(Faulty(release, {"explain": explain(release)}), DOMAIN)

    large, small = judge(ladder, LARGE, SMALL)

    assert (large.decision, large.reasons, large.degraded) == ("block", [], ("no_reasons",))
    assert large.score == release.score(make_vectors(LARGE, SMALL))[0]
    assert small.degraded == ()


def test_reasons_within_the_rounding_of_a_score_are_given(release: Release) -> None:
    ladder = ModelLadder(Faulty(release, {"explain": off_by(5e-5)(release)}), DOMAIN)

    (large,) = judge(ladder, LARGE)

    assert large.degraded == ()
    assert large.reasons


@pytest.mark.parametrize("log_odds", [-60.0, -36.0, -20.0, 0.0, 20.0, 30.0, 36.0, 60.0])
def test_a_score_near_0_or_1_does_not_lose_its_reasons(release: Release, log_odds: float) -> None:
    pushes = np.zeros((1, 51))
    pushes[0, AMOUNT], pushes[0, -1] = 1.0, log_odds - 1.0
    sure = Faulty(
        release,
        {"score": lambda _X: sigmoid(np.array([log_odds])), "explain": lambda _X: pushes},
    )
    sure.release = sure_of_everything(release)

    (judged,) = judge(ModelLadder(sure, DOMAIN), LARGE)

    assert judged.degraded == ()
    assert [reason.code for reason in judged.reasons] == ["LARGE_AMOUNT"]


def sure_of_everything(release: Release) -> Release:
    """The same release, blocking every transaction."""
    return replace(release, thresholds=Thresholds(0.0, 0.0))


def test_of_a_damaged_release_warming_up_says_so(release: Release) -> None:
    with pytest.raises(ValueError, match="unhappy"):
        ModelLadder(Faulty(release, {"score": boom(ValueError("unhappy"))}), DOMAIN).warm_up()


def test_warming_up_runs_every_model(release: Release, earlier: Release) -> None:
    previous = Faulty(earlier)

    ModelLadder(release, DOMAIN, previous).warm_up()

    assert previous.asked == 1


# ---------------------------------------------------------------- a challenger on trial


def on_trial(ladder: ModelLadder[Any], *amounts: float) -> list[Judgement]:
    requests = [make_transaction(n) for n in range(len(amounts))]
    return ladder.judge_on_trial(requests, make_vectors(*amounts))


def test_a_challenger_judges_what_is_its_own_by_its_own_thresholds(
    release: Release, earlier: Release
) -> None:
    ladder = ModelLadder(release, DOMAIN, challenger=earlier)

    large, small = on_trial(ladder, LARGE, SMALL)

    assert {large.release, small.release} == {earlier.id}
    assert (large.degraded, small.degraded) == ((), ())
    assert large.decision == earlier.thresholds.decide(large.score or 0.0)
    assert large.reasons


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_challenger_can_not_judge_the_champion_judges_and_the_reply_says_so(
    release: Release, earlier: Release, fault: str
) -> None:
    challenger = Faulty(earlier, {"score": FAULTS[fault]})
    ladder = ModelLadder(release, DOMAIN, challenger=challenger)

    found = on_trial(ladder, LARGE, SMALL)

    assert found == [
        j._replace(degraded=("champion_instead",)) for j in judge(ladder, LARGE, SMALL)
    ]


def test_a_single_score_that_is_none_is_the_champions_and_the_rest_the_challengers(
    release: Release, earlier: Release
) -> None:
    def nan_for_the_second(X: Floats) -> Floats:
        scores = earlier.score(X)
        scores[1] = np.nan
        return scores

    ladder = ModelLadder(release, DOMAIN, challenger=Faulty(earlier, {"score": nan_for_the_second}))

    found = on_trial(ladder, LARGE, LARGE, SMALL)

    assert [j.release for j in found] == [earlier.id, release.id, earlier.id]
    assert [j.degraded for j in found] == [(), ("champion_instead",), ()]


def test_a_champion_that_fails_as_well_is_named_below_the_challenger(
    release: Release, earlier: Release
) -> None:
    broken = {"score": FAULTS["no memory"]}
    ladder = ModelLadder(Faulty(release, broken), DOMAIN, challenger=Faulty(earlier, broken))

    (found,) = on_trial(ladder, LARGE)

    assert found.degraded == ("champion_instead", "fallback_logistic")


def test_a_challenger_that_keeps_failing_is_left_alone_and_does_not_touch_the_champion(
    release: Release, earlier: Release, clock: Clock
) -> None:
    challenger = Faulty(earlier, {"score": FAULTS["no memory"]})
    ladder = ModelLadder(release, DOMAIN, challenger=challenger, clock=clock)

    for _ in range(8):
        on_trial(ladder, SMALL)

    assert challenger.asked == 5
    assert judge(ladder, SMALL)[0].degraded == ()
    assert {b.name: b.code for b in ladder.breakers}["challenger"] == 2


def test_beside_the_champion_a_challenger_gives_scores_and_decisions_alone(
    release: Release, earlier: Release
) -> None:
    vectors = make_vectors(LARGE, SMALL)
    ladder = ModelLadder(release, DOMAIN, challenger=earlier)
    broken = ModelLadder(
        release, DOMAIN, challenger=Faulty(earlier, {"score": FAULTS["no memory"]})
    )

    found = ladder.try_out(vectors)
    failed = broken.try_out(vectors)

    scores = earlier.score(vectors).tolist()
    assert found == [(s, earlier.thresholds.decide(s)) for s in scores]
    assert [math.isnan(score) for score, _ in failed] == [True, True]

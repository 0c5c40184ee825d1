"""The gates: who passes, who does not, and that each says why in figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from switchyard.errors import TrainingError
from switchyard.learning.boosting import GradientBoosting
from switchyard.learning.policy import (
    LeakPolicy,
    PromotionPolicy,
    ResemblancePolicy,
    ScoringCostPolicy,
    Verdict,
    reference_model,
)

Make = Callable[..., tuple[np.ndarray, np.ndarray]]
N = 4_000


def make_score(y: np.ndarray, strength: float, seed: int) -> np.ndarray:
    return strength * y + np.random.default_rng(seed).normal(size=len(y))


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    return (np.random.default_rng(0).random(N) < 0.03).astype(np.int64)


@pytest.fixture(scope="module")
def entity() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 500, N)


def judge(
    y: np.ndarray, entity: np.ndarray, challenger: np.ndarray, **rivals: np.ndarray
) -> Verdict:
    return PromotionPolicy(resamples=100).judge(y, challenger, entity=entity, **rivals)


def test_a_challenger_better_than_the_champion_passes_with_figures(
    y: np.ndarray, entity: np.ndarray
):
    verdict = judge(y, entity, make_score(y, 3, 2), champion=make_score(y, 2, 3))

    assert verdict.passed
    assert verdict.figures["rival"] == "champion"
    assert 0 < verdict.figures["difference_low"] < verdict.figures["difference"]
    assert "average precision" in verdict.reasons[0]


def test_a_challenger_worse_than_the_champion_fails_and_says_so(y: np.ndarray, entity: np.ndarray):
    verdict = judge(y, entity, make_score(y, 2, 2), champion=make_score(y, 3, 3))

    assert not verdict.passed
    assert "more than 0.02 below zero" in verdict.reasons[1]


def test_a_challenger_equal_to_the_champion_passes(y: np.ndarray, entity: np.ndarray):
    score = make_score(y, 3, 2)

    assert judge(y, entity, score, champion=score.copy()).passed


def test_without_a_champion_the_baseline_has_to_be_reached(y: np.ndarray, entity: np.ndarray):
    baseline = make_score(y, 3, 2)
    almost = np.where(np.arange(N) == np.argmax(baseline * (y == 0)), 99.0, baseline)

    assert judge(y, entity, make_score(y, 4, 3), baseline=baseline).passed
    verdict = PromotionPolicy(max_loss=0.5, resamples=50).judge(
        y, almost, entity=entity, baseline=baseline
    )
    assert not verdict.passed
    assert "does not reach the baseline" in verdict.reasons[1]


def test_the_champion_is_the_rival_even_where_a_baseline_is_given(
    y: np.ndarray, entity: np.ndarray
):
    weak, strong = make_score(y, 1, 2), make_score(y, 4, 3)

    assert judge(y, entity, make_score(y, 3, 4), champion=weak, baseline=strong).passed


@pytest.mark.parametrize("rows", [0, 50, 999])
def test_an_immature_window_never_passes(y: np.ndarray, entity: np.ndarray, rows: int):
    score = make_score(y, 5, 2)

    verdict = judge(y[:rows], entity[:rows], score[:rows], baseline=-score[:rows])

    assert not verdict.passed
    assert f"{rows} test rows" in verdict.reasons[0]


def test_a_window_without_known_frauds_never_passes(y: np.ndarray, entity: np.ndarray):
    score = make_score(y, 5, 2)

    verdict = judge(np.zeros_like(y), entity, score, champion=score)

    assert not verdict.passed
    assert "0 known frauds" in verdict.reasons[0]


def test_scores_that_are_not_finite_never_pass(y: np.ndarray, entity: np.ndarray):
    score = make_score(y, 5, 2)

    assert not judge(y, entity, np.full(N, np.nan), champion=score).passed
    assert not judge(y, entity, score, champion=np.full(N, np.nan)).passed


def test_a_challenger_without_a_rival_is_a_mistake_of_the_caller(y: np.ndarray, entity: np.ndarray):
    with pytest.raises(TrainingError, match="rival"):
        judge(y, entity, make_score(y, 5, 2))


def test_the_verdict_is_the_same_each_time(y: np.ndarray, entity: np.ndarray):
    score, champion = make_score(y, 3, 2), make_score(y, 3, 3)

    assert judge(y, entity, score, champion=champion) == judge(y, entity, score, champion=champion)


def test_a_feature_that_gives_the_verdict_away_is_named_in_either_direction(
    make_rows: Make, columns: list[str]
):
    for leak in (lambda y: y * 1.0, lambda y: -1.0 * y, lambda y: np.where(y == 1, np.nan, 5.0)):
        X, y = make_rows()
        X[:, 1] = leak(y)

        verdict = LeakPolicy().judge(X, y, columns)

        assert not verdict.passed
        assert "'count' alone has an AUC of 1.0000" in verdict.reasons[0]
        assert len(verdict.reasons) == 1


def test_honest_features_pass_and_the_strongest_is_told(make_rows: Make, columns: list[str]):
    X, y = make_rows()

    verdict = LeakPolicy().judge(X, y, columns)

    assert verdict.passed
    assert set(verdict.figures["auc"]) == set(columns)
    assert verdict.figures["auc"]["constant"] == 0.5
    assert "strongest single feature" in verdict.reasons[0]


def test_without_frauds_no_leak_can_be_ruled_out(make_rows: Make, columns: list[str]):
    X, y = make_rows()

    assert not LeakPolicy().judge(X, np.zeros_like(y), columns).passed
    assert not LeakPolicy().judge(X[:0], y[:0], columns).passed


def test_drift_fails_when_too_many_features_moved():
    still, moved = dict.fromkeys("abc", 0.05), dict.fromkeys("de", 0.4)

    assert ResemblancePolicy().judge(still | moved).passed
    verdict = ResemblancePolicy(max_share=0.3).judge(still | moved)
    assert not verdict.passed
    assert verdict.figures["moved"] == ["d", "e"]
    assert "2 of 5 features have a PSI over 0.2" in verdict.reasons[0]


def test_drift_of_nothing_or_of_nan_never_passes():
    assert not ResemblancePolicy().judge({}).passed
    assert not ResemblancePolicy().judge({"a": float("nan")}).passed


@pytest.fixture(scope="module")
def boosters(make_rows: Make, columns: list[str]) -> dict[int, GradientBoosting]:
    X, y = make_rows(500)
    params = {"nthread": 1, "max_depth": 6, "min_child_weight": 0.0}
    return {
        n: GradientBoosting.train(X, y, columns=columns, params=params | {"rounds": n})
        for n in (5, 1_500)
    }


def test_a_cheap_model_passes_and_a_dear_one_fails(
    boosters: dict[int, GradientBoosting], make_rows: Make
):
    X, _ = make_rows(50)
    policy = ScoringCostPolicy(repeats=40)

    assert policy.judge(boosters[5], X, boosters[1_500]).passed
    verdict = policy.judge(boosters[1_500], X, boosters[5])
    assert not verdict.passed
    assert verdict.figures["ratio"] > 1.5
    assert "times the reference's" in verdict.reasons[0]


def test_timing_leaves_the_models_threads_as_they_were(
    boosters: dict[int, GradientBoosting], make_rows: Make
):
    model = boosters[5]
    model.use_threads(2)

    ScoringCostPolicy(repeats=2).judge(model, make_rows(5)[0], boosters[1_500])

    assert model.threads == 2


def test_the_reference_is_a_booster_of_so_many_deep_trees_on_the_same_columns(columns: list[str]):
    reference = reference_model(columns, rounds=20, max_depth=6)

    assert reference.columns == tuple(columns)
    trees = reference.booster.trees_to_dataframe().groupby("Tree").size()
    assert len(trees) == 20
    assert trees.mean() > 60


def test_a_few_trees_are_cheaper_than_the_reference(
    boosters: dict[int, GradientBoosting], make_rows: Make
):
    X, _ = make_rows(300)

    assert ScoringCostPolicy(repeats=30).judge(boosters[5], X).passed


def test_cost_cannot_be_judged_without_rows(
    boosters: dict[int, GradientBoosting], columns: list[str]
):
    assert not ScoringCostPolicy().judge(boosters[5], np.empty((0, len(columns)))).passed

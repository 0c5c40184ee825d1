"""The drift policy: several days ask, calm ones forget, a cool-down holds, and a day judged again says the same."""

from __future__ import annotations

from datetime import date, timedelta

from switchyard.learning.drift_policy import DriftPolicy, DriftState
from switchyard.learning.policy import Verdict

FIRST = date(2026, 3, 1)
POLICY = DriftPolicy(
    ask_share=0.06, keep_share=0.04, days_to_ask=3, days_to_forget=2, cool_down_days=10
)


def days_of(moved: list[int], reference: str = "r") -> list[Verdict]:
    """Verdicts of consecutive days on which so many features moved."""
    state, verdicts = DriftState(), []
    for i, count in enumerate(moved):
        names = [f"f{k}" for k in range(count)]
        state, verdict = POLICY.step(
            state, FIRST + timedelta(days=i), names, reference=reference, features=50
        )
        assert DriftState.of(verdict.figures["state"]) == state
        verdicts.append(verdict)
    return verdicts


def asked(verdicts: list[Verdict]) -> list[str]:
    """Days on which a retraining was asked for anew."""
    named = [v.figures["asked_on"] for v in verdicts if not v.passed]
    return sorted(set(named))


def test_one_day_of_many_moved_features_asks_for_nothing() -> None:
    verdicts = days_of([0, 40, 0, 0, 40, 40, 0, 0])

    assert all(verdict.passed for verdict in verdicts)
    assert "day 1 of 3" in verdicts[1].reasons[1]


def test_days_in_a_row_ask_once_and_the_ask_stands_until_it_is_calm() -> None:
    verdicts = days_of([3, 3, 3, 2, 1, 3, 1, 1, 0])

    assert [v.passed for v in verdicts] == [True, True, *[False] * 5, True, True]
    assert asked(verdicts) == ["2026-03-03"]
    assert verdicts[2].figures["moved"] == ["f0", "f1", "f2"]
    assert "a retraining is asked for" in verdicts[2].reasons[1]


def test_features_just_below_the_limit_keep_the_count_but_add_nothing() -> None:
    assert asked(days_of([3, 3, 2, 2, 2, 3])) == ["2026-03-06"]
    assert asked(days_of([3, 3, 1, 1, 3])) == []


def test_the_next_ask_waits_for_the_cool_down() -> None:
    assert asked(days_of([3] * 14)) == ["2026-03-03", "2026-03-13"]
    verdicts = days_of([3] * 3 + [0] * 2 + [3] * 4)
    assert asked(verdicts) == ["2026-03-03"]
    assert "again after 10 days" in verdicts[-1].reasons[1]


def test_a_day_on_which_nothing_moved_asks_for_nothing_when_the_cool_down_ends() -> None:
    verdicts = days_of([3] * 12 + [0])  # 2026-03-13 is the last

    assert asked(verdicts) == ["2026-03-03"]


def test_another_champion_begins_anew_but_for_the_cool_down() -> None:
    state, _ = POLICY.step(
        DriftState("old", 9, 0, FIRST, True), FIRST, ["a"] * 3, reference="new", features=50
    )

    assert state == DriftState("new", 1, 0, FIRST, False)

"""Steps of the traffic plan: what each makes of a plan, what it leaves alone, what it refuses and in which words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import PlanError
from switchyard.serving.plan import Change, Plan, carried, deployed, first

A, B, C = "a" * 32, "b" * 32, "c" * 32
PLAN = Plan(bento=A, champion=A, previous=B, number=7, who="ann", why="began")


def change(action: str, **fields: Any) -> Change:
    return msgspec.convert({"action": action, "who": "bob", "why": "a test"} | fields, Change)


def after(plan: Plan, *changes: Change) -> Plan:
    for each in changes:
        plan = each.step(plan)
    return plan


def test_a_shadow_and_then_a_canary_of_a_release_are_one_experiment_with_one_salt() -> None:
    shadow = after(PLAN, change("shadow", release=C))
    canary = after(shadow, change("canary", share=0.05), change("canary", share=0.2))

    assert (shadow.challenger, shadow.mode, shadow.share) == (C, "shadow", 0.0)
    assert (canary.challenger, canary.mode, canary.share) == (C, "canary", 0.2)
    assert shadow.salt == canary.salt != ""
    assert (canary.champion, canary.previous) == (A, B)


def test_each_experiment_has_a_salt_of_its_own_also_a_repeated_one() -> None:
    once = after(PLAN, change("shadow", release=C))
    other = after(once, change("shadow", release=B))
    again = after(msgspec.structs.replace(PLAN, number=9), change("shadow", release=C))

    assert len({once.salt, other.salt, again.salt}) == 3


def test_a_promoted_challenger_decides_and_the_champion_is_the_rung_below() -> None:
    plan = after(PLAN, change("canary", release=C, share=0.2), change("promote"))

    assert (plan.champion, plan.previous, plan.challenger) == (C, A, None)
    assert (plan.mode, plan.share, plan.salt) == ("off", 0.0, "")


def test_a_rollback_ends_the_trial_and_another_one_brings_back_the_predecessor() -> None:
    canary = after(PLAN, change("canary", release=C, share=0.2))

    ended = after(canary, change("rollback"))
    back = after(ended, change("rollback"))

    assert (ended.champion, ended.challenger, ended.previous) == (A, None, B)
    assert (back.champion, back.previous) == (B, None)


def test_a_rollback_that_names_its_release_does_no_harm_when_it_is_repeated() -> None:
    ended = after(PLAN, change("canary", release=C, share=0.2), change("rollback", release=C))

    with pytest.raises(PlanError, match="neither decides nor is on trial"):
        after(ended, change("rollback", release=C))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (change("shadow"), "name its release"),
        (change("shadow", release=A), "is the champion"),
        (change("canary", release=C), "needs a share above 0"),
        (change("canary", release=C, share=0.0), "needs a share above 0"),
        (change("promote", share=0.1), "takes none"),
        (change("promote"), "no challenger to promote"),
        (change("shadow", release=C, number=6), "number 7 by now"),
    ],
)
def test_what_can_not_be_done_is_refused_with_words(wrong: Change, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        wrong.step(PLAN)


def test_a_first_champion_has_nothing_to_go_back_to() -> None:
    with pytest.raises(PlanError, match="no predecessor"):
        change("rollback").step(first(A))


@pytest.mark.parametrize(
    "fields",
    [{"share": 0.51}, {"share": -0.1}, {"release": "latest"}, {"who": ""}, {"why": ""}, {"x": 1}],
)
def test_what_is_no_change_is_not_read_as_one(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        change("canary", **fields)


def test_a_change_that_is_so_already_changes_nothing() -> None:
    canary = after(PLAN, change("canary", release=C, share=0.2))

    assert after(canary, change("canary", release=C, share=0.2)) == canary
    assert after(PLAN, change("promote", release=A)) == PLAN


def test_a_deployed_bento_decides_with_its_own_release_and_ends_the_trial() -> None:
    plan = deployed(after(PLAN, change("canary", release=C, share=0.2)), C)

    assert (plan.bento, plan.champion, plan.previous, plan.challenger) == (C, C, A, None)


def test_a_carrying_bento_changes_nobody_who_decides_or_is_on_trial() -> None:
    canary = after(PLAN, change("canary", release=C, share=0.2))

    assert carried(canary, C) == msgspec.structs.replace(canary, bento=C)


CHANGES = st.builds(
    change,
    st.sampled_from(["shadow", "canary", "promote", "rollback"]),
    release=st.sampled_from([A, B, C, None]),
    share=st.sampled_from([0.05, 0.5, None]),
)


@given(st.lists(CHANGES, max_size=12))
def test_whatever_is_changed_a_plan_stays_a_plan_that_can_be_read_again(
    changes: list[Change],
) -> None:
    plan = first(A)
    for each in changes:
        try:
            plan = each.step(plan)
        except PlanError:
            continue

        assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
        assert plan.champion not in (plan.previous, plan.challenger)

"""The judge of a rollout: the whole way up, and down for each fault, with the reason."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from switchyard.errors import InputError
from switchyard.learning.canary import DAY_US, CanaryState
from switchyard.learning.metrics import Metric
from switchyard.learning.outcomes import Costs
from switchyard.learning.promise import Promise, promise_of
from switchyard.learning.rollout import PHASES, RolloutPolicy
from switchyard.learning.slices import CHALLENGER
from tests.canaries import THRESHOLDS, make_decisions, make_matured, make_promise

PROMISE = make_promise()
POLICY = RolloutPolicy(min_decisions=3_000, min_matured=20_000)


def state(share: float = 0.05, n: int = 30_000, **faults: Any) -> CanaryState:
    return CanaryState.begin("salt", PROMISE, share).plus(make_decisions(n, **faults))


def test_without_a_fault_it_goes_up_step_by_step():
    shares = []
    experiment = state(0.0)
    while (found := POLICY.judge(experiment, PROMISE)).action == "promote":
        shares.append(found.share)
        experiment = state(found.share)

    assert shares == [0.05, 0.1, 0.2]
    assert found.action == "hold"
    assert found.reasons == ("0 of 20000 decisions of each arm have a matured label",)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"slower": 3.0}, "seconds of the model stage .* is above 1.5 times the control's"),
        ({"errors": 0.01}, "error rate .* is above 2.0 times the control's"),
        ({"errors": 0.05}, "error rate .* is above the most allowed"),
        ({"shift": 0.5}, "mean log-odds .* is above what the manifest promises"),
        ({"shift": -0.5}, "mean log-odds .* is below what the manifest promises"),
        (
            {"shift": 1.0},
            "customers blocked per decision .* is above 1.1 times the control's and what the",
        ),
    ],
)
def test_a_fault_rolls_it_back_with_its_reason(fault: dict[str, float], reason: str):
    found = POLICY.judge(state(**fault), PROMISE)

    assert found.action == "rollback"
    assert any(re.match(reason, said) for said in found.reasons), found.reasons


def test_a_fault_that_the_control_shares_is_not_the_challenger_s():
    batch = make_decisions(30_000, score=make_decisions(30_000).score ** 0.8)

    found = POLICY.judge(CanaryState.begin("salt", PROMISE, 0.05).plus(batch), PROMISE)

    assert found.action == "promote"


def blocking_more() -> tuple[Promise, CanaryState]:
    """After a change of the world: a challenger that sees new frauds, and a control that does not. It promised as much."""
    usual = make_decisions(90_000)
    new = (usual.customer % 7 == 0) & (np.arange(90_000) % 2 == 0)
    seen = np.where(new, 0.5, usual.score)
    promise = promise_of(
        seen[:40_000], entity=usual.customer[:40_000], day=usual.event_us[:40_000] // DAY_US,
        thresholds=THRESHOLDS, count=50,
    )  # fmt: skip
    score = np.where(usual.arm == CHALLENGER, seen, usual.score)
    decision = (score >= THRESHOLDS.review).astype(np.int64) + (score >= THRESHOLDS.block)
    decisions = make_decisions(90_000, score=score, decision=decision)
    return promise, CanaryState.begin("salt", promise, 0.05).plus(decisions)


def test_a_challenger_that_blocks_more_because_the_world_changed_goes_on():
    promise, experiment = blocking_more()

    found = POLICY.judge(experiment, promise)

    blocks = [float(experiment.decisions.totals.of(arm, "blocks")) for arm in (0, 1)]
    assert blocks[0] > 3 * blocks[1]
    assert found.action == "promote", found.reasons


def test_blocks_beyond_what_both_would_have_blocked_are_found_whatever_the_promise_covers():
    promise, experiment = blocking_more()
    alike = replace(promise, beside=Metric(1.0, 1.0, 1.0))
    known = replace(promise, beside=Metric(4.0, 3.5, 5.0))

    assert POLICY.judge(experiment, alike).action == "rollback"
    assert POLICY.judge(experiment, known).action == "promote"


def test_the_same_without_having_promised_it_is_rolled_back():
    _, experiment = blocking_more()

    found = POLICY.judge(experiment, PROMISE)

    assert found.action == "rollback"
    assert any(re.match("block rate .* is above what the manifest", said) for said in found.reasons)


@pytest.mark.parametrize(("wrongly", "action"), [(0.0, "promote"), (0.4, "rollback")])
def test_what_labels_show_to_be_right_breaks_no_promise(wrongly: float, action: str):
    _, experiment = blocking_more()
    labelled = make_matured()
    wrong = np.random.default_rng(1).random(90_000) < 0.02 * wrongly
    blocked = np.where(wrong & (labelled.arm == CHALLENGER), 2, labelled.decision)

    found = POLICY.judge(experiment.matured(replace(labelled, decision=blocked), Costs()), PROMISE)

    assert found.action == action, found.reasons


def test_a_step_takes_its_time_and_its_sample():
    short = POLICY.judge(state(n=30_000, hours=2), PROMISE)
    small = POLICY.judge(state(n=600, hours=30), PROMISE)
    again = POLICY.judge(state().stepped(0.1), PROMISE)

    assert short.reasons == ("2.0 h of 24.0 h at this step",)
    assert small.action == "hold"
    assert "of 3000 decisions at this step" in small.reasons[0]
    assert len(again.reasons) == 2


def test_more_reviews_than_the_analysts_can_do_roll_it_back():
    experiment = state()
    per_day = experiment.decisions_per_day()
    assert per_day is not None
    reviewed = float(experiment.decisions.totals.of(CHALLENGER, "reviews"))
    needed = per_day * reviewed / experiment.count(CHALLENGER)

    enough, short = (
        RolloutPolicy(min_decisions=3_000, reviews_per_day=needed * factor) for factor in (1.2, 0.5)
    )

    assert enough.judge(experiment, PROMISE).action == "promote"
    assert "reviews a day that the analysts can do" in short.judge(experiment, PROMISE).reasons[0]


def test_all_traffic_only_with_matured_labels_that_show_it_is_no_worse():
    last = state(0.2)

    good = POLICY.judge(last.matured(make_matured(), Costs()), PROMISE)
    few = POLICY.judge(last.matured(make_matured(30_000), Costs()), PROMISE)

    assert (good.action, good.share) == ("promote", 1.0)
    assert all("is shown to be no worse than" in said for said in good.reasons)
    assert few.action == "hold"


def test_labels_that_show_nothing_yet_hold_it_and_say_what():
    demanding = RolloutPolicy(min_decisions=3_000, min_matured=100)

    found = demanding.judge(state(0.2).matured(make_matured(2_000), Costs()), PROMISE)

    assert found.action == "hold"
    assert any("is not yet shown to be no worse" in said for said in found.reasons)


def test_labels_that_show_harm_roll_it_back_at_any_step():
    found = POLICY.judge(state(0.05).matured(make_matured(blind=0.6), Costs()), PROMISE)

    assert found.action == "rollback"
    assert any(said.startswith("share of frauds stopped") for said in found.reasons)


@pytest.mark.parametrize("policy", [POLICY, RolloutPolicy(reviews_per_day=100)])
def test_all_guardrails_together_have_the_level_that_is_asked_for(policy: RolloutPolicy):
    judged = policy.judge(state(), PROMISE).figures["guardrails"]

    assert policy.alpha_each() * len(judged) * PHASES == pytest.approx(policy.alpha)


def test_the_figures_are_plain_json():
    figures = POLICY.judge(CanaryState.begin("salt", PROMISE, 0.05), PROMISE).figures

    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": (0.1, 0.05)}, "larger than the one before"),
        ({"steps": ()}, "larger than the one before"),
        ({"steps": (0.05, 0.6)}, "room for the control"),
        ({"alpha": 0.0}, "alpha is 0.0"),
    ],
)
def test_a_policy_that_can_t_be_meant_is_refused(wrong: dict[str, Any], says: str):
    with pytest.raises(InputError, match=says):
        RolloutPolicy(**wrong)


def test_nothing_known_is_no_verdict():
    found = POLICY.judge(CanaryState.begin("salt", PROMISE, 0.05), PROMISE)

    assert found.action == "hold"
    assert np.isfinite(found.figures["log_e_needed"])


@pytest.mark.parametrize(("shift", "action"), [(0.0, "promote"), (0.4, "rollback")])
def test_in_shadow_both_arms_are_the_same_customers(shift: float, action: str):
    n = 6_000
    one = make_decisions(n, arm=np.zeros(n, np.int64), shift=shift)
    other = make_decisions(n, arm=np.ones(n, np.int64))

    shadow = CanaryState.begin("salt", PROMISE, 0.0).plus(one).plus(other)

    assert POLICY.judge(shadow, PROMISE).action == action

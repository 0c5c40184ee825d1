"""Assignment: shares within sampling error, the same side for good, and nothing in common between experiments."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from switchyard.serving.assignment import Assignment, places
from switchyard.serving.plan import MOST_SHARE, Plan

N = 100_000
CUSTOMERS = [f"customer-{n}" for n in range(N)]
STEPS = (0.05, 0.1, 0.2, 0.5)
SALTS = ("1f00aa", "1f00ab", "", "another experiment")


def canary(share: float, salt: str = SALTS[0]) -> Plan:
    return Plan(
        bento="a" * 32,
        champion="a" * 32,
        challenger="b" * 32,
        mode="canary",
        share=share,
        salt=salt or "-",
    )


def variants(share: float, salt: str = SALTS[0]) -> list[str]:
    assignment = Assignment(canary(share, salt))
    return [assignment.variant_of(customer) for customer in CUSTOMERS]


@pytest.mark.parametrize("salt", SALTS)
@pytest.mark.parametrize("share", STEPS)
def test_challenger_and_control_get_the_share_within_sampling_error(
    share: float, salt: str
) -> None:
    counted = Counter(variants(share, salt))

    within = 4.5 * math.sqrt(share * (1 - share) / N)
    assert abs(counted["challenger"] / N - share) < within
    assert abs(counted["control"] / N - share) < within
    assert sum(counted.values()) == N


def test_at_half_everybody_is_in_the_experiment() -> None:
    assert set(variants(0.5)) == {"challenger", "control"}


def test_a_customer_stays_on_its_side_while_the_share_grows() -> None:
    steps = [variants(share) for share in STEPS]

    for fewer, more in pairwise(steps):
        moved = {(a, b) for a, b in zip(fewer, more, strict=True) if a != b}
        assert moved <= {("champion", "challenger"), ("champion", "control")}


def test_the_same_plan_gives_the_same_variants_anywhere() -> None:
    assert places(["customer-1"], SALTS[0])[0] == pytest.approx(PINNED, abs=1e-9)
    assert Assignment(canary(0.2)).variant_of("customer-1") == "champion"
    assert Assignment(canary(0.25)).variant_of("customer-1") == "control"


PINNED = 0.7285316900815815
"""Where customer-1 is in that experiment, on every machine and in every version."""


@pytest.mark.parametrize("other", SALTS[1:])
def test_a_side_in_one_experiment_says_nothing_about_the_next(other: str) -> None:
    pairs = Counter(zip(variants(0.2), variants(0.2, other), strict=True))
    sides = ("champion", "control", "challenger")
    table = [[pairs[one, two] for two in sides] for one in sides]

    assert chi2_contingency(table).pvalue > 1e-4


def test_two_experiments_rank_customers_independently() -> None:
    correlation = np.corrcoef(places(CUSTOMERS, SALTS[0]), places(CUSTOMERS, SALTS[1]))[0, 1]

    assert abs(correlation) < 4.5 / math.sqrt(N)


def test_the_places_of_many_are_those_of_each() -> None:
    found = places(CUSTOMERS[:2_000], SALTS[0])

    sides = np.where(found < 0.1, "challenger", "champion")
    sides[(found >= MOST_SHARE) & (found < MOST_SHARE + 0.1)] = "control"
    assert sides.tolist() == variants(0.1)[:2_000]


def test_without_a_canary_all_are_the_champions() -> None:
    shadow = Plan(bento="a" * 32, champion="a" * 32, challenger="b" * 32, mode="shadow", salt="x")

    for plan in (None, Plan(bento="a" * 32, champion="a" * 32), shadow):
        assignment = Assignment(plan)
        assert not assignment.splits
        assert {assignment.variant_of(customer) for customer in CUSTOMERS[:500]} == {"champion"}

"""The three fallback rules, at and on both sides of their amounts."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.fraud.rules import rule_on

countries = st.one_of(st.none(), st.sampled_from(["FR", "US", "DE"]))


@pytest.mark.parametrize(
    ("amount", "home", "terminal", "decision", "rule"),
    [
        ("10000.01", "FR", "FR", "review", "high_amount_fallback"),
        ("10000.01", "FR", "US", "review", "high_amount_fallback"),
        ("10000.00", "FR", "FR", "allow", "service_unavailable_fallback"),
        ("10000.00", "FR", "US", "review", "cross_country_fallback"),
        ("1000.01", "FR", "US", "review", "cross_country_fallback"),
        ("1000.00", "FR", "US", "allow", "service_unavailable_fallback"),
        ("1000.01", "FR", "FR", "allow", "service_unavailable_fallback"),
        ("1000.01", None, "US", "allow", "service_unavailable_fallback"),
        ("1000.01", "FR", None, "allow", "service_unavailable_fallback"),
        ("0", None, None, "allow", "service_unavailable_fallback"),
    ],
)
def test_each_rule_holds_only_above_its_amount(
    amount: str, home: str | None, terminal: str | None, decision: str, rule: str
) -> None:
    ruling = rule_on(Decimal(amount), home, terminal)

    assert (ruling.decision, ruling.rule) == (decision, rule)


@given(st.decimals(0, 1_000_000, places=2), countries, countries)
def test_a_larger_amount_is_never_judged_more_mildly(
    amount: Decimal, home: str | None, terminal: str | None
) -> None:
    severity = {"allow": 0, "review": 1}

    smaller = rule_on(amount, home, terminal)
    larger = rule_on(amount * 2, home, terminal)

    assert severity[larger.decision] >= severity[smaller.decision]

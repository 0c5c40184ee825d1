"""The last rung of the model ladder: three rules that need nothing but the transaction itself.

Used when no model of the release can score. When degraded, missing a fraud is better than blocking
everybody: a rule reviews or allows, it never blocks. Amounts are in major units of the home's currency.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

REVIEW_AMOUNT = Decimal(10_000)
"""Above this amount every transaction is reviewed."""
REVIEW_AMOUNT_ABROAD = Decimal(1_000)
"""Above this amount one outside the card's country is."""

Rule = Literal["high_amount_fallback", "cross_country_fallback", "service_unavailable_fallback"]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules say, the rule that says it, and the column it looked at (None: at none)."""

    decision: Literal["allow", "review"]
    rule: Rule
    feature: Literal["amount", "is_cross_border"] | None


def rule_on(amount: Decimal, customer_country: str | None, terminal_country: str | None) -> Ruling:
    """The first rule that holds. A country that is not given is not another country.

    >>> rule_on(Decimal("1000.01"), "FR", "US").rule
    'cross_country_fallback'
    """
    if amount > REVIEW_AMOUNT:
        return Ruling("review", "high_amount_fallback", "amount")
    abroad = None not in (customer_country, terminal_country) and (
        customer_country != terminal_country
    )
    if abroad and amount > REVIEW_AMOUNT_ABROAD:
        return Ruling("review", "cross_country_fallback", "is_cross_border")
    return Ruling("allow", "service_unavailable_fallback", None)

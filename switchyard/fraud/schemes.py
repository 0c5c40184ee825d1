"""What the simulator's fraudsters do on a day: three schemes hide among a card's own transactions, two add some.

Compromised terminal, stolen card and large amount as in the Handbook (Le Borgne et al., chapter 3), but
by chance and less extreme; account takeover and card testing besides. Whom it hits when is ``episodes``.
"""

from __future__ import annotations

from datetime import date

import numpy as np

from switchyard.fraud.episodes import (
    CARDS_PER_TEST,
    COMPROMISED_SHARE,
    FRAUDS,
    SHARES,
    STOLEN_SHARE,
    TAKEOVER_PER_DAY,
    TRIES_PER_CARD,
    Calendar,
    Fraud,
    Tactics,
)
from switchyard.fraud.population import ATM, ECOMMERCE, Bools, Cards, Floats, Terminals
from switchyard.fraud.spending import (
    DAY_US,
    GENUINE,
    MINUTE_US,
    NO_DEVICE,
    STRANGE_DEVICES,
    Draft,
    Spending,
    time_of_day,
)

_EXCESS: dict[Fraud, tuple[float, float]] = {
    "compromised_terminal": (1.6, 0.30),
    "stolen_card": (5.0, 0.35),
    "large_amount": (14.0, 0.35),
    "account_takeover": (5.5, 0.50),
}
"""Of what the card pays otherwise: median and spread (log) of the fraudulent multiple."""
_SMALL_AMOUNT, _SMALL_SPREAD = 180.0, 0.7
_FEWEST_TRIES = 3


class Schemes:
    """The five frauds of one world."""

    def __init__(
        self, cards: Cards, terminals: Terminals, calendar: Calendar, spending: Spending
    ) -> None:
        self._cards = cards
        self._terminals = terminals
        self._calendar = calendar
        self._spending = spending

    def hide_among(
        self, draft: Draft, day: date, tactics: Tactics, factor: float, rng: np.random.Generator
    ) -> None:
        """Turn some of the genuine transactions of ``draft`` into frauds, in place."""
        skimmed = np.zeros(len(self._terminals), bool)
        skimmed[self._calendar.active("compromised_terminal", day).who] = True
        stolen = np.zeros(len(self._cards), bool)
        stolen[self._calendar.active("stolen_card", day).who] = True
        hits: dict[Fraud, Bools] = {
            "compromised_terminal": skimmed[draft.terminal]
            & (rng.random(len(draft)) < COMPROMISED_SHARE),
            "stolen_card": stolen[draft.card] & (rng.random(len(draft)) < STOLEN_SHARE),
            "large_amount": rng.random(len(draft)) < SHARES["large_amount"] * tactics.large_amount,
        }
        for fraud, hit in hits.items():
            hit &= draft.fraud == GENUINE
            usual = self._spending.usual_amounts(draft.card) * factor
            least = np.maximum(usual / np.maximum(draft.amount, 1.0), 1.0)
            excess = (least * _multiples(fraud, len(draft), rng)) ** tactics.excess
            draft.amount = np.where(hit, draft.amount * excess, draft.amount)
            draft.fraud = np.where(hit, FRAUDS.index(fraud), draft.fraud)

    def takeovers(
        self, day: date, tactics: Tactics, factor: float, rng: np.random.Generator
    ) -> Draft:
        """Accounts used within an hour or two from a new device in a new country, for larger amounts."""
        active = self._calendar.active("account_takeover", day)
        count = rng.poisson(TAKEOVER_PER_DAY, len(active.who))
        card, country = np.repeat(active.who, count), np.repeat(active.detail, count)
        terminal = self._terminals.shops.draw(country, rng.random(len(card)))
        channel = self._terminals.channel[terminal]
        online = (rng.random(len(card)) < 0.75) & (channel != ATM)
        around = np.repeat(rng.uniform(0, 24, len(active.who)), count)
        excess = _multiples("account_takeover", len(card), rng) ** tactics.excess
        return Draft(
            card=card,
            terminal=terminal,
            micros=time_of_day(rng.normal(around, 0.6)),
            amount=self._spending.usual_amounts(card) * factor * excess,
            channel=np.where(online, ECOMMERCE, channel),
            device=np.where(online, STRANGE_DEVICES + np.repeat(active.number, count), NO_DEVICE),
            fraud=np.full(len(card), FRAUDS.index("account_takeover")),
        )

    def card_tests(self, day: date, factor: float, rng: np.random.Generator) -> Draft:
        """Stolen numbers tried out at one site: small amounts within minutes, then perhaps a real one."""
        campaigns = self._calendar.active("card_testing", day)
        cards = rng.binomial(3, (CARDS_PER_TEST - 1) / 3, len(campaigns.who)) + 1
        victims = rng.integers(0, len(self._cards), cards.sum())
        tries = rng.poisson(TRIES_PER_CARD - _FEWEST_TRIES, len(victims)) + _FEWEST_TRIES
        card, many = np.repeat(victims, tries), tries.sum()
        terminal = np.repeat(np.repeat(campaigns.detail, cards), tries)
        device = np.repeat(np.repeat(campaigns.number, cards), tries)
        start = np.repeat(rng.integers(0, DAY_US - 30 * MINUTE_US, len(victims)), tries)
        is_real = np.zeros(many, bool)
        is_real[np.cumsum(tries) - 1] = rng.random(len(tries)) < 0.5
        wait = np.where(is_real, 20 * MINUTE_US, rng.integers(0, 10 * MINUTE_US, many))
        real = self._spending.prices(card, terminal, rng) * 2 * factor
        small = rng.lognormal(np.log(_SMALL_AMOUNT), _SMALL_SPREAD, many)
        return Draft(
            card=card,
            terminal=terminal,
            micros=start + wait,
            amount=np.where(is_real, real, small),
            channel=np.full(many, ECOMMERCE),
            device=2 * STRANGE_DEVICES + device,
            fraud=np.full(many, FRAUDS.index("card_testing")),
        )


def _multiples(fraud: Fraud, count: int, rng: np.random.Generator) -> Floats:
    median, spread = _EXCESS[fraud]
    return rng.lognormal(np.log(median), spread, count)

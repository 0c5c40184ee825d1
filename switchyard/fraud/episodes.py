"""Who is defrauded, from when to when: the simulator's five frauds, and journeys that look like one.

An episode belongs to the day on which it starts and lasts at most ``LONGEST_DAYS``, so the episodes of
any day are those started on the days just before it, whichever days were simulated earlier.
Not here: what an episode does to a day's transactions (``simulate``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, get_args

import numpy as np

from switchyard.fraud.population import ECOMMERCE, Cards, Floats, Ints, Terminals

Fraud = Literal[
    "compromised_terminal", "stolen_card", "account_takeover", "card_testing", "large_amount"
]
FRAUDS: tuple[Fraud, ...] = get_args(Fraud)
Kind = Literal["compromised_terminal", "stolen_card", "account_takeover", "card_testing", "journey"]

LONGEST_DAYS = 30
COMPROMISED_SHARE = 0.85
"""Of a compromised terminal's transactions, so many are fraudulent."""
STOLEN_SHARE = 0.5
"""Of a stolen card's payments, so many are the thief's."""
SHARES: dict[Fraud, float] = {
    "compromised_terminal": 0.0024,
    "stolen_card": 0.0018,
    "account_takeover": 0.0013,
    "card_testing": 0.0017,
    "large_amount": 0.0008,
}
"""Frauds of each kind among all transactions, on average and before any shift."""
_LENGTHS: dict[Kind, tuple[int, int]] = {
    "compromised_terminal": (14, 28),
    "stolen_card": (10, 21),
    "account_takeover": (1, 2),
    "card_testing": (1, 1),
    "journey": (2, 10),
}
_JOURNEYS_PER_CARD = 0.004
TAKEOVER_PER_DAY = 4.0
TRIES_PER_CARD = 8.0
CARDS_PER_TEST = 2.5


@dataclass(frozen=True, slots=True)
class Tactics:
    """What the fraudsters do, relative to the usual: a factor on the frequency of each fraud.

    ``excess`` is an exponent on how far fraudulent amounts exceed the card's own: 1 as usual, 0 not at all.
    """

    compromised_terminal: float = 1.0
    stolen_card: float = 1.0
    account_takeover: float = 1.0
    card_testing: float = 1.0
    large_amount: float = 1.0
    excess: float = 1.0

    def factor(self, fraud: Fraud) -> float:
        return float(getattr(self, fraud))


@dataclass(frozen=True, slots=True)
class Episodes:
    """One element per episode: whom it concerns (card or terminal), its last day, and one number more.

    ``detail`` is a country (takeover, journey), or the site tried (card testing). ``number`` is unique to
    the episode within its kind and start day.
    """

    who: Ints
    last_day: Ints
    detail: Ints
    number: Ints

    def on(self, day: int) -> Episodes:
        """Those that still last on ``day`` (an ordinal)."""
        rows = self.last_day >= day
        return Episodes(self.who[rows], self.last_day[rows], self.detail[rows], self.number[rows])


def joined(parts: list[Episodes]) -> Episodes:
    return Episodes(
        *(np.concatenate([getattr(p, f) for p in parts]) for f in Episodes.__slots__),
    )


class Calendar:
    """Draws the episodes of each start day from (seed, day) alone, and remembers the last few."""

    def __init__(
        self,
        seed: int,
        cards: Cards,
        terminals: Terminals,
        tactics_of: Callable[[date], Tactics],
    ) -> None:
        self._seed = seed
        self._cards = cards
        self._terminals = terminals
        self._tactics_of = tactics_of
        self._traffic = _traffic(cards, terminals)
        self._started: dict[date, dict[Kind, Episodes]] = {}

    def active(self, kind: Kind, day: date) -> Episodes:
        """The episodes of ``kind`` that last on ``day``, oldest first."""
        starts = [day - timedelta(days=back) for back in reversed(range(LONGEST_DAYS))]
        return joined([self.starting(start)[kind].on(day.toordinal()) for start in starts])

    def starting(self, day: date) -> dict[Kind, Episodes]:
        """The episodes that start on ``day``, by kind."""
        if day not in self._started:
            if len(self._started) > 4 * LONGEST_DAYS:
                self._started.clear()
            self._started[day] = self._draw(day)
        return self._started[day]

    def _draw(self, day: date) -> dict[Kind, Episodes]:
        rng = np.random.default_rng([self._seed, 2, day.toordinal()])
        tactics = self._tactics_of(day)
        active_cards = self._cards.rate / self._cards.rate.sum()
        quiet = self._traffic * (self._traffic <= np.quantile(self._traffic, 0.98))
        skimmed = quiet**0.65
        skimmed /= skimmed.sum()
        whom: dict[Kind, Floats | None] = {
            "compromised_terminal": skimmed,
            "stolen_card": active_cards,
            "account_takeover": None,
            "card_testing": None,
            "journey": None,
        }
        means = self._starts_per_day(tactics, skimmed, active_cards)
        return {
            kind: self._episodes(kind, day, rng.poisson(means[kind]), weights, rng)
            for kind, weights in whom.items()
        }

    def _starts_per_day(
        self, tactics: Tactics, skimmed: Floats, active_cards: Floats
    ) -> dict[Kind, float]:
        """So many starts that the frauds of each kind come to their share of all transactions."""
        rate = self._cards.rate
        days = {kind: sum(span) / 2 for kind, span in _LENGTHS.items()}
        frauds_each: dict[Fraud, float] = {
            "compromised_terminal": days["compromised_terminal"]
            * float(skimmed @ self._traffic) * COMPROMISED_SHARE,
            "stolen_card": days["stolen_card"] * float(active_cards @ rate) * STOLEN_SHARE,
            "account_takeover": days["account_takeover"] * TAKEOVER_PER_DAY,
            "card_testing": TRIES_PER_CARD * CARDS_PER_TEST,
        }  # fmt: skip
        starts: dict[Kind, float] = {"journey": _JOURNEYS_PER_CARD * len(self._cards)}
        for fraud, each in frauds_each.items():
            wanted = SHARES[fraud] * float(rate.sum()) * tactics.factor(fraud)
            starts[fraud] = wanted / each  # type: ignore[index]
        return starts

    def _episodes(
        self, kind: Kind, day: date, count: int, weights: Floats | None, rng: np.random.Generator
    ) -> Episodes:
        many = len(self._terminals if kind == "compromised_terminal" else self._cards)
        who = rng.choice(many, count, p=weights)
        shortest, longest = _LENGTHS[kind]
        return Episodes(
            who=who,
            last_day=day.toordinal() + rng.integers(shortest, longest + 1, count) - 1,
            detail=self._site(count, rng)
            if kind == "card_testing"
            else self._abroad(who, kind, rng),
            number=np.arange(count) + 1000 * day.toordinal(),
        )

    def _abroad(self, who: Ints, kind: Kind, rng: np.random.Generator) -> Ints:
        """A country other than the card's home (if there is one)."""
        countries = len(self._terminals.shops.edges) - 1
        if kind not in ("account_takeover", "journey") or countries == 1:
            return np.zeros(len(who), np.int64)
        return (self._cards.home[who] + rng.integers(1, countries, len(who))) % countries

    def _site(self, count: int, rng: np.random.Generator) -> Ints:
        sites = np.flatnonzero(self._terminals.channel == ECOMMERCE)
        weights = np.sqrt(self._terminals.popularity[sites])
        return rng.choice(sites, count, p=weights / weights.sum())


def _traffic(cards: Cards, terminals: Terminals) -> Floats:
    """Transactions a day that each terminal gets from its usual cards, roughly."""
    shops = cards.rate * (1 - cards.online_share) * (1 - cards.explore_share)
    sites = cards.rate * cards.online_share * (1 - cards.explore_share)
    explored = cards.rate * cards.explore_share
    total: Floats = explored.sum() * terminals.popularity / terminals.popularity.sum()
    for rate, usual in ((shops, cards.usual_shops), (sites, cards.usual_sites)):
        for rank, weight in enumerate(rank_weights(usual.shape[1])):
            total += np.bincount(usual[:, rank], rate * weight, len(terminals))
    return total


def rank_weights(count: int) -> Floats:
    """How often a card chooses its first, second, … usual terminal."""
    weights = 1.0 / (np.arange(count) + 1.0)
    return np.asarray(weights / weights.sum())

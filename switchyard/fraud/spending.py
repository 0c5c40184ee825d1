"""What the simulator's cards do on a day by habit: where, when, for how much, with which device.

A day's transactions are drafted here in no order, amounts still as floats in minor units; ``schemes`` adds
what fraudsters do and ``simulate`` makes tables of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from switchyard.fraud.episodes import SHARES, Calendar, rank_weights
from switchyard.fraud.population import (
    ATM,
    ECOMMERCE,
    MOTO,
    POS,
    USUAL_SHOPS,
    USUAL_SITES,
    Cards,
    Floats,
    Ints,
    Terminals,
)

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
GENUINE = -1
NO_DEVICE = -1
STRANGE_DEVICES = 1 << 45
"""Numbers of devices that are no card's own start here."""
_USUAL_AMOUNT = 3_600
_LEVEL_EFFECT = 0.7
_ECHO_SHARE = 0.012
_ADDED_SHARE = SHARES["account_takeover"] + SHARES["card_testing"] + 2 * _ECHO_SHARE
"""What frauds and echoes add to the transactions that the cards' rates give."""


@dataclass(slots=True)
class Draft:
    """Transactions of one day, one element each. ``fraud`` indexes FRAUDS, or is GENUINE."""

    card: Ints
    terminal: Ints
    micros: Ints
    amount: Floats
    channel: Ints
    device: Ints
    fraud: Ints

    def __len__(self) -> int:
        return len(self.card)

    def picked(self, rows: Ints) -> Draft:
        return Draft(*(getattr(self, f)[rows] for f in Draft.__slots__))


def joined(drafts: list[Draft]) -> Draft:
    return Draft(*(np.concatenate([getattr(d, f) for d in drafts]) for f in Draft.__slots__))


def time_of_day(hours: Floats) -> Ints:
    """Microseconds since midnight of hours that may lie beyond it on either side."""
    return np.mod((hours * 60 * MINUTE_US).astype(np.int64), DAY_US)


class Spending:
    """Drafts genuine transactions of one world."""

    def __init__(self, cards: Cards, terminals: Terminals, calendar: Calendar) -> None:
        self._cards = cards
        self._terminals = terminals
        self._calendar = calendar

    def genuine(self, day: date, factor: float, rng: np.random.Generator) -> Draft:
        """A day by habit; ``factor`` multiplies all amounts."""
        cards = self._cards
        count = rng.poisson(cards.rate * cards.week[:, day.weekday()] * (1 - _ADDED_SHARE))
        card = np.repeat(np.arange(len(cards)), count)
        terminal = self._habitual_terminals(card, day, rng)
        channel = self._channels(terminal, rng)
        return Draft(
            card=card,
            terminal=terminal,
            micros=time_of_day(rng.normal(cards.hour[card], cards.hour_spread[card])),
            amount=self.prices(card, terminal, rng) * factor,
            channel=channel,
            device=self._devices(card, channel, day, rng),
            fraud=np.full(len(card), GENUINE),
        )

    def echoes(self, draft: Draft, rng: np.random.Generator) -> Draft:
        """Genuine repeats within minutes (another drink, another ticket), so that a burst is no proof."""
        again = (draft.fraud == GENUINE) & (rng.random(len(draft)) < _ECHO_SHARE)
        echo = draft.picked(np.repeat(np.flatnonzero(again), rng.integers(1, 4, again.sum())))
        later = echo.micros + rng.integers(20_000_000, 15 * MINUTE_US, len(echo))
        echo.micros = np.minimum(later, DAY_US - 1)
        echo.amount = echo.amount * rng.uniform(0.15, 0.9, len(echo))
        return echo

    def prices(self, card: Ints, terminal: Ints, rng: np.random.Generator) -> Floats:
        """Amounts: the terminal's price level, the card's spending and chance; cash comes in notes."""
        spread = rng.lognormal(0.0, self._terminals.spread[terminal])
        level = self._cards.level[card] ** _LEVEL_EFFECT
        price = self._terminals.price[terminal] * level * spread
        rare = rng.random(len(card)) < 0.002
        price = np.where(rare, price * rng.lognormal(np.log(4.0), 0.5, len(card)), price)
        notes = np.maximum(np.rint(price / 1000), 1) * 1000
        return np.asarray(np.where(self._terminals.channel[terminal] == ATM, notes, price))

    def usual_amounts(self, card: Ints) -> Floats:
        """What each card pays on an ordinary occasion."""
        return np.asarray(_USUAL_AMOUNT * self._cards.level[card] ** _LEVEL_EFFECT)

    def _habitual_terminals(self, card: Ints, day: date, rng: np.random.Generator) -> Ints:
        """Usual shops and sites; now and then others, and shops of another country on a journey."""
        cards, terminals, many = self._cards, self._terminals, len(card)
        online = rng.random(many) < cards.online_share[card]
        explores = rng.random(many) < cards.explore_share[card]
        country = self._whereabouts(day)[card]
        away = (country != cards.home[card]) & (rng.random(many) < 0.85)
        country = np.where(away, country, cards.home[card])
        shop = cards.usual_shops[card, _ranks(many, USUAL_SHOPS, rng)]
        site = cards.usual_sites[card, _ranks(many, USUAL_SITES, rng)]
        other_shop = terminals.shops.draw(country, rng.random(many))
        other_site = terminals.sites.draw(np.zeros_like(card), rng.random(many))
        at_shop = np.where(explores | away, other_shop, shop)
        return np.where(online, np.where(explores, other_site, site), at_shop)

    def _whereabouts(self, day: date) -> Ints:
        """The country each card is in."""
        country = self._cards.home.copy()
        journeys = self._calendar.active("journey", day)
        country[journeys.who] = journeys.detail
        return country

    def _channels(self, terminal: Ints, rng: np.random.Generator) -> Ints:
        """Shops sell by mail order too, and through a site of their own."""
        channel = self._terminals.channel[terminal]
        draw = rng.random(len(terminal))
        by_mail = (channel == POS) & (draw < 0.01)
        own_site = (channel == POS) & (draw > 0.93)
        return np.select([by_mail, own_site], [MOTO, ECOMMERCE], channel)

    def _devices(self, card: Ints, channel: Ints, day: date, rng: np.random.Generator) -> Ints:
        """Always one online, at a counter only with a wallet; replaced after some hundred days."""
        cards, many = self._cards, len(card)
        wallet = (channel == POS) & (rng.random(many) < cards.wallet_share[card])
        slot = np.floor(rng.random(many) ** 2 * cards.devices[card]).astype(np.int64)
        slot = np.where(wallet, 0, slot)
        life = cards.device_days[card, slot]
        generation = (day.toordinal() + (card * 37 + slot * 101) % life) // life
        own = (card * 4 + slot) * 4096 + generation
        borrowed = rng.integers(4 * STRANGE_DEVICES, 8 * STRANGE_DEVICES, many)
        device = np.where(rng.random(many) < 0.004, borrowed, own)
        return np.where((channel == ECOMMERCE) | wallet, device, NO_DEVICE)


def _ranks(many: int, count: int, rng: np.random.Generator) -> Ints:
    return np.searchsorted(np.cumsum(rank_weights(count))[:-1], rng.random(many), side="right")

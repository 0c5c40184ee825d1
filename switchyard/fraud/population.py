"""The simulator's world: cards with habits and terminals with a place, a category and a price level.

Drawn once per seed and then fixed; what happens on a day is ``simulate``, who is defrauded is ``episodes``.
Countries are discs on one plane, popularity follows Zipf's law, spending levels and activity are log-normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from switchyard.fraud.columns import CHANNELS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

POS, ECOMMERCE, ATM, MOTO = (CHANNELS.index(c) for c in ("pos", "ecommerce", "atm", "moto"))
COUNTRY_SHARES = {
    "FR": 0.26, "DE": 0.18, "ES": 0.11, "IT": 0.11, "GB": 0.08, "NL": 0.07, "BE": 0.05, "US": 0.04,
    "PT": 0.02, "CH": 0.02, "PL": 0.01, "GR": 0.01, "TR": 0.01, "RO": 0.01, "TH": 0.01, "BR": 0.01,
}  # fmt: skip
HOMES = 8
"""Cards come from the first so many countries; all have terminals."""
USUAL_SHOPS, USUAL_SITES = 8, 3
_CANDIDATES = 48
_WEEK = np.array([0.95, 0.95, 0.98, 1.02, 1.15, 1.15, 0.80])
"""Activity from Monday to Sunday, all cards together."""


@dataclass(frozen=True, slots=True)
class Category:
    """A merchant category: ISO 18245 code, median price in minor units, spread (log), share of terminals."""

    code: str
    price: float
    spread: float
    share: float
    channel: int = POS


CATEGORIES = (
    Category("5411", 3_200, 0.45, 0.16),
    Category("5812", 3_800, 0.41, 0.13),
    Category("5814", 1_300, 0.30, 0.09),
    Category("5541", 5_500, 0.26, 0.08),
    Category("5651", 6_500, 0.45, 0.08),
    Category("5912", 1_900, 0.45, 0.06),
    Category("5311", 7_000, 0.52, 0.05),
    Category("4111", 300, 0.38, 0.05),
    Category("5813", 2_400, 0.38, 0.04),
    Category("7011", 18_000, 0.45, 0.04),
    Category("5944", 21_000, 0.60, 0.01),
    Category("6011", 9_000, 0.38, 0.05, ATM),
    Category("5999", 4_500, 0.60, 0.06, ECOMMERCE),
    Category("5732", 14_000, 0.60, 0.03, ECOMMERCE),
    Category("5942", 2_200, 0.38, 0.03, ECOMMERCE),
    Category("5816", 1_100, 0.52, 0.02, ECOMMERCE),
    Category("4511", 24_000, 0.52, 0.01, ECOMMERCE),
    Category("7995", 4_500, 0.60, 0.01, ECOMMERCE),
)


@dataclass(frozen=True, slots=True)
class Lottery:
    """Draws members by weight within a group, for many groups at once."""

    members: Ints
    sums: Floats
    edges: Ints

    @classmethod
    def of(cls, members: Ints, weights: Floats, groups: Ints, count: int) -> Lottery:
        """``weights`` and ``groups`` (0 to ``count`` - 1) belong to ``members``, element by element."""
        order = np.argsort(groups, kind="stable")
        edges = np.searchsorted(groups[order], np.arange(count + 1))
        return cls(members[order], np.concatenate([[0.0], np.cumsum(weights[order])]), edges)

    def draw(self, groups: Ints, uniform: Floats) -> Ints:
        """One member of each element's group; ``uniform`` from [0, 1) decides. No group may be empty."""
        first, last = self.edges[groups], self.edges[groups + 1]
        low, high = self.sums[first], self.sums[last]
        drawn = np.searchsorted(self.sums, low + uniform * (high - low), side="right") - 1
        return self.members[np.clip(drawn, first, last - 1)]


@dataclass(frozen=True, slots=True)
class Terminals:
    """One element per terminal. ``price`` in minor units, places in units of a country's radius."""

    id: pa.Array
    country: Ints
    category: Ints
    channel: Ints
    price: Floats
    spread: Floats
    popularity: Floats
    place: Floats
    shops: Lottery
    sites: Lottery

    def __len__(self) -> int:
        return len(self.country)


@dataclass(frozen=True, slots=True)
class Cards:
    """One element per card. ``rate`` in transactions per day, hours in UTC, shares from 0 to 1."""

    id: pa.Array
    home: Ints
    rate: Floats
    week: Floats
    level: Floats
    hour: Floats
    hour_spread: Floats
    online_share: Floats
    wallet_share: Floats
    explore_share: Floats
    devices: Ints
    device_days: Ints
    usual_shops: Ints
    usual_sites: Ints

    def __len__(self) -> int:
        return len(self.home)


def make_terminals(count: int, rng: np.random.Generator) -> Terminals:
    """``count`` terminals (at least two); the first ones see to it that no country is without a shop."""
    countries = min(len(COUNTRY_SHARES), count - 1)
    country = rng.choice(countries, count, p=_normed(list(COUNTRY_SHARES.values())[:countries]))
    category = rng.choice(len(CATEGORIES), count, p=_normed([c.share for c in CATEGORIES]))
    country[:countries], category[:countries] = np.arange(countries), 0
    category[-1] = next(i for i, c in enumerate(CATEGORIES) if c.channel == ECOMMERCE)
    channel = np.array([c.channel for c in CATEGORIES])[category]
    popularity: Floats = np.power(rng.permutation(count) + 3.0, -0.9)
    online = channel == ECOMMERCE
    everyone = np.arange(count)
    return Terminals(
        id=pa.array([f"T{i:05d}" for i in range(count)]),
        country=country,
        category=category,
        channel=channel,
        price=np.array([c.price for c in CATEGORIES])[category] * rng.lognormal(0, 0.35, count),
        spread=np.array([c.spread for c in CATEGORIES])[category],
        popularity=popularity,
        place=rng.normal(0, 1, (count, 2)),
        shops=Lottery.of(everyone[~online], popularity[~online], country[~online], countries),
        sites=Lottery.of(everyone[online], popularity[online], everyone[online] * 0, 1),
    )


def make_cards(count: int, per_day: float, terminals: Terminals, rng: np.random.Generator) -> Cards:
    """``count`` cards that make ``per_day`` transactions a day together, on average."""
    homes = min(HOMES, len(terminals.shops.edges) - 1)
    home = rng.choice(homes, count, p=_normed(list(COUNTRY_SHARES.values())[:homes]))
    activity = rng.lognormal(0, 0.7, count)
    night_owl = rng.random(count) < 0.04
    return Cards(
        id=pa.array([f"C{i:06d}" for i in range(count)]),
        home=home,
        rate=activity * per_day / activity.sum(),
        week=_weeks(count, rng),
        level=rng.lognormal(0, 0.6, count),
        hour=np.where(night_owl, rng.normal(24, 2, count), rng.normal(14, 2.5, count)),
        hour_spread=rng.uniform(2, 4.5, count),
        online_share=rng.beta(2, 5, count),
        wallet_share=np.where(rng.random(count) < 0.35, rng.beta(4, 2, count), 0.0),
        explore_share=rng.beta(2, 14, count),
        devices=rng.choice(3, count, p=[0.5, 0.35, 0.15]) + 1,
        device_days=rng.integers(250, 900, (count, 3)),
        usual_shops=_usual_shops(home, terminals, rng),
        usual_sites=terminals.sites.draw(
            np.zeros((count, USUAL_SITES), np.int64), rng.random((count, USUAL_SITES))
        ),
    )


def _usual_shops(home: Ints, terminals: Terminals, rng: np.random.Generator) -> Ints:
    """Of popular shops of the home country, mostly the near ones; the nearest is the most usual."""
    shape = (len(home), _CANDIDATES)
    candidates = terminals.shops.draw(np.broadcast_to(home[:, None], shape), rng.random(shape))
    own_place = rng.normal(0, 1, (len(home), 1, 2))
    distance = np.linalg.norm(terminals.place[candidates] - own_place, axis=2)
    nearest = np.argsort(distance * rng.lognormal(0, 0.4, shape), axis=1)[:, :USUAL_SHOPS]
    return np.take_along_axis(candidates, nearest, axis=1)


def _weeks(count: int, rng: np.random.Generator) -> Floats:
    """Each card's factor from Monday to Sunday, 1 on average: some live for the weekend."""
    week = np.repeat(_WEEK[None, :], count, axis=0)
    week[:, 5:] *= rng.lognormal(0, 0.35, (count, 1))
    return np.asarray(week / week.mean(axis=1, keepdims=True))


def _normed(weights: list[float]) -> Floats:
    return np.asarray(weights) / sum(weights)

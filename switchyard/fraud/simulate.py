"""The simulator: seeded days of card transactions with five kinds of fraud and labels that arrive late.

A day depends on the configuration and its date alone, never on which days were simulated before.
The world's people and shops are ``population``, the frauds' calendar is ``episodes``. The idea of cards,
terminals and fraud scenarios follows Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud
Detection (the Handbook), chapter 3; habits, devices, countries and takeovers are added.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property

import numpy as np
import pyarrow as pa

from switchyard.errors import SourceError
from switchyard.fraud.columns import CHANNELS, LABEL, MAX_AMOUNT_MINOR, arrow_schema
from switchyard.fraud.episodes import FRAUDS, Calendar, Tactics
from switchyard.fraud.money import decimal_column, decimals_of
from switchyard.fraud.population import (
    CATEGORIES,
    COUNTRY_SHARES,
    Cards,
    Ints,
    Terminals,
    make_cards,
    make_terminals,
)
from switchyard.fraud.schemes import Schemes
from switchyard.fraud.spending import DAY_US, GENUINE, NO_DEVICE, Draft, Spending, joined

LABEL_DELAY_MEDIAN_DAYS = 5.0
LABEL_DELAY_SPREAD = 0.75
LABEL_DELAY_LONGEST_DAYS = 30.0
NEVER_LABELLED_SHARE = 0.02
NEW_TACTICS = Tactics(
    compromised_terminal=0.3, stolen_card=0.3, account_takeover=4.0, card_testing=2.0,
    large_amount=0.3, excess=0.3,
)  # fmt: skip
"""What a change of the fraudsters' minds comes to: fewer skimmed terminals and stolen cards, many more takeovers and
tested cards, and amounts that exceed the card's own by far less."""

_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Shift:
    """From ``day`` on (until the next shift) spending and fraud tactics are these, relative to the usual."""

    day: date
    spending_factor: float = 1.0
    tactics: Tactics = field(default_factory=Tactics)


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """Everything a simulated day depends on, but its date. ``transactions_per_day`` is an average."""

    seed: int = 7
    first_day: date = date(2026, 1, 1)
    customers: int = 5_000
    terminals: int = 2_000
    transactions_per_day: int = 5_100
    currency: str = "EUR"
    shifts: tuple[Shift, ...] = ()

    def shift_on(self, day: date) -> Shift:
        """The latest shift that has begun by ``day``."""
        begun = [s for s in self.shifts if s.day <= day]
        return max(begun, key=lambda s: s.day, default=Shift(self.first_day))


@dataclass(frozen=True, slots=True)
class SimulatedDay:
    """One day, one row per transaction, sorted by event_timestamp.

    ``transactions``: the TRANSACTION columns with ``amount`` (decimal, major units) for amount_minor;
    ``labels``: the LABEL columns, one for every transaction; ``frauds``: which fraud it is (null: none),
    known to nobody but the simulator.
    """

    transactions: pa.Table
    labels: pa.Table
    frauds: pa.Array


class Simulator:
    """Simulates days of one world.

    >>> world = Simulator(SimulatorConfig(customers=50, terminals=20, transactions_per_day=60))
    >>> world.day(date(2026, 1, 3)).transactions["transaction_id"][0].as_py()
    '20260103-000000'
    """

    def __init__(self, config: SimulatorConfig) -> None:
        """Raises SourceError for a world too small, InputError for an unknown currency."""
        decimals_of(config.currency)
        if config.terminals < 2 or config.customers < 1 or config.transactions_per_day < 1:
            raise SourceError(
                f"a simulated world needs at least 1 customer, 2 terminals and 1 transaction a day; got "
                f"{config.customers}, {config.terminals} and {config.transactions_per_day}"
            )
        self.config = config

    @cached_property
    def terminals(self) -> Terminals:
        return make_terminals(self.config.terminals, self._rng(0))

    @cached_property
    def cards(self) -> Cards:
        config = self.config
        return make_cards(
            config.customers, config.transactions_per_day, self.terminals, self._rng(1)
        )

    @cached_property
    def _spending(self) -> Spending:
        return Spending(self.cards, self.terminals, self._calendar)

    @cached_property
    def _schemes(self) -> Schemes:
        return Schemes(self.cards, self.terminals, self._calendar, self._spending)

    @cached_property
    def _calendar(self) -> Calendar:
        return Calendar(
            self.config.seed,
            self.cards,
            self.terminals,
            lambda day: self.config.shift_on(day).tactics,
        )

    def day(self, day: date) -> SimulatedDay:
        """The transactions and labels of ``day`` (UTC). Raises SourceError before the first day."""
        if day < self.config.first_day:
            raise SourceError(
                f"the simulated world begins on {self.config.first_day}; {day} lies before it"
            )
        rng = self._rng(3, day.toordinal())
        draft = self._drafted(day, rng)
        return self._tables(draft.picked(np.argsort(draft.micros, kind="stable")), day, rng)

    def _drafted(self, day: date, rng: np.random.Generator) -> Draft:
        shift = self.config.shift_on(day)
        factor, tactics = shift.spending_factor, shift.tactics
        draft = self._spending.genuine(day, factor, rng)
        self._schemes.hide_among(draft, day, tactics, factor, rng)
        echoes = self._spending.echoes(draft, rng)
        takeovers = self._schemes.takeovers(day, tactics, factor, rng)
        tests = self._schemes.card_tests(day, factor, rng)
        return joined([draft, echoes, takeovers, tests])

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, *stream])

    def _tables(self, draft: Draft, day: date, rng: np.random.Generator) -> SimulatedDay:
        count, cards, terminals = len(draft), self.cards, self.terminals
        midnight = (day.toordinal() - _EPOCH) * DAY_US
        when = midnight + draft.micros
        countries = pa.array(list(COUNTRY_SHARES))
        minor = np.clip(np.rint(draft.amount), 10, MAX_AMOUNT_MINOR).astype(np.int64)
        keys = {
            "transaction_id": pa.array(np.char.mod(f"{day:%Y%m%d}-%06d", np.arange(count))),
            "customer_id": cards.id.take(pa.array(draft.card)),
            "terminal_id": terminals.id.take(pa.array(draft.terminal)),
        }
        timestamps = pa.array(when).cast(pa.timestamp("us", tz="UTC"))
        transactions = pa.table(
            keys
            | {
                "amount": decimal_column(minor, self.config.currency),
                "currency": pa.array([self.config.currency] * count, pa.string()),
                "event_timestamp": timestamps,
                "customer_country": countries.take(pa.array(cards.home[draft.card])),
                "terminal_country": countries.take(pa.array(terminals.country[draft.terminal])),
                "device_id": _device_ids(draft.device),
                "channel": pa.array(CHANNELS).take(pa.array(draft.channel)),
                "merchant_category": pa.array([c.code for c in CATEGORIES]).take(
                    pa.array(terminals.category[draft.terminal])
                ),
            }
        )
        labels = keys | {
            "event_timestamp": timestamps,
            "is_fraud": pa.array(draft.fraud != GENUINE),
            "label_available_at": _label_times(when, rng),
        }
        frauds = pa.array(FRAUDS).take(pa.array(draft.fraud, mask=draft.fraud == GENUINE))
        return SimulatedDay(transactions, pa.table(labels, schema=arrow_schema(LABEL)), frauds)


def _label_times(when: Ints, rng: np.random.Generator) -> pa.Array:
    """When each verdict is known: log-normal, cut at the longest delay, for a few never (null)."""
    days = rng.lognormal(np.log(LABEL_DELAY_MEDIAN_DAYS), LABEL_DELAY_SPREAD, len(when))
    delay = np.rint(np.minimum(days, LABEL_DELAY_LONGEST_DAYS) * DAY_US).astype(np.int64)
    never = rng.random(len(when)) < NEVER_LABELLED_SHARE
    return pa.array(when + delay, mask=never).cast(pa.timestamp("us", tz="UTC"))


def _device_ids(device: Ints) -> pa.Array:
    """Opaque names (splitmix64 of the number), null for -1."""
    mixed = device.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    names = np.char.mod("d%016x", mixed ^ (mixed >> np.uint64(31)))
    return pa.array(names, pa.string(), mask=device == NO_DEVICE)

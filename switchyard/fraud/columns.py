"""Every column of the fraud use case, once: name, type, unit, meaning, freshness, default, range.

Arrow schemas, Feast fields, Great Expectations suites, the request model, the documentation's table
and the reason codes are derived from these tables; nobody types a column's name list again. Money is an
integer in the currency's smallest unit everywhere but in FEATURES, where it is in major units.
Not here: how a column is computed (``windows``, ``activity``, ``features``).
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

Type = Literal["string", "int64", "float64", "bool", "timestamp"]
Freshness = Literal["request", "event", "daily"]
Measure = Literal[
    "tx_count", "amount_sum", "amount_square_sum", "amount_max", "night_count", "cross_border_count",
    "active_days", "device_bits", "country_bits", "label_count", "fraud_count",
]  # fmt: skip

CHANNELS = ("pos", "ecommerce", "atm", "moto")
MAX_AMOUNT_MINOR = 100_000_000
"""Largest amount accepted: its square, summed over a busy 30 days, still fits 64 bits."""
SMALL_AMOUNT_MINOR = 500
"""Below this an amount counts as small (card testing probes with a few units of money)."""
NIGHT_END_HOUR = 6
"""A transaction before this hour (UTC) is one of the night."""
PROFILE_AVAILABLE_HOUR = 2
"""A day's profile counts as available at this hour (UTC) of the day after."""
PROFILE_TTL_DAYS = 2
"""A profile older than this at the time of the transaction is not used, offline as online."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``default`` is the value of a cold start, ``low`` and ``high`` the plausible range."""

    name: str
    type: Type
    unit: str
    meaning: str
    freshness: Freshness = "request"
    nullable: bool = False
    default: float | None = None
    low: float | None = None
    high: float | None = None
    measure: Measure | None = None
    window_days: int | None = None
    reason: str | None = None


_ARROW: dict[Type, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The Arrow schema of a table of ``columns``, in their order."""
    return pa.schema([pa.field(c.name, _ARROW[c.type], c.nullable) for c in columns])


def names(columns: tuple[Column, ...]) -> list[str]:
    """The columns' names, in order.

    >>> names(LABEL)[0]
    'transaction_id'
    """
    return [c.name for c in columns]


def positions(columns: tuple[Column, ...]) -> Any:
    """Each column's index, as attributes of one named tuple; compiled code reads them as constants.

    >>> positions(LABEL).is_fraud
    4
    """
    return namedtuple("Positions", names(columns))(*range(len(columns)))


TRANSACTION: tuple[Column, ...] = (
    Column("transaction_id", "string", "id", "Identifies the transaction for good"),
    Column("customer_id", "string", "id", "The card or account that pays"),
    Column("terminal_id", "string", "id", "The terminal or shop that is paid"),
    Column("amount_minor", "int64", "minor unit", "Amount in the currency's smallest unit",
           low=0, high=MAX_AMOUNT_MINOR),
    Column("currency", "string", "ISO 4217", "Currency of the amount; one per home"),
    Column("event_timestamp", "timestamp", "UTC", "When the payment was asked for, to the microsecond"),
    Column("customer_country", "string", "ISO 3166 alpha-2", "Where the card was issued", nullable=True),
    Column("terminal_country", "string", "ISO 3166 alpha-2", "Where the terminal stands", nullable=True),
    Column("device_id", "string", "id", "The customer's device, where there is one", nullable=True),
    Column("channel", "string", "one of CHANNELS", "How the card was presented", nullable=True),
    Column("merchant_category", "string", "ISO 18245, 4 digits", "What the merchant sells", nullable=True),
)  # fmt: skip

LABEL: tuple[Column, ...] = (
    Column("transaction_id", "string", "id", "The transaction that was judged"),
    Column("customer_id", "string", "id", "Its customer, so that a label finds its key without a join"),
    Column("terminal_id", "string", "id", "Its terminal, for the same reason"),
    Column("event_timestamp", "timestamp", "UTC", "When the transaction took place"),
    Column("is_fraud", "bool", "true or false", "The verdict"),
    Column("label_available_at", "timestamp", "UTC", "When the verdict was known; null: never yet",
           nullable=True),
)  # fmt: skip

CUSTOMER_PROFILE: tuple[Column, ...] = (
    Column("customer_profile_day", "int64", "days since 1970-01-01", "Last day the profile covers", "daily"),
    Column("customer_tx_count_1d", "int64", "transactions", "Transactions, 1 day", "daily", low=0, measure="tx_count", window_days=1),
    Column("customer_tx_count_7d", "int64", "transactions", "Transactions, 7 days", "daily", low=0, measure="tx_count", window_days=7, default=0, reason="UNUSUAL_CARD_USE"),
    Column("customer_tx_count_30d", "int64", "transactions", "Transactions, 30 days", "daily", low=0, measure="tx_count", window_days=30, default=0, reason="LITTLE_CARD_HISTORY"),
    Column("customer_amount_sum_7d", "int64", "minor unit", "Spent, 7 days", "daily", low=0, measure="amount_sum", window_days=7),
    Column("customer_amount_sum_30d", "int64", "minor unit", "Spent, 30 days", "daily", low=0, measure="amount_sum", window_days=30),
    Column("customer_amount_square_sum_30d", "int64", "minor unit squared", "Sum of squared amounts, 30 days", "daily", low=0, measure="amount_square_sum", window_days=30),
    Column("customer_amount_max_7d", "int64", "minor unit", "Largest amount, 7 days", "daily", low=0, measure="amount_max", window_days=7),
    Column("customer_amount_max_30d", "int64", "minor unit", "Largest amount, 30 days", "daily", low=0, measure="amount_max", window_days=30),
    Column("customer_night_count_30d", "int64", "transactions", "Transactions at night, 30 days", "daily", low=0, measure="night_count", window_days=30),
    Column("customer_cross_border_count_30d", "int64", "transactions", "Transactions abroad, 30 days", "daily", low=0, measure="cross_border_count", window_days=30),
    Column("customer_active_days_30d", "int64", "days", "Days with a transaction, 30 days", "daily", low=0, high=30, measure="active_days", window_days=30, default=0, reason="RARELY_USED_CARD"),
    Column("customer_device_bits_30d", "int64", "64 bits", "Devices used, 30 days: bit (device hash modulo 64)", "daily", measure="device_bits", window_days=30),
    Column("customer_country_bits_30d", "int64", "64 bits", "Terminal countries, 30 days: bit (country code modulo 64)", "daily", measure="country_bits", window_days=30),
)  # fmt: skip

TERMINAL_PROFILE: tuple[Column, ...] = (
    Column("terminal_profile_day", "int64", "days since 1970-01-01", "Last day the profile covers", "daily"),
    Column("terminal_tx_count_1d", "int64", "transactions", "Transactions, 1 day", "daily", low=0, measure="tx_count", window_days=1),
    Column("terminal_tx_count_7d", "int64", "transactions", "Transactions, 7 days", "daily", low=0, measure="tx_count", window_days=7, default=0, reason="UNUSUAL_TERMINAL_USE"),
    Column("terminal_tx_count_30d", "int64", "transactions", "Transactions, 30 days", "daily", low=0, measure="tx_count", window_days=30, default=0, reason="LITTLE_TERMINAL_HISTORY"),
    Column("terminal_amount_sum_30d", "int64", "minor unit", "Taken, 30 days", "daily", low=0, measure="amount_sum", window_days=30),
    Column("terminal_amount_square_sum_30d", "int64", "minor unit squared", "Sum of squared amounts, 30 days", "daily", low=0, measure="amount_square_sum", window_days=30),
    Column("terminal_cross_border_count_30d", "int64", "transactions", "Transactions by foreign cards, 30 days", "daily", low=0, measure="cross_border_count", window_days=30),
    Column("terminal_label_count_7d", "int64", "labels", "Verdicts that arrived, 7 days", "daily", low=0, measure="label_count", window_days=7),
    Column("terminal_label_count_30d", "int64", "labels", "Verdicts that arrived, 30 days", "daily", low=0, measure="label_count", window_days=30),
    Column("terminal_fraud_count_7d", "int64", "labels", "Verdicts 'fraud' that arrived, 7 days", "daily", low=0, measure="fraud_count", window_days=7, default=0, reason="TERMINAL_WITH_RECENT_FRAUD"),
    Column("terminal_fraud_count_30d", "int64", "labels", "Verdicts 'fraud' that arrived, 30 days", "daily", low=0, measure="fraud_count", window_days=30, default=0, reason="TERMINAL_WITH_FRAUD"),
)  # fmt: skip

CUSTOMER_ACTIVITY: tuple[Column, ...] = (
    Column("customer_tx_count_1min", "int64", "transactions", "Transactions of the card, 1 minute", "event", low=0, high=256, default=0, reason="BURST_ON_CARD"),
    Column("customer_tx_count_10min", "int64", "transactions", "Transactions of the card, 10 minutes", "event", low=0, high=256, default=0, reason="BURST_ON_CARD_10_MIN"),
    Column("customer_tx_count_1h", "int64", "transactions", "Transactions of the card, 1 hour", "event", low=0, high=256, default=0, reason="MANY_PAYMENTS_IN_AN_HOUR"),
    Column("customer_tx_count_24h", "int64", "transactions", "Transactions of the card, 24 hours", "event", low=0, high=256, default=0, reason="MANY_PAYMENTS_IN_A_DAY"),
    Column("customer_amount_sum_24h", "int64", "minor unit", "Spent by the card, 24 hours", "event", low=0),
    Column("customer_amount_max_24h", "int64", "minor unit", "Largest amount of the card, 24 hours", "event", low=0),
    Column("customer_small_amount_count_1h", "int64", "transactions", "Small amounts of the card, 1 hour", "event", low=0, high=256, default=0, reason="CARD_TESTING"),
    Column("customer_terminal_count_24h", "int64", "terminals", "Distinct terminals of the card, 24 hours", "event", low=0, high=256, default=0, reason="MANY_TERMINALS_IN_A_DAY"),
    Column("customer_last_tx_age_us", "int64", "microseconds", "Since the card's last transaction; null: none in 30 days", "event", nullable=True, low=0),
    Column("customer_fraud_label_count_30d", "int64", "labels", "Verdicts 'fraud' on the card that arrived, 30 days", "event", low=0, high=256, default=0, reason="CARD_WITH_KNOWN_FRAUD"),
    Column("customer_terminal_seen_30d", "int64", "0 or 1", "The card used this terminal before, 30 days", "event", low=0, high=1),
    Column("customer_device_seen_30d", "int64", "0 or 1", "The card used this device before, 30 days; null: no device given", "event", nullable=True, low=0, high=1),
    Column("customer_country_seen_30d", "int64", "0 or 1", "The card paid in this country before, 30 days; null: no country given", "event", nullable=True, low=0, high=1),
)  # fmt: skip

TERMINAL_ACTIVITY: tuple[Column, ...] = (
    Column("terminal_tx_count_1h", "int64", "transactions", "Transactions at the terminal, 1 hour", "event", low=0, high=256, default=0, reason="BURST_AT_TERMINAL"),
    Column("terminal_small_amount_count_1h", "int64", "transactions", "Small amounts at the terminal, 1 hour", "event", low=0, high=256, default=0, reason="CARD_TESTING_AT_TERMINAL"),
    Column("terminal_customer_count_1h", "int64", "cards", "Distinct cards at the terminal, 1 hour", "event", low=0, high=256, default=0, reason="MANY_CARDS_AT_TERMINAL"),
    Column("terminal_fraud_label_count_24h", "int64", "labels", "Verdicts 'fraud' at the terminal that arrived, 24 hours", "event", low=0, high=256, default=0, reason="FRAUD_AT_TERMINAL_IN_A_DAY"),
    Column("terminal_fraud_label_count_30d", "int64", "labels", "Verdicts 'fraud' at the terminal that arrived, 30 days", "event", low=0, high=256, default=0, reason="FRAUD_AT_TERMINAL"),
    Column("terminal_last_fraud_label_age_us", "int64", "microseconds", "Since the last verdict 'fraud' arrived; null: none in 30 days", "event", nullable=True, low=0),
)  # fmt: skip

_MEASURED = {
    c.name: c for c in CUSTOMER_PROFILE + TERMINAL_PROFILE + CUSTOMER_ACTIVITY + TERMINAL_ACTIVITY
}


def _passed_on(name: str) -> Column:
    """A measured column that enters the vector as it is (as a float64, like all of FEATURES)."""
    return _MEASURED[name]


FEATURES: tuple[Column, ...] = (
    # the request itself
    Column("amount", "float64", "major unit", "Amount of the transaction", low=0, high=1e6, reason="LARGE_AMOUNT"),
    Column("hour", "float64", "hour of the day, UTC", "Hour of the transaction with its fraction", low=0, high=24, reason="UNUSUAL_HOUR"),
    Column("is_night", "float64", "0 or 1", "Between midnight and six, UTC", low=0, high=1, reason="AT_NIGHT"),
    Column("is_weekend", "float64", "0 or 1", "Saturday or Sunday, UTC", low=0, high=1, reason="AT_THE_WEEKEND"),
    Column("is_cross_border", "float64", "0 or 1", "Terminal's country is not the card's", nullable=True, low=0, high=1, reason="CROSS_BORDER"),
    Column("channel_code", "float64", "index into CHANNELS", "How the card was presented", nullable=True, low=0, high=3, reason="RISKY_CHANNEL"),
    Column("merchant_category_code", "float64", "ISO 18245", "What the merchant sells", nullable=True, low=0, high=9999, reason="RISKY_MERCHANT_CATEGORY"),
    # the card's habit, by its profile
    _passed_on("customer_tx_count_7d"),
    _passed_on("customer_tx_count_30d"),
    Column("customer_mean_amount_30d", "float64", "major unit", "Mean amount of the card, 30 whole days", "daily", nullable=True, low=0, reason="UNUSUAL_CARD_SPENDING"),
    Column("amount_to_mean_7d", "float64", "ratio", "Amount over the card's mean, 7 whole days", "daily", nullable=True, low=0, reason="AMOUNT_ABOVE_RECENT_USUAL"),
    Column("amount_to_mean_30d", "float64", "ratio", "Amount over the card's mean, 30 whole days", "daily", nullable=True, low=0, reason="AMOUNT_FAR_ABOVE_USUAL"),
    Column("amount_deviations_30d", "float64", "standard deviations", "Amount's distance from the card's mean, 30 whole days", "daily", nullable=True, reason="AMOUNT_OUTSIDE_HABIT"),
    Column("amount_to_max_7d", "float64", "ratio", "Amount over the card's largest, 7 whole days", "daily", nullable=True, low=0, reason="LARGEST_AMOUNT_IN_7_DAYS"),
    Column("amount_to_max_30d", "float64", "ratio", "Amount over the card's largest, 30 whole days", "daily", nullable=True, low=0, reason="LARGEST_AMOUNT_IN_30_DAYS"),
    Column("customer_count_ratio_1d_30d", "float64", "ratio", "Card's transactions of 1 day over its daily mean of 30", "daily", nullable=True, low=0, reason="CARD_BUSIER_THAN_USUAL"),
    Column("customer_amount_ratio_7d_30d", "float64", "ratio", "Card's mean amount of 7 days over that of 30", "daily", nullable=True, low=0, reason="CARD_SPENDS_MORE_THAN_USUAL"),
    Column("customer_night_share_30d", "float64", "share", "Card's transactions at night, 30 whole days", "daily", nullable=True, low=0, high=1, reason="NIGHT_HABIT"),
    Column("customer_cross_border_share_30d", "float64", "share", "Card's transactions abroad, 30 whole days", "daily", nullable=True, low=0, high=1, reason="TRAVEL_HABIT"),
    _passed_on("customer_active_days_30d"),
    # the terminal's habit, by its profile
    _passed_on("terminal_tx_count_7d"),
    _passed_on("terminal_tx_count_30d"),
    Column("terminal_mean_amount_30d", "float64", "major unit", "Mean amount at the terminal, 30 whole days", "daily", nullable=True, low=0, reason="TERMINAL_PRICE_LEVEL"),
    Column("amount_to_terminal_mean_30d", "float64", "ratio", "Amount over the terminal's mean, 30 whole days", "daily", nullable=True, low=0, reason="AMOUNT_ABOVE_TERMINAL_USUAL"),
    Column("amount_deviations_terminal_30d", "float64", "standard deviations", "Amount's distance from the terminal's mean, 30 whole days", "daily", nullable=True, reason="AMOUNT_UNUSUAL_AT_TERMINAL"),
    Column("terminal_count_ratio_1d_30d", "float64", "ratio", "Terminal's transactions of 1 day over its daily mean of 30", "daily", nullable=True, low=0, reason="TERMINAL_BUSIER_THAN_USUAL"),
    Column("terminal_cross_border_share_30d", "float64", "share", "Terminal's transactions by foreign cards, 30 whole days", "daily", nullable=True, low=0, high=1, reason="TERMINAL_WITH_FOREIGN_CARDS"),
    _passed_on("terminal_fraud_count_7d"),
    _passed_on("terminal_fraud_count_30d"),
    Column("terminal_fraud_share_7d", "float64", "share", "'Fraud' among the terminal's verdicts, 7 whole days", "daily", nullable=True, low=0, high=1, reason="TERMINAL_RECENT_FRAUD_RATE"),
    Column("terminal_fraud_share_30d", "float64", "share", "'Fraud' among the terminal's verdicts, 30 whole days", "daily", nullable=True, low=0, high=1, reason="TERMINAL_FRAUD_RATE"),
    # the card's activity, exact to the event
    _passed_on("customer_tx_count_1min"),
    _passed_on("customer_tx_count_10min"),
    _passed_on("customer_tx_count_1h"),
    _passed_on("customer_tx_count_24h"),
    Column("customer_amount_24h", "float64", "major unit", "Spent by the card, 24 hours", "event", default=0, low=0, reason="MUCH_SPENT_IN_A_DAY"),
    Column("customer_max_amount_24h", "float64", "major unit", "Largest amount of the card, 24 hours", "event", default=0, low=0, reason="LARGE_AMOUNT_IN_A_DAY"),
    _passed_on("customer_small_amount_count_1h"),
    _passed_on("customer_terminal_count_24h"),
    Column("customer_hours_since_last_tx", "float64", "hours", "Since the card's last transaction", "event", nullable=True, low=0, high=720, reason="TIME_SINCE_LAST_PAYMENT"),
    _passed_on("customer_fraud_label_count_30d"),
    Column("is_new_terminal", "float64", "0 or 1", "First use of the terminal by the card in 30 days", "event", default=1, low=0, high=1, reason="NEW_TERMINAL"),
    Column("is_new_device", "float64", "0 or 1", "Device in neither the card's activity nor its profile", "event", nullable=True, low=0, high=1, reason="NEW_DEVICE"),
    Column("is_new_country", "float64", "0 or 1", "Country in neither the card's activity nor its profile", "event", nullable=True, low=0, high=1, reason="NEW_COUNTRY"),
    # the terminal's activity, exact to the event
    _passed_on("terminal_tx_count_1h"),
    _passed_on("terminal_small_amount_count_1h"),
    _passed_on("terminal_customer_count_1h"),
    _passed_on("terminal_fraud_label_count_24h"),
    _passed_on("terminal_fraud_label_count_30d"),
    Column("terminal_hours_since_fraud_label", "float64", "hours", "Since the last verdict 'fraud' at the terminal", "event", nullable=True, low=0, high=720, reason="TIME_SINCE_FRAUD_AT_TERMINAL"),
)  # fmt: skip

FEATURE_SERVICE = "fraud_v1"
"""Name of the feature service: FEATURES in this order is the model's contract."""

"""The feature vector: request, profiles and activity become the FEATURES, in their order.

One compiled loop for one waiting request and for a million rows of the past. Sums come in as integers;
each mean, deviation or ratio is computed from them here, once, in a fixed order, with + - * / and sqrt
only, so that every caller gets the same bits. Not here: how sums and windows are made (``windows``,
``activity``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from switchyard import compiling
from switchyard.errors import InputError, LakeError
from switchyard.fraud.columns import (
    CHANNELS,
    CUSTOMER_ACTIVITY,
    CUSTOMER_PROFILE,
    FEATURES,
    NIGHT_END_HOUR,
    TERMINAL_ACTIVITY,
    TERMINAL_PROFILE,
    TRANSACTION,
    arrow_schema,
    names,
    positions,
)
from switchyard.fraud.events import MISSING, Ints, country_codes, hashes, keys_of, micros
from switchyard.fraud.money import minor_units as minor_units_of
from switchyard.fraud.sliding import DAY_US, HOUR_US, compiled
from switchyard.fraud.windows import profiles_as_of
from switchyard.lake import Lake

Floats = npt.NDArray[np.float64]

COMPUTING_MODULES = (
    "columns", "events", "sliding", "activity", "windows", "money", "features",
    "requests", "assembly", "online",
)  # fmt: skip
"""The modules whose source decides what a column holds, beside ``switchyard.compiling``."""

_TABLES = (CUSTOMER_PROFILE, TERMINAL_PROFILE, CUSTOMER_ACTIVITY, TERMINAL_ACTIVITY)
_F, _CP, _TP, _CA, _TA = (positions(table) for table in (FEATURES, *_TABLES))
_DEFAULTS = np.array([np.nan if c.default is None else c.default for c in FEATURES])
_PASSED_ON = tuple(
    np.array([(to, table.index(c)) for to, c in enumerate(FEATURES) if c in table], np.int64)
    for table in _TABLES
)
_FROM_CP, _FROM_TP, _FROM_CA, _FROM_TA = _PASSED_ON
_NO_SPREAD = 1e-12
"""A variance below this share of the squared mean is rounding noise: no deviation can be told."""


@dataclass(frozen=True, slots=True)
class Requests:
    """What the vector needs of n transactions, as arrays of length n; -1 or 0 stands for null.

    ``amount_minor`` and ``event_timestamp`` (microseconds since 1970) int64, ``cross_border`` int8 (-1
    null), ``channel`` int8 (index into CHANNELS, -1 null), ``merchant_category`` int32 (-1 null),
    ``device`` int64 (stable_hash, 0 null), ``country`` uint16 (country_code, 0 null).
    """

    amount_minor: Ints
    event_timestamp: Ints
    cross_border: npt.NDArray[np.int8]
    channel: npt.NDArray[np.int8]
    merchant_category: npt.NDArray[np.int32]
    device: Ints
    country: npt.NDArray[np.uint16]


def requests_of(transactions: pa.Table) -> Requests:
    """Rows of the TRANSACTION schema as Requests, in their order."""
    abroad = pc.not_equal(transactions["customer_country"], transactions["terminal_country"])
    channel = pc.index_in(transactions["channel"], pa.array(CHANNELS))
    category = transactions["merchant_category"].cast(pa.int32())
    return Requests(
        amount_minor=transactions["amount_minor"].to_numpy(),
        event_timestamp=micros(transactions["event_timestamp"]),
        cross_border=_or_null(abroad.cast(pa.int8())),
        channel=_or_null(channel.cast(pa.int8())),
        merchant_category=_or_null(category),
        device=hashes(transactions["device_id"]),
        country=country_codes(transactions["terminal_country"]),
    )


def _or_null(column: pa.ChunkedArray) -> Any:
    return pc.fill_null(column, -1).to_numpy()


# ---------------------------------------------------------------- formulas


@compiled
def _mean(total: int, count: int) -> float:
    return total / count if count > 0 else np.nan


@compiled
def _ratio(value: float, base: float) -> float:
    """``value / base``; NaN where there is no base to compare with."""
    return value / base if base > 0 else np.nan


@compiled
def _deviations(value: int, count: int, total: int, square_total: int) -> Any:
    """Distance of ``value`` from the mean, in standard deviations of the population.

    In float64 from the start, since ``count * square_total`` can pass 64 bits: variance = count *
    square_total - total^2, mean = total / count, deviation = sqrt(variance) / count.
    """
    if count < 2:
        return np.nan
    squared = float(total) * float(total)
    variance = float(count) * float(square_total) - squared
    if variance <= _NO_SPREAD * squared:
        return np.nan
    return (value - total / count) / (np.sqrt(variance) / count)


@compiled
def _pass_on(out: Floats, row: Ints, columns: Ints) -> None:
    for i in range(len(columns)):
        if row[columns[i, 1]] != MISSING:
            out[columns[i, 0]] = row[columns[i, 1]]


@compiled
def _from_request(
    out: Floats,
    amount: int,
    at: int,
    cross_border: int,
    channel: int,
    category: int,
    minor_units: int,
) -> None:
    hour = (at % DAY_US) / HOUR_US
    out[_F.amount] = amount / minor_units
    out[_F.hour] = hour
    out[_F.is_night] = hour < NIGHT_END_HOUR
    out[_F.is_weekend] = (at // DAY_US + 3) % 7 >= 5  # day 0 was a Thursday
    if cross_border >= 0:
        out[_F.is_cross_border] = cross_border
    if channel >= 0:
        out[_F.channel_code] = channel
    if category >= 0:
        out[_F.merchant_category_code] = category


@compiled
def _from_customer_profile(out: Floats, amount: int, of: Ints, minor_units: int) -> None:
    count = of[_CP.customer_tx_count_30d]
    mean_7d = _mean(of[_CP.customer_amount_sum_7d], of[_CP.customer_tx_count_7d])
    mean_30d = _mean(of[_CP.customer_amount_sum_30d], count)
    out[_F.customer_mean_amount_30d] = mean_30d / minor_units
    out[_F.amount_to_mean_7d] = _ratio(amount, mean_7d)
    out[_F.amount_to_mean_30d] = _ratio(amount, mean_30d)
    out[_F.amount_deviations_30d] = _deviations(
        amount,
        count,
        of[_CP.customer_amount_sum_30d],
        of[_CP.customer_amount_square_sum_30d],
    )
    out[_F.amount_to_max_7d] = _ratio(amount, of[_CP.customer_amount_max_7d])
    out[_F.amount_to_max_30d] = _ratio(amount, of[_CP.customer_amount_max_30d])
    out[_F.customer_count_ratio_1d_30d] = _ratio(30.0 * of[_CP.customer_tx_count_1d], count)
    out[_F.customer_amount_ratio_7d_30d] = _ratio(mean_7d, mean_30d)
    out[_F.customer_night_share_30d] = _ratio(of[_CP.customer_night_count_30d], count)
    out[_F.customer_cross_border_share_30d] = _ratio(of[_CP.customer_cross_border_count_30d], count)


@compiled
def _from_terminal_profile(out: Floats, amount: int, of: Ints, minor_units: int) -> None:
    count = of[_TP.terminal_tx_count_30d]
    mean = _mean(of[_TP.terminal_amount_sum_30d], count)
    out[_F.terminal_mean_amount_30d] = mean / minor_units
    out[_F.amount_to_terminal_mean_30d] = _ratio(amount, mean)
    out[_F.amount_deviations_terminal_30d] = _deviations(
        amount,
        count,
        of[_TP.terminal_amount_sum_30d],
        of[_TP.terminal_amount_square_sum_30d],
    )
    out[_F.terminal_count_ratio_1d_30d] = _ratio(30.0 * of[_TP.terminal_tx_count_1d], count)
    out[_F.terminal_cross_border_share_30d] = _ratio(of[_TP.terminal_cross_border_count_30d], count)
    out[_F.terminal_fraud_share_7d] = _ratio(
        of[_TP.terminal_fraud_count_7d], of[_TP.terminal_label_count_7d]
    )
    out[_F.terminal_fraud_share_30d] = _ratio(
        of[_TP.terminal_fraud_count_30d], of[_TP.terminal_label_count_30d]
    )


@compiled
def _from_activity(out: Floats, customer: Ints, terminal: Ints, minor_units: int) -> None:
    if customer[_CA.customer_amount_sum_24h] != MISSING:
        out[_F.customer_amount_24h] = customer[_CA.customer_amount_sum_24h] / minor_units
        out[_F.customer_max_amount_24h] = customer[_CA.customer_amount_max_24h] / minor_units
    if customer[_CA.customer_last_tx_age_us] != MISSING:
        out[_F.customer_hours_since_last_tx] = customer[_CA.customer_last_tx_age_us] / HOUR_US
    if terminal[_TA.terminal_last_fraud_label_age_us] != MISSING:
        age = terminal[_TA.terminal_last_fraud_label_age_us]
        out[_F.terminal_hours_since_fraud_label] = age / HOUR_US


@compiled
def _novelty(out: Floats, device: int, country: int, profile: Ints, activity: Ints) -> None:
    """New is what neither the activity nor, if there is one, the profile has seen."""
    known = profile[_CP.customer_profile_day] != MISSING
    out[_F.is_new_terminal] = activity[_CA.customer_terminal_seen_30d] != 1
    if device != 0:
        bit = profile[_CP.customer_device_bits_30d] >> (device & 63) & 1
        seen = activity[_CA.customer_device_seen_30d] == 1 or (known and bit == 1)
        out[_F.is_new_device] = not seen
    if country != 0:
        bit = profile[_CP.customer_country_bits_30d] >> (country & 63) & 1
        seen = activity[_CA.customer_country_seen_30d] == 1 or (known and bit == 1)
        out[_F.is_new_country] = not seen


@compiled
def fill_vector(
    out: Floats,
    amount: int,
    at: int,
    cross_border: int,
    channel: int,
    category: int,
    device: int,
    country: int,
    customer_profile: Ints,
    terminal_profile: Ints,
    customer_activity: Ints,
    terminal_activity: Ints,
    minor_units: int,
) -> None:
    """One vector, float64[50], from one row of each thing that :func:`vectors` takes."""
    for j in range(len(_DEFAULTS)):
        out[j] = _DEFAULTS[j]
    _pass_on(out, customer_profile, _FROM_CP)
    _pass_on(out, terminal_profile, _FROM_TP)
    _pass_on(out, customer_activity, _FROM_CA)
    _pass_on(out, terminal_activity, _FROM_TA)
    _from_request(out, amount, at, cross_border, channel, category, minor_units)
    _from_customer_profile(out, amount, customer_profile, minor_units)
    _from_terminal_profile(out, amount, terminal_profile, minor_units)
    _from_activity(out, customer_activity, terminal_activity, minor_units)
    _novelty(out, device, country, customer_profile, customer_activity)


@compiled
def _fill(
    out: Floats,
    amount_minor: Ints,
    event_timestamp: Ints,
    cross_border: npt.NDArray[np.int8],
    channel: npt.NDArray[np.int8],
    merchant_category: npt.NDArray[np.int32],
    device: Ints,
    country: npt.NDArray[np.uint16],
    customer_profiles: Ints,
    terminal_profiles: Ints,
    customer_activity: Ints,
    terminal_activity: Ints,
    minor_units: int,
) -> None:
    for i in range(len(out)):
        fill_vector(
            out[i],
            amount_minor[i],
            event_timestamp[i],
            cross_border[i],
            channel[i],
            merchant_category[i],
            device[i],
            int(country[i]),
            customer_profiles[i],
            terminal_profiles[i],
            customer_activity[i],
            terminal_activity[i],
            minor_units,
        )


# ---------------------------------------------------------------- vectors


def vectors(
    requests: Requests,
    customer_profiles: Ints,
    terminal_profiles: Ints,
    customer_activity: Ints,
    terminal_activity: Ints,
    minor_units: int = 100,
) -> Floats:
    """float64[n, 50] in the order of FEATURES, NaN where there is neither value nor default.

    ``customer_profiles`` int64[n, 14], ``terminal_profiles`` int64[n, 11], ``customer_activity`` int64[n,
    13], ``terminal_activity`` int64[n, 6] in the orders of their tables; null is MISSING, no profile (or
    no activity known) a row full of it. ``minor_units``: how many make one of the major unit.
    """
    out = np.empty((len(requests.amount_minor), len(FEATURES)))
    _fill(
        out,
        np.array(requests.amount_minor, np.int64),
        np.array(requests.event_timestamp, np.int64),
        np.array(requests.cross_border, np.int8),
        np.array(requests.channel, np.int8),
        np.array(requests.merchant_category, np.int32),
        np.array(requests.device, np.int64),
        np.array(requests.country, np.uint16),
        np.ascontiguousarray(customer_profiles),
        np.ascontiguousarray(terminal_profiles),
        np.ascontiguousarray(customer_activity),
        np.ascontiguousarray(terminal_activity),
        minor_units,
    )
    return out


def compile_vectors() -> None:
    """Compile what the functions here run, or find it compiled: seconds, once for an environment."""
    requests = requests_of(arrow_schema(TRANSACTION).empty_table())
    cp, tp, ca, ta = (np.empty((0, len(table)), np.int64) for table in _TABLES)
    vectors(requests, cp, tp, ca, ta)


def vectors_of(
    lake: Lake, transactions: pa.Table, profiles: tuple[Ints, Ints] | None = None
) -> Floats:
    """The vectors of past transactions, float64[n, 50] in their order: what batch and backtest score.

    From the lake's ``activity_windows`` and the profiles usable at each one's moment: ``profiles`` if
    they are known already (int64[n, 14] and int64[n, 11], from a feature store's point-in-time join),
    else looked up in the lake. Raises LakeError if the activity of a transaction is not there,
    InputError if more than one currency is among them.
    """
    if not len(transactions):
        return np.empty((0, len(FEATURES)))
    currencies = transactions["currency"].unique().to_pylist()
    if len(currencies) != 1:
        raise InputError(
            f"transactions in {currencies} can't share vectors; a home has one currency"
        )
    known = profiles if profiles is not None else profiles_as_of(lake, transactions)
    activity = activity_of(lake, transactions)
    return vectors(requests_of(transactions), *known, *activity, minor_units_of(currencies[0]))


def profile_matrices(joined: pa.Table) -> tuple[Ints, Ints]:
    """Columns of both profiles as int64[n, 14] and int64[n, 11], MISSING for null; rows in their order."""
    rows = np.arange(len(joined))
    return _matrix(joined, names(CUSTOMER_PROFILE), rows), _matrix(
        joined, names(TERMINAL_PROFILE), rows
    )


def activity_of(lake: Lake, transactions: pa.Table) -> tuple[Ints, Ints]:
    """Rows of ``activity_windows`` of the transactions, in their order: int64[n, 13] and int64[n, 6].

    Raises LakeError if one is not there.
    """
    span = pc.min_max(transactions["event_timestamp"])
    first, last = (span[end].as_py().date() for end in ("min", "max"))
    windows = lake.read("activity_windows", first, last)
    found = pc.index_in(keys_of(transactions), keys_of(windows))
    if found.null_count:
        missing = transactions["transaction_id"].filter(pc.is_null(found))
        raise LakeError(
            f"'activity_windows' lacks {len(missing)} of {len(found)} transactions from {first} to "
            f"{last}, first {missing[0]}; materialize it for these days first"
        )
    rows = found.to_numpy()
    return _matrix(windows, names(CUSTOMER_ACTIVITY), rows), _matrix(
        windows, names(TERMINAL_ACTIVITY), rows
    )


def _matrix(table: pa.Table, columns: list[str], rows: Ints) -> Ints:
    out = np.empty((len(rows), len(columns)), np.int64)
    for i, name in enumerate(columns):
        out[:, i] = pc.fill_null(table[name], MISSING).to_numpy()[rows]
    return out


def code_hash() -> str:
    """SHA-256 (hex) over the source of the modules that compute the columns."""
    digest = hashlib.sha256()
    here = [Path(__file__).with_name(f"{module}.py") for module in COMPUTING_MODULES]
    for path in (Path(compiling.__file__), *here):
        digest.update(path.read_text("utf-8").encode())
    return digest.hexdigest()

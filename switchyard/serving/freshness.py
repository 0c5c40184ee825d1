"""How old a profile may be: one rule, equal to Feast's offline ttl whenever the syncs are on time.

All times are microseconds since 1970, in event time; available_at is the moment from which a day's
profile counts. Not here: reading the times (``online_store``).
"""

from __future__ import annotations

from typing import Literal

from switchyard import compiling
from switchyard.serving.feast_format import MISSING

ProfileState = Literal["current", "stale", "expired", "overdue"]
STATES: tuple[ProfileState, ...] = ("current", "stale", "expired", "overdue")
CURRENT, STALE, EXPIRED, OVERDUE = range(4)
"""Places in STATES: how compiled code tells a state."""

PERIOD_US = 86_400_000_000
"""A view is synced once a day."""
OVERDUE_LIMIT_US = 7 * PERIOD_US
"""How long after a missed sync the last known profiles are still used."""


def profile_state(available_at: int, moment: int, synced_through: int, ttl_us: int) -> ProfileState:
    """What a stored profile of ``available_at`` is to a transaction at ``moment``.

    ``synced_through`` is the newest available_at whose sync is complete (MISSING: none known; a row is
    then its own witness). 'current': no newer one can be due, so it is the one that training would have
    joined. 'stale': the next sync was due before ``moment`` and is not complete; the row is judged as of
    that time, and used. 'expired': older than ``ttl_us`` (or not there at all, available_at MISSING); the
    defaults apply, as they would in training. 'overdue': the next sync is late by more than
    OVERDUE_LIMIT_US; the defaults apply for want of anything better. A late transaction may meet a
    profile from after its own moment: 'current', since nothing newer is missing.

    >>> day = PERIOD_US
    >>> profile_state(10 * day, 10 * day + 5, 10 * day, 2 * day)
    'current'
    >>> profile_state(9 * day, 10 * day + 5, 10 * day, 2 * day)  # the key has been quiet for a day
    'current'
    >>> profile_state(10 * day, 11 * day + 5, 10 * day, 2 * day)  # the sync of day 11 is late
    'stale'
    >>> profile_state(8 * day, 10 * day + 5, 10 * day, 2 * day)
    'expired'
    >>> profile_state(10 * day, 19 * day, 10 * day, 2 * day)
    'overdue'
    """
    return STATES[state_of(available_at, moment, synced_through, ttl_us)]


def _compiled_rule(available_at: int, moment: int, synced_through: int, ttl_us: int) -> int:
    newest = max(available_at, synced_through)
    if newest == MISSING:
        return EXPIRED
    next_due = newest + PERIOD_US
    if moment - next_due > OVERDUE_LIMIT_US:
        return OVERDUE
    if available_at < min(moment, next_due) - ttl_us:
        return EXPIRED
    return CURRENT if moment < next_due else STALE


state_of = compiling.compiled(_compiled_rule, compiled_in=("feast_format",))
"""The same as a place in STATES, for one call or from compiled code."""

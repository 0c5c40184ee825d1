"""Exploration: a random share of would-be blocks goes to review instead, so that some of what is blocked gets a verdict.

A blocked transaction never shows whether it was fraud, so a model judged on what it let through is judged by its own
choice. Each choice is journalled with its propensity, the chance with which it was made (Swaminathan and Joachims,
*Batch learning from logged bandit feedback through counterfactual risk minimization*, JMLR 16, 2015), and
``learning.inverse_propensity`` puts the metrics right. Not here: models that were degraded and rules are never explored.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mmh3
import numpy as np

from switchyard.settings import Settings

SPENT = np.dtype([("transaction", "<u8"), ("amount_minor", "<i8")])
"""One transaction that was explored, in the file of its day."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a would-be block goes to review, and the chance with which it was decided so."""

    explored: bool
    propensity: float


class Exploration:
    """Chooses among would-be blocks; all workers of a host share ``folder`` and with it the day's budget.

    ``share`` is the chance of each, from 0 to 1; an amount over ``most_minor`` is never explored, nor are more than
    ``budget_minor`` in a day of the service's clock (UTC). Money is in the currency's smallest unit.
    """

    def __init__(self, folder: Path, share: float, most_minor: int, budget_minor: int) -> None:
        self._folder = folder
        self._share = share
        self._most_minor = most_minor
        self._budget_minor = budget_minor

    def choose(self, transaction_id: str, amount_minor: int, received_us: int) -> Choice | None:
        """The choice on a would-be block; None where there is none, since the amount or the day's budget forbids it.

        The same for a transaction however often, and in whichever worker, it is asked. Raises OSError if the day's
        file can't be kept: nothing may be explored then.
        """
        if amount_minor > self._most_minor:
            return None
        number = _number(transaction_id)
        drawn = number < self._share * 2.0**64
        day = datetime.fromtimestamp(received_us / 1e6, UTC).date()
        with self._alone(f"{day}") as file:
            spent = np.frombuffer(os.pread(file, os.fstat(file).st_size, 0), SPENT)
            yesterday = self._folder / f"{day - timedelta(days=1)}"
            if number in spent["transaction"] or (drawn and _holds(yesterday, number)):
                return Choice(True, self._share)
            if int(spent["amount_minor"].sum()) + amount_minor > self._budget_minor:
                return None
            if not drawn:
                return Choice(False, 1 - self._share)
            os.write(file, np.array([(number, amount_minor)], SPENT).tobytes())
            return Choice(True, self._share)

    @contextmanager
    def _alone(self, day: str) -> Iterator[int]:
        """The day's file, no other worker at it; the lock goes with its process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._folder / day, flags, 0o640)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            if torn := size % SPENT.itemsize:  # a process died while it wrote
                os.ftruncate(file, size - torn)
            yield file
        finally:
            os.close(file)


def _holds(path: Path, number: int) -> bool:
    """Whether the file of the day before has the transaction: asked again after midnight, it costs nothing anew."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    whole = len(content) - len(content) % SPENT.itemsize
    return number in np.frombuffer(content[:whole], SPENT)["transaction"]


def _number(transaction_id: str) -> int:
    """What is drawn for a transaction, and stands for it in the file of its day."""
    return mmh3.hash64(f"explore:{transaction_id}", signed=False)[0]


def take_out(folder: Path, transaction_ids: Iterable[str], *, dry_run: bool = False) -> int:
    """Take transactions out of the days below ``folder``; how many. What they cost stays spent."""
    numbers = np.fromiter(map(_number, transaction_ids), np.uint64)
    found = 0
    for day in sorted(folder.glob("????-??-??")):
        with day.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            content = file.read()
            spent = np.frombuffer(
                content[: len(content) - len(content) % SPENT.itemsize], SPENT
            ).copy()
            own = np.isin(spent["transaction"], numbers)
            if own.any() and not dry_run:
                spent["transaction"][own] = 0
                os.pwrite(file.fileno(), spent.tobytes(), 0)
            found += int(own.sum())
    return found


def exploration_of(settings: Settings) -> Exploration | None:
    """As the home's settings say; None where it is off."""
    if not settings.exploration_share:
        return None
    return Exploration(
        settings.exploration,
        settings.exploration_share,
        settings.exploration_most_minor,
        settings.exploration_budget_minor,
    )

"""Sums over decisions, kept by arm and slice of customers: all that the tests of a canary need to remember.

Decisions of one customer resemble each other, so a variance over decisions would be far too small. Here each customer
belongs to one of SLICES slices by a hash of its own, a slice's sums in both arms are a pair, and a variance is the
sum of squares over pairs: whatever correlates within a customer lies within one slice. Under equal arms a pair
changes sign with its arms, so that sum / sqrt(sum of squares) is sub-Gaussian at any sample size and for any tail (de
la Pena, *A general class of exponential inequalities for martingales and ratios*, Annals of Probability 27,
1999). Its size does not grow, and no customer's name is in it. Not here: what the columns mean (``canary``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from switchyard.errors import InputError
from switchyard.learning import Floats, Ints

SLICES = 256
ARMS = ("challenger", "control")
CHALLENGER, CONTROL, NEITHER = 0, 1, 2
"""Codes of the arms; NEITHER is the champion's traffic outside the experiment."""
Hashes = npt.NDArray[np.uint64]


def slice_of(customer: Hashes) -> Ints:
    """The slice uint64 hashes of customers belong to.

    >>> slice_of(np.array([1, 2, 3], np.uint64)).tolist()
    [175, 244, 79]
    """
    return (mixed(customer) % np.uint64(SLICES)).astype(np.int64)


def mixed(customer: Hashes) -> Hashes:
    """splitmix64 of the hashes: bits that say nothing of the arm."""
    bits = customer.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(bits ^ (bits >> np.uint64(31)))


@dataclass(frozen=True)
class Totals:
    """Sums of columns and their products over slices, at one look or at many (leading axes).

    ``sums`` float64 [..., 2k] holds the challenger's columns, then the control's; ``products`` float64
    [..., 2k, 2k] the sums over slices of the products of two of them.
    """

    columns: tuple[str, ...]
    sums: Floats
    products: Floats

    def at(self, arm: int, column: str) -> int:
        """Place of an arm's column."""
        return arm * len(self.columns) + self.columns.index(column)

    def of(self, arm: int, column: str) -> Floats:
        """An arm's sum of a column, [...]."""
        return np.asarray(self.sums[..., self.at(arm, column)])

    def product(self, one: int, other: int) -> Floats:
        """Sum over slices of the product of the columns at two places, [...]."""
        return np.asarray(self.products[..., one, other])

    def with_column(self, name: str, parts: Mapping[str, Floats]) -> Totals:
        """These and one more column: in each arm the sum of ``parts``, columns by their weights [...]."""
        k = len(self.columns)
        weights = np.zeros((*self.sums.shape[:-1], 2 * k, 2 * k + 2))
        for arm in (CHALLENGER, CONTROL):
            for i in range(k):
                weights[..., arm * k + i, arm * (k + 1) + i] = 1
            for column, weight in parts.items():
                weights[..., self.at(arm, column), arm * (k + 1) + k] = weight
        return Totals(
            (*self.columns, name),
            np.einsum("...i,...ij->...j", self.sums, weights),
            np.swapaxes(weights, -1, -2) @ self.products @ weights,
        )


@dataclass(frozen=True)
class Slices:
    """``values`` float64 [SLICES, 2, k]: sums of ``columns`` by slice and arm."""

    columns: tuple[str, ...]
    values: Floats

    @classmethod
    def empty(cls, columns: Sequence[str]) -> Slices:
        return cls(tuple(columns), np.zeros((SLICES, len(ARMS), len(columns))))

    def plus(self, arm: Ints, customer: Hashes, rows: Floats) -> Slices:
        """These and the ``rows`` float64 [n, k] of decisions; those in neither arm are left out."""
        inside = arm != NEITHER
        place = slice_of(customer[inside]) * len(ARMS) + arm[inside]
        added = [
            np.bincount(place, column[inside], SLICES * len(ARMS)).reshape(SLICES, len(ARMS))
            for column in rows.T
        ]
        return Slices(self.columns, self.values + np.stack(added, axis=-1))

    @cached_property
    def totals(self) -> Totals:
        return totals_of(self.columns, self.values)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"columns": list(self.columns), "values": self.values.tolist()}

    @classmethod
    def of_record(cls, record: Mapping[str, Any], columns: Sequence[str]) -> Slices:
        """What ``record`` made. Raises InputError if it holds other columns than ``columns``."""
        values = np.array(record["values"], dtype=np.float64)
        if tuple(record["columns"]) != tuple(columns) or values.shape[0] != SLICES:
            raise InputError(
                f"the canary's sums have the columns {record['columns']} in {len(values)} slices, this code's "
                f"are {list(columns)} in {SLICES}; begin the experiment anew"
            )
        return cls(tuple(columns), values)


def totals_of(columns: tuple[str, ...], values: Floats) -> Totals:
    """Totals of slices float64 [..., SLICES, 2, k], any number of looks at once."""
    flat = values.reshape(*values.shape[:-2], -1)
    return Totals(columns, flat.sum(axis=-2), np.swapaxes(flat, -1, -2) @ flat)

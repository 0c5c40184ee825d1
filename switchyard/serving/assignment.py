"""Whose decisions are the challenger's: one place in [0, 1) for each customer and experiment, and two slices of it.

A place is a salted hash (MurmurHash3, 32 bits), so it needs no memory, is the same on every worker, and says
nothing about the place in another experiment (Kohavi, Tang and Xu, Trustworthy Online Controlled Experiments,
2020, ch. 14). The challenger's slice grows from 0, the control's from 1/2: so nobody changes from one to the
other when the share grows. Not here: what is done with a variant (``variants``).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Literal

import mmh3
import numpy as np
import numpy.typing as npt

from switchyard.serving.plan import MOST_SHARE, Plan

Variant = Literal["champion", "control", "challenger"]

_PLACES = 1 << 32


class Assignment:
    """The variant of each customer under one plan; all are the champion's where there is no canary.

    >>> plan = Plan(bento="a" * 32, champion="a" * 32)
    >>> Assignment(plan).variant_of("customer-1")
    'champion'
    """

    def __init__(self, plan: Plan | None) -> None:
        share = plan.share if plan is not None and plan.mode == "canary" else 0.0
        self._seed = _seed(plan.salt if plan is not None else "")
        self._share = round(share * _PLACES)
        self._control = round(MOST_SHARE * _PLACES), round((MOST_SHARE + share) * _PLACES)
        self.splits = share > 0
        """Whether there is more than one variant."""

    def variant_of(self, customer: str) -> Variant:
        """The variant of one customer, in less than a microsecond."""
        place = mmh3.hash(customer, self._seed, False)
        if place < self._share:
            return "challenger"
        first, end = self._control
        return "control" if first <= place < end else "champion"


def places(customers: Iterable[str], salt: str) -> npt.NDArray[np.float64]:
    """The places of customers in [0, 1), for whoever looks at many: challenger below the share, control from
    MOST_SHARE on for as much.

    >>> bool((places(["a", "b"], "salt") < 1).all())
    True
    """
    seed = _seed(salt)
    found = np.fromiter((mmh3.hash(c, seed, False) for c in customers), np.float64)
    return found / _PLACES


def _seed(salt: str) -> int:
    return zlib.crc32(salt.encode())

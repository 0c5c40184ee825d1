"""Walking laid-out trees: margins as XGBoost sums them, and exact path-dependent TreeSHAP.

Compiled, without branches on data where many trees are walked, and without the interpreter's lock: pure
functions over arrays that nobody changes. Not here: how trees are laid out (``layout``), rows and threads
(``trees``).

Contributions (Lundberg et al. 2020, https://doi.org/10.1038/s42256-019-0138-9) by an integral instead of
sums over subsets: k! (d - k - 1)! / d! is the integral of t^k (1 - t)^(d - 1 - k) over [0, 1], so a leaf of
value v adds to column i

    v (o_i - z_i) * integral of the product of (t o_j + (1 - t) z_j) over the path's other columns j,

o_j being 1 where the row satisfies all of the path's splits on j, else 0, and z_j the share of training rows
that passed them. Gauss-Legendre quadrature integrates such a polynomial exactly. At each point the factors
of a split's two sides sum to 1, so one pass down (products) and one up (sums) do for all columns at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from switchyard import compiling
from switchyard.learning import Floats
from switchyard.learning.layout import ABOVE_ALL, BELOW_ALL, Array, Cover, Linked, Padded

LANES = 4
"""Quadrature points handled together: as many as one vector register has doubles, enough for depth 8."""
_ROWS = 16
"""Rows that take each tree together: their walks overlap in the processor."""
_U = np.uintp  # an index that can't be negative needs no check for it
_ONE, _TWO, _ZERO = _U(1), _U(2), _U(0)
_F = TypeVar("_F", bound=Callable[..., Any])


def _compiled(function: _F) -> _F:
    return compiling.compiled(function, compiled_in=("layout",), nogil=True)


@_compiled
def _fill_slots(row: Floats, single: Array, bits: Array, slots: Array) -> None:
    """A row as layout.ordered integers, two slots a column; ``bits`` are those of ``single``."""
    for column in range(len(row)):
        single[0] = np.float32(row[column]) + np.float32(0)
        if np.isnan(single[0]):
            slots[2 * column], slots[2 * column + 1] = BELOW_ALL, ABOVE_ALL
        else:
            value = bits[0] ^ ((bits[0] >> np.int32(31)) & np.int32(0x7FFFFFFF))
            slots[2 * column], slots[2 * column + 1] = value, value


@_compiled
def log_odds(probability: np.float32) -> np.float32:
    """XGBoost's own formula, in float32 throughout."""
    one = np.float32(1)
    odds: np.float32 = -np.log(one / probability - one)
    return odds


@_compiled
def margins_padded(X: Floats, trees: Padded, base: np.float32, out: Floats) -> None:
    """Margins of rows float64[n, k] into ``out`` float64[n]: float32 sums in the trees' order."""
    width = _U(2 * X.shape[1])
    slots = np.empty((_ROWS, width), np.int32)
    single, total = np.empty(1, np.float32), np.empty(_ROWS, np.float32)
    bits, given = single.view(np.int32), slots.ravel()
    keys, columns, values = trees.key.ravel(), trees.slot.ravel(), trees.value.ravel()
    size, count = _U(trees.key.shape[1]), _U(trees.key.shape[0])
    for begin in range(0, len(X), _ROWS):
        rows = _U(min(_ROWS, len(X) - begin))
        for i in range(rows):
            _fill_slots(X[begin + np.int64(i)], single, bits, slots[i])
            total[i] = base
        at = _ZERO
        for _ in range(count):
            own = _ZERO
            for i in range(rows):
                place = _ONE
                for _ in range(trees.depth):
                    node = at + place
                    place = place + place + _U(given[own + _U(columns[node])] >= keys[node])
                total[i] += values[at + place - size]
                own += width
            at += size
        for i in range(rows):
            out[begin + np.int64(i)] = total[i]


@_compiled
def margins_linked(X: Floats, trees: Linked, base: np.float32, out: Floats) -> None:
    """As :func:`margins_padded`, for trees of any shape."""
    slots = np.empty(2 * X.shape[1], np.int32)
    single = np.empty(1, np.float32)
    bits = single.view(np.int32)
    for i in range(len(X)):
        _fill_slots(X[i], single, bits, slots)
        total = base
        for t in range(len(trees.root)):
            node = _U(trees.root[t])
            for _ in range(trees.depth[t]):
                node = _U(trees.child[node]) + _U(slots[trees.slot[node]] >= trees.key[node])
            total += trees.value[node]
        out[i] = total


@_compiled
def _walk_down(
    slots: Array, t: int, trees: Linked, cover: Cover, at: Floats, weight: Floats, work: Floats,
    satisfied: Array, push: Floats,
) -> None:  # fmt: skip
    """Of tree ``t``'s nodes: the product of factors above, and at splits the right side's factor.

    ``work`` is [down, factor, gain, up] by node and point, nodes counted from the root; ``up`` gets the
    leaves' values.
    """
    down, factor, gain, up = work[0], work[1], work[2], work[3]
    root = _U(trees.root[t])
    satisfied[0] = 1
    for q in range(LANES):
        down[0, q], up[0, q] = weight[q], trees.value[root]
    for s in range(_U(cover.first[t]), _U(cover.first[_U(t) + _ONE])):
        node = _U(cover.split[s])
        own, child = node - root, _U(trees.child[node])
        left, right = child - root, child - root + _ONE
        goes_right = np.int64(slots[_U(trees.slot[node])] >= trees.key[node])
        still, share, rest = (
            satisfied[_U(cover.prior[node]) - root],
            cover.right[node],
            cover.rest[node],
        )
        satisfied[left], satisfied[right] = still & (1 - goes_right), still & goes_right
        push[own] = np.float64(still) * (np.float64(goes_right) - share)
        for q in range(LANES):
            if still:
                kept = (1 - at[q]) * rest
                scale = 1 / (at[q] + kept)
                factor[own, q] = (at[q] * np.float64(goes_right) + kept * share) * scale
                gain[own, q] = down[own, q] * rest * scale * scale
            else:
                factor[own, q], gain[own, q] = share, 0.0
            down[right, q] = down[own, q] * factor[own, q]
            down[left, q] = down[own, q] - down[right, q]
            up[left, q], up[right, q] = trees.value[child], trees.value[child + _ONE]


@_compiled
def _walk_up(t: int, trees: Linked, cover: Cover, work: Floats, push: Floats, out: Floats) -> None:
    """From the leaves: each subtree's value at each point, and what each split adds to its column."""
    factor, gain, up = work[1], work[2], work[3]
    root, begin, end = _U(trees.root[t]), _U(cover.first[t]), _U(cover.first[_U(t) + _ONE])
    for s in range(end - begin):
        node = _U(cover.split[end - s - _ONE])
        own, left = node - root, _U(trees.child[node]) - root
        total = 0.0
        for q in range(LANES):
            apart = up[left + _ONE, q] - up[left, q]
            up[own, q] = up[left, q] + factor[own, q] * apart
            total += gain[own, q] * apart
        out[_U(trees.slot[node]) // _TWO] += push[own] * total


@_compiled
def attribute(
    X: Floats, trees: Linked, cover: Cover, points: Floats, weights: Floats, out: Floats
) -> None:
    """Add the contributions of rows float64[n, k] to ``out`` float64[n, at least k].

    ``points`` and ``weights`` are a quadrature rule on [0, 1], a multiple of LANES long.
    """
    most = 1
    for t in range(len(trees.root)):
        most = max(most, 2 * int(cover.first[t + 1] - cover.first[t]) + 1)
    slots, single = np.empty(2 * X.shape[1], np.int32), np.empty(1, np.float32)
    bits = single.view(np.int32)
    work = np.empty((4, most, LANES))
    satisfied, push = np.empty(most, np.int64), np.empty(most)
    for i in range(len(X)):
        _fill_slots(X[i], single, bits, slots)
        for begin in range(0, len(points), LANES):
            at, weight = points[begin : begin + LANES], weights[begin : begin + LANES]
            for t in range(len(trees.root)):
                _walk_down(slots, t, trees, cover, at, weight, work, satisfied, push)
                _walk_up(t, trees, cover, work, push, out[i])

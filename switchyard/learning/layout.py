"""Trees as flat arrays that are quick to walk: laid out once, when a model is loaded.

XGBoost compares float32 with float32. Here both become int32 of the same order, so that a missing value
can stand below all others or above them: each column has two slots, one for splits that send what is
missing to the left, one for those that send it to the right. A split then is one comparison of integers.
Not here: reading a model (``trees``), walking (``traversal``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from switchyard.compiling import compiled
from switchyard.errors import ReleaseError
from switchyard.learning import Floats

Array: TypeAlias = npt.NDArray[Any]

BELOW_ALL = -(2**31)
ABOVE_ALL = 2**31 - 2
NEVER = 2**31 - 1
"""A leaf's key: no value reaches it, so that a walk that has arrived stays."""
PADDED_DEPTH = 8
PADDED_COLUMNS = 2**15
PADDED_WASTE = 4
"""Trees are padded up to this depth and number of columns, to at most so many times their nodes."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees one after another, node ids counted within the tree, the root being 0.

    ``first`` int64[trees + 1] is where each begins. Of n nodes: ``left`` and ``right`` int32 (-1: a leaf),
    ``feature`` int32, ``threshold`` float32 (a leaf's value), ``missing_left`` bool, ``cover`` float64.
    """

    first: Array
    left: Array
    right: Array
    feature: Array
    threshold: Array
    missing_left: Array
    cover: Array


class Linked(NamedTuple):
    """Trees of any shape: a node's children lie side by side, ``child`` being the left one's place.

    Of each tree ``root`` uint32 and ``depth`` int64; of each node ``key`` int32, ``slot`` uint32,
    ``child`` uint32 and ``value`` float32 (0 at a split). A leaf is its own child.
    """

    root: Array
    depth: Array
    key: Array
    slot: Array
    child: Array
    value: Array


class Padded(NamedTuple):
    """Trees filled up to one depth: the children of i are 2i and 2i + 1, the root is 1.

    ``key`` int32 and ``slot`` uint16 by [tree, i], ``value`` float32 by [tree, leaf from the left]. A third
    of the memory of Linked: what counts where a model is called now and then, its arrays out of the cache.
    """

    key: Array
    slot: Array
    value: Array
    depth: int


class Cover(NamedTuple):
    """What contributions need beside Linked, by node but for ``split`` and ``first``.

    ``split`` uint32: the splits, parents first; ``first`` uint32[trees + 1] where each tree's begin.
    ``right`` float64: the share of training rows that went right. ``prior`` uint32: the child of the
    closest split above on the same column that the path goes through (the root: none is). ``rest``
    float64: the share of rows that the path's splits on that column kept up to there. ``points``: so many
    points integrate exactly what the most columns on one path give.
    """

    split: Array
    first: Array
    right: Array
    prior: Array
    rest: Array
    points: int


def ordered(values: Array) -> Array:
    """float32 as int32 of the same order; both zeros are one.

    >>> ordered(np.array([-np.inf, -1, -0.0, 0, 1e-45, np.inf], np.float32)).tolist()
    [-2139095041, -1065353217, 0, 0, 1, 2139095040]
    """
    bits = (values + np.float32(0)).view(np.int32)
    turned: Array = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return turned


def lay_out(forest: Forest, columns: int) -> tuple[Linked, Cover, Floats]:
    """The trees as arrays, and each tree's mean value over its training rows, float64[trees].

    Raises ReleaseError if they are no trees over ``columns`` columns, naming the first that is none.
    """
    trees, nodes = len(forest.first) - 1, len(forest.left)
    linked = Linked(
        np.empty(trees, np.uint32), np.zeros(trees, np.int64), np.full(nodes, NEVER, np.int32),
        np.zeros(nodes, np.uint32), np.zeros(nodes, np.uint32), np.zeros(nodes, np.float32),
    )  # fmt: skip
    split, first = np.empty(nodes, np.uint32), np.zeros(trees + 1, np.uint32)
    source, above = np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    used = _link(
        forest.first, forest.left, forest.right, forest.feature, ordered(forest.threshold),
        forest.threshold, forest.missing_left, columns, linked, split, first, source, above,
    )  # fmt: skip
    if used < 0:
        raise ReleaseError(
            f"tree {-used - 1} of {trees} is no tree over {columns} columns: a node has no such "
            "column, or a child that is none"
        )
    linked = Linked(linked.root, linked.depth, *(nodes[:used].copy() for nodes in linked[2:]))
    split = split[: first[-1]].copy()
    right, prior, rest = np.zeros(used), np.zeros(used, np.uint32), np.ones(used)
    mean = np.zeros(trees)
    most = _share(
        linked, split, first, forest.cover[source[:used]], above, right, prior, rest, mean
    )
    return linked, Cover(split, first, right, prior, rest, (most + 1) // 2), mean


@compiled
def _link(
    first: Array, left: Array, right: Array, feature: Array, keys: Array, values: Array,
    missing_left: Array, columns: int, linked: Linked, split: Array, first_split: Array,
    source: Array, above: Array,
) -> int:  # fmt: skip
    """Fill ``linked`` breadth first, whatever the ids were. Returns how many nodes were reached.

    Of each also where it was (``source``) and its parent (``above``). A negative number names the tree
    that is none, -1 being the first.
    """
    level = np.zeros(len(left), np.int64)
    taken = np.zeros(len(left), np.bool_)
    end, found = 0, 0
    for t in range(len(first) - 1):
        begin, size, root = first[t], first[t + 1] - first[t], end
        linked.root[t], source[root], above[root] = root, begin, root
        end += 1
        new = root
        while new < end:
            node = source[new]
            a, b, column = left[node], right[node], feature[node]
            linked.child[new] = new
            if a < 0 and b < 0:
                linked.value[new] = values[node]
            elif _astray(a, b, column, size, columns) or taken[begin + a] or taken[begin + b]:
                return -1 - t
            else:
                taken[begin + a] = taken[begin + b] = True
                linked.key[new], linked.child[new] = keys[node], end
                linked.slot[new] = 2 * column + (0 if missing_left[node] else 1)
                linked.depth[t] = level[new] + 1
                source[end], source[end + 1] = begin + a, begin + b
                above[end] = above[end + 1] = new
                level[end] = level[end + 1] = level[new] + 1
                split[found] = new
                found += 1
                end += 2
            new += 1
        first_split[t + 1] = found
    return end


@compiled
def _astray(left: int, right: int, column: int, size: int, columns: int) -> bool:
    """Whether a split of a tree of ``size`` nodes leads to no node or asks for no column."""
    inside = min(left, right) > 0 and max(left, right) < size and left != right
    return not (inside and 0 <= column < columns)


@compiled
def _share(
    linked: Linked, split: Array, first: Array, cover: Floats, above: Array, right: Floats,
    prior: Array, rest: Floats, mean: Floats,
) -> int:  # fmt: skip
    """Fill what is told of training rows. Returns the most columns on one path."""
    distinct = np.zeros(len(cover), np.int64)
    expected = linked.value.astype(np.float64)
    most = 0
    for t in range(len(linked.root)):
        root = linked.root[t]
        for s in range(first[t], first[t + 1]):
            node, child = split[s], linked.child[split[s]]
            below = cover[child] + cover[child + 1]
            right[node] = cover[child + 1] / below if below > 0 else 0.5
            prior[node] = _closest(node, root, above, linked.slot)
            if prior[node] != root:
                there = above[prior[node]]
                left_one = prior[node] == linked.child[there]
                rest[node] = rest[there] * (1 - right[there] if left_one else right[there])
            distinct[child] = distinct[node] + (1 if prior[node] == root else 0)
            distinct[child + 1] = distinct[child]
            most = max(most, distinct[child])
        for s in range(first[t + 1] - 1, np.int64(first[t]) - 1, -1):
            node, child = split[s], linked.child[split[s]]
            apart = expected[child + 1] - expected[child]
            expected[node] = expected[child] + right[node] * apart
        mean[t] = expected[root]
    return most


@compiled
def _closest(split: int, root: int, above: Array, slot: Array) -> int:
    """Going up from ``split``: the child of the next split on the same column, or the root."""
    edge = split
    while edge != root and slot[above[edge]] // 2 != slot[split] // 2:
        edge = above[edge]
    return edge


def pad(linked: Linked, columns: int) -> Padded | None:
    """The same trees filled up to their common depth, or None where that would be too large."""
    depth = int(linked.depth.max(initial=0))
    cells = len(linked.root) << depth
    if depth > PADDED_DEPTH or columns > PADDED_COLUMNS or cells > PADDED_WASTE * len(linked.key):
        return None
    shape = (len(linked.root), 1 << depth)
    padded = Padded(
        np.zeros(shape, np.int32), np.zeros(shape, np.uint16), np.zeros(shape, np.float32), depth
    )
    _pad(linked, *padded)
    return padded


@compiled
def _pad(linked: Linked, keys: Array, slots: Array, values: Array, depth: int) -> None:
    half = 1 << depth
    place = np.empty(2 * half, np.int64)
    for t in range(len(linked.root)):
        place[1] = linked.root[t]
        for i in range(1, half):
            node, child = place[i], linked.child[place[i]]
            keys[t, i], slots[t, i] = linked.key[node], linked.slot[node]
            place[2 * i] = child
            place[2 * i + 1] = child if child == node else child + 1
        for i in range(half):
            values[t, i] = linked.value[place[half + i]]

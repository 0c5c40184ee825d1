"""The scoring engine of boosted trees: XGBoost's margins to the bit, exact TreeSHAP, on any thread.

Read from a model's UBJSON, so that a service needs no XGBoost to score or explain. Here: what a model is made
of, rows and threads. Not here: arrays and walks (``layout``, ``traversal``), training (``boosting``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from switchyard.errors import ReleaseError
from switchyard.learning import Floats, traversal
from switchyard.learning.layout import Array, Cover, Forest, Linked, Padded, lay_out, pad
from switchyard.learning.ubjson import read_ubjson

_ROWS_A_THREAD = 512
"""Fewer rows are not worth another thread."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Boosted trees over ``columns`` columns, boosted for ``rounds``; nothing in it ever changes.

    A margin is ``base`` plus the trees' values, summed as float32 in their order. ``mean`` is what the
    contributions of a row start from.
    """

    columns: int
    rounds: int
    base: np.float32
    mean: float
    linked: Linked
    padded: Padded | None
    cover: Cover

    def margin(self, X: Floats, threads: int = 1) -> Floats:
        """Margins float64[n] of rows float64[n, columns]: NaN is missing, infinities are values."""
        X, out = _readable(X), np.empty(len(X))
        if self.padded is not None:
            _by_rows(threads, traversal.margins_padded, X, out, self.padded, self.base)
        else:
            _by_rows(threads, traversal.margins_linked, X, out, self.linked, self.base)
        return out

    def contributions(self, X: Floats, threads: int = 1) -> Floats:
        """Contributions float64[n, columns + 1], ``mean`` last, of rows as in :meth:`margin`.

        A row sums to its margin: what a margin's float32 sums rounded away (some 1e-6) is spread over
        the columns in proportion.
        """
        X, out = _readable(X), np.zeros((len(X), self.columns + 1))
        rule = _quadrature(self.cover.points)
        _by_rows(threads, traversal.attribute, X, out, self.linked, self.cover, *rule)
        rounded = self.margin(X, threads) - self.mean - out.sum(axis=1)
        size = np.abs(out)
        total = size.sum(axis=1)
        out += size * np.divide(rounded, total, out=np.zeros(len(X)), where=total > 0)[:, None]
        out[:, -1] = self.mean
        return out


def read_ensemble(content: bytes) -> Ensemble:
    """The ensemble in an XGBoost model's UBJSON.

    Raises ReleaseError if it is damaged, or a model of another kind than binary logistic trees of
    numeric columns, saying which kind.
    """
    try:
        learner = read_ubjson(content)["learner"]
        model = _gbtree(learner)
        columns = int(learner["learner_model_param"]["num_feature"])
        base = _base(learner)
        forest, rounds = _forest(model["trees"]), len(model["iteration_indptr"]) - 1
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ReleaseError(f"no model of XGBoost's: {type(error).__name__} {error}") from None
    return ensemble_of(forest, columns=columns, rounds=rounds, base=base)


def ensemble_of(forest: Forest, *, columns: int, rounds: int, base: np.float32) -> Ensemble:
    """The ensemble of a forest. Raises ReleaseError where it is no forest, or has thresholds of NaN."""
    if np.isnan(forest.threshold).any() or not np.isfinite(base):
        raise ReleaseError("a threshold or a leaf is NaN, or the base score not finite")
    linked, cover, means = lay_out(forest, columns)
    mean = float(base) + math.fsum(means)
    return Ensemble(columns, rounds, base, mean, linked, pad(linked, columns), cover)


def compile_trees() -> None:
    """Compile what scores and explains, or find it compiled."""
    one = np.zeros(3, np.int32)
    forest = Forest(
        np.array([0, 3]), np.array([1, -1, -1], np.int32), np.array([2, -1, -1], np.int32), one,
        np.array([0, -1, 1], np.float32), one == 0, np.array([2.0, 1.0, 1.0]),
    )  # fmt: skip
    ensemble = ensemble_of(forest, columns=1, rounds=1, base=np.float32(0))
    ensemble.contributions(np.zeros((1, 1)))
    traversal.margins_linked(
        _readable(np.zeros((1, 1))), ensemble.linked, ensemble.base, np.empty(1)
    )


def _gbtree(learner: Mapping[str, Any]) -> Mapping[str, Any]:
    booster, objective = learner["gradient_booster"], learner["objective"]["name"]
    param = learner["learner_model_param"]
    if booster["name"] != "gbtree":
        raise ReleaseError(
            f"a booster of kind {booster['name']!r}; this engine walks 'gbtree' only"
        )
    if objective != "binary:logistic" or int(param["num_target"]) != 1:
        raise ReleaseError(
            f"a model with the objective {objective!r} and {param['num_target']} targets; this engine "
            "scores 'binary:logistic' of one"
        )
    found: Mapping[str, Any] = booster["model"]
    if categorical := [i for i, tree in enumerate(found["trees"]) if np.any(tree["split_type"])]:
        raise ReleaseError(
            f"tree {categorical[0]} splits a categorical column; this engine knows numeric ones only"
        )
    return found


def _base(learner: Mapping[str, Any]) -> np.float32:
    """The base score as log-odds, with XGBoost's float32 formula."""
    text: str = learner["learner_model_param"]["base_score"]
    return np.float32(traversal.log_odds(np.float32(text.strip("[]"))))


def _forest(trees: list[Mapping[str, Any]]) -> Forest:
    def joined(name: str, kind: type) -> Array:
        parts = [np.empty(0, kind), *(tree[name] for tree in trees)]
        return np.concatenate(parts).astype(kind)

    sizes = [len(tree["left_children"]) for tree in trees]
    forest = Forest(
        first=np.cumsum([0, *sizes], dtype=np.int64),
        left=joined("left_children", np.int32),
        right=joined("right_children", np.int32),
        feature=joined("split_indices", np.int32),
        threshold=joined("split_conditions", np.float32),
        missing_left=joined("default_left", np.bool_),
        cover=joined("sum_hessian", np.float64),
    )
    lengths = {len(values) for values in (forest.left, forest.right, forest.feature, forest.threshold,
                                          forest.missing_left, forest.cover)}  # fmt: skip
    if len(lengths) != 1 or 0 in sizes:
        raise ReleaseError("the trees' lists of nodes differ in length, or a tree has none")
    return forest


def _readable(X: Floats) -> Floats:
    """``X`` as the one type the walks are compiled for: float64, rows contiguous, read-only."""
    rows = np.ascontiguousarray(X, dtype=np.float64).view()
    rows.flags.writeable = False
    return rows


@cache
def _quadrature(points: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre on [0, 1], of at least ``points`` points and a multiple of LANES."""
    lanes = traversal.LANES
    at, weight = np.polynomial.legendre.leggauss(max(1, -(-points // lanes)) * lanes)
    return (at + 1) / 2, weight / 2


def _by_rows(threads: int, walk: Callable[..., None], X: Floats, out: Floats, *given: Any) -> None:
    """Call ``walk(rows, *given, their part of out)`` for all rows, in parts beside each other."""
    parts = max(1, min(threads, len(X) // _ROWS_A_THREAD))
    if parts == 1:
        walk(X, *given, out)
        return
    ends = np.linspace(0, len(X), parts + 1).astype(int)
    with ThreadPoolExecutor(parts) as pool:
        done = [
            pool.submit(walk, X[begin:end], *given, out[begin:end]) for begin, end in pairwise(ends)
        ]
        for part in done:
            part.result()

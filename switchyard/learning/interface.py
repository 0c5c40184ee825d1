"""The interface of every model, and what all of them check.

A model maps rows of named columns to margins (log-odds) and explains them. Not here: probabilities
(``calibration``), what the columns mean, or when a label was known (``splits``). No pickle. Same rows, parameters and seed give the same bits.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from switchyard.errors import InputError, ReleaseError, TrainingError
from switchyard.learning import Floats, Verdicts

Labelled = tuple[Floats, Verdicts]
"""Rows float64[n, k] and their n verdicts."""
P = TypeVar("P")


def in_order(X: Floats, given: Sequence[str] | None, wanted: Sequence[str]) -> Floats:
    """Columns of ``X``, named by ``given``, in the order ``wanted`` (``given=None``: they already are).

    Raises InputError naming the columns that are missing or unknown.

    >>> in_order(np.array([[1.0, 2.0]]), ["b", "a"], ["a", "b"]).tolist()
    [[2.0, 1.0]]
    """
    X = np.ascontiguousarray(X, dtype=np.float64)
    if given is not None and list(given) != list(wanted):
        missing, unknown = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
        if missing or unknown or len(given) != len(wanted):
            raise InputError(
                f"columns do not fit the model: missing {missing}, unknown {unknown}, "
                f"{len(given)} given; it takes these {len(wanted)}, each once: {list(wanted)}"
            )
        place = {name: i for i, name in enumerate(given)}
        X = np.ascontiguousarray(X[:, [place[name] for name in wanted]])
    if X.ndim != 2 or X.shape[1] != len(wanted):
        raise InputError(f"rows have shape {X.shape}; the model takes (n, {len(wanted)})")
    return X


class Model(ABC):
    """A trained model. ``margin`` and ``contributions`` never change their input."""

    name: ClassVar[str]
    engine: ClassVar[str]
    columns: tuple[str, ...]
    threads: int = 1

    def use_threads(self, threads: int) -> None:
        """Score with so many threads, where the model can: one online, more in batch, the same bits."""
        self.threads = threads

    @classmethod
    @abstractmethod
    def train(
        cls,
        X: Floats,
        y: Verdicts,
        *,
        columns: Sequence[str],
        params: Mapping[str, Any] | None = None,
        seed: int = 0,
        validation: Labelled | None = None,
    ) -> Model:
        """Train on rows float64[n, k] (NaN: missing) and n verdicts.

        ``params`` overrides the model's defaults; ``validation`` stops rounds early where there are
        any. Raises TrainingError if there is nothing to learn from, naming what is wrong.
        """

    @abstractmethod
    def margin(self, X: Floats, columns: Sequence[str] | None = None) -> Floats:
        """Log-odds float64[n]; a row's bits do not depend on the rows beside it."""

    @abstractmethod
    def contributions(self, X: Floats, columns: Sequence[str] | None = None) -> Floats:
        """Log-odds float64[n, k + 1] by column, the bias last; a row sums to its margin."""

    @abstractmethod
    def settled(self, params: Mapping[str, Any] | None) -> dict[str, Any]:
        """``params`` with what validation chose fixed: train with them again on more rows."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model's files into ``folder``; the same model writes the same bytes."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, *, threads: int = 1) -> Model:
        """Read what ``save`` wrote. Raises ReleaseError if the files are not such a model."""


def typed_params(kind: type[P], given: Mapping[str, Any] | None) -> P:
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(given or {}) - set(known)):
        raise TrainingError(f"unknown training parameter {unknown}; there are {known}")
    return kind(**(given or {}))


def checked(X: Floats, y: Verdicts, columns: Sequence[str]) -> Floats:
    """``X`` as the trainers need it, or TrainingError."""
    if X.ndim != 2 or X.shape != (len(y), len(columns)) or len(set(columns)) != len(columns):
        raise TrainingError(
            f"training rows have shape {X.shape}; {len(y)} verdicts and {len(columns)} column names, "
            "each once, were given with them"
        )
    if not np.isin(y, (0, 1)).all() or len(np.unique(y)) != 2:
        raise TrainingError(
            f"{len(y)} training rows hold the verdicts {np.unique(y).tolist()}; "
            "both 0 and 1 are needed, and nothing else"
        )
    if np.isinf(X).any():
        wrong = [name for name, values in zip(columns, X.T, strict=True) if np.isinf(values).any()]
        raise TrainingError(
            f"training columns {wrong} hold infinities; use NaN for what is missing"
        )
    return np.ascontiguousarray(X, dtype=np.float64)


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path} is no model file: {error}") from None
    if not isinstance(content, dict) or (missing := [k for k in keys if k not in content]):
        raise ReleaseError(f"{path} is no model file: it lacks {missing}")
    return content

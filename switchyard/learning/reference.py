"""What days are compared with: how the columns lay in the weeks of a reference, and how far they may lie by chance.

A day is held against the reference's days of the same weekday, so that the weekly cycle is no drift. What chance
does is drawn from the reference itself, day against days at least two weeks away, by weighing whole customers, and
whole terminals: all rows of one come together (the cluster bootstrap: Davison & Hinkley, Bootstrap Methods and their
Application, 3.8; one entity at a time, the larger limit counts: products of both weights, as in Owen & Eckles,
Annals of Applied Statistics 6, 2012, were found three times too wide here). Why not the textbook's limits alone:
Yurdakul & Naranjo, Statistical properties of the population stability index, Journal of Risk Model Validation 14,
2020. Not here: what follows of a column that moved (``drift_policy``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from switchyard.errors import InputError
from switchyard.lake import whole_file
from switchyard.learning import Bools, Floats, Ints
from switchyard.learning.drift import Bins, stability

WEEK = 7
RESAMPLES = 420
ALPHA = 0.005
"""Share of healthy columns and days that may lie beyond the limit, were the null exact; it is not, since what drifts
slowly in health (which terminals are compromised) is seen for a few weeks only."""
_CHUNK = 20_000
"""Rows weighed at a time: bounds the memory."""

Places = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """How one column lies on a day: PSI, and the largest that chance gives at the day's size; its share missing; its
    mean and standard deviation, and by how many sigmas of chance each is off."""

    psi: float
    limit: float
    missing: float
    usually_missing: float
    mean: float
    mean_sigmas: float
    deviation: float
    deviation_sigmas: float

    @property
    def beyond_chance(self) -> bool:
        return self.psi > self.limit


class _Days(NamedTuple):
    """Rows of whole days in bins: the bins' shares float64[..., bins], mean and deviation float64[..., columns]."""

    shares: Floats
    mean: Floats
    deviation: Floats


@dataclass(frozen=True, slots=True)
class Reference:
    """Whole days to compare with. ``counts`` int64[weekday, bins] are rows in the bins of all columns, ``moments``
    float64[weekday, 3, columns] number, sum and sum of squares of what is not missing. At days of ``rows`` rows,
    ``limits`` float64[columns] is what PSI stays below by chance, ``spreads`` float64[2, columns] the deviation by
    chance of mean and log deviation."""

    columns: tuple[str, ...]
    bins: tuple[Bins, ...]
    counts: Ints
    moments: Floats
    rows: float
    limits: Floats
    spreads: Floats

    def compare(self, X: Floats, day: int) -> dict[str, ColumnDrift]:
        """How each column of the rows float64[n, k] of ``day`` (since 1970) lies. Raises InputError without a row.

        A smaller day moves more by chance, its PSI in proportion; a larger one is judged like the reference's, since
        terminals and customers are then no more than before.
        """
        if len(X) == 0:
            raise InputError("a day without a row can't be compared with a reference")
        held = self.weekdays_for(day)
        usual = _of_counts(self.counts[held].sum(axis=0), self.moments[held].sum(axis=0), self.bins)
        found = _of_counts(_counted(_places(X, self.bins), self.bins), _moments(X), self.bins)
        thin = max(1.0, self.rows / len(X))
        missing = _starts(self.bins) + [len(b) - 1 for b in self.bins]
        with np.errstate(divide="ignore", invalid="ignore"):
            figures = (
                stability(usual.shares, found.shares, _starts(self.bins)),
                self.limits * thin,
                found.shares[missing],
                usual.shares[missing],
                found.mean,
                (found.mean - usual.mean) / (self.spreads[0] * np.sqrt(thin)),
                found.deviation,
                np.log(found.deviation / usual.deviation) / (self.spreads[1] * np.sqrt(thin)),
            )
        table = np.nan_to_num(np.column_stack(figures), nan=0.0, posinf=0.0, neginf=0.0)
        return {c: ColumnDrift(*row) for c, row in zip(self.columns, table.tolist(), strict=True)}

    def weekdays_for(self, day: int) -> list[int]:
        """Places in ``counts`` that ``day`` (since 1970) is held against: its weekday, or all where the reference has no
        day of it."""
        own = day % len(self.counts)
        return [own] if self.counts[own].any() else list(range(len(self.counts)))

    def save(self, path: Path) -> None:
        """Write it as one file (npz, nothing pickled)."""
        edges = {f"edges_{i}": b.edges for i, b in enumerate(self.bins)}
        head = json.dumps({"columns": self.columns, "rows": self.rows})
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        content: dict[str, Any] = {"head": np.array(head)} | arrays | edges
        with whole_file(path) as file:
            np.savez_compressed(file, **content)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as held:
            head: dict[str, Any] = json.loads(str(held["head"]))
            columns = tuple(head["columns"])
            bins = tuple(Bins(held[f"edges_{i}"]) for i in range(len(columns)))
            arrays = {name: held[name] for name in _ARRAYS}
            return cls(columns, bins, rows=head["rows"], **arrays)


_ARRAYS = ("counts", "moments", "limits", "spreads")


def reference_of(
    X: Floats,
    day: Ints,
    entities: Sequence[Ints],
    columns: Sequence[str],
    *,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Reference:
    """The reference of rows float64[n, k] of some days (since 1970); each entity has a code from 0 for each row.

    With two weeks of days or more, each weekday is held against its own, if any came twice. Raises InputError with fewer than two
    days, which leave nothing to tell chance by.
    """
    days, sizes = np.unique(day, return_counts=True)
    if len(days) < 2:
        raise InputError(f"a reference needs at least 2 days, not {len(days)}")
    bins = tuple(Bins.of(X[:, i]) for i in range(X.shape[1]))
    places = _places(X, bins)
    again = len(np.unique(days % WEEK)) < len(days)
    period = WEEK if days[-1] - days[0] + 1 >= 2 * WEEK and again else 1
    held = [day % period == p for p in range(period)]
    null = _Null(X, places, bins, day, period)
    drawn = [null.drawn(entity, resamples, np.random.default_rng(seed)) for entity in entities]
    limits = [np.quantile(psi, 1 - alpha, axis=0) for psi, _ in drawn]
    spreads = [np.sqrt(np.mean(moved**2, axis=0)) for _, moved in drawn]
    return Reference(
        tuple(columns),
        bins,
        np.array([_counted(places[rows], bins) for rows in held]),
        np.array([_moments(X[rows]) for rows in held]),
        float(np.median(sizes)),
        np.max(limits, axis=0),
        np.max(spreads, axis=0),
    )


@dataclass(frozen=True, slots=True)
class _Null:
    """What chance does between a day of the reference and those that it would be held against."""

    X: Floats
    places: Places
    bins: tuple[Bins, ...]
    day: Ints
    period: int

    def drawn(
        self, entity: Ints, resamples: int, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """With whole entities weighed at random: PSI float64[resample, column] of what chance adds, and how far it
        moves mean and log deviation, float64[resample, 2, column]."""
        pairs = [
            (self.day == one, others)
            for one in np.unique(self.day)
            if (others := self._others(one)).any()
        ]
        each = -(-resamples // len(pairs))
        found = [self._between(*pair, entity, each, rng) for pair in pairs]
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def _others(self, one: int) -> Bools:
        """Rows of the days that ``one`` is held against: two weeks away or more, as far as there are such."""
        apart = np.abs(self.day - one)
        alike = (apart % self.period == 0) & (apart > 0)
        far = alike & (apart >= 2 * self.period) if self.period > 1 else alike
        return np.asarray(far if far.any() else alike)

    def _between(
        self, mine: Bools, others: Bools, entity: Ints, many: int, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """The same weights on both sides, since a customer who stays is no chance; the first are all 1, and what the
        others differ from it is chance."""
        weights = rng.poisson(1.0, (many + 1, entity.max() + 1)).astype(np.float32)
        weights[0] = 1
        usual, found = (
            self._weighed(np.flatnonzero(rows), entity, weights) for rows in (others, mine)
        )
        apart = found.shares - usual.shares
        shares = np.maximum(usual.shares[0] + apart[1:] - apart[0], 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.stack(
                [found.mean - usual.mean, np.log(found.deviation / usual.deviation)], 1
            )
        moved = np.where(np.isfinite(moved), moved, 0.0)
        return stability(usual.shares[0], shares, _starts(self.bins)), moved[1:] - moved[0]

    def _weighed(self, rows: Ints, entity: Ints, weights: npt.NDArray[np.float32]) -> _Days:
        counts: Any = 0.0
        moments: Any = 0.0
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            w = weights[:, entity[some]]
            counts = counts + (w @ _one_hot(self.places[some], self.bins)).astype(np.float64)
            parts = [w @ part.astype(np.float32) for part in _powers(self.X[some])]
            moments = moments + np.stack(parts, axis=-2).astype(np.float64)
        return _of_counts(np.asarray(counts), np.asarray(moments), self.bins)


def _starts(bins: Sequence[Bins]) -> Ints:
    """Where each column's bins begin among all bins."""
    return np.cumsum([0, *(len(b) for b in bins[:-1])])


def _places(X: Floats, bins: Sequence[Bins]) -> Places:
    """The bin of each value, within its column."""
    return np.column_stack([b.place(X[:, i]) for i, b in enumerate(bins)]).astype(np.uint8)


def _counted(places: Places, bins: Sequence[Bins]) -> Ints:
    """Rows in each bin of all columns."""
    return np.bincount((places + _starts(bins)).ravel(), minlength=sum(map(len, bins)))


def _one_hot(places: Places, bins: Sequence[Bins]) -> npt.NDArray[np.float32]:
    out = np.zeros((len(places), sum(map(len, bins))), np.float32)
    out[np.arange(len(places))[:, None], places + _starts(bins)] = 1
    return out


def _powers(X: Floats) -> tuple[Floats, Floats, Floats]:
    """Whether it is there, value and square of each; 0 where missing."""
    there = ~np.isnan(X)
    value = np.where(there, X, 0.0)
    return there.astype(np.float64), value, value**2


def _moments(X: Floats) -> Floats:
    return np.array([part.sum(axis=0) for part in _powers(X)])


def _of_counts(counts: Ints | Floats, moments: Floats, bins: Sequence[Bins]) -> _Days:
    rows = np.maximum(counts[..., : len(bins[0])].sum(axis=-1, keepdims=True), 1)
    number, total, squares = np.moveaxis(moments, -2, 0)
    mean = total / np.maximum(number, 1)
    variance = squares / np.maximum(number, 1) - mean**2
    return _Days(counts / rows, mean, np.sqrt(np.maximum(variance, 0.0)))

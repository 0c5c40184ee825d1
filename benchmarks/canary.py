"""The canary's judge on 2,000 experiments without a difference, and on challengers with a fault each.

Every experiment draws customers with replacement for two equal arms, with all their decisions in order of time, and is
looked at after every 100 decisions of the challenger; a label counts when its day has matured. The promise is made of the
week before. Beside what was found stands what theory expects, which knows the fault and the decisions to draw from, and
nothing of the experiments. Not here: where the decisions come from
(``scored``).
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import log_ndtr

from benchmarks.scored import DAY_US, Scored, scored_decisions
from switchyard.compiling import compiled
from switchyard.learning import Floats, Ints
from switchyard.learning.canary import (
    COLUMNS,
    Decisions,
    decision_rows,
    newly_blocked,
    nobody_blocked,
)
from switchyard.learning.guardrails import Guardrail, Weighed, weigh, weigh_all
from switchyard.learning.metrics import Metric
from switchyard.learning.outcomes import (
    CLOCK,
    OUTCOMES,
    Costs,
    Matured,
    OutcomeLimits,
    adjusted,
    harms,
    outcome_rows,
)
from switchyard.learning.promise import Promise, log_odds, promise_of
from switchyard.learning.rollout import RolloutPolicy
from switchyard.learning.sequential import decisions_until
from switchyard.learning.slices import CHALLENGER, CONTROL, SLICES, Slices, Totals, slice_of

EXPERIMENTS = 2_000
FAULTY = 200
ARM = 50_000
EVERY = 100
BAR = 20
WORKERS = 2
PROMISE_DAYS = 7
LABEL_DELAY_DAYS = 7
"""After its end, until an event day has matured."""
ERRORS = 2e-4
"""Share of decisions whose model fails in either arm, without a fault."""

Fault = Literal[
    "none",
    "model stage 3 times slower",
    "errors on 1 %",
    "scores shifted by 0.3 log-odds",
    "block rate doubled",
    "scores shuffled among customers",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Bench:
    """What every experiment shares; ``arm`` decisions in each, looked at after ``every``."""

    drawn: Scored
    before: Floats
    promise: Promise
    policy: RolloutPolicy
    arm: int = ARM
    every: int = EVERY

    @property
    def looks(self) -> int:
        return self.arm // self.every


def run(
    source: str | None = None,
    data: Path | None = None,
    column_map: Path | None = None,
    *,
    quick: bool = False,
    seed: int | None = None,
    folder: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """False rollbacks, and decisions until a fault is found. ``quick``: a twentieth of the experiments.

    Raises SourceError if the source has too few days.
    """
    begun = time.perf_counter()
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    told("decisions to draw from")
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as spare:
        given = {"source": source, "data": data, "column_map": column_map, "seed": seed}
        scored = scored_decisions(folder or Path(spare), lambda *_: None, **given)
    bench = bench_of(scored, RolloutPolicy())
    few = 20 if quick else 1
    found = _in_parallel(bench, EXPERIMENTS // few, FAULTY // few, seed or 0, console)
    figures = _figures(bench, *found)
    if console is not None:
        console.print(_table(figures))
    rest = {name: value for name, value in figures.items() if name != "faults"}
    faults = {
        f"{row['fault']}: {n}": v
        for row in figures["faults"]
        for n, v in row.items()
        if n != "fault"
    }
    return rest | faults | {"seconds": round(time.perf_counter() - begun, 1)}


def bench_of(scored: Scored, policy: RolloutPolicy, **sizes: int) -> Bench:
    """The promise of the first week, and the other weeks to draw from."""
    begins = scored.event_us[0] + PROMISE_DAYS * DAY_US
    first = scored.event_us < begins
    promised = scored.where(first)
    promise = promise_of(
        promised.score,
        entity=promised.customer,
        day=promised.event_us // DAY_US,
        thresholds=scored.thresholds,
        seed=0,
    )
    same = Metric(1.0, 1.0, 1.0)  # both arms are one model, so on any days they block the same
    promise = replace(promise, beside=same)
    rows = np.bincount(scored.customer[first], minlength=scored.customer.max() + 1)
    spent = np.bincount(
        scored.customer[first], scored.amount_minor[first], minlength=scored.customer.max() + 1
    )
    mean = np.divide(spent, rows, out=np.full(len(rows), np.nan), where=rows > 0)
    drawn = scored.where(~first)
    return Bench(drawn, mean[np.unique(scored.customer[~first])], promise, policy, **sizes)


# ---------------------------------------------------------------- one experiment


@dataclass(frozen=True)
class Arms:
    """Rows of the drawn decisions for both arms in order of time, and each one's arm, customer hash and look."""

    row: Ints
    arm: Ints
    customer: np.ndarray[Any, np.dtype[np.uint64]]
    look: Ints


def draw(bench: Bench, rng: np.random.Generator) -> Arms:
    """Customers with replacement until each arm has its decisions; the same customer twice is two customers."""
    customer = bench.drawn.customer
    order = np.argsort(customer, kind="stable")
    counts = np.bincount(customer)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    parts = [_one_arm(bench, code, counts, starts, order, rng) for code in (CHALLENGER, CONTROL)]
    row, look, hashes = (np.concatenate(p) for p in zip(*parts, strict=True))
    arm = np.repeat([CHALLENGER, CONTROL], bench.arm)
    return Arms(row, arm, hashes, look)


def _one_arm(
    bench: Bench, code: int, counts: Ints, starts: Ints, order: Ints, rng: np.random.Generator
) -> tuple[Ints, Ints, Any]:
    """Rows in order of time, cut at the arm's size; looks; hashes of the drawn customers."""
    size = math.ceil(1.3 * bench.arm / counts.mean())
    picked = rng.integers(0, len(counts), size)
    while counts[picked].sum() < bench.arm:
        picked = np.concatenate([picked, rng.integers(0, len(counts), size)])
    enough = np.searchsorted(np.cumsum(counts[picked]), bench.arm) + 1
    picked = picked[:enough]
    hashes = rng.integers(0, 2**63, enough, dtype=np.uint64)
    each = counts[picked]
    within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    row = order[np.repeat(starts[picked], each) + within]
    by_time = np.argsort(row, kind="stable")[: bench.arm]
    return row[by_time], np.arange(bench.arm) // bench.every, np.repeat(hashes, each)[by_time]


def with_fault(
    bench: Bench, fault: Fault, score: Floats, rng: np.random.Generator
) -> tuple[Floats, Ints]:
    """The challenger's scores and decisions under a fault."""
    review, block = bench.drawn.review, bench.drawn.block
    if fault == "scores shifted by 0.3 log-odds":
        score = 1 / (1 + np.exp(-(log_odds(score) + 0.3)))
    elif fault == "scores shuffled among customers":
        score = rng.permutation(score)
    elif fault == "block rate doubled":
        everyone = bench.drawn.score
        blocked, stopped = np.mean(everyone >= block), np.mean(everyone >= review)
        review = float(np.quantile(everyone, 1 - stopped - blocked))  # as many reviews as before
        block = float(np.quantile(everyone, 1 - 2 * blocked))
    return score, (score >= review).astype(np.int64) + (score >= block)


def observed(
    bench: Bench, arms: Arms, fault: Fault, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """What the judge is given of each decision: rows of COLUMNS and of OUTCOMES."""
    drawn, faulty = bench.drawn, arms.arm == CHALLENGER
    score = drawn.score[arms.row]
    decision = (score >= drawn.review).astype(np.int64) + (score >= drawn.block)
    rate = np.where(faulty & (fault == "errors on 1 %"), 0.01, ERRORS)
    failing = rng.random(len(faulty)) < rate
    score[faulty], decision[faulty] = with_fault(bench, fault, score[faulty], rng)
    slower = np.where(faulty & (fault == "model stage 3 times slower"), 3.0, 1.0)
    decisions = Decisions(
        arm=arms.arm,
        customer=arms.customer,
        score=score,
        decision=decision,
        degraded=drawn.degraded[arms.row] | failing,
        error=failing,
        model_s=slower * drawn.model_s[arms.row],
        event_us=drawn.event_us[arms.row],
    )
    matured = Matured(
        arm=arms.arm,
        customer=arms.customer,
        decision=decision,
        amount_minor=drawn.amount_minor[arms.row],
        is_fraud=drawn.is_fraud[arms.row],
        before=bench.before[drawn.customer[arms.row]],
    )
    newly = newly_blocked(decisions, nobody_blocked(), 0)
    rows = decision_rows(decisions, bench.promise.edges, newly)
    return rows, outcome_rows(matured, Costs())


def by_look(arms: Arms, columns: tuple[str, ...], rows: Floats, looks: int) -> Totals:
    """The totals of every look."""
    order = np.argsort(arms.look, kind="stable")
    place = slice_of(arms.customer) * 2 + arms.arm
    return Totals(columns, *_growing(arms.look[order], place[order], rows[order], looks, SLICES))


def _grow(look: Ints, place: Ints, rows: Floats, looks: int, slices: int) -> tuple[Floats, Floats]:
    """Sums and products of ``totals_of`` after every look, from rows in the order of looks; ``place`` is
    slice * 2 + arm."""
    k = rows.shape[1]
    table = np.zeros((slices * 2, k))
    sums, products = np.zeros((looks, 2 * k)), np.zeros((looks, 2 * k, 2 * k))
    i = 0
    for at in range(looks):
        while i < len(look) and look[i] == at:
            for c in range(k):
                table[place[i], c] += rows[i, c]
            i += 1
        pairs = table.reshape((slices, 2 * k))
        products[at] = np.dot(pairs.T, pairs)
        sums[at] = pairs.sum(axis=0)
    return sums, products


_growing = compiled(_grow)


def matured(bench: Bench, arms: Arms) -> Arms:
    """The same, each decision at the look by which its label counts; one past the last look never does."""
    event_us = bench.drawn.event_us[arms.row]
    ends = np.zeros(bench.looks, np.int64)
    np.maximum.at(ends, arms.look, event_us)
    counts_us = (event_us // DAY_US + 1 + LABEL_DELAY_DAYS) * DAY_US
    return replace(arms, look=np.searchsorted(np.maximum.accumulate(ends), counts_us))


def weighed(
    bench: Bench, policy: RolloutPolicy, arms: Arms, decisions: Floats, outcomes: Floats
) -> list[Weighed]:
    """All of the policy's guardrails at every look."""
    plain = by_look(arms, COLUMNS, decisions, bench.looks)
    labelled = adjusted(by_look(matured(bench, arms), OUTCOMES, outcomes, bench.looks))
    rails, prior = policy.guardrails(bench.promise), policy.prior_decisions
    return [
        *weigh_all(rails, plain, "decisions", prior),
        *weigh_all(harms(labelled, policy.outcome_limits), labelled, CLOCK, prior),
    ]


@dataclass(frozen=True)
class Found:
    """Of one experiment: decisions of the challenger until a guardrail fell, and its place among them; None: none."""

    decisions: int | None
    guardrail: int | None


def first_fall(bench: Bench, policy: RolloutPolicy, log_e: Floats) -> Found:
    """From the evidence float64 [guardrails, looks]."""
    fallen = log_e >= -math.log(policy.alpha_each())
    if not fallen.any():
        return Found(None, None)
    look = int(fallen.any(axis=0).argmax())
    return Found((look + 1) * bench.every, int(log_e[:, look].argmax()))


def experiment(bench: Bench, fault: Fault, seed: int) -> Found:
    """One experiment, seen to its end."""
    rng = np.random.default_rng([FAULTS.index(fault), seed])
    arms = draw(bench, rng)
    found = weighed(bench, bench.policy, arms, *observed(bench, arms, fault, rng))
    return first_fall(bench, bench.policy, np.stack([w.log_e for w in found]))


STRICT = RolloutPolicy(
    error_ratio=1.0, time_ratio=1.0, degraded_allowed=0.0, block_ratio=1.0,
    promise_ratio=1.0, promise_allowed=0.0, outcome_limits=OutcomeLimits(0.0, 0.0, 0.0),
)  # fmt: skip
"""Nothing worse than the control is allowed: what the tests themselves are worth, without the policy's margins."""
WAYS = ("strict", "strict_by_decision", "strict_looking_once")
"""No margins; then each decision as a customer of its own; then a test for one look at every look."""


def without_difference(bench: Bench, seed: int) -> dict[str, Found]:
    """One experiment without a fault, judged by the policy ('policy') and by each of WAYS."""
    rng = np.random.default_rng([FAULTS.index("none"), seed])
    arms = draw(bench, rng)
    rows = observed(bench, arms, "none", rng)
    lone = replace(arms, customer=np.arange(len(arms.row), dtype=np.uint64))
    by_policy = weighed(bench, bench.policy, arms, *rows)
    strict, by_decision = (weighed(bench, STRICT, a, *rows) for a in (arms, lone))
    evidence = {
        "policy": (bench.policy, [w.log_e for w in by_policy]),
        "strict": (STRICT, [w.log_e for w in strict]),
        "strict_by_decision": (STRICT, [w.log_e for w in by_decision]),
        "strict_looking_once": (STRICT, [_looking_once(w) for w in strict]),
    }
    return {
        way: first_fall(bench, policy, np.stack(log_e)) for way, (policy, log_e) in evidence.items()
    }


def _looking_once(weighed: Weighed) -> Floats:
    """Minus the logarithm of the z-test's p-value, as if this look were the only one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.nan_to_num(weighed.beyond / np.sqrt(weighed.variance), posinf=0.0, neginf=0.0)
    once: Floats = -log_ndtr(-z)
    return np.where(bool(weighed.guardrail.besides), 0.0, once)


# ---------------------------------------------------------------- many of them

_shared: Bench


def _share(bench: Bench) -> None:
    global _shared
    _shared = bench


def _experiment(fault: Fault, seed: int) -> Found:
    return experiment(_shared, fault, seed)


def _without_difference(seed: int) -> dict[str, Found]:
    return without_difference(_shared, seed)


def _in_parallel(
    bench: Bench, same: int, faulty: int, seed: int, console: Console | None
) -> tuple[list[dict[str, Found]], dict[Fault, list[Found]]]:
    """``same`` experiments without a difference, and ``faulty`` of each fault."""
    total = same + faulty * (len(FAULTS) - 1)
    seeds = partial(range, seed * EXPERIMENTS)
    with _bar(console, total) as advance, _pool(bench) as pool:

        def all_of(what: str, one: Callable[[int], _T], count: int) -> list[_T]:
            found = []
            for result in pool.map(one, seeds(seed * EXPERIMENTS + count), chunksize=5):
                found.append(result)
                advance(what)
            return found

        equal = all_of("no difference", _without_difference, same)
        faults = {f: all_of(f, partial(_experiment, f), faulty) for f in FAULTS if f != "none"}
    return equal, faults


@contextmanager
def _pool(bench: Bench) -> Iterator[ProcessPoolExecutor]:
    """Workers that hold the bench; each of them computes on one thread."""
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        with ProcessPoolExecutor(WORKERS, get_context("spawn"), _share, (bench,)) as pool:
            yield pool
    finally:
        os.environ.pop("OPENBLAS_NUM_THREADS")
        if before is not None:
            os.environ["OPENBLAS_NUM_THREADS"] = before


@contextmanager
def _bar(console: Console | None, total: int) -> Iterator[Callable[[str], None]]:
    if console is None:
        yield lambda _: None
        return
    from orchestration.screen import bar

    with bar(console) as show:
        done = iter(range(1, total + 1))
        yield lambda what: show(what, next(done), total)


# ---------------------------------------------------------------- what theory expects


@dataclass(frozen=True)
class Expected:
    """When theory has a fault found, and by which guardrail's place; inf and None: not at all."""

    decisions: float
    guardrail: int | None


def expected(bench: Bench, fault: Fault) -> Expected:
    """What is to be expected of a fault before any experiment is made.

    The effect is the fault's own, put on all that experiments draw from; the variances are those of independent decisions at
    first, and of whole customers at the end; the guardrail is the one whose expected path crosses first. Means change in
    the course of the weeks, so effect and variances are taken up to the time that is expected, in TURNS turns.
    """
    found = Expected(float(bench.arm), None)
    for _ in range(TURNS):
        until = [
            _until(bench, fault, found.decisions, place, *part)
            for place, part in enumerate(_parts(bench, fault, found.decisions))
        ]
        first = int(np.argmin(until))
        found = Expected(until[first], first if math.isfinite(until[first]) else None)
    return found


TURNS = 4
_Part = tuple[Guardrail, Totals, Totals]


def _window(bench: Bench, decisions: float) -> int:
    """Rows to draw from in the time that so many decisions of an arm take."""
    share = min(1.0, max(decisions, float(bench.every)) / bench.arm)
    return math.ceil(len(bench.drawn) * share)


def _until(
    bench: Bench,
    fault: Fault,
    window: float,
    place: int,
    guardrail: Guardrail,
    single: Totals,
    whole: Totals,
) -> float:
    """Decisions until the expected path of a guardrail, all its parts, crosses; for one of labels, until they have come."""
    rows, labels = _window(bench, window), place >= _plain(bench)
    clock = CLOCK if labels else "decisions"

    def until(part: Guardrail) -> float:
        at_first, at_end = (weigh(part, totals, clock, 1.0) for totals in (single, whole))
        if not float(at_first.variance) > 0:
            return math.inf
        within = float(at_first.variance) * rows
        between = max(float(at_end.variance) * rows - within, 0.0) / min(window, bench.arm)
        return decisions_until(
            float(at_first.beyond),
            within,
            alpha=bench.policy.alpha_each(),
            prior=bench.policy.prior_decisions,
            between=between,
        )

    crossed = max(until(part) for part in (guardrail, *guardrail.besides))
    return crossed + _of_delay(bench) if labels else crossed


def _of_delay(bench: Bench) -> float:
    """Decisions of an arm in the time that a label takes to count."""
    span_us = float(bench.drawn.event_us[-1] - bench.drawn.event_us[0])
    return bench.arm * (LABEL_DELAY_DAYS + 0.5) * DAY_US / span_us


def _plain(bench: Bench) -> int:
    return len(bench.policy.guardrails(bench.promise))


def _parts(bench: Bench, fault: Fault, window: float) -> list[_Part]:
    """Each guardrail with the totals of everybody in both arms: each decision, or each customer, on its own."""
    n = _window(bench, window)
    early = replace(bench, drawn=bench.drawn.first(n))
    customer = early.drawn.customer
    arms = Arms(
        row=np.tile(np.arange(n), 2),
        arm=np.repeat([CHALLENGER, CONTROL], n),
        customer=np.tile(customer, 2).astype(np.uint64),
        look=np.zeros(2 * n, np.int64),
    )
    decisions, outcomes = observed(early, arms, fault, np.random.default_rng(0))
    single, whole = _both(COLUMNS, decisions, customer)
    labelled, of_whole = (adjusted(t) for t in _both(OUTCOMES, outcomes, customer))
    return [
        *((rail, single, whole) for rail in bench.policy.guardrails(bench.promise)),
        *((rail, labelled, of_whole) for rail in harms(labelled, bench.policy.outcome_limits)),
    ]


def _both(columns: tuple[str, ...], rows: Floats, customer: Ints) -> tuple[Totals, Totals]:
    """Of rows of the challenger and then the control: each on its own, and by customer."""
    halves = rows[: len(customer)], rows[len(customer) :]
    return _apart(columns, *halves), _apart(columns, *(_summed(half, customer) for half in halves))


def _summed(rows: Floats, customer: Ints) -> Floats:
    return np.stack([np.bincount(customer, column) for column in rows.T], axis=1)


def _apart(columns: tuple[str, ...], challenger: Floats, control: Floats) -> Totals:
    """Totals of two arms that share no customer."""
    k = len(columns)
    products = np.zeros((2 * k, 2 * k))
    products[:k, :k], products[k:, k:] = challenger.T @ challenger, control.T @ control
    return Totals(columns, np.concatenate([challenger.sum(0), control.sum(0)]), products)


# ---------------------------------------------------------------- figures


def _figures(
    bench: Bench, same: list[dict[str, Found]], faults: dict[Fault, list[Found]]
) -> dict[str, Any]:
    false = {
        way: [one[way] for one in same if one[way].decisions is not None]
        for way in ("policy", *WAYS)
    }
    return {
        "source": bench.drawn.source,
        "drawn_from": len(bench.drawn),
        "customers": int(bench.drawn.customer.max()) + 1,
        "experiments": len(same),
        "false_rollbacks": len(false["policy"]),
        "designed_for_at_most": bench.policy.alpha * len(same),
        **{f"false_rollbacks_{way}": len(false[way]) for way in WAYS},
        "faults": [_fault(bench, fault, found) for fault, found in faults.items()],
        "failed": len(false["policy"]) > BAR * len(same) / EXPERIMENTS,
    }


def _fault(bench: Bench, fault: Fault, found: list[Found]) -> dict[str, Any]:
    seen = [f for f in found if f.decisions is not None]
    until = sorted(f.decisions if f.decisions is not None else math.inf for f in found)
    median = until[len(until) // 2]
    first = Counter(f.guardrail for f in seen).most_common(1)[0][0] if seen else None
    theory = expected(bench, fault)
    return {
        "fault": fault,
        "experiments": len(found),
        "found": len(seen),
        "median_decisions": int(median) if math.isfinite(median) else None,
        "theory_decisions": round(theory.decisions) if math.isfinite(theory.decisions) else None,
        "first_to_fall": _name(bench, first),
        "theory_has_first": _name(bench, theory.guardrail),
    }


def _name(bench: Bench, place: int | None) -> str:
    if place is None:
        return "none"
    names = [f"{g.name} against {g.says}" for g in bench.policy.guardrails(bench.promise)]
    nothing = adjusted(Slices.empty(OUTCOMES).totals)
    labelled = [f"{g.name} (labels)" for g in harms(nothing, bench.policy.outcome_limits)]
    return [*names, *labelled][place]


def _table(figures: dict[str, Any]) -> Table:
    table = Table(
        "challenger", "rolled back", "median decisions", "theory", "first to fall", "theory's"
    )
    count = figures["experiments"]
    designed = f"at most {figures['designed_for_at_most']:g}"
    said = {
        "": ("as the control", designed),
        "_strict": ("as the control, no margins", designed),
        "_strict_by_decision": ("the same, customers ignored", ""),
        "_strict_looking_once": ("the same, a test for one look at each look", ""),
    }
    for way, (what, theory) in said.items():
        table.add_row(what, f"{figures[f'false_rollbacks{way}']} of {count}", "", theory, "")
    for row in figures["faults"]:
        found, until = f"{row['found']} of {row['experiments']}", str(row["median_decisions"])
        table.add_row(
            row["fault"],
            found,
            until,
            str(row["theory_decisions"]),
            row["first_to_fall"],
            row["theory_has_first"],
        )
    return table

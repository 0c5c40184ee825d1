"""Batches of canary decisions, with faults on request. Factories only, no tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from switchyard.learning import Floats
from switchyard.learning.canary import Decisions
from switchyard.learning.outcomes import Matured
from switchyard.learning.promise import Promise, log_odds, promise_of
from switchyard.learning.slices import CHALLENGER
from switchyard.learning.thresholds import Thresholds

THRESHOLDS = Thresholds(0.10, 0.16)
HOUR_US = 3_600_000_000
CUSTOMERS = 4_000


def make_scores(rng: np.random.Generator, n: int) -> Floats:
    return rng.beta(0.3, 12, n)


def make_promise(n: int = 40_000) -> Promise:
    rng = np.random.default_rng(99)
    customer = rng.integers(0, CUSTOMERS, n)
    day = np.arange(n) * 5 // (4 * n)
    return promise_of(
        make_scores(rng, n), entity=customer, day=day, thresholds=THRESHOLDS, count=50
    )


def make_decisions(
    n: int = 10_000,
    *,
    seed: int = 0,
    hours: float = 30,
    slower: float = 1.0,
    errors: float = 0.0,
    shift: float = 0.0,
    **overrides: Any,
) -> Decisions:
    """About a third of ``n`` in each arm, a third in neither; the challenger's faults on top."""
    rng = np.random.default_rng(seed)
    customer = rng.integers(0, CUSTOMERS, n).astype(np.uint64)
    arm = overrides.pop("arm", (customer % 3).astype(np.int64))
    faulty = arm == CHALLENGER
    score = 1 / (1 + np.exp(-(log_odds(make_scores(rng, n)) + shift * faulty)))
    error = faulty & (rng.random(n) < errors)
    columns: dict[str, Any] = {
        "arm": arm,
        "customer": customer,
        "score": score,
        "decision": (score >= THRESHOLDS.review).astype(np.int64) + (score >= THRESHOLDS.block),
        "degraded": error,
        "error": error,
        "model_s": np.where(faulty, slower, 1.0) * rng.lognormal(-7, 0.5, n),
        "event_us": (np.linspace(0, hours, n) * HOUR_US).astype(np.int64),
    }
    return Decisions(**(columns | overrides))


def make_matured(
    n: int = 90_000, *, seed: int = 0, blind: float = 0.0, **overrides: Any
) -> Matured:
    """Frauds are 2 %, nine in ten of them blocked; ``blind``: the share that the challenger lets pass instead."""
    rng = np.random.default_rng(seed)
    customer = rng.integers(0, CUSTOMERS, n).astype(np.uint64)
    arm = (customer % 3).astype(np.int64)
    usual = 1_000 + 10 * (customer % 700).astype(np.float64)
    fraud = rng.random(n) < 0.02
    caught = rng.random(n) < 0.9
    caught &= ~((arm == CHALLENGER) & (rng.random(n) < blind))
    blocked = np.where(fraud, caught, rng.random(n) < 0.001)
    columns: dict[str, Any] = {
        "arm": arm,
        "customer": customer,
        "decision": 2 * blocked.astype(np.int64),
        "amount_minor": (usual * rng.uniform(0.5, 1.5, n)).astype(np.int64),
        "is_fraud": fraud,
        "before": usual,
    }
    return Matured(**(columns | overrides))

"""The service's own figures: few labels with few values each, counted in a microsecond, shown for all workers.

Every worker counts in a file of its own (``tally``); the one that is asked for ``/metrics`` adds them up,
with what ended workers had counted. Here: what is counted and under which names. Not here: the text
format (``exposition``), figures that are only looked up when somebody asks (``observed``).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from switchyard.learning.drift import SCORE_EDGES
from switchyard.serving.replies import MODEL_RUNGS, Reply, Rung
from switchyard.serving.tally import Tally, keep_ended, own_file, read_all

Stage = Literal["read", "features", "score", "reasons", "journal", "write"]
STAGES: tuple[Stage, ...] = ("read", "features", "score", "reasons", "journal", "write")
"""The steps of a batch, in their order."""

ANSWER_EDGES_S = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015,
    0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0,
)  # fmt: skip
STAGE_EDGES_S = (
    0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003,
    0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
)  # fmt: skip
BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64)
PAUSE_EDGES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)

ShadowOutcome = Literal["judged", "failed", "dropped"]
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, what it says, its labels, and how the workers' figures become one.

    ``edges`` are the upper ends of a histogram's bins. A gauge is the ``total`` or the ``most`` of the
    living workers' values.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    merge: Literal["total", "most"] = "total"


ANSWERS = Family("switchyard_answers_total", "counter", "Requests answered", ("route", "status"))
ANSWER_SECONDS = Family(
    "switchyard_answer_seconds", "histogram", "Seconds from a request's head to its answer",
    ("route",), ANSWER_EDGES_S,
)  # fmt: skip
STAGE_SECONDS = Family(
    "switchyard_stage_seconds", "histogram",
    "Seconds that a decision's batch spent in a stage", ("stage",), STAGE_EDGES_S,
)  # fmt: skip
BATCH_SIZE = Family(
    "switchyard_batch_size", "histogram", "Requests handled together", (), BATCH_EDGES
)
QUEUE = Family("switchyard_queue_depth", "gauge", "Requests that wait for the next batch")
DECISIONS = Family(
    "switchyard_decisions_total", "counter", "Decisions journalled", ("decision", "variant")
)
AMOUNT = Family(
    "switchyard_decided_amount_total", "counter",
    "Money decided on, in units of the home's currency", ("decision", "variant"),
)  # fmt: skip
SCORES = Family("switchyard_score", "histogram", "Scores", ("variant",), SCORE_EDGES)
MODEL_SECONDS = Family(
    "switchyard_model_seconds", "histogram",
    "Seconds of the model stage for a decision, reasons apart", ("variant",), STAGE_EDGES_S,
)  # fmt: skip
MODEL_FAILURES = Family(
    "switchyard_model_failures_total", "counter",
    "Decisions whose own model could not judge", ("variant",),
)  # fmt: skip
SHADOWED = Family(
    "switchyard_shadow_total", "counter",
    "Decisions that the challenger was to judge beside the champion", ("outcome",),
)  # fmt: skip
REASONS = Family("switchyard_reasons_total", "counter", "Reasons given, by code", ("code",))
DEGRADED = Family(
    "switchyard_degraded_decisions_total", "counter", "Decisions on a lower rung", ("rung",)
)
PROFILE_READS = Family(
    "switchyard_profile_reads_total", "counter", "Profiles that the store was asked for", ("view",)
)
PROFILE_MISSES = Family(
    "switchyard_profile_misses_total", "counter", "Those of them that it did not have", ("view",)
)
PROFILE_SYNCED = Family(
    "switchyard_profile_available_at_seconds", "gauge",
    "Unix time from which the newest profiles count", ("view",), merge="most",
)  # fmt: skip
BREAKER = Family(
    "switchyard_breaker_state", "gauge",
    "0 closed, 1 probing, 2 open; the worst of the workers", ("of",), merge="most",
)  # fmt: skip
CPU = Family("switchyard_worker_cpu_seconds_total", "counter", "CPU seconds of the workers")
SERVED_SECONDS = Family(
    "switchyard_worker_seconds_total", "counter", "Seconds that workers have been there"
)
MEMORY = Family("switchyard_worker_memory_bytes", "gauge", "Resident memory of the workers")
WORKERS = Family("switchyard_workers", "gauge", "Workers that serve")
GC_PAUSES = Family(
    "switchyard_gc_pause_seconds", "histogram",
    "Seconds that a garbage collection stopped a worker", ("generation",), PAUSE_EDGES_S,
)  # fmt: skip
GC_LONGEST = Family(
    "switchyard_gc_longest_pause_seconds", "gauge",
    "Longest garbage collection of a living worker", merge="most",
)  # fmt: skip
RELOADS = Family(
    "switchyard_reloads_total", "counter", "Releases that workers took or refused", ("outcome",)
)
COUNTED = (
    ANSWERS, ANSWER_SECONDS, STAGE_SECONDS, BATCH_SIZE, QUEUE, DECISIONS, AMOUNT, SCORES,
    MODEL_SECONDS, MODEL_FAILURES, SHADOWED, REASONS,
    DEGRADED, PROFILE_READS, PROFILE_MISSES, PROFILE_SYNCED, BREAKER, CPU, SERVED_SECONDS, MEMORY,
    WORKERS, GC_PAUSES, GC_LONGEST, RELOADS,
)  # fmt: skip
"""Every family that workers count; ``observed`` has the others."""


_FROM_THE_START: tuple[tuple[Family, tuple[str, ...]], ...] = (
    *((DECISIONS, (decision, "champion")) for decision in ("allow", "review", "block")),
    *((ANSWERS, ("/v1/predict", status)) for status in ("200", "500", "503")),
    *((MODEL_FAILURES, (variant,)) for variant in ("champion", "control", "challenger")),
    *((SHADOWED, (outcome,)) for outcome in ("judged", "failed", "dropped")),
    *((RELOADS, (outcome,)) for outcome in ("taken", "refused")),
    *((DEGRADED, (rung,)) for rung in get_args(Rung)),
)
"""Counters that are shown before they count: an increase from nothing is no increase to Prometheus."""


class Sink(Protocol):
    """What the service tells of its work. Called on the event loop only."""

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        ...

    def waiting(self, requests: int) -> None:
        """So many requests wait while a batch begins."""
        ...

    def batch(self, size: int, seconds: Sequence[float]) -> None:
        """``size`` decisions were made together; the seconds of each of STAGES, 0 where nothing was to do."""
        ...

    def decided(self, reply: Reply, stake_minor: int) -> None:
        """One decision was journalled; once for each, however often it is asked for again.
        ``stake_minor`` is the money that it was about, in the currency's smallest unit."""
        ...

    def modelled(self, variant: str, decisions: int, seconds: float) -> None:
        """The model stage of so many decisions of a variant took ``seconds`` together."""
        ...

    def shadowed(self, outcome: ShadowOutcome, decisions: int) -> None:
        """So many decisions were judged beside the champion, or were to be."""
        ...


class Uncounted:
    """A sink for where nobody looks: explanations, measurements of the parts."""

    def answered(self, route: str, status: int, seconds: float) -> None: ...

    def waiting(self, requests: int) -> None: ...

    def batch(self, size: int, seconds: Sequence[float]) -> None: ...

    def decided(self, reply: Reply, stake_minor: int) -> None: ...

    def modelled(self, variant: str, decisions: int, seconds: float) -> None: ...

    def shadowed(self, outcome: ShadowOutcome, decisions: int) -> None: ...


class Metrics:
    """Counts for this process below ``folder``, which the workers of one service share.

    ``minor_units`` of the currency are one unit (100 cents are a euro). Unknown label values get a series
    of their own the first time they are met.
    """

    def __init__(self, folder: Path, minor_units: int = 100) -> None:
        keep_ended(folder)
        self.folder = folder
        self._tally = Tally(own_file(folder))
        self._values = self._tally.values
        self._per_unit = 1 / minor_units
        self._began = time.monotonic()
        self._answered: dict[tuple[str, int], tuple[int, int]] = {}
        self._decided: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._reason: dict[str, int] = {}
        self._degraded: dict[str, int] = {}
        self._modelled: dict[str, int] = {}
        self._stages = [self._histogram(STAGE_SECONDS, stage) for stage in STAGES]
        self._size = self._histogram(BATCH_SIZE)
        self._queue = self._number(QUEUE)
        self._pauses = [self._histogram(GC_PAUSES, generation) for generation in "012"]
        self._longest_pause = self._number(GC_LONGEST)
        for family, labels in _FROM_THE_START:
            self._number(family, *labels)
        self._values[self._number(WORKERS)] = 1.0
        self.tick()

    def answered(self, route: str, status: int, seconds: float) -> None:
        slots = self._answered.get((route, status))
        if slots is None:
            slots = (
                self._number(ANSWERS, route, str(status)),
                self._histogram(ANSWER_SECONDS, route),
            )
            self._answered[route, status] = slots
        values, (count, histogram) = self._values, slots
        values[count] += 1.0
        values[histogram + bisect_left(ANSWER_EDGES_S, seconds)] += 1.0
        values[histogram + _ANSWER_SUM] += seconds

    def waiting(self, requests: int) -> None:
        self._values[self._queue] = requests

    def batch(self, size: int, seconds: Sequence[float]) -> None:
        values = self._values
        for histogram, spent in zip(self._stages, seconds, strict=True):
            if spent > 0.0:
                values[histogram + bisect_left(STAGE_EDGES_S, spent)] += size
                values[histogram + _STAGE_SUM] += spent * size
        values[self._size + bisect_left(BATCH_EDGES, size)] += 1.0
        values[self._size + _SIZE_SUM] += size

    def decided(self, reply: Reply, stake_minor: int) -> None:
        key = reply.decision, reply.variant
        slots = self._decided.get(key)
        if slots is None:
            scores = self._histogram(SCORES, reply.variant)
            slots = self._number(DECISIONS, *key), self._number(AMOUNT, *key), scores
            self._decided[key] = slots
        values, (count, amount, scores) = self._values, slots
        values[count] += 1.0
        values[amount] += stake_minor * self._per_unit
        score = reply.score
        if score is not None:
            values[scores + bisect_left(SCORE_EDGES, score)] += 1.0
            values[scores + _SCORE_SUM] += score
        for reason in reply.reasons:
            values[self._by_name(self._reason, REASONS, reason.code)] += 1.0
        for rung in reply.degraded:
            values[self._by_name(self._degraded, DEGRADED, rung)] += 1.0
        if reply.degraded and not MODEL_RUNGS.isdisjoint(reply.degraded):
            values[self._number(MODEL_FAILURES, reply.variant)] += 1.0

    def modelled(self, variant: str, decisions: int, seconds: float) -> None:
        histogram = self._modelled.get(variant)
        if histogram is None:
            histogram = self._modelled[variant] = self._histogram(MODEL_SECONDS, variant)
        values = self._values
        values[histogram + bisect_left(STAGE_EDGES_S, seconds / decisions)] += decisions
        values[histogram + _STAGE_SUM] += seconds

    def shadowed(self, outcome: ShadowOutcome, decisions: int) -> None:
        self._values[self._number(SHADOWED, outcome)] += decisions

    def paused(self, generation: int, seconds: float) -> None:
        """A garbage collection stopped this worker. Gives no number its slot: any code may be stopped."""
        values, histogram, longest = self._values, self._pauses[generation], self._longest_pause
        values[histogram + bisect_left(PAUSE_EDGES_S, seconds)] += 1.0
        values[histogram + _PAUSE_SUM] += seconds
        if seconds > values[longest]:
            values[longest] = seconds

    def reloaded(self, outcome: Literal["taken", "refused"]) -> None:
        """This worker took a release that was named while it ran, or refused it."""
        self._values[self._number(RELOADS, outcome)] += 1.0

    def profiles(self, view: str, asked: int, absent: int, synced_through_us: int | None) -> None:
        """So many profiles of ``view`` this worker has asked the store for since it is there, and so many
        were not; the newest ones count from that moment on (None: not known)."""
        self._values[self._number(PROFILE_READS, view)] = asked
        self._values[self._number(PROFILE_MISSES, view)] = absent
        if synced_through_us is not None:
            self._values[self._number(PROFILE_SYNCED, view)] = synced_through_us / 1e6

    def breaker(self, of: str, state: int) -> None:
        """The breaker before ``of`` is 0 closed, 1 probing, 2 open."""
        self._values[self._number(BREAKER, of)] = state

    def tick(self) -> None:
        """Note this process's own use of the machine; about once a second."""
        used = _process_use()
        self._values[self._number(CPU)] = used[0]
        self._values[self._number(MEMORY)] = used[1]
        self._values[self._number(SERVED_SECONDS)] = time.monotonic() - self._began

    def _number(self, family: Family, *values: str) -> int:
        return self._tally.slot(series(family, values))

    def _histogram(self, family: Family, *values: str) -> int:
        """The first of a histogram's slots: a bin for each edge, the open one, the sum."""
        first, *_ = [
            self._tally.slot(series(family, values, str(part)))
            for part in range(len(family.edges) + 2)
        ]
        return first

    def _by_name(self, known: dict[str, int], family: Family, name: str) -> int:
        slot = known.get(name)
        if slot is None:
            slot = known[name] = self._number(family, name)
        return slot


def series(family: Family, values: Sequence[str], part: str = "") -> str:
    """The name of one number in a tally."""
    return "\t".join((family.name, *values, part))


def bin_names(edges: Sequence[float]) -> list[str]:
    """The upper ends of a histogram's bins as Prometheus writes them.

    >>> bin_names((0.5, 1))
    ['0.5', '1.0', '+Inf']
    """
    return [*(repr(float(edge)) for edge in edges), "+Inf"]


def total_of(folder: Path) -> dict[str, float]:
    """What all workers that share ``folder`` counted, by series: gauges of the living, counters of all."""
    living, total = read_all(folder)
    gauges = {f.name: f.merge for f in COUNTED if f.kind == "gauge"}
    total = {name: v for name, v in total.items() if name.partition("\t")[0] not in gauges}
    for numbers in living.values():
        for name, value in numbers.items():
            together = _MERGES[gauges.get(name.partition("\t")[0], "total")]
            total[name] = together(total[name], value) if name in total else value
    return total


_MERGES: Mapping[str, Callable[[float, float], float]] = {
    "total": lambda a, b: a + b,
    "most": max,
}
_ANSWER_SUM = len(ANSWER_EDGES_S) + 1
_STAGE_SUM = len(STAGE_EDGES_S) + 1
_SCORE_SUM = len(SCORE_EDGES) + 1
_PAUSE_SUM = len(PAUSE_EDGES_S) + 1
_SIZE_SUM = len(BATCH_EDGES) + 1


def _process_use() -> tuple[float, float]:
    """CPU seconds and resident bytes of this process."""
    import resource

    with open("/proc/self/statm", "rb") as file:
        resident = int(file.read().split()[1])
    return time.process_time(), float(resident * resource.getpagesize())

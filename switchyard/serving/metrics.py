"""The service's own Prometheus counters and histograms: few labels, each with few values.

One object for each process; with PROMETHEUS_MULTIPROC_DIR set, all workers' figures add up. Not here:
where they are shown.
"""

from __future__ import annotations

from switchyard.serving.replies import Reply

LATENCY_BUCKETS_S = (
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.02,
    0.03,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    3.0,
)
SCORE_BUCKETS = tuple(i / 20 for i in range(1, 21))


class Metrics:
    """Counts answers and decisions. Make one for each process, after its environment is complete."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Histogram

        self._answers = Counter("switchyard_answers", "Answers by status", ["route", "status"])
        self._seconds = Histogram(
            "switchyard_answer_seconds", "Time to an answer", ["route"], buckets=LATENCY_BUCKETS_S
        )
        self._decisions = Counter("switchyard_decisions", "Decisions made", ["decision", "variant"])
        self._degraded = Counter("switchyard_degraded_decisions", "By rung", ["rung"])
        self._scores = Histogram("switchyard_score", "Scores", ["variant"], buckets=SCORE_BUCKETS)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._answers.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def decided(self, reply: Reply) -> None:
        """One decision was made, journalled and counted once, however often it is asked for again."""
        self._decisions.labels(reply.decision, reply.variant).inc()
        for rung in reply.degraded:
            self._degraded.labels(rung).inc()
        if reply.score is not None:
            self._scores.labels(reply.variant).observe(reply.score)

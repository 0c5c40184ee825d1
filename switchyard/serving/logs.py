"""Logs of the service: one JSON object a line, written by a thread of its own, repetition counted not kept.

A line has time, level, logger, message, release and pid; ``decision_id`` and ``transaction_id`` where the
call gave them as ``extra``. Bodies and keys are in none. Here: form and amount. Not here: what is logged.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any, Literal

import msgspec

from switchyard.serving.replies import Reply

LogFormat = Literal["json", "text"]
LogDecisions = Literal["never", "degraded", "always"]

REPEAT_S = 10.0
"""A warning or error of the same place is written once in so many seconds; the next says how often it was."""
MOST_WAITING = 10_000
"""Lines that may wait for a slow reader of the log; what is beyond is dropped, and the next line says so."""
EXTRAS = ("decision_id", "transaction_id")

_PLACES = 1_000
_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class JsonLines(logging.Formatter):
    """A record as one line of JSON; ``release`` gives the id of the release that decides."""

    def __init__(self, release: Callable[[], str | None] = lambda: None) -> None:
        super().__init__()
        self._release = release

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            "release": self._release(),
        }
        line |= {name: value for name in EXTRAS if (value := getattr(record, name, None))}
        if repeated := getattr(record, "repeated", 0):
            line["repeated"] = repeated
        if dropped := getattr(record, "dropped", 0):
            line["dropped"] = dropped
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class OncePerWhile(logging.Filter):
    """Lets each place that warns speak once in ``pause_s``; ``repeated`` of its next record counts the rest.

    A place is a logger and an unformatted message. What is below WARNING passes.
    """

    def __init__(
        self, pause_s: float = REPEAT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._pause_s = pause_s
        self._clock = clock
        self._places: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        place, now = (record.name, str(record.msg)), self._clock()
        spoke, kept_back = self._places.get(place, (-self._pause_s, 0))
        if now - spoke < self._pause_s:
            self._places[place] = spoke, kept_back + 1
            return False
        if len(self._places) >= _PLACES:
            self._places.clear()
        self._places[place] = now, 0
        record.repeated = kept_back
        return True


class Handing(logging.handlers.QueueHandler):
    """Hands records to the writing thread and never waits for it."""

    queue: queue.Queue[Any]
    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """As it is: the thread that writes makes text of it."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        record.dropped = self.dropped
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
        else:
            self.dropped = 0


class DecisionLog:
    """Logs decisions as ``which`` says: degraded ones at most once a while for each rung, all, or none."""

    def __init__(
        self, which: LogDecisions = "degraded", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._which = which
        self._clock = clock
        self._next: dict[str, float] = {}
        self._log = logging.getLogger("switchyard.decisions")

    def decided(self, reply: Reply) -> None:
        """One decision was journalled."""
        if self._which == "always":
            self._note(logging.INFO, reply)
        elif reply.degraded and self._which == "degraded":
            now = self._clock()
            if any(now >= self._next.get(rung, now) for rung in reply.degraded):
                self._next |= dict.fromkeys(reply.degraded, now + REPEAT_S)
                self._note(logging.INFO, reply)

    def _note(self, level: int, reply: Reply) -> None:
        degraded = f", degraded: {', '.join(reply.degraded)}" if reply.degraded else ""
        self._log.log(
            level,
            "%s at score %s by %s in %.1f ms%s",
            reply.decision, reply.score, reply.variant, reply.latency_ms, degraded,
            extra={"decision_id": reply.decision_id, "transaction_id": reply.transaction_id},
        )  # fmt: skip


def write_logs(
    form: LogFormat,
    *,
    release: Callable[[], str | None] = lambda: None,
    stream: IO[str] = sys.stdout,
) -> Callable[[], None]:
    """Have all loggers of this process write to ``stream``; returns what writes the rest and ends it.

    Takes the place of the handlers that were there, of the server's own loggers too.
    """
    written = logging.StreamHandler(stream)
    written.setFormatter(JsonLines(release) if form == "json" else logging.Formatter(_TEXT))
    waiting: queue.Queue[Any] = queue.Queue(MOST_WAITING)
    handing = Handing(waiting)
    handing.addFilter(OncePerWhile())
    root = logging.getLogger()
    for logger in (root, *map(logging.getLogger, ("bentoml", "uvicorn.error", "circus"))):
        logger.handlers = []
        logger.propagate = True
    root.handlers = [handing]
    logging.getLogger("switchyard").setLevel(logging.INFO)
    listener = logging.handlers.QueueListener(waiting, written)
    listener.start()
    return listener.stop

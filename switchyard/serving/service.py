"""The running decision service: bodies in, answers out, all on one event loop.

Here: parsing, batching, waiting for a transaction that another request is deciding.
Not here: the order of a decision (``engine``), HTTP (``http``), the use case (``domain``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from switchyard.errors import RequestError, SwitchyardError
from switchyard.serving.batching import Batcher, GoOn
from switchyard.serving.breaker import Breaker
from switchyard.serving.bulk import MAX_BULK_BYTES, joined, split, weight
from switchyard.serving.claims import BUSY, Busy
from switchyard.serving.commands import LEASE_MS
from switchyard.serving.domain import R, Request
from switchyard.serving.engine import Asked, Engine, Taken
from switchyard.serving.http import FAILURES, Post, refused
from switchyard.serving.judging import Scorer
from switchyard.serving.metrics import Sink, Uncounted
from switchyard.serving.releases import asked_for
from switchyard.serving.replies import Answer, encode

POLL_S = 0.02
"""Pause before asking again for a transaction that another request is deciding."""
PATIENCE_S = LEASE_MS / 1000 + 0.5
"""By then the other request has answered or its lease has run out."""

Outcome = Answer | Busy | SwitchyardError
Part = TypeVar("Part")
R_co = TypeVar("R_co", bound=Request, covariant=True)


class Reader(Protocol[R_co]):
    """Bodies to requests. Every method raises RequestError; ``now_us`` is in microseconds."""

    def transaction(self, body: bytes, now_us: int) -> R_co: ...

    def event(self, body: bytes, now_us: int) -> Taken: ...

    def label(self, body: bytes, now_us: int) -> Taken: ...


class DecisionService:
    """Answers bodies.

    ``clock`` is the wall clock in microseconds since the epoch; ``explain`` answers a body with what
    becomes JSON, in a thread of its own.
    """

    def __init__(
        self,
        engine: Engine[R],
        reader: Reader[R],
        clock: Callable[[], int],
        explain: Callable[[bytes], Any],
        metrics: Sink | None = None,
    ) -> None:
        self.engine: Engine[Any] = engine
        self._reader: Reader[Any] = reader
        self._clock = clock
        self._explain = explain
        self._metrics: Sink = metrics or Uncounted()
        self._batcher: Batcher[Asked[Any] | Taken, Outcome] = Batcher(self._handle)
        engine.shadow.busy = lambda: self._batcher.waiting > 0

    async def predict(self, body: bytes) -> Answer:
        """Decide a transaction. Raises RequestError, JournalError."""
        return await self._predict(body, None)

    async def predict_by(self, body: bytes, query: bytes) -> Answer:
        """:meth:`predict` by the release that the query names. Raises RequestError 404 if it is not loaded."""
        standing = self.engine.lineup.standing
        release = asked_for(standing.loaded, query, standing.champion)
        return await self._predict(body, None if release is standing.champion else release)

    async def bulk(self, body: bytes) -> Answer:
        """Decide up to ``bulk.MOST`` transactions, each as if alone. Raises RequestError for the whole."""
        started, now_us = time.perf_counter(), self._clock()
        answers: list[Answer | None] = []
        items: list[Asked[Any]] = []
        for single in split(body):
            try:
                transaction = self._reader.transaction(single, now_us)
            except RequestError as error:
                answers.append(refused(error))
            else:
                answers.append(None)
                items.append(Asked(transaction, now_us, started))
        outcomes = await self._batcher.submit(items) if items else []
        decided = iter(
            [
                outcome if isinstance(outcome, Answer) else await self._settled(item, outcome)
                for item, outcome in zip(items, outcomes, strict=True)
            ]
        )
        return joined([answer or next(decided) for answer in answers])

    async def event(self, body: bytes) -> Answer:
        """Take in a transaction without deciding it. Raises RequestError, JournalError, StoreError."""
        return await self._answer(self._reader.event(body, self._clock()))

    async def label(self, body: bytes) -> Answer:
        """Take in a verdict. Raises RequestError, JournalError, StoreError."""
        return await self._answer(self._reader.label(body, self._clock()))

    async def explain(self, body: bytes) -> Answer:
        """Explain a past decision. Raises RequestError, ReleaseError."""
        return Answer(200, encode(await asyncio.to_thread(self._explain, body)))

    def routes(self) -> tuple[Post, ...]:
        """Every path that takes a POST."""
        return (
            Post("/v1/predict", self.predict, "score", asked=self.predict_by),
            Post("/v1/predict/bulk", self.bulk, "score", MAX_BULK_BYTES, weight=weight),
            Post("/v1/explain", self.explain, "explain"),
            Post("/v1/events", self.event, "score"),
            Post("/v1/labels", self.label, "label"),
        )

    def breakers(self) -> tuple[Breaker, ...]:
        """What is left alone while it fails: stores, and the models that stand now."""
        return *self.engine.ladder.breakers, *self.engine.variants.ladder.breakers

    def close(self) -> None:
        """Close all that is open; nothing may be waiting any more."""
        self.engine.close()

    async def _predict(self, body: bytes, release: Scorer | None) -> Answer:
        started, now_us = time.perf_counter(), self._clock()
        transaction = self._reader.transaction(body, now_us)
        asked = Asked(transaction, now_us, started, release)
        return await self._answer(asked)

    async def _settled(self, item: Asked[Any], outcome: Outcome) -> Answer:
        """The answer of one of a bulk; one that is being decided elsewhere is asked for again."""
        try:
            return await self._answer(item) if isinstance(outcome, Busy) else _found(outcome)
        except FAILURES as error:
            return refused(error)

    async def _answer(self, item: Asked[Any] | Taken) -> Answer:
        deadline = time.monotonic() + PATIENCE_S
        while isinstance(outcome := (await self._batcher.submit([item]))[0], Busy):
            if time.monotonic() > deadline:
                raise RequestError(
                    "another request has been deciding this id for too long; send it again",
                    status=503,
                )
            await asyncio.sleep(POLL_S)
        return _found(outcome)

    async def _handle(self, items: Sequence[Asked[Any] | Taken], go_on: GoOn) -> list[Outcome]:
        """One batch: what fails for its decisions does not fail its events."""
        self._metrics.waiting(self._batcher.waiting)
        outcomes: list[Outcome] = [BUSY] * len(items)
        asked = [(i, item) for i, item in enumerate(items) if isinstance(item, Asked)]
        taken = [(i, item) for i, item in enumerate(items) if isinstance(item, Taken)]
        await _run(
            self.engine.decide if taken else partial(self.engine.decide, go_on=go_on),
            asked,
            outcomes,
        )
        await _run(self.engine.take_in, taken, outcomes)
        return outcomes


def _found(outcome: Answer | SwitchyardError) -> Answer:
    if isinstance(outcome, SwitchyardError):
        raise outcome
    return outcome


async def _run(
    step: Callable[[Sequence[Part]], Awaitable[Sequence[Outcome]]],
    parts: list[tuple[int, Part]],
    outcomes: list[Outcome],
) -> None:
    if not parts:
        return
    try:
        answers: Sequence[Outcome] = await step([part for _, part in parts])
    except SwitchyardError as error:
        answers = [error] * len(parts)
    for (i, _), answer in zip(parts, answers, strict=True):
        outcomes[i] = answer

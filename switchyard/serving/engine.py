"""The decision engine: a batch of requests in, for each an answer that is already in the journal.

The order is the whole point: hold -> read trip -> vectors -> one score call -> reasons -> journal -> write
trip -> journal (own numbers) -> answers. It knows no use case (``domain``), no HTTP (``http``), no model
(``judging``). It runs on one event loop and waits for nothing but the store and, if so set, the disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple

import msgspec

from switchyard.errors import JournalError, StoreError
from switchyard.serving.batching import GoOn
from switchyard.serving.claims import BUSY, Busy, answer_of, conflict, kept, remembered, settled_by
from switchyard.serving.commands import LEASE_MS
from switchyard.serving.domain import Domain, R
from switchyard.serving.exploration import Exploration
from switchyard.serving.hot_store import HotStore
from switchyard.serving.ids import unique_tokens
from switchyard.serving.index import Key, key_of_decision
from switchyard.serving.journal import Journal
from switchyard.serving.judging import ModelLadder, Scorer
from switchyard.serving.ladder import FeatureLadder
from switchyard.serving.ledger import Ledger
from switchyard.serving.lineup import Lineup, Standing
from switchyard.serving.metrics import Sink, Uncounted
from switchyard.serving.recent import Recent
from switchyard.serving.replies import Answer, Reply, Rung, encode
from switchyard.serving.stopwatch import Stopwatch
from switchyard.serving.trip import Append, Claim, Trip, Wanted, Written
from switchyard.serving.trip import Reply as StoredReply
from switchyard.serving.variants import Judged, Shadow, Variants

OWN_S = LEASE_MS / 2000
"""Half a lease: a decision that is not in the journal by then is given up, since another host may be about to
take it over."""
MOST_OWED = 10_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked(Generic[R]):
    """A request to decide. ``started`` is ``time.perf_counter()`` when its body had arrived, ``release`` who
    has to judge it (None: the champion)."""

    request: R
    received_us: int
    started: float
    release: Scorer | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """Something to take in without deciding: its journal record, and the events it is.

    ``claim`` makes it count once where its content can't (a verdict that is available 'now').
    """

    subject: Any
    kind: Literal["transaction", "label"]
    record: Mapping[str, Any]
    entities: tuple[str, ...]
    appends: tuple[Append, ...]
    answer: bytes
    claim: Claim | None = None


class Given(NamedTuple):
    """A sequence number that the store gave to an event of an entity, and the epoch it counts in."""

    owner: str
    entity: str
    number: int
    epoch: str | None


def _nobody_waits() -> None:
    """For batches that nothing comes after."""


class Engine(Generic[R]):
    """Decides batches. Raises JournalError where what it did can't be written down: nothing is answered.

    A store that is down degrades decisions and never stops them; what is only taken in needs the store.
    ``ladder`` has what stands in for the store (None: what was lately read, no cold store), ``previous`` is
    the previous champion, if it is loaded, ``exploration`` lets some would-be blocks through to review. ``metrics`` and ``decided`` are told of each decision once it is
    in the journal.
    """

    def __init__(
        self,
        domain: Domain[R],
        store: HotStore,
        journal: Journal,
        release: Scorer,
        *,
        ladder: FeatureLadder | None = None,
        previous: Scorer | None = None,
        exploration: Exploration | None = None,
        metrics: Sink | None = None,
        decided: Callable[[Reply], None] = lambda _reply: None,
    ) -> None:
        self.domain = domain
        self.store = store
        self.journal = journal
        self.ledger = Ledger(journal.folder)
        self.newest: Given | None = None
        views = store.commands.views
        self.ladder = ladder or FeatureLadder(views, Recent(views), None)
        self.lineup = Lineup(Standing(release, previous))
        self._metrics: Sink = metrics or Uncounted()
        self._variants = Variants(self.lineup.standing, domain, self._metrics)
        self.shadow = Shadow(journal, self._metrics)
        self._decided = decided
        self._exploration = exploration
        self._new_id = unique_tokens()
        self._owed: deque[Taken] = deque(maxlen=MOST_OWED)

    async def decide(
        self, asked: Sequence[Asked[R]], go_on: GoOn = _nobody_waits
    ) -> list[Answer | Busy]:
        """One answer for each, in order: the decision, the earlier one again, 409, or BUSY.

        Of two with the same id in one batch the second gets the first's answer; two of the same entity
        both see what was in the store at the read trip. ``go_on`` is called when the write trip is about to
        be sent: whoever reads after it on the same connection sees what it wrote.
        """
        firsts: dict[str, Asked[R]] = {}
        for a in asked:
            firsts.setdefault(a.request.transaction_id, a)
        answers = await self._decide_held(firsts, go_on)
        return [
            answers.get(a.request.transaction_id, BUSY)
            if a.request.digest == firsts[a.request.transaction_id].request.digest
            else conflict(a.request.transaction_id)
            for a in asked
        ]

    async def take_in(self, taken: Sequence[Taken]) -> list[Answer | Busy | StoreError]:
        """Journal and append events and verdicts; a StoreError for each that the store refused a part of.

        Raises StoreError if the store can't take them. It may have taken them all the same; so they are
        appended again, for their numbers, once it answers.
        """
        answers: list[Answer | Busy | StoreError | None] = [*await self._settled_claims(taken)]
        new = [i for i, answer in enumerate(answers) if answer is None]
        if new:
            await self._journalled([taken[i].record for i in new])
            try:
                fates = await self._appended([taken[i] for i in new])
            except StoreError:
                self._owed.extend(taken[i] for i in new)
                raise
            for i, fate in zip(new, fates, strict=True):
                answers[i] = fate or Answer(200, taken[i].answer)
        return [answer for answer in answers if answer is not None]

    @property
    def variants(self) -> Variants[R]:
        """Who judges what, of the releases that stand now."""
        if self.lineup.standing is not self._variants.standing:
            self._variants = Variants(self.lineup.standing, self.domain, self._metrics)
        return self._variants

    def warm_up(self, release: Scorer) -> None:
        """Run all code of a release once. Raises what a broken one raises. Any thread may call."""
        ModelLadder(release, self.domain).warm_up()

    def turn_over(self) -> bool:
        """Drop what was lately read and close the journal's segment; False if that is to be tried again."""
        self.ladder.recent.clear()
        return self.journal.turn_over()

    def close(self) -> None:
        """Close journal, ledger and stores; nothing may be waiting any more."""
        self.shadow.close()
        self.journal.close()
        self.ledger.close()
        self.store.close()
        self.ladder.close()

    async def _decide_held(
        self, firsts: Mapping[str, Asked[R]], go_on: GoOn
    ) -> dict[str, Answer | Busy]:
        """The answers to those that nobody else on this host is deciding."""
        held: list[str] = []
        try:
            held.extend(name for name in firsts if self.ledger.hold(name))
            if not held:
                return {}
            answers = await self._decide_distinct([firsts[name] for name in held], go_on)
            return dict(zip(held, answers, strict=True))
        finally:
            for name in held:
                self.ledger.let_go(name)

    async def _decide_distinct(self, asked: list[Asked[R]], go_on: GoOn) -> list[Answer | Busy]:
        watch, until = Stopwatch(), time.monotonic() + OWN_S
        trip, rungs = await self._read(asked)
        watch.lap("read")
        requests = [a.request for a in asked]
        before = remembered(self.ledger, requests, trip.claims, asked[0].received_us)
        settled = [
            answer or settled_by(claim, request)
            for answer, claim, request in zip(before, trip.claims, requests, strict=True)
        ]
        rows = [i for i, answer in enumerate(settled) if answer is None]
        if rows:
            decided = await self._decide_open(
                [asked[i] for i in rows],
                rows_of(trip, rows),
                rungs and [rungs[i] for i in rows],
                watch,
                until,
                go_on,
            )
            for i, answer in zip(rows, decided, strict=True):
                settled[i] = answer
        return [answer for answer in settled if answer is not None]

    async def _decide_open(
        self,
        asked: list[Asked[R]],
        trip: Trip,
        rungs: list[Rung],
        watch: Stopwatch,
        until: float,
        go_on: GoOn,
    ) -> list[Answer | Busy]:
        requests = [a.request for a in asked]
        assembled = self.domain.assemble(requests, trip)
        watch.lap("features")
        variants = self.variants
        judged = variants.judge(
            requests, [a.release for a in asked], assembled.vectors, watch.within("reasons")
        )
        watch.lap("score")
        degraded = _degraded(rungs, assembled.degraded, judged)
        if self._exploration is not None:
            judged = self._explored(self._exploration, asked, judged, degraded)
        replies = self._replies(asked, judged, degraded)
        vectors = assembled.vectors.tolist()
        if rungs:
            self.ledger.note_unsettled(request.transaction_id for request in requests)
        elif time.monotonic() > until:
            return [BUSY] * len(asked)
        await self._journalled(
            [
                _decision_record(*parts, trip.epoch, variants.mark)
                for parts in zip(asked, replies, judged, vectors, assembled.seen, strict=True)
            ],
            [key_of_decision(reply.transaction_id, reply.decision_id) for reply in replies],
        )
        for request, reply in zip(requests, replies, strict=True):
            self._metrics.decided(reply, self.domain.stake(request))
            self._decided(reply)
        bodies = [encode(reply) for reply in replies]
        watch.lap("journal")
        go_on()
        written = None if rungs else await self._write(requests, bodies)
        watch.lap("write")
        self._metrics.batch(len(asked), watch.seconds)
        if variants.shadows:
            self._shadow(variants, asked, replies, vectors)
        if written is None:
            return [Answer(200, body) for body in bodies]
        return [
            kept(body, earlier, request)
            for request, body, earlier in zip(requests, bodies, written.earlier, strict=True)
        ]

    def _explored(
        self,
        exploration: Exploration,
        asked: list[Asked[R]],
        judged: list[Judged],
        degraded: list[list[Rung]],
    ) -> list[Judged]:
        """The same, of the blocks that a plan's release decided with nothing degraded some let through to review."""
        chosen = list(judged)
        for row, (one, each) in enumerate(zip(asked, judged, strict=True)):
            if each.judgement.decision != "block" or degraded[row] or each.variant == "named":
                continue
            request = one.request
            try:
                choice = exploration.choose(
                    request.transaction_id, self.domain.stake(request), one.received_us
                )
            except OSError as error:
                _log.error("nothing is explored, its budget can't be kept: %s", error)
                return judged
            if choice is not None:
                judgement = each.judgement
                if choice.explored:
                    judgement = judgement._replace(decision="review")
                chosen[row] = each._replace(judgement=judgement, propensity=choice.propensity)
        return chosen

    def _shadow(
        self,
        variants: Variants[R],
        asked: list[Asked[R]],
        replies: list[Reply],
        vectors: list[list[float]],
    ) -> None:
        """Have the challenger judge what the champion has decided, once it is answered."""
        of_all = zip(asked, replies, vectors, strict=True)
        self.shadow.offer(
            variants,
            [
                (reply.decision_id, one.received_us, vector)
                for one, reply, vector in of_all
                if one.release is None
            ],
        )

    def _replies(
        self, asked: list[Asked[R]], judged: list[Judged], degraded: list[list[Rung]]
    ) -> list[Reply]:
        now, new_id = time.perf_counter(), self._new_id
        return [
            Reply(
                new_id().hex(),
                one.request.transaction_id,
                judgement.score,
                judgement.decision,
                judgement.reasons,
                judgement.release,
                variant,
                rungs,
                round((now - one.started) * 1e3, 3),
            )
            for one, (judgement, variant, _, _), rungs in zip(asked, judged, degraded, strict=True)
        ]

    async def _read(self, asked: list[Asked[R]]) -> tuple[Trip, list[Rung]]:
        """The read trip, or what stands in for it with the rung of each request."""
        token = self.ledger.token
        wanted = [
            Wanted(
                self.domain.entities(a.request),
                Claim(a.request.transaction_id, token, a.request.digest),
            )
            for a in asked
        ]
        if self.ladder.tries_store():
            try:
                trip = await self.store.read(wanted)
            except StoreError as error:
                self.ladder.failed(error)
            else:
                self.ladder.took(wanted, trip)
                if self._owed:
                    await self._pay()
                return trip, []
        return await self.ladder.stand_in(wanted)

    async def _write(self, requests: list[R], bodies: list[bytes]) -> Written | None:
        appends = [self.domain.appends(request) for request in requests]
        replies = [
            StoredReply(request.transaction_id, request.digest, body)
            for request, body in zip(requests, bodies, strict=True)
        ]
        events = [event for own in appends for event in own]
        try:
            written = await self._write_surely(events, replies)
        except StoreError as error:
            _log.warning("decided, but not in the online store: %s", error)
            self.ledger.note_unsettled(request.transaction_id for request in requests)
            return None
        for words in written.refused:
            _log.warning("decided, but the online store refused a part: %s", words)
        subjects = [(r, "transaction", events) for r, events in zip(requests, appends, strict=True)]
        try:
            self._journal_numbers(subjects, written)
        except JournalError as error:  # decided all the same; the caretaker asks for the numbers
            _log.error("decided, but its numbers in the store are not journalled: %s", error)
            with suppress(
                JournalError
            ):  # then who comes after this process finds it without a number
                self.ledger.note_unsettled(request.transaction_id for request in requests)
        return written

    async def _write_surely(self, events: list[Append], replies: list[StoredReply]) -> Written:
        """Write; if no answer came in time, once more.

        The first try may have been applied, and then its numbers must still be learnt: an event that
        others see and that has no journalled number can't be recomputed. Writing again is safe.
        """
        try:
            return await self.store.write(events, replies)
        except StoreError:
            return await self.store.write(events, replies)

    async def _journalled(
        self, records: Sequence[Any], keys: Sequence[Key | None] | None = None
    ) -> None:
        """Written down, and if so set on the disk, without holding up the event loop."""
        self.journal.write(records, keys)
        if self.journal.fsync:
            await asyncio.to_thread(self.journal.sync)

    def _journal_numbers(
        self, subjects: Sequence[tuple[Any, str, tuple[Append, ...]]], written: Written
    ) -> None:
        if written.numbers and subjects[-1][2]:
            last = subjects[-1][2][-1]
            self.newest = Given(last.owner, last.entity, written.numbers[-1], written.epoch)
        numbers = iter(written.numbers)
        records = [
            self.domain.appended(subject, kind, [next(numbers) or None for _ in events])
            for subject, kind, events in subjects
            if events
        ]
        for record in records:
            record["epoch"] = written.epoch
        self.journal.write(records, [None] * len(records))

    async def _appended(self, taken: Sequence[Taken]) -> list[StoreError | None]:
        """Append what was taken in and journal its numbers; what the store refused of each."""
        replies = [StoredReply(t.claim[0], t.claim[2], t.answer) for t in taken if t.claim]
        written = await self._write_surely([e for t in taken for e in t.appends], replies)
        self._journal_numbers([(t.subject, t.kind, t.appends) for t in taken], written)
        numbers = iter(written.numbers)
        whole = [0 not in [next(numbers) for _ in t.appends] for t in taken]
        return [
            None if fine else StoreError(f"the online store refused an event: {written.refused[0]}")
            for fine in whole
        ]

    async def _pay(self) -> None:
        """Append again what a late store may have taken: others see it, so its numbers have to be journalled."""
        owed = list(self._owed)
        self._owed.clear()
        try:
            await self._appended(owed)
        except (StoreError, JournalError) as error:
            _log.warning("events that may be in the online store still lack numbers: %s", error)
            self._owed.extendleft(reversed(owed))

    async def _settled_claims(self, taken: Sequence[Taken]) -> list[Answer | Busy | None]:
        claiming = [t for t in taken if t.claim]
        if not claiming:
            return [None] * len(taken)
        trip = await self.store.read([Wanted(t.entities, t.claim) for t in claiming])
        claims = iter(trip.claims)
        return [answer_of(next(claims)) if t.claim else None for t in taken]


def rows_of(trip: Trip, rows: Sequence[int]) -> Trip:
    """The trip of those of its transactions alone, in that order."""
    if len(rows) == len(trip.claims):
        return trip
    place = {row: i for i, row in enumerate(rows)}
    return trip._replace(
        profiles=tuple(matrix[rows] for matrix in trip.profiles),
        available_at=tuple(times[rows] for times in trip.available_at),
        activity=tuple([blobs[i] for i in rows] for blobs in trip.activity),
        claims=[trip.claims[i] for i in rows],
        damaged=frozenset(place[i] for i in trip.damaged if i in place),
    )


def _decision_record(
    asked: Asked[Any],
    reply: Reply,
    judged: Judged,
    vector: list[float],
    seen: Mapping[str, int | None],
    epoch: str | None,
    mark: Mapping[str, int | str | None],
) -> dict[str, Any]:
    record = {
        "type": "decision",
        "decision_id": reply.decision_id,
        "transaction": msgspec.Raw(asked.request.encoded),
        "received_at": asked.received_us,
        "score": reply.score,
        "decision": reply.decision,
        "reasons": reply.reasons,
        "release": reply.release,
        "variant": reply.variant,
        "model_us": judged.model_us,
        **mark,
        "degraded": reply.degraded,
        "latency_ms": reply.latency_ms,
        "vector": vector,
        "epoch": epoch,
        **seen,
    }
    if judged.propensity is not None:
        record["propensity"] = judged.propensity
    return record


def _degraded(
    rungs: list[Rung], assembled: list[list[Rung]], judged: list[Judged]
) -> list[list[Rung]]:
    """Of each decision all rungs of both ladders, each once; ``rungs`` is empty where the store answered."""
    if not rungs:
        return [[*own, *j.judgement.degraded] for own, j in zip(assembled, judged, strict=True)]
    return [
        list(dict.fromkeys([rung, *own, *j.judgement.degraded]))
        for rung, own, j in zip(rungs, assembled, judged, strict=True)
    ]

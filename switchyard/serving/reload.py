"""Following the plan while requests go on: load, check and warm in a thread, then one assignment.

A release that is unknown, damaged or not computable by this code is refused with words, and what served
before goes on; a challenger so refused leaves the champion alone. Here: when and how a worker changes its releases. Not here:
where the plan is kept (``traffic``), the loading of a release (given).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from switchyard.errors import ReleaseError, StoreError
from switchyard.serving.judging import Scorer
from switchyard.serving.lineup import Lineup, Standing
from switchyard.serving.plan import Plan
from switchyard.serving.sparse_log import SparseLog
from switchyard.serving.traffic import Traffic, stamp_of
from switchyard.serving.workers import Worker, tell

LOOK_S = 0.25
"""How often a worker looks whether the plan has changed, in the home and in the store."""

Outcome = Literal["taken", "refused"]
Newest = Callable[[], Awaitable[bytes | None]]
"""What the store has as its newest plan, asked without holding up the event loop; raises StoreError."""

_log = logging.getLogger(__name__)


class Reloader:
    """Keeps ``lineup`` at what the plan names; its champion at first is the Bento's own release.

    ``newest`` looks into the store of ``traffic``. ``load`` gives a release by id, checked and warmed up, or
    raises ReleaseError; it is called in a thread. ``folder`` is where workers tell what they serve;
    ``reloaded`` is told how each change ended.
    """

    def __init__(
        self,
        traffic: Traffic,
        newest: Newest,
        lineup: Lineup,
        load: Callable[[str], Scorer],
        folder: Path,
        *,
        reloaded: Callable[[Outcome], None] = lambda _outcome: None,
    ) -> None:
        self._traffic = traffic
        self._newest = newest
        self._lineup = lineup
        self._own = lineup.champion
        self._load = load
        self._folder = folder
        self._reloaded = reloaded
        self._seen: tuple[int, bytes | None] | None = None
        self._number = -1
        self._called = asyncio.Event()
        self._said = SparseLog(_log)

    def begin(self) -> None:
        """Follow the plan before the first request. What can't be served is logged, not raised."""
        self._follow()

    async def watch(self) -> None:
        """Follow the plan for good: within LOOK_S of a change, at once when called."""
        while True:
            seen = stamp_of(self._traffic.home), await self._stored()
            called = self._called.is_set()
            if called or seen != self._seen:
                self._called.clear()
                self._seen = seen
                outcome = await asyncio.to_thread(self._follow, again=called)
                if outcome is not None:
                    self._reloaded(outcome)
            try:
                await asyncio.wait_for(self._called.wait(), LOOK_S)
            except TimeoutError:
                continue

    def call(self) -> None:
        """Read the plan again now, changed or not; on the event loop."""
        self._called.set()

    async def _stored(self) -> bytes | None:
        """The newest plan in the store; what was last seen of it while it does not answer."""
        try:
            return await self._newest()
        except StoreError as error:
            self._said.error("store", "the plan is looked for in the home alone: %s", error)
            return self._seen[1] if self._seen else None

    def _follow(self, *, again: bool = True) -> Outcome | None:
        """Read, load, put in place, tell; None if it is the plan that is followed already. The thread's entry
        point: whatever fails, the worker goes on."""
        try:
            plan = self._traffic.current()
            number = plan.number if plan else 0
            if not again and number == self._number:
                return None
            self._number = number
            refused = self._stand(plan)
        except ReleaseError as error:
            refused = str(error)
            _log.error("the plan is not followed, %s goes on: %s", self._lineup.champion.id, error)
        except Exception as error:
            refused = f"the release that the plan names can't be loaded: {error}"
            _log.exception("the plan is not followed")
        self._tell(refused)
        return "refused" if refused else "taken"

    def _stand(self, plan: Plan | None) -> str | None:
        """Put in place what the plan names; why its challenger is not among it, if so."""
        if plan is None or plan.bento != self._own.id:
            return None
        before, champion, refused = self._lineup.champion.id, self._loaded(plan.champion), None
        challenger = None
        try:
            challenger = self._loaded(plan.challenger) if plan.challenger else None
        except Exception as error:  # the champion is not to suffer from it
            refused = f"the challenger is not tried: {error}"
            _log.error("%s", refused)
        others = {} if champion is self._own else {self._own.id: self._own}
        standing = Standing(champion, self._predecessor(plan), challenger, plan, others)
        self._lineup.replace(standing)
        if champion.id != before:
            _log.info("release %s decides from now on, %s did", champion.id, before)
        return refused

    def _predecessor(self, plan: Plan) -> Scorer | None:
        """It is only a rung to fall back on: without it the champion serves all the same."""
        if plan.previous is None:
            return None
        try:
            return self._loaded(plan.previous)
        except ReleaseError as error:
            _log.warning("the previous champion can't be loaded: %s", error)
            return None

    def _loaded(self, release_id: str) -> Scorer:
        if release_id == self._own.id:
            return self._own
        return self._lineup.standing.loaded.get(release_id) or self._load(release_id)

    def _tell(self, refused: str | None) -> None:
        standing = self._lineup.standing
        previous = standing.previous.id if standing.previous else None
        challenger = standing.challenger.id if standing.challenger else None
        said = Worker(
            os.getpid(), standing.champion.id, previous, challenger, self._number, refused
        )
        try:
            tell(self._folder, said)
        except OSError as error:
            _log.warning("what this worker serves can't be written to %s: %s", self._folder, error)

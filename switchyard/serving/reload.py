"""Following the plan while requests go on: load, check and warm in a thread, then one assignment.

A release that is unknown, damaged or not computable by this code is refused with words, and what served
before goes on. Here: when and how a worker changes its releases. Not here: the file (``plan``), the
loading of a release (given).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from switchyard.errors import ReleaseError
from switchyard.serving.judging import Scorer
from switchyard.serving.lineup import Lineup, Standing
from switchyard.serving.plan import Plan, read_plan, stamp_of
from switchyard.serving.workers import Worker, tell

LOOK_S = 0.5
"""How often a worker looks whether the plan has changed."""

Outcome = Literal["taken", "refused"]

_log = logging.getLogger(__name__)


class Reloader:
    """Keeps ``lineup`` at what the plan of ``home`` names for the Bento whose release is ``own``.

    ``load`` gives a release by id, checked and warmed up, or raises ReleaseError; it is called in a
    thread. ``folder`` is where workers tell what they serve; ``reloaded`` is told how each change ended.
    """

    def __init__(
        self,
        home: Path,
        own: Scorer,
        load: Callable[[str], Scorer],
        folder: Path,
        *,
        reloaded: Callable[[Outcome], None] = lambda _outcome: None,
    ) -> None:
        self.lineup = Lineup(Standing(own))
        self._home = home
        self._own = own
        self._load = load
        self._folder = folder
        self._reloaded = reloaded
        self._stamp = -1
        self._called = asyncio.Event()

    def begin(self) -> Lineup:
        """Follow the plan before the first request. What can't be served is logged, not raised."""
        self._stamp = stamp_of(self._home)
        self._settle(self._attempt())
        return self.lineup

    async def watch(self) -> None:
        """Follow the plan for good: within LOOK_S of a change, at once when called."""
        while True:
            stamp = stamp_of(self._home)
            if self._called.is_set() or stamp != self._stamp:
                self._called.clear()
                self._stamp = stamp
                outcome = await asyncio.to_thread(self._attempt)
                self._reloaded(self._settle(outcome))
            try:
                await asyncio.wait_for(self._called.wait(), LOOK_S)
            except TimeoutError:
                continue

    def call(self) -> None:
        """Read the plan again now, changed or not; on the event loop."""
        self._called.set()

    def _attempt(self) -> Standing | ReleaseError:
        """What the plan names, loaded. Any failure to load is a refusal: the worker must go on serving."""
        try:
            plan = read_plan(self._home)
            if plan is None or plan.bento != self._own.id:
                return Standing(self._own)
            return self._standing_of(plan)
        except ReleaseError as error:
            return error
        except Exception as error:  # the thread's entry point
            _log.exception("a release could not be loaded")
            return ReleaseError(f"the release that the plan names can't be loaded: {error}")

    def _standing_of(self, plan: Plan) -> Standing:
        champion = self._loaded(plan.champion)
        previous = self._loaded(plan.previous) if plan.previous else None
        others = {} if self._own in (champion, previous) else {self._own.id: self._own}
        return Standing(champion, previous, others)

    def _loaded(self, release_id: str) -> Scorer:
        if release_id == self._own.id:
            return self._own
        return self.lineup.standing.find(release_id) or self._load(release_id)

    def _settle(self, outcome: Standing | ReleaseError) -> Outcome:
        refused = str(outcome) if isinstance(outcome, ReleaseError) else None
        if isinstance(outcome, Standing):
            if outcome.champion.id != self.lineup.champion.id:
                _log.info("release %s decides from now on", outcome.champion.id)
            self.lineup.replace(outcome)
        else:
            _log.error("the plan is not followed, %s goes on: %s", self.lineup.champion.id, outcome)
        standing = self.lineup.standing
        previous = standing.previous.id if standing.previous else None
        told = Worker(os.getpid(), standing.champion.id, previous, self._stamp, refused)
        try:
            tell(self._folder, told)
        except OSError as error:
            _log.warning("what this worker serves can't be written to %s: %s", self._folder, error)
        return "refused" if refused else "taken"

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
    """Keeps ``lineup`` at what the plan of ``home`` names; its champion at first is the Bento's own release.

    ``load`` gives a release by id, checked and warmed up, or raises ReleaseError; it is called in a
    thread. ``folder`` is where workers tell what they serve; ``reloaded`` is told how each change ended.
    """

    def __init__(
        self,
        home: Path,
        lineup: Lineup,
        load: Callable[[str], Scorer],
        folder: Path,
        *,
        reloaded: Callable[[Outcome], None] = lambda _outcome: None,
    ) -> None:
        self._home = home
        self._lineup = lineup
        self._own = lineup.champion
        self._load = load
        self._folder = folder
        self._reloaded = reloaded
        self._stamp = -1
        self._called = asyncio.Event()

    def begin(self) -> None:
        """Follow the plan before the first request. What can't be served is logged, not raised."""
        self._stamp = stamp_of(self._home)
        self._follow(self._stamp)

    async def watch(self) -> None:
        """Follow the plan for good: within LOOK_S of a change, at once when called."""
        while True:
            stamp = stamp_of(self._home)
            if self._called.is_set() or stamp != self._stamp:
                self._called.clear()
                self._stamp = stamp
                self._reloaded(await asyncio.to_thread(self._follow, stamp))
            try:
                await asyncio.wait_for(self._called.wait(), LOOK_S)
            except TimeoutError:
                continue

    def call(self) -> None:
        """Read the plan again now, changed or not; on the event loop."""
        self._called.set()

    def _follow(self, stamp: int) -> Outcome:
        """Read, load, put in place, tell. The thread's entry point: whatever fails, the worker goes on."""
        refused = None
        try:
            before, standing = self._lineup.champion.id, self._named()
            self._lineup.replace(standing)
            if standing.champion.id != before:
                _log.info("release %s decides from now on, %s did", standing.champion.id, before)
        except ReleaseError as error:
            refused = str(error)
            _log.error("the plan is not followed, %s goes on: %s", self._own.id, error)
        except Exception as error:
            refused = f"the release that the plan names can't be loaded: {error}"
            _log.exception("the plan is not followed")
        self._tell(stamp, refused)
        return "refused" if refused else "taken"

    def _named(self) -> Standing:
        plan = read_plan(self._home)
        if plan is None or plan.bento != self._own.id:
            return self._lineup.standing
        champion = self._loaded(plan.champion)
        others = {} if champion is self._own else {self._own.id: self._own}
        return Standing(champion, self._predecessor(plan), others)

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

    def _tell(self, stamp: int, refused: str | None) -> None:
        standing = self._lineup.standing
        previous = standing.previous.id if standing.previous else None
        try:
            tell(self._folder, Worker(os.getpid(), standing.champion.id, previous, stamp, refused))
        except OSError as error:
            _log.warning("what this worker serves can't be written to %s: %s", self._folder, error)

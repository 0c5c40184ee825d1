"""``GET`` and ``PUT /v1/traffic``: the plan, its history, and a change of it; both wait for files and the
store, so they run in a thread. Not here: what a change does (``plan``), where plans are kept (``traffic``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from switchyard.errors import PlanError, ReleaseError, RequestError
from switchyard.serving.plan import Change, Plan, first
from switchyard.serving.reading import read
from switchyard.serving.replies import Answer, encode
from switchyard.serving.traffic import Traffic, between_moves, change_plan
from switchyard.serving.workers import Worker

TOLD = 50
"""Plans of the history in an answer, at most."""


class TrafficReply(msgspec.Struct, frozen=True):
    """The plan that holds, what each worker of this service says it follows, and the plans that held before,
    the newest first."""

    plan: Plan
    workers: list[Worker]
    history: list[Plan]


_decode = msgspec.json.Decoder(Change).decode


class TrafficApi:
    """Answers for the service whose Bento carries the release ``bento``.

    ``check`` raises ReleaseError for a release that can't be served here, ``may_decide`` PlanError for one that
    a person may not promote, ``told`` gives what the workers
    say; ``now`` is the time of a change.
    """

    def __init__(
        self,
        traffic: Traffic,
        bento: str,
        *,
        check: Callable[[str], object],
        may_decide: Callable[[str, str], object],
        told: Callable[[], list[Worker]],
        now: Callable[[], datetime],
    ) -> None:
        self._traffic, self._bento = traffic, bento
        self._check, self._may_decide, self._told, self._now = check, may_decide, told, now

    def show(self, _part: str) -> Answer:
        """200 with plan and history."""
        return self._answer()

    def change(self, body: bytes) -> Answer:
        """200 with the new plan, which workers follow within a second.

        Raises RequestError: 422 for what is no change or names a release that can't be served, 409 for one
        that can't be made of the plan as it is, or while a promotion is under way.
        """
        change = read(_decode, body)
        try:
            with between_moves(self._traffic.home):
                change_plan(
                    self._traffic,
                    self._bento,
                    change,
                    now=self._now(),
                    check=self._check,
                    may_decide=self._may_decide,
                )
        except PlanError as error:
            raise RequestError(str(error), status=409) from None
        except ReleaseError as error:
            raise RequestError(str(error), field="release") from None
        return self._answer()

    def _answer(self) -> Answer:
        plans = self._traffic.history()
        plan = plans[-1] if plans else first(self._bento)
        return Answer(200, encode(TrafficReply(plan, self._told(), plans[-2 : -2 - TOLD : -1])))

"""When drift of the data asks for a retraining: a pure step over what was known and one day's figures.

A day counts as drifting by how many features moved; it takes several such days to ask, several calm ones in a row
to forget (hysteresis), and after an ask a cool-down until the next. The state is part of the day's verdict,
so that the same day judged again says the same. Not here: how far a feature moved and whether that is more than
chance (``reference``), the gate before training (``policy.ResemblancePolicy``), or who retrains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from switchyard.learning.policy import Verdict


@dataclass(frozen=True, slots=True)
class DriftState:
    """What the policy remembers from day to day; ``reference`` names what the days were compared with."""

    reference: str = ""
    days_drifting: int = 0
    days_calm: int = 0
    asked_on: date | None = None
    standing: bool = False

    def record(self) -> dict[str, Any]:
        """For JSON."""
        asked = self.asked_on.isoformat() if self.asked_on else None
        return {
            "reference": self.reference,
            "days_drifting": self.days_drifting,
            "days_calm": self.days_calm,
            "asked_on": asked,
            "standing": self.standing,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> DriftState:
        """What ``record`` wrote."""
        asked = date.fromisoformat(record["asked_on"]) if record["asked_on"] else None
        return cls(
            record["reference"], record["days_drifting"], record["days_calm"], asked,
            record["standing"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """Asks for a retraining once at least ``ask_share`` of the features moved on ``days_to_ask`` days, and only on such a day.

    A day with less than that but at least ``keep_share`` neither counts nor forgets; ``days_to_forget`` days in a row
    with less still forget the days counted, and the ask no longer stands. The next comes ``cool_down_days`` after the last at the
    earliest. A new reference (another champion) begins anew, but for the cool-down. One feature that moved far asks
    for nothing, nor does one day of many: a broken feed is no reason to learn from it.
    """

    ask_share: float = 0.08
    keep_share: float = 0.05
    days_to_ask: int = 3
    days_to_forget: int = 3
    cool_down_days: int = 14

    def step(
        self, state: DriftState, day: date, moved: Sequence[str], *, reference: str, features: int
    ) -> tuple[DriftState, Verdict]:
        """What is known after ``day``, on which ``moved`` of so many ``features`` had moved, and what it asks for.

        ``passed=False``: a retraining is asked for. It stays so while the ask stands; ``figures['asked_on']``
        names the ask, so that whoever follows starts one retraining for each.
        """
        if state.reference != reference:
            state = DriftState(reference, asked_on=state.asked_on)
        share = len(moved) / features
        state = self._counted(state, share)
        cool = state.asked_on is None or day - state.asked_on >= timedelta(days=self.cool_down_days)
        if share >= self.ask_share and state.days_drifting >= self.days_to_ask and cool:
            state = replace(state, asked_on=day, standing=True)
        return state, self._verdict(state, day, moved, features, cool)

    def _counted(self, state: DriftState, share: float) -> DriftState:
        if share >= self.ask_share:
            return replace(state, days_drifting=state.days_drifting + 1, days_calm=0)
        if share >= self.keep_share:
            return replace(state, days_calm=0)
        calm = state.days_calm + 1
        if calm < self.days_to_forget:
            return replace(state, days_calm=calm)
        return replace(state, days_drifting=0, days_calm=calm, standing=False)

    def _verdict(
        self, state: DriftState, day: date, moved: Sequence[str], features: int, cool: bool
    ) -> Verdict:
        named = f": {', '.join(moved[:5])}" if moved else ""
        reasons = [f"{len(moved)} of {features} features moved{named}"]
        if state.standing and state.asked_on == day:
            reasons.append(
                f"{self.ask_share:.0%} or more did on {state.days_drifting} days, so a retraining is asked for"
            )
        elif state.standing:
            reasons.append(f"the retraining asked for on {state.asked_on} still stands")
        elif state.days_drifting >= self.days_to_ask and not cool:
            reasons.append(
                f"asked last on {state.asked_on}, again after {self.cool_down_days} days"
            )
        elif state.days_drifting:
            reasons.append(
                f"day {state.days_drifting} of {self.days_to_ask} that it takes to ask for a retraining"
            )
        figures = {
            "moved": list(moved),
            "features": features,
            "asked_on": state.asked_on.isoformat() if state.asked_on else None,
            "state": state.record(),
        }
        return Verdict(not state.standing, tuple(reasons), figures)

"""Which loaded releases serve: the champion, its predecessor, a challenger, and whatever else was asked for by id.

A standing never changes; a new one takes its place in one assignment, between two batches. A batch takes
``standing`` once and uses it throughout. Not here: which release should be champion (``plan``), how one is
loaded, checked and warmed (``reload``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from switchyard.serving.judging import Scorer
from switchyard.serving.plan import Plan


@dataclass(frozen=True, slots=True)
class Standing:
    """The releases at one moment. ``others`` are by id; the champion and the previous need not be there.

    ``plan`` is the one that is followed, None where nobody made one; ``challenger`` is there if the plan has
    one and it could be loaded.
    """

    champion: Scorer
    previous: Scorer | None = None
    challenger: Scorer | None = None
    plan: Plan | None = None
    others: Mapping[str, Scorer] = field(default_factory=dict)

    @property
    def loaded(self) -> dict[str, Scorer]:
        """All of them, by id."""
        named = (self.champion, self.previous, self.challenger)
        return {**self.others, **{r.id: r for r in named if r is not None}}

    @property
    def trial(self) -> Plan | None:
        """The plan whose challenger is on trial here; None where there is none."""
        return self.plan if self.challenger is not None else None


class Lineup:
    """The standing of this process. Any thread may ``replace`` it; readers see the old one or the new one."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing

    @property
    def champion(self) -> Scorer:
        """The release that decides."""
        return self.standing.champion

    @property
    def previous(self) -> Scorer | None:
        """The champion before this one, loaded as the next rung of the ladder; None if there is none."""
        return self.standing.previous

    def replace(self, standing: Standing) -> None:
        """Let ``standing`` serve from the next batch on."""
        self.standing = standing

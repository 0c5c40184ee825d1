"""Which loaded releases serve: the champion, its predecessor, and whatever else was asked for by id.

A standing never changes; a new one takes its place in one assignment, between two batches. A batch takes
``standing`` once and uses it throughout. Not here: which release should be champion (``plan``), how one is
loaded, checked and warmed (``reload``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from switchyard.serving.judging import Scorer


@dataclass(frozen=True, slots=True)
class Standing:
    """The releases at one moment. ``others`` are by id; the champion and the previous need not be there."""

    champion: Scorer
    previous: Scorer | None = None
    others: Mapping[str, Scorer] = field(default_factory=dict)

    @property
    def loaded(self) -> dict[str, Scorer]:
        """All of them, by id."""
        named = (r for r in (self.champion, self.previous) if r is not None)
        return {**self.others, **{release.id: release for release in named}}


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

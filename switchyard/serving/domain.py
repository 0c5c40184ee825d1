"""What the engine has to be told by a use case, and nothing more: the one door between the two.

Here: the interface. Not here: any use case (``switchyard.fraud.online`` is one), nor what the engine does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from switchyard.serving.replies import Decision, Reason, Rung
from switchyard.serving.trip import Append, Trip

Floats = npt.NDArray[np.float64]


def digest_of(content: bytes) -> bytes:
    """16 bytes that are equal for equal content: of a request, its JSON as the journal holds it."""
    return hashlib.blake2b(content, digest_size=16).digest()


class Request(Protocol):
    """What is decided: it has an id for good, the JSON that is journalled of it, and ``digest_of`` that."""

    @property
    def transaction_id(self) -> str: ...

    @property
    def encoded(self) -> bytes: ...

    @property
    def digest(self) -> bytes: ...


R = TypeVar("R", bound=Request)


@dataclass(frozen=True, slots=True)
class Assembled:
    """Vectors of n requests, float64[n, k], and for each what it saw and what was degraded in it.

    ``seen`` goes into the journalled decision as it is: all that a recomputation needs to know.
    """

    vectors: Floats
    seen: list[Mapping[str, int | None]]
    degraded: list[list[Rung]]


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision by rules, for when no model can score, and the rule as its one reason."""

    decision: Decision
    reason: Reason


class Domain(Protocol[R]):
    """A use case as the engine sees it. All methods are called on the engine's one event loop, so none may wait."""

    def entities(self, request: R) -> tuple[str, ...]:
        """The request's entity of each view of the online store, in the views' order."""
        ...

    def appends(self, request: R) -> tuple[Append, ...]:
        """The request as an event of each entity's activity, in the same order."""
        ...

    def assemble(self, requests: Sequence[R], trip: Trip | None) -> Assembled:
        """The vectors, from what the read trip brought; without one (None), from the defaults."""
        ...

    def reasons(self, vector: Floats, contributions: Floats) -> list[Reason]:
        """The strongest reasons of one decision: float64[k] and its contributions, float64[k + 1]."""
        ...

    def rule(self, request: R) -> Ruling:
        """What the rules say of it."""
        ...

    def appended(self, request: Any, kind: str, numbers: Sequence[int | None]) -> dict[str, Any]:
        """Journal record of the numbers that the request's own events got, None where refused."""
        ...

    def customer(self, request: R) -> str:
        """Whom it is about: within an experiment, one of them gets one variant."""
        ...

    def stake(self, request: R) -> int:
        """The money that a decision on it is about, in the currency's smallest unit; for the figures."""
        ...

    def example(self) -> R:
        """A made-up request that touches all code, to warm it up; it is never decided or kept."""
        ...

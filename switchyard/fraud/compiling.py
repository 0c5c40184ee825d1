"""What of the fraud service is compiled: the decorator of its functions, and all of it at once.

``python -m switchyard.fraud.compiling`` fills the cache; setting an environment up does it. Not here: how
compiled code is found again (``switchyard.compiling``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from switchyard import compiling

COMPILED_IN = ("columns", "events", "sliding")
"""Modules beside a compiled function's own whose content ends up in it."""

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile at the first call, and again when it or a module of COMPILED_IN changed."""
    return compiling.compiled(function, compiled_in=COMPILED_IN)


def compile_all() -> None:
    """Compile everything that training, replay and a service run, or find it compiled."""
    from switchyard.fraud.activity import compile_windows
    from switchyard.fraud.features import compile_vectors
    from switchyard.fraud.online import VIEWS, FraudDomain
    from switchyard.fraud.recompute import compile_search
    from switchyard.learning.trees import compile_trees
    from switchyard.serving.raw_trip import compile_raw
    from switchyard.serving.stored_rows import read_rows

    compile_windows()
    compile_vectors()
    compile_search()
    compile_trees()
    read_rows([None], 1)
    compile_raw(VIEWS)
    domain = FraudDomain(100)
    domain.assemble([domain.example()], None)


if __name__ == "__main__":
    compile_all()

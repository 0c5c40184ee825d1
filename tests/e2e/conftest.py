"""One Bento for the tests of this folder, built once and started when a test needs it running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from switchyard.serving import valkey
from tests.served import Packed, Served, pack, serving


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packed]:
    """In a hidden folder, as the default home is one."""
    home: Path = tmp_path_factory.mktemp("bento") / ".switchyard"
    yield pack(home)
    valkey.stop(home)


@pytest.fixture(scope="session")
def _serve(packed: Packed) -> Iterator[Callable[[], Served]]:
    """The running service; started anew where a test has ended it."""
    running: list[Served] = []
    with ExitStack() as started:

        def serve() -> Served:
            if not running or running[-1].process.poll() is not None:
                running.append(started.enter_context(serving(packed)))
            return running[-1]

        yield serve


@pytest.fixture
def served(_serve: Callable[[], Served]) -> Served:
    return _serve()

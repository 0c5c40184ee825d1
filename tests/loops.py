"""Running what works on an event loop, one loop for each call, nothing left open behind it. No tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from switchyard.serving.hot_store import HotStore

Found = TypeVar("Found")


def run(store: HotStore, work: Awaitable[Found]) -> Found:
    """What ``work`` gives; then ``store`` closes its connection on the same loop."""

    async def whole() -> Found:
        try:
            return await work
        finally:
            store.close()
            await asyncio.sleep(0)

    return asyncio.run(whole())

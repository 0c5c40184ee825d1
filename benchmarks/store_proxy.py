"""A proxy before the online store that can be told to be slow or to answer garbage.

Run as a program of its own: ``python -m benchmarks.store_proxy LISTEN UPSTREAM`` (two Unix sockets); each line
on its standard input sets the mode. Requests always pass at once; only answers are tampered with.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Literal, get_args

from benchmarks.demo import ROOT

Mode = Literal["pass", "slow", "garbage"]
MODES: dict[str, Mode] = {mode: mode for mode in get_args(Mode)}
SLOW_S = 0.5
_BYTES = 1 << 16


class Proxy:
    """Connections to ``upstream``, whose answers go through the current mode."""

    def __init__(self, upstream: str) -> None:
        self.mode: Mode = "pass"
        self._upstream = upstream

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._requests(reader, up_writer), self._answers(up_reader, writer))

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_BYTES):
                writer.write(data)
        writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Each piece is delayed by itself: a slow store answers late, not one after another."""
        loop, due = asyncio.get_running_loop(), 0.0
        with contextlib.suppress(OSError):
            while data := await reader.read(_BYTES):
                if self.mode == "garbage":
                    data = os.urandom(len(data))
                due = max(due, loop.time() + (SLOW_S if self.mode == "slow" else 0.0))
                loop.call_at(due, _write, writer, data)
        loop.call_at(due, writer.close)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


async def serve(listen: str, upstream: str) -> None:
    """Serve until standard input ends."""
    proxy = Proxy(upstream)
    server = await asyncio.start_unix_server(proxy.connected, listen)
    said = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    print("listening", flush=True)
    while line := await said.readline():
        proxy.mode = MODES[line.decode().strip()]
    server.close()


@contextlib.contextmanager
def proxied(listen: Path, upstream: Path) -> Iterator[Popen[str]]:
    """The proxy as a process; ``tell`` it what to do."""
    listen.unlink(missing_ok=True)
    command = [sys.executable, "-m", __name__, str(listen), str(upstream)]
    process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
        listen.unlink(missing_ok=True)


def tell(process: Popen[str], mode: Mode) -> None:
    """Set the mode of a proxy's process."""
    assert process.stdin is not None
    process.stdin.write(f"{mode}\n")
    process.stdin.flush()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))

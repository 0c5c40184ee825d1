"""What BentoML's supervising process (circus) has to be taught so that no request is lost.

Its SIGHUP restarts all workers at once, it looks for ended workers each 10 s and in a container never, and
its SIGTERM leaves connections that no worker took up to be reset. Here: the other way round, by subclasses
put in the place of its own before it starts. Not here: what a worker does at its end (``drain``).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable
from typing import Any

LOOK_S = 1.0
"""How often the supervisor looks for ended workers."""

_SO_ATTACH_FILTER = 26
_NO_SYN = (  # classic BPF on the TCP header: drop what begins a connection, keep everything else
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


def teach_supervisor() -> None:
    """To be called in the supervising process before it makes its workers."""
    import circus.controller
    import circus.watcher
    from circus.sighandler import SysHandler
    from circus.watcher import Watcher

    class FaithfulWatcher(Watcher):  # type: ignore[misc]
        """SIGHUP goes on to the workers; one that ended is started again wherever this runs."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"send_hup": True, "respawn": True})

    class ClosingSignals(SysHandler):  # type: ignore[misc]
        """The door is closed before the workers are told to end, so that they answer all who are in."""

        def __init__(self, controller: Any) -> None:
            controller.check_delay = LOOK_S * 1000
            super().__init__(controller)

        def quit(self) -> None:
            close_door(self.controller.arbiter.sockets.values())
            super().quit()

    circus.watcher.Watcher = FaithfulWatcher
    circus.controller.SysHandler = ClosingSignals


def close_door(listening: Iterable[socket.socket]) -> None:
    """Take no further connections on TCP sockets, whoever shares them; those made are still accepted.

    A client that comes later is refused when the socket is closed, and knows that nothing was received.
    Without such filters (not Linux) the door stays open.
    """
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN)
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HL", len(_NO_SYN), ctypes.addressof(buffer))
    for one in listening:
        try:
            one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        except OSError:
            continue

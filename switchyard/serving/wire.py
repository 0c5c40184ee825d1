"""One connection to Redis or Valkey: ready-made command bytes out, that many replies back, in one trip.

redis-py finds, authenticates and encrypts the connection; hiredis parses. Packing a hundred commands in
Python is what a redis-py pipeline spends its time on, so the bytes are built where their shape is known.
Whatever is sent must be safe to send twice: a trip that finds its connection closed makes a new one.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from switchyard.errors import StoreError

MORE = object()
"""What a reader gives while an answer is not whole."""
_RECEIVE_BYTES = 1 << 16


def bulk(value: bytes) -> bytes:
    r"""One argument in the protocol's form.

    >>> bulk(b"abc")
    b'$3\r\nabc\r\n'
    """
    return b"$%d\r\n%b\r\n" % (len(value), value)


def command(*parts: bytes) -> bytes:
    r"""One command in the protocol's form.

    >>> command(b"PING")
    b'*1\r\n$4\r\nPING\r\n'
    """
    return b"*%d\r\n%b" % (len(parts), b"".join(map(bulk, parts)))


class Wire:
    """A connection to ``url``, made on first use and again after a fault; safe for several threads.

    ``timeout_s`` bounds a whole trip. ``scripts`` are loaded on each new connection, so that EVALSHA
    finds them also after the server lost them.
    """

    def __init__(self, url: str, scripts: Sequence[str] = (), timeout_s: float = 2.0) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._scripts = scripts
        self._lock = threading.Lock()
        self._connection: AbstractConnection | None = None
        self._socket: socket.socket | None = None
        self._reader = new_reader()

    def ask(self, payload: bytes, replies: int, timeout_s: float | None = None) -> list[object]:
        """Send ``payload``, a number of commands, and return their ``replies``, error replies included.

        Raises StoreError if the store is unreachable, takes longer, or answers something else.
        """
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        with self._lock:
            had_one = self._socket is not None
            try:
                try:
                    answer = self._trip(payload, replies, deadline)
                except ConnectionError:
                    if not had_one:
                        raise
                    self._drop()  # the server was restarted since the last trip
                    return self._trip(payload, replies, deadline)
                if had_one and lost_script(answer):
                    self._drop()  # a new connection brings the scripts
                    return self._trip(payload, replies, deadline)
                return answer
            except (OSError, redis.RedisError, hiredis.HiredisError, ValueError) as error:
                self._drop()
                raise StoreError(
                    f"the online store at {shown(self.url)} {what_failed(error)}"
                ) from error
            except BaseException:
                self._drop()
                raise

    def close(self) -> None:
        """Close the connection; a later trip opens a new one."""
        with self._lock:
            self._drop()

    def _trip(self, payload: bytes, replies: int, deadline: float) -> list[object]:
        if self._socket is None:
            self._open(deadline)
        return self._exchange(payload, replies, deadline)

    def _open(self, deadline: float) -> None:
        seconds = max(deadline - time.monotonic(), 0.001)
        pool = redis.ConnectionPool.from_url(
            self.url,
            protocol=2,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,  # no introduction: two trips less
        )
        connection = pool.make_connection()
        assert isinstance(connection, AbstractConnection)
        connection.connect()  # type: ignore[no-untyped-call]
        self._connection, self._socket = connection, connection._sock
        self._reader = new_reader()
        if self._scripts:
            load = b"".join(command(b"SCRIPT", b"LOAD", s.encode()) for s in self._scripts)
            for reply in self._exchange(load, len(self._scripts), deadline):
                if isinstance(reply, Exception):
                    raise reply

    def _exchange(self, payload: bytes, replies: int, deadline: float) -> list[object]:
        assert self._socket is not None
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        self._socket.sendall(payload)
        reader, answer = self._reader, list[object]()
        while len(answer) < replies:
            reply = reader.gets()
            if reply is not MORE:
                answer.append(reply)
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            received = self._socket.recv(_RECEIVE_BYTES)
            if not received:
                raise ConnectionResetError("closed the connection")
            reader.feed(received)
        if reader.has_data():
            raise ValueError("more replies than questions")
        return answer

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]
        self._connection = self._socket = None


def new_reader() -> hiredis.Reader:
    """A parser of answers that gives MORE where more bytes are needed."""
    return hiredis.Reader(notEnoughData=MORE)


def lost_script(answer: list[object]) -> bool:
    """Whether the server forgot a script that was called."""
    if hiredis.ReplyError not in set(map(type, answer)):
        return False
    return any(isinstance(r, hiredis.ReplyError) and str(r).startswith("NOSCRIPT") for r in answer)


def what_failed(error: Exception) -> str:
    """The end of a sentence that begins with the store."""
    if isinstance(error, TimeoutError | redis.TimeoutError):
        return "did not answer in time; is it overloaded, frozen or far away?"
    if isinstance(error, hiredis.ProtocolError | ValueError | redis.InvalidResponse):
        return f"answers no Redis protocol ({error}); is something else listening there?"
    return f"can't be used ({error}); is it running?"


def shown(url: str) -> str:
    """The URL without its password, wherever it stands.

    >>> shown("redis://:secret@store:6379/2"), shown("unix:///run/vk.sock?password=sec@ret")
    ('redis://store:6379/2', 'unix:///run/vk.sock')
    """
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"

"""The online store as the service uses it: trips on the event loop, none longer than its budget.

Many trips may be under way on the one connection; their answers come in order, so one that comes too late is
known and passed over. A connection is made apart from the trips, which may be shorter. Not here: the bytes
(``commands``), the meaning of replies (``trip``), what to do without the store (``ladder``).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis
from redis.connection import parse_url

from switchyard.errors import StoreError
from switchyard.serving.commands import Commands
from switchyard.serving.raw_trip import ends_at, read_raw
from switchyard.serving.scripts import SCRIPTS
from switchyard.serving.trip import (
    Append,
    Reply,
    Trip,
    Wanted,
    Written,
    displaced,
    held,
    read_trip,
    read_written,
    taken_over,
)
from switchyard.serving.wire import MORE, command, lost_script, new_reader, shown, what_failed

BUDGET_S = 0.010
"""Longest trip to the store; a decision then goes on without it."""
CONNECT_S = 1.0
"""Longest time to make a connection, and the longest that one may owe an answer."""
LAST_LOOK_S = 0.001
"""Past the budget: long enough for the event loop to read what has arrived."""


class HotStore:
    """The store at ``url``; connects on first use and again after a fault. One event loop at a time.

    All methods raise StoreError if the store is unreachable, takes longer than ``budget_s`` or answers
    something that is not its protocol; trips also, with ``needs_epoch``, if it was emptied and is not filled yet.
    """

    def __init__(
        self,
        url: str,
        commands: Commands,
        budget_s: float = BUDGET_S,
        *,
        needs_epoch: bool = False,
    ) -> None:
        self._needs_epoch = needs_epoch
        self.url = url
        self.commands = commands
        self.budget_s = budget_s
        self._link: _Link | None = None
        self._connecting: asyncio.Task[_Link] | None = None

    async def read(self, wanted: Sequence[Wanted]) -> Trip:
        """Profiles, activity and claims of the transactions, and the views' marks, in one trip; in a second
        one, claims that somebody else has."""
        views = self.commands.views
        text = await self._told(*self.commands.read(wanted))
        trip = read_raw(views, wanted, text) or read_trip(views, wanted, _parsed(text))
        self._check_epoch(trip.epoch)
        if rows := held(trip):
            claims = [claim for i in rows if (claim := wanted[i].claim)]
            trip = taken_over(trip, rows, await self._ask(*self.commands.take_over(claims)))
        return trip

    async def write(self, appends: Sequence[Append], replies: Sequence[Reply] = ()) -> Written:
        """Append events to activities and store replies, in one trip. Safe to repeat as a whole."""
        payload, count = self.commands.write(appends, replies)
        written = read_written(len(appends), await self._ask(payload, count))
        if earlier := displaced(replies, written):
            await self._ask(*self.commands.put_back(earlier))
        self._check_epoch(written.epoch)
        return written

    async def ping(self) -> None:
        """Raise StoreError unless the store answers."""
        if await self._ask(command(b"PING"), 1) != [b"PONG"]:
            raise StoreError(
                "the online store does not answer PING as it should; is it still loading?"
            )

    async def get(self, key: bytes) -> object:
        """The value of a plain key, None for none."""
        return (await self._ask(command(b"GET", key), 1))[0]

    async def last(self, key: bytes) -> bytes | None:
        """The last element of a list, None for an empty one."""
        (found,) = await self._ask(command(b"LINDEX", key, b"-1"), 1)
        if isinstance(found, Exception):
            raise StoreError(f"the online store has no list under {key!r}: {found}")
        return found if isinstance(found, bytes) else None

    def close(self) -> None:
        """Close the connection; a later trip opens a new one."""
        if self._link is not None:
            self._link.drop(ConnectionAbortedError("closed"))
            self._link = None
        making = self._connecting
        if making is not None and not making.done() and not making.get_loop().is_closed():
            making.cancel()

    def _check_epoch(self, epoch: str | None) -> None:
        if self._needs_epoch and epoch is None:
            raise StoreError(
                f"the online store at {shown(self.url)} was emptied; it is used again once it is "
                "filled from the journal"
            )

    async def _ask(self, payload: bytes, replies: int) -> list[object]:
        """The answers as objects. A lost script is brought again by a new connection, once."""
        answers = _parsed(await self._told(payload, replies))
        if lost_script(answers) and self._link is not None:
            self._link.drop(ConnectionResetError("lost its scripts"))
            answers = _parsed(await self._told(payload, replies))
        return answers

    async def _told(self, payload: bytes, replies: int) -> bytes:
        """The answers as they came, so many of them and whole."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.budget_s
        try:
            link = self._link
            if link is None or link.loop is not loop or link.lost:
                link = await self._linked(loop, deadline)
            return await link.ask(payload, replies, deadline)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"the online store at {shown(self.url)} {what_failed(error)}"
            ) from error

    async def _linked(self, loop: asyncio.AbstractEventLoop, deadline: float) -> _Link:
        """The one connection; whoever comes while it is being made waits for it until ``deadline``. The
        making goes on after that: on a busy loop it takes longer than a trip may."""
        making = self._connecting
        if making is None or making.done() or making.get_loop() is not loop:
            making = self._connecting = loop.create_task(self._connect(loop))
            making.add_done_callback(_heard)
        left = max(deadline - loop.time(), 0.0)
        return await asyncio.wait_for(asyncio.shield(making), left)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Link:
        deadline = loop.time() + max(CONNECT_S, self.budget_s)
        parts = parse_url(self.url)  # type: ignore[no-untyped-call]
        if "path" in parts:
            _, link = await loop.create_unix_connection(lambda: _Link(loop), parts["path"])
        else:
            secure = ssl.create_default_context() if self.url.startswith("rediss") else None
            place = parts.get("host", "localhost"), parts.get("port", 6379)
            _, link = await loop.create_connection(lambda: _Link(loop), *place, ssl=secure)
        greeting = _greeting(parts)
        try:
            for answer in _parsed(await link.ask(b"".join(greeting), len(greeting), deadline)):
                if isinstance(answer, Exception):
                    raise ConnectionRefusedError(str(answer))
        except BaseException as error:
            link.drop(error)  # also when this is cancelled: nobody else knows the connection
            raise
        self._link = link
        return link


def _heard(made: asyncio.Task[_Link]) -> None:
    """Whoever waited may have given up before the connection failed; that is no news then."""
    if not made.cancelled():
        made.exception()


def _greeting(parts: dict[str, Any]) -> list[bytes]:
    """What a new connection begins with: who we are, which database, the scripts."""
    said = []
    if parts.get("password"):
        names = [parts["username"].encode()] if parts.get("username") else []
        said.append(command(b"AUTH", *names, parts["password"].encode()))
    if parts.get("db"):
        said.append(command(b"SELECT", str(parts["db"]).encode()))
    return said + [command(b"SCRIPT", b"LOAD", script.encode()) for script in SCRIPTS]


def _parsed(text: bytes) -> list[object]:
    """Whole answers as objects. Raises StoreError."""
    reader, answers = new_reader(), list[object]()
    try:
        reader.feed(text)
        while (answer := reader.gets()) is not MORE:
            answers.append(answer)
    except hiredis.HiredisError as error:
        raise StoreError(f"the online store {what_failed(error)}") from error
    return answers


class _Question(NamedTuple):
    """So many (``wanted``) answers were asked for; ``since`` is the loop's time of asking."""

    wanted: int
    future: asyncio.Future[bytes]
    since: float


class _Link(asyncio.Protocol):
    """One connection: questions out, as many answers back, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lost: BaseException | None = None
        self._transport: Any = None
        self._asked: deque[_Question] = deque()
        self._text = b""
        self._end = 0
        """Up to here ``_text`` is whole answers to the first question, of which ``_left`` are to come."""
        self._left = 0

    async def ask(self, payload: bytes, replies: int, deadline: float) -> bytes:
        """Raises OSError and ValueError, as the connection and its answers deserve."""
        now = self.loop.time()
        if self._asked and now - self._asked[0].since > CONNECT_S:
            self.drop(TimeoutError())
        if self.lost:
            raise self.lost
        answer: asyncio.Future[bytes] = self.loop.create_future()
        if not self._asked:
            self._left = replies
        self._asked.append(_Question(replies, answer, now))
        self._transport.write(payload)
        alarm = self.loop.call_at(deadline, self._is_late, answer)
        try:
            return await answer
        finally:
            alarm.cancel()

    def _is_late(self, answer: asyncio.Future[bytes]) -> None:
        """The budget is used up; but where this process was held up itself, the answer may lie here unread,
        so the connection is looked at once more."""
        self.loop.call_later(LAST_LOOK_S, self._give_up, answer)

    def _give_up(self, answer: asyncio.Future[bytes]) -> None:
        if not answer.done():
            answer.set_exception(TimeoutError())

    def drop(self, why: BaseException) -> None:
        """Give the connection up: what was asked fails for this reason."""
        self.lost = self.lost or why
        if self._transport is not None:
            self._transport.abort()
        while self._asked:
            answer = self._asked.popleft().future
            if not answer.done():
                answer.set_exception(why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(exc or ConnectionResetError("closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._text = text = self._text + data if self._text else data
        begin = 0
        while True:
            if not self._asked:
                if begin < len(text):
                    self.drop(ValueError("more replies than questions"))
                break
            self._end, self._left = ends_at(text, self._end, self._left)
            if self._left < 0:
                self.drop(ValueError(f"sent {text[self._end : self._end + 20]!r}"))
                return
            if self._left:
                break
            answer = self._asked.popleft().future
            if not answer.done():
                answer.set_result(text[begin : self._end])
            begin = self._end
            self._left = self._asked[0].wanted if self._asked else 0
        self._text = text[begin:]
        self._end -= begin

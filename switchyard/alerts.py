"""Incidents and what is told of them: one message when something fails, one when it is over, however often it repeats.

An incident is named by what failed (a step of a job, an asset's check). The book is a value: failures and passes go in, and
it says which channel has to be told of what. Nothing is queued: a channel that was down is told later what is true then. Not
here: where failures come from (``orchestration.incidents``), how a message travels (``channels``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from switchyard.errors import AlertError, InputError
from switchyard.lake import write_text

KEPT = timedelta(days=7)
"""How long an incident is remembered after its end, and tried to be told where a channel is down."""

Kind = Literal["step", "check"]
Word = Literal["failed", "goes on", "resolved", "was over before it could be told"]

_log = logging.getLogger(__name__)


class Failure(msgspec.Struct, frozen=True):
    """That something failed: ``key`` names what, the same each time; the rest is for the person who reads of it.

    ``where`` says in which run, of which days; ``link`` leads to it; ``remedy`` says what to do. ``at`` is UTC.
    """

    key: str
    kind: Kind
    what: str
    reason: str
    where: str
    link: str
    remedy: str
    at: datetime


class Pass(msgspec.Struct, frozen=True):
    """That what ``key`` names did not fail this time."""

    key: str
    at: datetime


class Told(msgspec.Struct, frozen=True):
    """What a channel was told last of an incident: when, after how many failures, and whether it was its end."""

    at: datetime
    count: int
    ended: bool


class Incident(msgspec.Struct, frozen=True):
    """``newest`` is its last failure of ``count`` since ``since``; over at ``ended``. ``told``: by channel."""

    newest: Failure
    since: datetime
    count: int = 1
    ended: datetime | None = None
    told: Mapping[str, Told] = {}

    def failed(self, failure: Failure, quiet: timedelta) -> Incident:
        """Once more. What comes back within the quiet time is the same incident still."""
        if self.ended is not None and failure.at - self.ended >= quiet:
            return Incident(failure, failure.at)
        return msgspec.structs.replace(self, newest=failure, count=self.count + 1, ended=None)

    def due(self, channel: str, now: datetime, quiet: timedelta) -> Word | None:
        """What ``channel`` has to be told now, None if nothing."""
        told = self.told.get(channel)
        if self.ended is not None:
            if told is None:
                return "was over before it could be told"
            return None if told.ended else "resolved"
        if told is None:
            return "failed"
        repeated = self.count > told.count or told.ended
        return "goes on" if repeated and now - told.at >= quiet else None

    def as_dict(self) -> dict[str, object]:
        """In the words of the command line."""
        newest = self.newest
        return {
            "what": newest.what,
            "reason": newest.reason,
            "since": _minute(self.since),
            "times": self.count,
            "last": f"{_minute(newest.at)}, {newest.where}",
            "run": newest.link,
            "to do": newest.remedy,
            "told": ", ".join(self.told) or "nobody",
        }

    def after(self, channel: str, now: datetime) -> Incident:
        """The same, ``channel`` having been told of it as it is."""
        told = {**self.told, channel: Told(now, self.count, self.ended is not None)}
        return msgspec.structs.replace(self, told=told)


class Book(msgspec.Struct, frozen=True):
    """All incidents by key, and how far the runs were looked at: up to ``until``, and of those, ``seen``."""

    until: datetime
    seen: tuple[str, ...] = ()
    incidents: Mapping[str, Incident] = {}

    def note(self, happened: Iterable[Failure | Pass], quiet: timedelta) -> Book:
        """The book after what ``happened``, in this order."""
        incidents = dict(self.incidents)
        for one in happened:
            known = incidents.get(one.key)
            if isinstance(one, Failure):
                incidents[one.key] = known.failed(one, quiet) if known else Incident(one, one.at)
            elif known and known.ended is None:
                incidents[one.key] = msgspec.structs.replace(known, ended=one.at)
        return msgspec.structs.replace(self, incidents=incidents)

    def open(self) -> list[Incident]:
        """Incidents that are not over, the oldest first."""
        going_on = (i for i in self.incidents.values() if i.ended is None)
        return sorted(going_on, key=lambda incident: incident.since)

    def due(
        self, channel: str, now: datetime, quiet: timedelta
    ) -> list[tuple[str, Incident, Word]]:
        """What ``channel`` has to be told, the oldest news first."""
        found = [
            (key, incident, word)
            for key, incident in self.incidents.items()
            if (word := incident.due(channel, now, quiet))
        ]
        return sorted(found, key=lambda one: one[1].ended or one[1].newest.at)

    def told(self, key: str, channel: str, now: datetime) -> Book:
        """The book once ``channel`` knows of the incident."""
        return self._with({**self.incidents, key: self.incidents[key].after(channel, now)})

    def without_old(self, now: datetime) -> Book:
        """Without what was over KEPT ago; a channel that was down all the time will not hear of it any more."""
        kept = {
            key: incident
            for key, incident in self.incidents.items()
            if incident.ended is None or now - incident.ended < KEPT
        }
        return self._with(kept)

    def _with(self, incidents: Mapping[str, Incident]) -> Book:
        return msgspec.structs.replace(self, incidents=incidents)


def load_book(file: Path) -> Book | None:
    """The book as it was saved last, None before the first time. Raises InputError if the file is no book."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Book)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is no book of incidents ({error}); remove it: incidents begin anew then"
        ) from None


def save_book(book: Book, file: Path) -> None:
    """The whole book, or the one before stays."""
    write_text(msgspec.json.format(msgspec.json.encode(book)).decode() + "\n", file)


# ---------------------------------------------------------------- telling


class Message(msgspec.Struct, frozen=True):
    """What a person reads. ``id`` is the same if it is sent twice, ``thread`` for all messages of an incident."""

    id: str
    thread: str
    word: Word
    title: str
    text: str


class Channel(Protocol):
    """A way to people."""

    name: str

    def send(self, message: Message) -> None:
        """Raises AlertError if it did not get there."""
        ...


def message_of(key: str, incident: Incident, word: Word) -> Message:
    """What failed, where, since when, where to look, what to do."""
    newest = incident.newest
    title = f"{newest.what}: {word}"
    times = "once" if incident.count == 1 else f"{incident.count} times"
    lines = [
        title,
        "",
        newest.reason,
        "",
        f"where   {newest.where}",
        f"since   {_minute(incident.since)}, {times}, last {_minute(newest.at)}",
    ]
    if incident.ended:
        lines.append(f"over    {_minute(incident.ended)}")
    lines.append(f"run     {newest.link}")
    if not incident.ended:
        lines += ["", f"What to do: {newest.remedy}"]
    thread = f"{key} {incident.since:%Y%m%dT%H%M%S}"
    return Message(
        f"{thread} {incident.count} {word}", thread, word, f"[switchyard] {title}", "\n".join(lines)
    )


def tell(
    book: Book, channels: Sequence[Channel], now: datetime, quiet: timedelta, file: Path
) -> tuple[Book, list[str]]:
    """Tell each channel what it has to know, saving the book after each message; what happened, in words.

    A channel that fails is left alone until the next time: it holds nobody up for longer than one message. A process
    that is killed between sending and saving sends that message, with the same id, once more.
    """
    said = []
    for channel in channels:
        for key, incident, word in book.due(channel.name, now, quiet):
            try:
                channel.send(message_of(key, incident, word))
            except AlertError as error:
                _log.warning("%s", error)
                said.append(f"{error}; tried again at the next look")
                break
            book = book.told(key, channel.name, now)
            save_book(book, file)
            said.append(f"{channel.name} was told: {incident.newest.what}: {word}")
    return book, said


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"

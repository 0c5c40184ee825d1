"""Requests to forget a customer, and the record of those that were done.

A request is a file that its home's user alone can read; it holds the customer's id and the key of their stand-ins, and is gone
once it is done. The record names nobody. Not here: the forgetting (``forget``).
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from switchyard.errors import InputError
from switchyard.fraud.footprint import Footprint
from switchyard.fraud.pseudonyms import KEY_BYTES
from switchyard.fraud.tombstones import Tombstones
from switchyard.fraud.traces import Wanted
from switchyard.lake import whole_file
from switchyard.lock import alone
from switchyard.settings import Settings


class Removed(msgspec.Struct, frozen=True):
    """One line of what was done: where, what, how much of it."""

    place: str
    what: str
    count: int


class Request(msgspec.Struct, frozen=True):
    """That a customer be forgotten, with the key of their stand-ins; gone when it is done."""

    customer_id: str
    who: str
    why: str
    asked_at: str
    key: str
    transactions: list[str] = []
    terminals: list[str] = []
    decisions: list[str] = []

    @property
    def footprint(self) -> Footprint:
        """What an earlier run had found, before it began to remove."""
        return Footprint(
            self.customer_id, set(self.transactions), set(self.terminals), set(self.decisions)
        )

    def having_found(self, footprint: Footprint) -> Request:
        """The same with what was found, so that a run after a kill still knows it."""
        return msgspec.structs.replace(
            self,
            transactions=sorted(footprint.transactions),
            terminals=sorted(footprint.terminals),
            decisions=sorted(footprint.decisions),
        )


class Forgotten(msgspec.Struct, frozen=True):
    """What came of it. ``tombstone`` is a keyed hash; nothing in here names the customer."""

    tombstone: str
    who: str
    why: str
    asked_at: str
    done_at: str
    removed: list[Removed]
    said: list[str]


def ask(settings: Settings, customer_id: str, *, who: str, why: str, now: datetime) -> str:
    """Write down that the customer be forgotten; the name of the request, which is their tombstone.

    From then on no landing brings them back. Raises InputError if who or why is missing or names the customer.
    """
    if not (customer_id and who and why):
        raise InputError("a customer, who wants them forgotten and why are needed; one is empty")
    if any(Wanted(customer_id).in_bytes(text.encode()) for text in (who, why)):
        raise InputError("who and why are kept for ever, so they must not name the customer")
    tombstones = Tombstones(settings.forgotten)
    name = tombstones.of(customer_id)
    if not file_of(settings, name).exists():
        key = secrets.token_bytes(KEY_BYTES).hex()
        save(settings, name, Request(customer_id, who, why, now.astimezone(UTC).isoformat(), key))
    tombstones.add(customer_id)
    return name


def waiting(settings: Settings) -> list[str]:
    """The names of the requests that are not done, the oldest first."""
    files = sorted(_folder(settings).glob("*.json"), key=lambda file: file.stat().st_mtime)
    return [file.stem for file in files]


def _folder(settings: Settings) -> Path:
    return settings.forgotten / "requests"


def file_of(settings: Settings, name: str) -> Path:
    """The one file that names the customer until it is done."""
    return _folder(settings) / f"{name}.json"


def load(settings: Settings, name: str) -> Request:
    """Raises InputError if there is no such request."""
    try:
        return msgspec.json.decode(file_of(settings, name).read_bytes(), type=Request)
    except FileNotFoundError:
        raise InputError(
            f"there is no request {name!r} in {_folder(settings)}: it is done, or was never made; "
            f"waiting are {waiting(settings) or 'none'}"
        ) from None


def save(settings: Settings, name: str, request: Request) -> None:
    """Readable by the home's user alone."""
    _folder(settings).mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole_file(file_of(settings, name)) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(msgspec.json.encode(request))


def audit(settings: Settings) -> list[Forgotten]:
    """Who was forgotten, by whose wish and why, as hashes; the oldest first."""
    try:
        lines = (settings.forgotten / "audit.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line, type=Forgotten) for line in lines]


def write_down(settings: Settings, done: Forgotten) -> None:
    """Add it to the record, which is kept for ever."""
    with (
        alone(settings.forgotten / "lock"),
        whole_file(settings.forgotten / "audit.jsonl") as file,
    ):
        for one in [*audit(settings), done]:
            file.write(msgspec.json.encode(one) + b"\n")

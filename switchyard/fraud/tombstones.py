"""Who was forgotten, so that a source that delivers them again does not bring them back: keyed hashes, no ids.

A tombstone tells whether a given id was forgotten, to whoever has the home's secret beside it; no id can be read from
it, and without the secret it says nothing. Not here: forgetting (``forget``), what is left of a row (``pseudonyms``).
"""

from __future__ import annotations

import hashlib
import os
import secrets
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from switchyard.fraud.pseudonyms import Bools, Pseudonyms
from switchyard.fraud.raw import RawDay, Source
from switchyard.lake import write_text
from switchyard.lock import alone

SECRET_BYTES = 32


class Tombstones:
    """The tombstones in ``folder``: the file ``secret``, and ``list`` with one hash a line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, customer_id: str) -> str:
        """The tombstone that the customer has, or would get: 32 hex characters."""
        return _hashed(customer_id, self._secret())

    def add(self, customer_id: str) -> None:
        """From now on the customer is one that was forgotten."""
        new = self.of(customer_id)
        with alone(self._folder / "lock"):
            known = self._known()
            if new not in known:
                write_text("".join(f"{one}\n" for one in [*known, new]), self._folder / "list")

    def among(self, customer_ids: pa.ChunkedArray) -> Bools:
        """Which of these were forgotten."""
        known = set(self._known())
        if not known:
            return np.zeros(len(customer_ids), np.bool_)
        secret = self._secret()
        encoded = customer_ids.combine_chunks().dictionary_encode(null_encoding="encode")
        names = encoded.dictionary.to_pylist()
        gone = [name is not None and _hashed(name, secret) in known for name in names]
        rows: Bools = np.array([*gone, False], np.bool_)[
            encoded.indices.to_numpy(zero_copy_only=False)
        ]
        return rows

    def _known(self) -> list[str]:
        try:
            return (self._folder / "list").read_text().split()
        except FileNotFoundError:
            return []

    def _secret(self) -> bytes:
        """Drawn once; readable by the home's user alone."""
        path = self._folder / "secret"
        try:
            return bytes.fromhex(path.read_text())
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            drawn = secrets.token_bytes(SECRET_BYTES)
            part = self._folder / f".secret.{os.getpid()}.part"
            part.touch(mode=0o600)
            part.write_text(drawn.hex())
            try:
                os.link(part, path)  # of two that draw one, the first counts
            except FileExistsError:
                return bytes.fromhex(path.read_text())
            finally:
                part.unlink()
            return drawn


class WithoutTheForgotten:
    """A source as it is read: of those who were forgotten only what is left of a payment, under stand-ins that nobody
    can make again."""

    def __init__(self, source: Source, tombstones: Tombstones) -> None:
        self._source = source
        self._tombstones = tombstones
        self._pseudonyms = Pseudonyms.fresh()

    @property
    def name(self) -> str:
        return self._source.name

    def days(self) -> tuple[date, date] | None:
        return self._source.days()

    def read(self, day: date) -> RawDay:
        """As the source's. Raises SourceError."""
        raw = self._source.read(day)
        tables = [raw.transactions, raw.labels]
        gone = [self._tombstones.among(table["customer_id"]) for table in tables]
        if not any(rows.any() for rows in gone):
            return raw
        left = [self._pseudonyms.rows(t, rows) for t, rows in zip(tables, gone, strict=True)]
        return RawDay(left[0], left[1], raw.file)


def _hashed(customer_id: str, secret: bytes) -> str:
    return hashlib.blake2b(customer_id.encode(), digest_size=16, key=secret).hexdigest()

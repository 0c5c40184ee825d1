"""The search for whatever still names a customer: every file of a home, every key of the online store.

Text and bytes are searched for the id as a word of its own, which hyphens, points and @ join, Parquet value by value, compressed files inside, and an
activity also for the id's hash. An id that is short or a small number occurs everywhere by chance: such a one is looked for
where an id of a customer stands. Not here: removing what is found (``forget``).
"""

from __future__ import annotations

import gzip
import html
import io
import json
import mmap
import re
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.fraud.events import stable_hash
from switchyard.serving.online_store import OnlineStore

Advance = Callable[[str, int, int], None]
_SHORTEST = 6
_SHORTEST_NUMBER = 10
_BATCH_ROWS = 65_536
_AROUND = 8
"""Bytes beside a place at which the id stands, that tell whether it is a part of a longer one."""
_GOES_BEFORE, _GOES_ON = re.compile(r"\w[-.@]?\Z"), re.compile(r"[-.@]?\w")
_PARQUET, _SQLITE, _GZIP, _ZIP = b"PAR1", b"SQLite format 3\0", b"\x1f\x8b", b"PK\x03\x04"


class Trace(NamedTuple):
    """Where the customer is still named: a file of the home or a key of the store, without the id, since errors are
    kept; and what of it."""

    place: str
    what: str


class Wanted:
    """One customer's id in the forms in which it may stand somewhere.

    ``distinct``: whether it is long enough to be searched for as it is, wherever it may stand.
    """

    def __init__(self, customer_id: str) -> None:
        self.id = customer_id
        shortest = _SHORTEST_NUMBER if customer_id.isdigit() else _SHORTEST
        self.distinct = len(customer_id.encode()) >= shortest
        self.hash = stable_hash(customer_id).to_bytes(8, "little", signed=True)
        self._forms = sorted(
            {form.encode() for form in _written(customer_id)}, key=len, reverse=True
        )
        either = b"(?:" + b"|".join(map(re.escape, self._forms)) + b")"
        if not self.distinct:
            either = rb'\\?"customer(?:_id)?\\?" ?: ?\\?"' + either + rb'\\?"'
        self._pattern = re.compile(either)

    def masked(self, place: object) -> str:
        """A place's name without the id."""
        return str(place).replace(self.id, "***") if self.distinct else str(place)

    def in_bytes(self, content: bytes | mmap.mmap) -> bool:
        if all(content.find(form) < 0 for form in self._forms):  # ten times as quick
            return False
        return any(self._is_meant(found) for found in self._pattern.finditer(content))

    def taken_out_of(self, text: str) -> tuple[str, int]:
        """The text with "forgotten" in the id's place, and how often that was."""
        content = text.encode()
        places = [found for found in self._pattern.finditer(content) if self._is_meant(found)]
        left, last = b"", 0
        for found in places:
            left += content[last : found.start()] + self._without(found[0])
            last = found.end()
        return (left + content[last:]).decode(), len(places)

    def _is_meant(self, found: re.Match[bytes]) -> bool:
        """Not where it is but a part of a longer id."""
        if not self.distinct:
            return True
        start, end = found.span()
        before = found.string[max(0, start - _AROUND) : start].decode("utf-8", "replace")
        after = found.string[end : end + _AROUND].decode("utf-8", "replace")
        return not (_GOES_BEFORE.search(before) or _GOES_ON.match(after))

    def _without(self, found: bytes) -> bytes:
        return next(found.replace(f, b"forgotten") for f in self._forms if f in found)

    def in_column(self, name: str, values: pa.Array) -> bool:
        """Whether a column of Parquet names the customer."""
        if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
            return any(self.in_bytes(blob) for blob in values.to_pylist() if blob)
        if self.distinct:
            hits = values.filter(pc.fill_null(pc.match_substring(values, self.id), False))
            return any(self.in_bytes(text.encode()) for text in hits.unique().to_pylist())
        return name == "customer_id" and bool(pc.any(pc.equal(values, self.id)).as_py())


def _written(customer_id: str) -> set[str]:
    """The id as it stands in texts, in JSON of either kind, and in a page."""
    in_json = (json.dumps(customer_id, ensure_ascii=to_ascii)[1:-1] for to_ascii in (True, False))
    return {customer_id, html.escape(customer_id), *in_json}


def traces_in_home(home: Path, wanted: Wanted, left_out: Path, advance: Advance) -> Iterator[Trace]:
    """The files of the home that name the customer, but ``left_out``."""
    files = sorted(p for p in home.rglob("*") if p.is_file() and not p.is_symlink())
    for i, file in enumerate(files):
        advance("searching the home", i, len(files))
        if file == left_out:
            continue
        try:
            if what := _in_file(file, wanted):
                yield Trace(wanted.masked(file), what)
        except FileNotFoundError:  # it went meanwhile
            continue


def traces_in_store(
    store: OnlineStore, wanted: Wanted, own_keys: list[bytes], advance: Advance
) -> Iterator[Trace]:
    """The keys of the online store that name the customer, or hold an event of theirs; ``own_keys`` must not be there."""
    own = set(own_keys)
    for i, (key, value) in enumerate(store.everything()):
        if i % 1_000 == 0:
            advance("searching the online store", i, i)
        shown = wanted.masked(f"key {key!r}")
        if key in own or (wanted.distinct and wanted.in_bytes(key)):
            yield Trace(shown, "is named after the customer")
        elif wanted.in_bytes(value) or (b":activity:terminal:" in key and wanted.hash in value):
            yield Trace(shown, "holds the customer")


def _in_file(file: Path, wanted: Wanted) -> str | None:
    with file.open("rb") as opened:
        head = opened.read(16)
    if head[:4] == _PARQUET and (what := _in_parquet(file, wanted)):
        return what
    if head == _SQLITE and (what := _in_sqlite(file, wanted)):
        return what
    if head[:2] == _GZIP:
        return _in_gzip(file, wanted)
    if head[:4] == _ZIP and zipfile.is_zipfile(file):
        return _in_zip(file, wanted)
    return "its bytes" if head and _in_bytes_of(file, wanted) else None


def _in_bytes_of(file: Path, wanted: Wanted) -> bool:
    with file.open("rb") as opened:
        try:
            content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # emptied meanwhile
            return False
        with content:
            return wanted.in_bytes(content)


def _in_parquet(file: Path, wanted: Wanted) -> str | None:
    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_BATCH_ROWS):
                if what := _in_activities(batch, wanted):
                    return what
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    for leaf in _texts(column):
                        if wanted.in_column(name, leaf):
                            return f"column {name!r}"
    except pa.ArrowException:  # cut off or damaged: its bytes are searched all the same
        return None
    return None


def _in_activities(batch: pa.RecordBatch, wanted: Wanted) -> str | None:
    """Of a snapshot the terminals' activities: a card's hold terminals, of whom one may be called like a customer."""
    if not {"owner", "key", "blob"} <= set(batch.schema.names):
        return None
    of_terminals = batch.filter(pc.equal(batch["owner"], "terminal"))
    hold = any(wanted.hash in blob for blob in of_terminals["blob"].to_pylist())
    return "an activity holds an event of theirs" if hold else None


def _texts(column: pa.Array) -> Iterator[pa.Array]:
    """What of a column, however nested, is text or bytes."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _texts(column.dictionary)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts(column.flatten())
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _texts(child)
    elif pa.types.is_large_string(kind):
        yield column.cast(pa.string())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield column


def _in_sqlite(file: Path, wanted: Wanted) -> str | None:
    """Value by value, since nothing parts them in its bytes; an id that may occur by chance in the columns that hold
    customers."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            names = database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall()
            if wanted.distinct:
                return next(
                    (f"table {n!r}" for (n,) in names if _in_table(database, n, wanted)), None
                )
            if ("profiles",) not in names:
                return None
            asked = "SELECT 1 FROM profiles WHERE view LIKE 'customer%' AND entity = ?"
            return "table 'profiles'" if database.execute(asked, (wanted.id,)).fetchone() else None
    except sqlite3.Error:  # locked or damaged
        return None


def _in_table(database: sqlite3.Connection, name: str, wanted: Wanted) -> bool:
    quoted = name.replace('"', '""')
    return any(
        wanted.in_bytes(value.encode() if isinstance(value, str) else value)
        for row in database.execute(f'SELECT * FROM "{quoted}"')
        for value in row
        if isinstance(value, str | bytes)
    )


def _in_gzip(file: Path, wanted: Wanted) -> str | None:
    try:
        with gzip.open(file) as opened:
            return "compressed" if wanted.in_bytes(opened.read()) else None
    except (OSError, EOFError):
        return None


def _in_zip(file: Path, wanted: Wanted) -> str | None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if wanted.in_bytes(name.encode()) or wanted.in_bytes(
                io.BytesIO(archive.read(name)).getvalue()
            ):
                return f"compressed, {name!r}"
    return None

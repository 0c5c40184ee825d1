"""The two tables of the cold store, in an SQLite file or in Postgres: the same shape, the same rules.

``views``: view, fingerprint of its features, synced_through. ``profiles``: view, entity, available_at,
profile; one row per view and entity. Not here: what a profile's bytes mean (``cold_store``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from switchyard.errors import StoreError

T = TypeVar("T")
Row = tuple[str, int, bytes]
"""An entity, its available_at (microseconds), its profile."""
Mark = tuple[str, int]
"""Fingerprint of a view's features, and the newest available_at whose sync is complete."""
Found = tuple[Mapping[str, Mark], Mapping[str, list[Row]]]
"""Marks and rows by view, as of one moment."""

WRITER_PATIENCE_S = 10.0
"""How long a sync waits for another one to end its transaction."""
READER_PATIENCE_S = 0.005
"""How long a reader waits where SQLite makes it wait at all: while a torn log is recovered."""


class Tables(Protocol):
    """The tables of one database. All methods raise StoreError."""

    quick: bool
    """Whether a read takes well under a millisecond whatever the network does."""

    def read(self, wanted: Mapping[str, Sequence[str]]) -> Found:
        """Marks of all views, and the rows of the entities ``wanted`` by view."""
        ...

    def write(self, view: str, rows: Sequence[Row], mark: Mark) -> int:
        """Write rows and mark in one transaction; how many rows were written.

        A row is skipped if a newer one is there; the mark never goes back. If the view has another
        fingerprint, its rows are forgotten first.
        """
        ...

    def remove(self, view: str, entity: str) -> int:
        """Remove the row of an entity, its bytes too where the database lets one; how many there were."""
        ...

    def has(self, view: str, entity: str) -> bool:
        """Whether there is a row of the entity."""
        ...

    def close(self) -> None: ...


_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS views (view TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, "
    "synced_through BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS profiles (view TEXT NOT NULL, entity TEXT NOT NULL, "
    "available_at BIGINT NOT NULL, profile {bytes} NOT NULL, PRIMARY KEY (view, entity)){options}",
)
_FORGET = (
    "DELETE FROM profiles WHERE view IN "
    "(SELECT view FROM views WHERE view = {0} AND fingerprint <> {0})",
    "DELETE FROM views WHERE view = {0} AND fingerprint <> {0}",
)
_REMOVE = "DELETE FROM profiles WHERE view = {0} AND entity = {0}"
_UNLESS_NEWER = (
    "ON CONFLICT (view, entity) DO UPDATE SET available_at = excluded.available_at, "
    "profile = excluded.profile WHERE excluded.available_at >= profiles.available_at"
)
_RAISE_MARK = (
    "INSERT INTO views VALUES ({0}, {0}, {0}) ON CONFLICT (view) DO UPDATE "
    "SET synced_through = excluded.synced_through "
    "WHERE excluded.synced_through > views.synced_through"
)


class SqliteTables:
    """The tables in a file with a write-ahead log: any number of readers, none waits for the writer."""

    quick = True

    def __init__(self, file: Path) -> None:
        self._file = file
        self._reader: sqlite3.Connection | None = None

    def read(self, wanted: Mapping[str, Sequence[str]]) -> Found:
        if not self._file.exists():
            raise StoreError(f"there is no cold store at {self._file} yet; the first sync makes it")
        try:
            return self._read(wanted)
        except sqlite3.Error as error:
            self.close()
            raise StoreError(f"the cold store {self._file} can't be read: {error}") from None

    def write(self, view: str, rows: Sequence[Row], mark: Mark) -> int:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with _transaction(self._file) as connection:
                tell = connection.execute
                for statement in _SCHEMA:
                    tell(statement.format(bytes="BLOB", options=" WITHOUT ROWID"))
                for statement in _FORGET:
                    tell(statement.format("?"), (view, mark[0]))
                upsert = f"INSERT INTO profiles VALUES (?, ?, ?, ?) {_UNLESS_NEWER}"
                written = connection.executemany(upsert, [(view, *row) for row in rows]).rowcount
                tell(_RAISE_MARK.format("?"), (view, *mark))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the cold store {self._file} can't be written: {error}") from None
        return max(written, 0)

    def remove(self, view: str, entity: str) -> int:
        if not self._file.exists():
            return 0
        try:
            with _transaction(self._file) as connection:
                connection.execute("PRAGMA secure_delete = ON")
                removed = connection.execute(_REMOVE.format("?"), (view, entity)).rowcount
            with closing(sqlite3.connect(self._file, timeout=WRITER_PATIENCE_S)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise StoreError(f"the cold store {self._file} can't be written: {error}") from None
        return max(removed, 0)

    def has(self, view: str, entity: str) -> bool:
        return self._file.exists() and bool(self.read({view: [entity]})[1][view])

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _read(self, wanted: Mapping[str, Sequence[str]]) -> Found:
        if self._reader is None:
            self._reader = sqlite3.connect(
                f"{self._file.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=READER_PATIENCE_S,
                isolation_level=None,
            )
        ask = self._reader.execute
        ask("BEGIN")  # both tables as of one moment
        try:
            marks = {view: (fingerprint, moment) for view, fingerprint, moment in ask("SELECT * FROM views")}  # fmt: skip
            rows = {view: ask(*_of(view, keys)).fetchall() for view, keys in wanted.items()}
        finally:
            ask("COMMIT")
        return marks, rows


def _of(view: str, entities: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    places = ",".join("?" * len(entities))
    return (
        f"SELECT entity, available_at, profile FROM profiles WHERE view = ? AND entity IN ({places})",
        (view, *entities),
    )


@contextmanager
def _transaction(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file, timeout=WRITER_PATIENCE_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    finally:
        connection.close()


class PostgresTables:
    """The tables in the Postgres at ``url`` (needs the extra ``postgres``); one connection is kept to read."""

    quick = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._reader: Any = None

    def read(self, wanted: Mapping[str, Sequence[str]]) -> Found:
        return self._done("read", lambda: self._read(wanted))

    def write(self, view: str, rows: Sequence[Row], mark: Mark) -> int:
        return self._done("written", lambda: self._write(view, rows, mark))

    def remove(self, view: str, entity: str) -> int:
        def work() -> int:
            with self._connect() as connection:
                return int(connection.execute(_REMOVE.format("%s"), (view, entity)).rowcount)

        return self._done("written", work) if self.has(view, entity) else 0

    def has(self, view: str, entity: str) -> bool:
        def there() -> bool:
            with self._connect() as connection:
                found = connection.execute("SELECT to_regclass('profiles')").fetchone()
                return found is not None and found[0] is not None

        return self._done("read", there) and bool(self.read({view: [entity]})[1][view])

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _read(self, wanted: Mapping[str, Sequence[str]]) -> Found:
        """One statement: one trip, one moment."""
        if self._reader is None:
            self._reader = self._connect(_READER_OPTIONS)
        pairs = [(view, entity) for view, entities in wanted.items() for entity in entities]
        answer = self._reader.execute(
            "SELECT v.view, v.fingerprint, v.synced_through, p.entity, p.available_at, p.profile "
            "FROM views AS v LEFT JOIN (unnest(%s::text[], %s::text[]) AS wanted (view, entity) "
            "JOIN profiles AS p USING (view, entity)) ON v.view = wanted.view",
            ([view for view, _ in pairs], [entity for _, entity in pairs]),
            binary=True,
        )
        marks: dict[str, Mark] = {}
        rows: dict[str, list[Row]] = {view: [] for view in wanted}
        for view, fingerprint, moment, *row in answer:
            marks[view] = fingerprint, moment
            if row[0] is not None:
                rows[view].append((row[0], row[1], row[2]))
        return marks, rows

    def _write(self, view: str, rows: Sequence[Row], mark: Mark) -> int:
        """Rows go in by COPY, into a table of this transaction's own, and are merged from there."""
        with self._connect() as connection, connection.transaction(), connection.cursor() as cursor:
            tell = cursor.execute
            tell("SELECT pg_advisory_xact_lock(hashtext('switchyard cold store'))")
            for statement in _SCHEMA:
                tell(statement.format(bytes="BYTEA", options=""))
            for statement in _FORGET:
                tell(statement.format("%s"), (view, mark[0]))
            tell(
                "CREATE TEMP TABLE arrived (place BIGINT, entity TEXT, available_at BIGINT, "
                "profile BYTEA) ON COMMIT DROP"
            )
            with cursor.copy("COPY arrived FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "text", "int8", "bytea"])
                for place, row in enumerate(rows):
                    copy.write_row((place, *row))
            tell(
                "INSERT INTO profiles SELECT DISTINCT ON (entity) %s, entity, available_at, profile "
                f"FROM arrived ORDER BY entity, available_at DESC, place DESC {_UNLESS_NEWER}",
                (view,),
            )
            written = int(cursor.rowcount)
            tell(_RAISE_MARK.format("%s"), (view, *mark))
        return written

    def _connect(self, options: str = "") -> Any:
        import psycopg

        return psycopg.connect(
            self._url, autocommit=True, connect_timeout=2, tcp_user_timeout=2_000, options=options
        )

    def _done(self, done: str, work: Callable[[], T]) -> T:
        """What ``work`` brings; what the driver raises as a StoreError."""
        try:
            import psycopg
        except ImportError:
            raise StoreError(
                "a cold store in Postgres needs the extra 'postgres': pip install 'switchyard[postgres]'"
            ) from None
        try:
            return work()
        except psycopg.Error as error:
            self.close()
            raise StoreError(
                f"the cold store in Postgres can't be {done}: {str(error).strip() or type(error).__name__}"
            ) from None


_READER_OPTIONS = "-c statement_timeout=1000"

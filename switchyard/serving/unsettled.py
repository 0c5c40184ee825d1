"""Which decided transactions the online store may not know of: a small file that all workers of a host share.

A worker notes an id when it decides without the store, or its write trip failed; whoever brings the decision to
the store settles it. In normal times the file is empty, and asking costs one ``fstat``. Not here: the decisions
themselves (they are in the journal), bringing them to the store.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

_HEAD_BYTES = 8
"""A count of how often the file began anew, so that a reader notices."""
_NOTED, _SETTLED = b"+", b"-"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(str).decode


class Unsettled:
    """The ids noted in ``file`` and not settled since. Ids may be noted and settled any number of times.

    What is noted survives the death of the process. ``note`` and the questions belong to one thread;
    ``settle`` may be called from one other.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._path = file
        self._file = _open(file)
        self._head = mmap.mmap(self._file, _HEAD_BYTES)
        self._beginning = self._head[:_HEAD_BYTES]
        self._read_bytes = _HEAD_BYTES
        self._ids: dict[str, None] = {}
        self._settling: Unsettled | None = None
        """Of the thread that settles: it reads on where it was, however long the file has grown."""

    def __contains__(self, transaction_id: str) -> bool:
        return transaction_id in self.ids()

    def ids(self) -> dict[str, None]:
        """Every id that is noted, oldest first (as a dict without values: not to be changed)."""
        size = os.fstat(self._file).st_size
        if size != self._read_bytes or self._beginning != self._head[:_HEAD_BYTES]:
            with _locked(self._file, fcntl.LOCK_SH):
                self._read(os.fstat(self._file).st_size)
        return self._ids

    def note(self, transaction_ids: Iterable[str]) -> None:
        """Say that the store may not know of these. Raises OSError if that can't be written."""
        _append(self._file, _NOTED, transaction_ids, fcntl.LOCK_SH)

    def settle(self, transaction_ids: Iterable[str]) -> None:
        """Say that the store knows of these; the file begins anew once nothing is left."""
        other = self._settling = self._settling or Unsettled(self._path)
        _append(other._file, _SETTLED, transaction_ids, fcntl.LOCK_SH)
        other._begin_anew_if_empty()

    def close(self) -> None:
        """Close the file; nobody may be settling any more."""
        if self._settling:
            self._settling.close()
        self._head.close()
        os.close(self._file)

    def _begin_anew_if_empty(self) -> None:
        with _locked(self._file):
            size = os.fstat(self._file).st_size
            self._read(size)
            if not self._ids and size > _HEAD_BYTES:
                times = int.from_bytes(self._head[:_HEAD_BYTES], "little") + 1
                self._head[:_HEAD_BYTES] = times.to_bytes(_HEAD_BYTES, "little")
                os.ftruncate(self._file, _HEAD_BYTES)

    def _read(self, size: int) -> None:
        """Take in the whole lines up to ``size``, or all anew if the file began anew."""
        beginning = self._head[:_HEAD_BYTES]
        if beginning != self._beginning:
            self._beginning, self._read_bytes, self._ids = beginning, _HEAD_BYTES, {}
        content = os.pread(self._file, size - self._read_bytes, self._read_bytes)
        *lines, rest = content.split(b"\n")
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):  # what a full disk left of a line
                transaction_id = _decode(line[1:])
                if line[:1] == _NOTED:
                    self._ids[transaction_id] = None
                else:
                    self._ids.pop(transaction_id, None)
        self._read_bytes += len(content) - len(rest)


def _open(path: Path) -> int:
    """The file, with its head. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        with _locked(file):
            if os.fstat(file).st_size < _HEAD_BYTES:
                _write_head(file)
    except OSError:
        os.close(file)
        raise
    return file


def _write_head(file: int) -> None:
    """Really written: a hole that is mapped into memory would kill the process on a full disk."""
    os.ftruncate(file, 0)
    if os.write(file, bytes(_HEAD_BYTES)) < _HEAD_BYTES:
        raise OSError("the head of the unsettled ids did not fit")


def _append(file: int, mark: bytes, transaction_ids: Iterable[str], lock: int) -> None:
    """One write. It begins with a line break, to end what a full disk may have left of a line."""
    lines = b"\n" + b"".join(b"%b%b\n" % (mark, _encode(name)) for name in transaction_ids)
    with _locked(file, lock):
        written = os.write(file, lines)
    if written < len(lines):
        raise OSError(f"only {written} of {len(lines)} bytes of unsettled ids fitted")


@contextlib.contextmanager
def _locked(file: int, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Held for microseconds: only a beginning anew excludes all others."""
    fcntl.flock(file, kind)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)

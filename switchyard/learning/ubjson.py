"""Universal Binary JSON as XGBoost writes it: typed arrays come back as numpy's, exact to the bit.

Here: reading bytes that are trusted to be whole (a release checks its hashes), refusing what is not UBJSON.
Not here: what a model is made of (``trees``). Format: https://ubjson.org/type-reference.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from switchyard.errors import ReleaseError

_NUMBERS = {b"i": "b", b"U": "B", b"I": "h", b"l": "i", b"L": "q", b"d": "f", b"D": "d"}
_ALONE = {mark: struct.Struct(f">{code}") for mark, code in _NUMBERS.items()}
_TYPED = {mark: np.dtype(f">{code}") for mark, code in _NUMBERS.items()}
_WORDS = {b"Z": None, b"T": True, b"F": False}


def read_ubjson(content: bytes) -> Any:
    """The one value in ``content``: dict, list, str, number, or a typed array as numpy's of the same type.

    Raises ReleaseError, with the byte where reading stopped, if it is no UBJSON.

    >>> read_ubjson(b"{i\\x01a[$d#i\\x01\\x3f\\x80\\x00\\x00i\\x01bi\\x07}")
    {'a': array([1.], dtype='>f4'), 'b': 7}
    """
    reader = _Reader(content)
    try:
        return reader.value(reader.take(1))
    except (struct.error, KeyError, UnicodeDecodeError, RecursionError, ValueError):
        raise ReleaseError(f"no UBJSON: byte {reader.at} of {len(content)} is unexpected") from None


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, length: int) -> bytes:
        if not 0 <= length <= len(self.content) - self.at:
            raise ValueError(f"{length} bytes are not there")
        self.at += length
        return self.content[self.at - length : self.at]

    def value(self, mark: bytes) -> Any:
        if mark == b"{":
            return self._object()
        if mark == b"[":
            return self._array()
        if mark == b"S":
            return self._text(self.take(1))
        if mark in _WORDS:
            return _WORDS[mark]
        return self._number(mark)

    def _number(self, mark: bytes) -> Any:
        kind = _ALONE[mark]
        (found,) = kind.unpack_from(self.content, self.at)
        self.at += kind.size
        return found

    def _text(self, mark: bytes) -> str:
        return self.take(int(self._number(mark))).decode()

    def _object(self) -> dict[str, Any]:
        found = {}
        while (mark := self.take(1)) != b"}":
            name = self._text(mark)
            found[name] = self.value(self.take(1))
        return found

    def _array(self) -> Any:
        """``[ value ... ]``, ``[ # count value ...`` or ``[ $ type # count bytes``."""
        mark = self.take(1)
        if mark == b"$":
            kind = _TYPED[self.take(1)]
            count = self._count(self.take(1))
            return np.frombuffer(self.take(count * kind.itemsize), kind)
        if mark == b"#":
            return [self.value(self.take(1)) for _ in range(self._count(mark))]
        found = []
        while mark != b"]":
            found.append(self.value(mark))
            mark = self.take(1)
        return found

    def _count(self, mark: bytes) -> int:
        if mark != b"#":
            raise ValueError("an array's count must follow its type")
        return int(self._number(self.take(1)))

"""Feast's own format of a profile in Redis: one hash per entity, its fields hashed names, its values protobuf.

Key: the join key's name and value by Feast's entity key serialization, version 3, then the project. Field:
MurmurHash3 of ``view:feature``. Value: protobuf ``Value``. Source: feast 0.67,
``infra/online_stores/redis.py`` and ``infra/key_encoding_utils.py``; a contract test holds both equal.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import mmh3
import numpy as np
import numpy.typing as npt

from switchyard.errors import StoreError
from switchyard.serving.wire import bulk

Ints = npt.NDArray[np.int64]

MISSING = int(np.iinfo(np.int64).min)
"""Null inside an int64 matrix."""

_STRING_TYPE = 2  # feast.protos.feast.types.Value_pb2.ValueType.STRING
_INT64_TAG = 0x20  # protobuf: field 4 (int64_val), a varint
_MICROSECONDS = 1_000_000
_WORD = 1 << 64


@dataclass(frozen=True)
class View:
    """One feature view online: int64 ``features`` of an entity with one string join key ``key``.

    ``owner`` names the entity's activity, which lies beside its profile.
    """

    name: str
    key: str
    owner: str
    features: tuple[str, ...]

    @cached_property
    def time_field(self) -> bytes:
        """Hash field of the profile's event time."""
        return f"_ts:{self.name}".encode()

    @cached_property
    def fields(self) -> tuple[bytes, ...]:
        """Hash field of each feature."""
        return tuple(
            struct.pack("<I", mmh3.hash(f"{self.name}:{feature}", signed=False))
            for feature in self.features
        )

    @cached_property
    def key_head(self) -> bytes:
        """What every entity key of the view starts with."""
        name = self.key.encode()
        return (
            struct.pack("<III", 1, _STRING_TYPE, len(name)) + name + struct.pack("<I", _STRING_TYPE)
        )


def entity_key(view: View, entity: str, project: bytes) -> bytes:
    """Key of the hash that holds the profiles of ``entity``."""
    value = entity.encode()
    return b"%b%b%b%b" % (view.key_head, struct.pack("<I", len(value)), value, project)


def read_command(view: View) -> tuple[bytes, bytes]:
    """What stands before and after the key in the command that reads a profile: its time, its features."""
    head = b"*%d\r\n$5\r\nHMGET\r\n" % (len(view.fields) + 3)
    return head, bulk(view.time_field) + b"".join(map(bulk, view.fields))


# ---------------------------------------------------------------- times


def encode_time(microseconds: int) -> bytes:
    """Protobuf ``Timestamp`` of an event time in microseconds since 1970.

    >>> encode_time(1_000_000).hex()
    '0801'
    """
    seconds, rest = divmod(microseconds, _MICROSECONDS)
    whole = b"\x08" + _varint(seconds) if seconds else b""
    return whole + (b"\x10" + _varint(rest * 1000) if rest else b"")


def decode_time(value: object) -> int:
    """Microseconds since 1970 of a stored ``Timestamp``, MISSING for none. Raises StoreError.

    >>> decode_time(encode_time(1_514_772_000_000_001))
    1514772000000001
    """
    if value is None:
        return MISSING
    parts = {0x08: 0, 0x10: 0}
    if not isinstance(value, bytes):
        raise _garbage(value)
    at = 0
    while at < len(value):
        tag = value[at]
        if tag not in parts:
            raise _garbage(value)
        parts[tag], at = _read_varint(value, at + 1)
    return parts[0x08] * _MICROSECONDS + parts[0x10] // 1000


# ---------------------------------------------------------------- values


def _read_varint(value: bytes, start: int) -> tuple[int, int]:
    """The 64-bit number that starts there, and where it ends."""
    number = shift = 0
    for byte in value[start : start + 10]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            number &= _WORD - 1
            return number - _WORD if number >> 63 else number, start + shift // 7
    raise _garbage(value)


def _varint(number: int) -> bytes:
    number &= _WORD - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _garbage(value: object) -> StoreError:
    return StoreError(
        f"the online store holds {value!r} where an int64 in Feast's format should be"
    )


# ---------------------------------------------------------------- whole tables


def read_time_commands(view: View, keys: list[bytes]) -> list[bytes]:
    """One HGET of the profile's time per key."""
    field = bulk(view.time_field)
    return [b"*3\r\n$4\r\nHGET\r\n$%d\r\n%b\r\n%b" % (len(key), key, field) for key in keys]


def write_commands(view: View, keys: list[bytes], rows: Ints, times: list[bytes]) -> list[bytes]:
    """One HSET per key, each with a whole row (``rows`` int64[n, features]) and its encoded time."""
    cells, ends = _cells(view, rows)
    head = b"*%d\r\n$4\r\nHSET\r\n" % (2 * len(view.fields) + 4)
    field, starts = bulk(view.time_field), [0, *ends]
    return [
        b"%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n%b"
        % (head, len(key), key, field, len(moment), moment, cells[start:end])
        for key, moment, start, end in zip(keys, times, starts, ends, strict=False)
    ]


_CELL = 28
"""Bytes of the longest cell: a field of 4 (10 in protocol form), a value of at most 11 (5 + 11 + 2)."""
_SIZE, _TAG, _VARINT, _END = 10, 15, 16, 26


def _cells(view: View, rows: Ints) -> tuple[bytes, list[int]]:
    """Field and value of every cell in protocol form, one row after the other; where each row ends.

    Every cell is laid out at full width with numpy, then the bytes that it does not need are left out.
    """
    n, width = rows.shape
    numbers = rows.astype(np.int64, copy=False).view(np.uint64)
    filled = rows != MISSING
    length = np.ones((n, width), np.uint8)
    for k in range(1, 10):
        length += numbers >= np.uint64(1 << (7 * k))
    length += 1
    length[~filled] = 0
    cells = np.empty((n, width, _CELL), np.uint8)
    needed = np.ones((n, width, _CELL), np.bool_)
    cells[:, :, :_SIZE] = np.frombuffer(b"".join(map(bulk, view.fields)), np.uint8).reshape(
        width, _SIZE
    )
    cells[:, :, _SIZE] = ord("$")
    cells[:, :, _SIZE + 1] = ord("1")
    needed[:, :, _SIZE + 1] = length >= 10
    cells[:, :, _SIZE + 2] = ord("0") + length % 10
    cells[:, :, _SIZE + 3 : _TAG] = np.frombuffer(b"\r\n", np.uint8)
    cells[:, :, _TAG] = _INT64_TAG
    needed[:, :, _TAG] = filled
    for k in range(10):
        septet = (numbers >> np.uint64(7 * k)).astype(np.uint8) & 0x7F
        cells[:, :, _VARINT + k] = septet | ((length > k + 2) * np.uint8(0x80))
        needed[:, :, _VARINT + k] = length > k + 1
    cells[:, :, _END:] = np.frombuffer(b"\r\n", np.uint8)
    return cells[needed].tobytes(), np.cumsum(needed.sum(axis=(1, 2))).tolist()

"""API keys: who may call what. Keys are held as SHA-256 and compared in constant time.

Here: parsing the setting, checking one request, refusing an open address without keys. Not here: making
keys, TLS, rate limits.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from switchyard.errors import RequestError, SettingsError

Role = Literal["score", "explain", "label", "admin"]

_SHAPE = "'role:sha256hex' pairs, comma-separated, roles " + ", ".join(get_args(Role))


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The configured keys, as (role, SHA-256). None at all: every caller of the loopback may do all."""

    hashed: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> ApiKeys:
        """Read the setting ``api_keys``. Raises SettingsError without repeating what may be a secret."""
        return cls(tuple(_pair(part.strip()) for part in (text or "").split(",") if part.strip()))

    def check(self, authorization: bytes | None, role: Role | None) -> int:
        """Which key it is, counted from 0; 0 as well for everybody where no keys are configured.

        ``authorization`` is the header's value, ``Bearer <key>``. An admin may do everything; for
        ``role`` None any key will do. Raises RequestError 401 for a missing or unknown key, 403 for one
        of another role.
        """
        if not self.hashed:
            return 0
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            raise RequestError("an API key is needed: 'Authorization: Bearer <key>'", status=401)
        digest = hashlib.sha256(key.strip()).digest()
        same = [hmac.compare_digest(known, digest) for _, known in self.hashed]
        roles = {owner for (owner, _), equal in zip(self.hashed, same, strict=True) if equal}
        if not roles:
            raise RequestError("the API key is not known here", status=401)
        if role is not None and not roles & {role, "admin"}:
            raise RequestError(f"the API key has no role '{role}'", status=403)
        return same.index(True)  # a key with two roles stands twice; its first place counts it

    def refuse_open_address(self, host: str) -> None:
        """Raise SettingsError if ``host`` can be reached from elsewhere and no key is configured."""
        if not self.hashed and not is_loopback(host):
            raise SettingsError(
                f"the service would answer anybody on {host} without API keys; set "
                f"SWITCHYARD_API_KEYS to {_SHAPE}, or bind to 127.0.0.1"
            )


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("localhost")
    (True, False, True)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pair(part: str) -> tuple[str, bytes]:
    role, _, digest = part.partition(":")
    try:
        hashed = bytes.fromhex(digest)
    except ValueError:
        hashed = b""
    if role not in get_args(Role) or len(hashed) != hashlib.sha256().digest_size:
        raise SettingsError(f"setting 'api_keys' can't be read: it must be {_SHAPE}")
    return role, hashed

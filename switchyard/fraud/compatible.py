"""Whose releases this code can serve: its own, and those of earlier code whose columns it still computes.

A new column is appended to ``columns.FEATURES``; if everything before it holds the same values as ever, which the parity
tests show, the hash of the code before goes into EARLIER. Then a service of this code lets the old champion decide while a
release with the new column is on trial (``promotion.carry``). Not here: how a column is computed; a module named in
``COMPUTING_MODULES`` is part of the hash, this one is not.
"""

from __future__ import annotations

from switchyard.fraud.features import code_hash

EARLIER: frozenset[str] = frozenset()
"""``features.code_hash`` of earlier code. Its releases take the first columns of this code's vectors."""


def computable() -> frozenset[str]:
    """Code hashes of the releases that this code can serve."""
    return EARLIER | {code_hash()}

"""Compiling with numba, and a cache of the result that is found again by content, not by place.

A Bento's copy of the package finds what the source tree compiled, so that a service starts without
compiling. And since numba freezes constants of other modules into what it compiles but notices changes of
one file only, what is cached depends on all modules whose constants and functions are compiled in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching

COMPILED_IN = ("columns", "events", "sliding")
"""Modules beside a compiled function's own whose content ends up in it."""

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile at the first call, strict IEEE arithmetic; cached below NUMBA_CACHE_DIR, else beside the source."""
    dispatcher = numba.njit(error_model="numpy")(function)
    dispatcher._cache = _ContentCache(function)  # what njit(cache=True) does, with another locator
    return cast(_F, dispatcher)


class _ContentLocator(caching._CacheLocator):  # type: ignore[misc]
    """Where a function's compiled code lies: a folder named by the sources it was made from."""

    def __init__(self, py_file: str, first_line: int) -> None:
        self._py_file = py_file  # numba's warnings name it
        self._first_line = first_line
        source = Path(py_file)
        files = [source, *(source.with_name(f"{name}.py") for name in COMPILED_IN)]
        digests = [hashlib.sha256(file.read_bytes()).digest() for file in files]
        self._stamp = hashlib.sha256(b"".join(digests)).hexdigest()

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _ContentLocator:
        return cls(py_file, py_func.__code__.co_firstlineno)

    def get_cache_path(self) -> str:
        root = caching.config.CACHE_DIR or Path(self._py_file).parent / "__pycache__"
        return str(Path(root) / f"{Path(self._py_file).stem}-{self._stamp[:16]}")

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return str(self._first_line)


class _ContentCacheImpl(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_ContentLocator,)


class _ContentCache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _ContentCacheImpl

"""Compiling with numba, and a cache of the result that is found again by content, not by place.

It lies in the environment that compiled it, and setting one up fills it, so that no service and no home
begins with compiling: a Bento's copy of the package finds what the source tree compiled. And since numba
freezes constants of other modules into what it compiles but notices changes of one file only, what is
cached depends on every module that is named as compiled in. Not here: what there is to compile
(``fraud.compiling``, ``learning.traversal``).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching

_F = TypeVar("_F", bound=Callable[..., Any])
_COMPILED_IN = "compiled_in"
"""The attribute by which a function tells the locator what it depends on."""


def compiled(function: _F, *, compiled_in: tuple[str, ...] = (), nogil: bool = False) -> _F:
    """Compile at the first call, strict IEEE arithmetic; found again below :func:`cache_folder`.

    ``compiled_in`` names the modules whose content ends up in it, as paths from the function's own folder;
    with ``nogil`` other threads run on while it does.
    """
    dispatcher = numba.njit(error_model="numpy", nogil=nogil)(function)
    function.__dict__[_COMPILED_IN] = compiled_in
    dispatcher._cache = _ContentCache(function)  # what njit(cache=True) does, with another locator
    return cast(_F, dispatcher)


def cache_folder() -> Path:
    """NUMBA_CACHE_DIR; without it the environment's own, or the user's where that can't be written."""
    if caching.config.CACHE_DIR:
        return Path(caching.config.CACHE_DIR)
    if os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "var" / "cache" / "switchyard"
    return Path.home() / ".cache" / "switchyard"


class _ContentLocator(caching._CacheLocator):  # type: ignore[misc]
    """Where a function's compiled code lies: a folder named by the sources it was made from."""

    def __init__(self, py_file: str, first_line: int, compiled_in: tuple[str, ...]) -> None:
        self._py_file = py_file  # numba's warnings name it
        self._first_line = first_line
        source = Path(py_file)
        files = [source, *(source.parent / f"{name}.py" for name in compiled_in)]
        digests = [hashlib.sha256(file.read_bytes()).digest() for file in files]
        self._stamp = hashlib.sha256(b"".join(digests)).hexdigest()

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _ContentLocator:
        return cls(py_file, py_func.__code__.co_firstlineno, py_func.__dict__[_COMPILED_IN])

    def get_cache_path(self) -> str:
        return str(cache_folder() / f"{Path(self._py_file).stem}-{self._stamp[:16]}")

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return str(self._first_line)


class _ContentCacheImpl(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_ContentLocator,)


class _ContentCache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _ContentCacheImpl

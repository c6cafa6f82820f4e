"""Compiled kernels: plain functions over arrays, the only place that imports numba."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

# NaN and infinity stay what they are ("nnan" and "ninf" are missing), so the kernels can test for them.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


def kernel(function: F) -> F:
    """Compile lazily, without the GIL, cached on disk where a cache directory is writable."""
    options = {"nogil": True, "fastmath": _FAST, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no writable cache directory, as in a read-only container
        return numba.njit(**options)(function)  # type: ignore[no-any-return]

"""Compiled kernels: plain functions over arrays, the only place that imports numba."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.extending import intrinsic, overload

# NaN and infinity stay what they are ("nnan" and "ninf" are missing), so the kernels can test for them.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_STAMP = tuple(
    (file.name, file.stat().st_mtime_ns, file.stat().st_size)
    for file in sorted(Path(__file__).parent.glob("*.py"))
)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile lazily, without the GIL, cached on disk where a cache directory is writable."""
    return _compiled(function, nogil=True)


def short_kernel(function: Callable[..., Any]) -> Any:
    """As `kernel`, but keep the GIL: for the sub-microsecond calls of the request path.

    Releasing and taking the GIL costs about 80 of some 330 ns of call overhead (measured), and it would let another
    thread see a half-written state; holding it makes each call atomic.
    """
    return _compiled(function, nogil=False)


def part(function: Callable[..., Any]) -> Any:
    """As `kernel`, for what only other kernels call: compiled into them and cached with them, never on its own."""
    return _compiled(function, nogil=True, cache=False)


def inlined(function: Callable[..., Any]) -> Any:
    """As `part`, and always inlined: an array argument costs seven words per call."""
    return _compiled(function, nogil=True, cache=False, forceinline=True)


def _compiled(function: Callable[..., Any], *, cache: bool = True, **given: Any) -> Any:
    njit: Any = numba.njit
    options = {"fastmath": _FAST, "error_model": "numpy", **given}
    try:
        dispatcher = njit(cache=cache, **options)(function)
    except RuntimeError:  # no writable cache directory, as in a read-only container
        return njit(**options)(function)
    # numba takes a cached kernel for current as long as its own file is; it is not when a kernel it calls has
    # changed in another file. So the stamp is that of all kernel files.
    file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if file is not None:
        file._source_stamp = _STAMP
    return dispatcher


def borrowed(array: Any) -> Any:
    """Return the array without its owner, so that slices of it are not counted; for arguments of a kernel only.

    numba counts the references of every slice with a locked instruction. Whoever calls a kernel holds its arguments
    for the length of the call, so a kernel need not. A third of the time of `choose` at (15, 32) was counting.
    """
    return array


def _drop_owner(_: Any, array: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        from numba.np import arrayobj  # loaded by now anyway; at the top it would slow our own import

        arrays: Any = arrayobj
        view = arrays.make_array(array)(context, builder, values[0])
        view.meminfo = view.meminfo.type(None)
        return view._getvalue()

    return array(array), build


_without_owner: Any = intrinsic(_drop_owner)


@overload(borrowed, jit_options={"forceinline": True})
def _compiled_borrowed(array: Any) -> Any:
    def compiled(array: Any) -> Any:
        return _without_owner(array)

    return compiled


def prepare(function: Callable[..., Any], *examples: Any) -> None:
    """Compile a kernel for the types of `examples` and refuse any other: a type slip raises, it never recompiles."""
    dispatcher: Any = function
    compiler: Any = numba
    if compiler.config.DISABLE_JIT or not dispatcher._can_compile:
        return
    dispatcher.compile(tuple(compiler.typeof(value) for value in examples))
    dispatcher.disable_compile()

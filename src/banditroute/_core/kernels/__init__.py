"""Compiled kernels: plain functions over arrays, the only place that imports numba."""

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock, Thread, Timer
from typing import Any

import numba
from numba.core import event
from numba.core.caching import IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime.nrt import rtsys

from banditroute._core.kernels.compiling import Apart, Dispatcher, Drafting, Part, Whole, load
from banditroute._core.kernels.memory import borrowed, view, whole

__all__ = [
    "apart",
    "borrowed",
    "inlined",
    "kernel",
    "part",
    "prepare",
    "prepare_soon",
    "short_kernel",
    "view",
    "whole",
]

# NaN and infinity stay what they are ("nnan" and "ninf" are missing), so the kernels can test for them.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_PATIENCE_S = 2.0
_Files: Any = IndexDataCacheFile  # numba is not typed
_Listener: Any = event.Listener
_register: Any = event.register
_compiler_lock: Any = global_compiler_lock
_runtime: Any = rtsys
_soon: dict[Callable[..., Any], Thread] = {}  # what threads compile, or have compiled


def _stamp() -> str:
    """Return the hash of all kernel files: what they say decides what is compiled, not when they were written."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        text = file.read_bytes()
        digest.update(f"{file.name} {len(text)} ".encode() + text)
    return digest.hexdigest()


_STAMP = _stamp()


class _Stored(_Files):  # type: ignore[misc]
    """The compiled code of one kernel on disk; whatever is wrong with the files costs a compilation and no more."""

    def save(self, key: Any, data: Any) -> None:
        """Store, or leave it where nothing can be written (a full disk, a folder that became read-only)."""
        try:
            super().save(key, data)
        except OSError:
            return

    def load(self, key: Any) -> Any:
        """Return what was stored, or None."""
        try:
            return super().load(key)
        except Exception:  # a file that is no pickle can raise anything
            return None

    def _load_index(self) -> Any:
        try:
            return super()._load_index()
        except Exception:
            return {}

    def _load_data(self, name: str) -> Any:
        """Refuse a file whose bytes are not those that were written: a pickle of machine code must be whole."""
        text = Path(self._data_path(name)).read_bytes()
        if text[:32] != hashlib.sha256(text[32:]).digest():
            return None
        return pickle.loads(text[32:])

    def _save_data(self, name: str, data: Any) -> None:
        text = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(hashlib.sha256(text).digest() + text)


class _Notice(_Listener):  # type: ignore[misc]
    """Says on stderr, once, that kernels are being compiled, when that takes more than two seconds."""

    def __init__(self) -> None:
        self._depth, self._said, self._lock = 0, False, Lock()
        self._timer: Timer | None = None

    def _ours(self, happened: Any) -> bool:
        function = getattr(happened.data.get("dispatcher"), "py_func", None)
        return str(getattr(function, "__module__", "")).startswith("banditroute.")

    def on_start(self, event: Any) -> None:
        """Begin to wait with the outermost compilation."""
        if not self._ours(event):
            return
        with self._lock:
            self._depth += 1
            if self._depth == 1 and not self._said:
                self._timer = Timer(_PATIENCE_S, self._say)
                self._timer.daemon = True
                self._timer.start()

    def on_end(self, event: Any) -> None:
        """Stop waiting."""
        if not self._ours(event):
            return
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._timer is not None:
                self._timer.cancel()

    def _say(self) -> None:
        self._said = True
        print(
            "banditroute: compiling kernels for this machine, once for each version; this can take some seconds",
            file=sys.stderr,
            flush=True,
        )


_register("numba:compile", _Notice())


_PART = {
    "nogil": True,
    "forceinline": False,  # else it is that of whoever calls it first
    "cache": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": Drafting,
}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile lazily, without the GIL, cached on disk where a cache directory is writable."""
    return _compiled(function, nogil=True, forceinline=False)


def short_kernel(function: Callable[..., Any]) -> Any:
    """As `kernel`, but keep the GIL: for the sub-microsecond calls of the request path.

    Releasing and taking the GIL costs about 80 of some 330 ns of call overhead (measured), and it would let another
    thread see a half-written state; holding it makes each call atomic.
    """
    return _compiled(function, nogil=False)


def part(function: Callable[..., Any]) -> Any:
    """As `kernel`, for what only other kernels call: compiled into them and cached with them, never on its own."""
    return _part(function)


def apart(function: Callable[..., Any]) -> Any:
    """As `part`, and never inlined: for what is long and called from several places."""
    return _part(function, pipeline_class=Apart)


def inlined(function: Callable[..., Any]) -> Any:
    """As `part`, and always inlined: an array argument costs seven words per call."""
    return _part(function, forceinline=True)


def _part(function: Callable[..., Any], **given: Any) -> Any:
    dispatcher = _compiled(function, **{**_PART, **given})
    if isinstance(dispatcher, Dispatcher):  # else numba is switched off
        dispatcher.__class__ = Part
    return dispatcher


def _compiled(function: Callable[..., Any], *, cache: bool = True, **given: Any) -> Any:
    njit: Any = numba.njit
    options = {
        "fastmath": _FAST,
        "error_model": "numpy",
        "no_cfunc_wrapper": True,
        "pipeline_class": Whole,
        **given,
    }
    try:
        dispatcher = njit(cache=cache, **options)(function)
    except RuntimeError:  # no writable cache directory, as in a read-only container
        return njit(**options)(function)
    # numba takes a cached kernel for current as long as the time of its own file is; it is not when a kernel it calls
    # has changed in another file, and it still is when only times have changed. So the stamp is our own.
    stored: Any = getattr(dispatcher, "_cache", None)
    careful: Any = _Stored
    if getattr(stored, "_cache_file", None) is not None:
        stored._cache_file = careful(stored._cache_path, stored._impl.filename_base, _STAMP)
    return dispatcher


def prepare(function: Callable[..., Any], *examples: Any) -> None:
    """Compile a kernel for the types of `examples` and refuse any other: a type slip raises, it never recompiles."""
    if _open(function):
        dispatcher: Any = function
        with _compiler_lock:
            if _open(function):  # else a thread has done it meanwhile
                if not _loaded(dispatcher, _types_of(examples)):
                    load()
                    dispatcher.compile(_types_of(examples))
                dispatcher.disable_compile()


def _loaded(dispatcher: Any, types: tuple[Any, ...]) -> bool:
    """Take a kernel from the disk; False where it is not there.

    As ``dispatcher.compile`` does first, less what numba reads before to be able to compile: some 1,500 functions and
    their types, two thirds of the time of a start whose kernels are all stored. Whoever compiles has it read then.
    """
    if types in dispatcher.overloads:  # a call compiled it
        return True
    cache, target = dispatcher._cache, dispatcher.targetctx
    if not isinstance(getattr(cache, "_cache_file", None), _Stored):
        return False
    _runtime.initialize(target)  # code may call it
    found = cache._load_overload(types, target)
    if found is None:
        return False
    target.insert_user_function(found.entry_point, found.fndesc, [found.library])
    dispatcher.add_overload(found)
    return True


def prepare_soon(function: Callable[..., Any], *examples: Any) -> None:
    """As `prepare`, by a thread where it takes seconds, which it does once on a machine: a call until then waits.

    The end of the process, and a fork, wait for that thread too: it ends with the code on the disk. For kernels that are
    given our own arrays alone: after the thread, a call with other types would still compile.
    """
    if not _open(function) or function in _soon:
        return
    dispatcher: Any = function
    with _compiler_lock:
        if _loaded(dispatcher, _types_of(examples)):
            dispatcher.disable_compile()
            return
    load()
    # Not `prepare`: a call that waits for the thread must find the kernel open.
    _soon[function] = Thread(
        target=dispatcher.compile, args=(_types_of(examples),), name="banditroute-compile", daemon=False
    )
    _soon[function].start()


def _open(function: Callable[..., Any]) -> bool:
    compiler: Any = numba
    dispatcher: Any = function
    return not compiler.config.DISABLE_JIT and bool(dispatcher._can_compile)


def _types_of(examples: tuple[Any, ...]) -> tuple[Any, ...]:
    compiler: Any = numba
    return tuple(compiler.typeof(value) for value in examples)


def _wait() -> None:
    """Let the threads end: a child of a fork would find the compiler locked for ever."""
    for thread in list(_soon.values()):
        thread.join()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait)

"""Adapters of a model in this process, through peft."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from banditroute._core import validation as check
from banditroute._core.typing import Clock
from banditroute.records import Capabilities, State
from banditroute.residency.paging import EmpiricalPaging

__all__ = ["Borrowed", "PeftBackend"]


class Borrowed(NamedTuple):
    """A model with one adapter in force: whether that was resident, and how long its load and its switch took.

    Examples
    --------
    >>> Borrowed(object(), True, 0.002).hit
    True
    """

    model: Any
    hit: bool
    wait_s: float


class PeftBackend:
    """The adapters of a model in this process: loading, deleting and switching through peft.

    Parameters
    ----------
    model : peft.PeftModel
        Anything with its ``load_adapter``, ``set_adapter``, ``delete_adapter`` and, for `base`, ``disable_adapter``. It
        belongs to this object; adapters that it has already are left alone.
    paths : mapping of str to str
        Folder of each adapter.
    base : str, optional
        Name of an arm that is the model without any adapter: always resident, never loaded.
    remembered : int
        Loads whose times are kept.
    clock : callable
        Seconds, for waits.

    Notes
    -----
    One request at a time: `borrow` and all loads hold one lock, because the adapter in force belongs to the model, not
    to a request. An adapter that is not resident is borrowed through a scratch place, one more than the controller has,
    and stays there until another one needs the place; should it be wanted for good meanwhile, it is loaded already.

    Examples
    --------
    >>> class Model:
    ...     def load_adapter(self, path, adapter_name): print("load", adapter_name)
    ...     def set_adapter(self, name): print("switch to", name)
    ...     def delete_adapter(self, name): print("delete", name)
    >>> backend = PeftBackend(Model(), {"law": "adapters/law"})
    >>> with backend.borrow("law") as borrowed:
    ...     print(borrowed.hit)
    load law
    switch to law
    False
    >>> backend.ensure("law")
    True
    >>> backend.evict("law")
    delete law
    True
    """

    capabilities = Capabilities(pin=False, touch=False)

    def __init__(
        self,
        model: Any,
        paths: Mapping[str, str],
        *,
        base: str | None = None,
        remembered: int = 1000,
        clock: Clock = time.perf_counter,
    ) -> None:
        for method in ("load_adapter", "set_adapter", "delete_adapter"):
            if not callable(getattr(model, method, None)):
                raise TypeError(f"model must have the method {method}, got {type(model).__name__}")
        if base is not None and not callable(getattr(model, "disable_adapter", None)):
            raise TypeError(
                f"model must have the method disable_adapter for base, got {type(model).__name__}"
            )
        self.paths = dict(zip(check.names("paths", tuple(paths)), paths.values(), strict=True))
        if base in self.paths:
            raise ValueError(f"base must not be the name of an adapter, got {base!r}")
        self.model, self.base, self._clock = model, base, clock
        self._lock = threading.RLock()
        self._there: set[str] = set()
        self._scratch: str | None = None
        self._loads_s: dict[str, deque[float]] = {
            name: deque(maxlen=check.integer("remembered", remembered, low=1)) for name in self.paths
        }

    def __repr__(self) -> str:
        """Show what is loaded."""
        return f"PeftBackend({type(self.model).__name__}, resident={sorted(self._there)})"

    def ensure(self, name: str) -> bool:
        """Load an adapter, unless it is there."""
        if name == self.base:
            return True
        self._known(name)
        with self._lock:
            if name == self._scratch:
                self._scratch = None
            elif name not in self._there:
                self._load(name)
            self._there.add(name)
        return True

    def evict(self, name: str) -> bool:
        """Delete an adapter; False when it was not there."""
        if name == self.base:
            return False
        self._known(name)
        with self._lock:
            if name not in self._there and name != self._scratch:
                return False
            self.model.delete_adapter(name)
            self._there.discard(name)
            self._scratch = None if name == self._scratch else self._scratch
            return True

    def observe(self) -> dict[str, State]:
        """Return where every adapter is."""
        with self._lock:
            states: dict[str, State] = {name: "gpu" if name in self._there else "disk" for name in self.paths}
        if self.base is not None:
            states[self.base] = "gpu"
        return states

    @contextmanager
    def borrow(self, name: str) -> Iterator[Borrowed]:
        """Put an adapter into force for the body of a ``with``; one that is not resident takes the scratch place.

        ``wait_s`` is what the load, and putting it into force, took: what the request waited for memory.
        """
        with self._lock:
            start = self._clock()
            if name == self.base:
                with self.model.disable_adapter():
                    yield Borrowed(self.model, True, self._clock() - start)
                return
            self._known(name)
            hit = name in self._there
            if not hit and name != self._scratch:
                if self._scratch is not None:
                    self.model.delete_adapter(self._scratch)
                    self._scratch = None
                self._load(name)
                self._scratch = name
            self.model.set_adapter(name)
            yield Borrowed(self.model, hit, self._clock() - start)

    def loads_ms(self) -> dict[str, tuple[float, ...]]:
        """Return the times that loads of each adapter took, milliseconds, the latest last."""
        with self._lock:
            return {name: tuple(1e3 * s for s in own) for name, own in self._loads_s.items()}

    def paging(self, arms: tuple[str, ...] | None = None, **options: float) -> EmpiricalPaging:
        """Return the waits measured so far as a paging model, one list for each of `arms` (all adapters by default).

        An adapter never loaded has the waits of all others, the base model none. Options as of `EmpiricalPaging`.

        Raises
        ------
        ValueError
            Nothing was loaded yet.
        """
        measured = self.loads_ms()
        everything = [ms for own in measured.values() for ms in own]
        if not everything:
            raise ValueError("paging needs loads to have been measured, got none")
        names = tuple(self.paths) if arms is None else arms
        rows = [[0.0] if name == self.base else measured.get(name) or everything for name in names]
        return EmpiricalPaging(rows, **options)

    def _load(self, name: str) -> None:
        start = self._clock()
        try:
            self.model.load_adapter(self.paths[name], adapter_name=name)
        except BaseException:
            with suppress(Exception):  # half of it may be there, which would be in the way of the next try
                self.model.delete_adapter(name)
            raise
        self._loads_s[name].append(self._clock() - start)

    def _known(self, name: str) -> None:
        if name not in self.paths:
            raise ValueError(f"name must be one of {sorted(self.paths)}, got {name!r}")

"""What a caller may give as a backend, and how it is driven."""

from collections.abc import Callable, Iterable

from banditroute.records import AdapterBackend, Capabilities
from banditroute.residency import Exchange

__all__ = ["CarryOut", "FunctionBackend", "as_backend"]

CarryOut = Callable[[Exchange], Iterable[str] | None]


class FunctionBackend:
    """A function that carries out changes, as a backend: it is asked for one adapter at a time.

    Parameters
    ----------
    carry_out : callable
        Gets an `Exchange` with one name to load or to evict, and those that stay; returns the names that did load, or
        None for all of them.

    Examples
    --------
    >>> backend = FunctionBackend(print)
    >>> backend.ensure("a"), backend.evict("a")
    Exchange(load=('a',), evict=(), keep=())
    Exchange(load=(), evict=('a',), keep=())
    (True, True)
    """

    capabilities = Capabilities(pin=False, touch=False, observe=False)

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out
        self._held: set[str] = set()

    def ensure(self, name: str) -> bool:
        """Have one adapter loaded; whether the function said so."""
        answer = self._carry_out(Exchange(load=(name,), keep=tuple(sorted(self._held - {name}))))
        loaded = answer is None or name in set(answer)
        if loaded:
            self._held.add(name)
        return loaded

    def evict(self, name: str) -> bool:
        """Have one adapter evicted; a function that returns has done it."""
        self._carry_out(Exchange(evict=(name,), keep=tuple(sorted(self._held - {name}))))
        self._held.discard(name)
        return True


def as_backend(value: AdapterBackend | CarryOut) -> AdapterBackend:
    """Return a backend: the one given, or one made of a function.

    Raises
    ------
    TypeError
        It has not the methods ``ensure`` and ``evict`` and cannot be called; nothing of it is called.

    Examples
    --------
    >>> as_backend([])
    Traceback (most recent call last):
    TypeError: backend must have the methods ensure, evict (see AdapterBackend) or be a function, got []
    """
    missing = [name for name in ("ensure", "evict") if not callable(getattr(value, name, None))]
    if not missing:
        return value  # type: ignore[return-value]
    if callable(value) and len(missing) == 2:
        return FunctionBackend(value)
    words = f"must have the methods {', '.join(missing)} (see AdapterBackend)"
    raise TypeError(f"backend {words}{' or be a function' if len(missing) == 2 else ''}, got {value!r}")

"""Those who are told what happened in a Router."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from banditroute.records import Listener
from banditroute.router.books import Books

__all__ = ["Listeners"]

CALLS = ("decided", "learned", "dropped", "arms_changed", "marked", "deferred")


class Listeners:
    """Calls every listener that has the method; what one raises is counted and the others are told all the same.

    Parameters
    ----------
    books : Books
        Counts the errors.

    Examples
    --------
    >>> class Printer:
    ...     def dropped(self, decision_id, why):
    ...         print(decision_id, why)
    >>> listeners = Listeners(Books(lambda: 0.0))
    >>> listeners.add(Printer())
    >>> listeners.dropped(7, "cancelled")
    7 cancelled
    """

    __slots__ = ("_books", "_calls", "all", "deciding", "keeps_parts")

    def __init__(self, books: Books) -> None:
        self._books = books
        self.all: tuple[Listener, ...] = ()
        self.keeps_parts = False
        self._calls: dict[str, tuple[tuple[str, Callable[..., object]], ...]] = {}
        self.deciding = False  # whether anyone is told of decisions
        self._collect()

    def add(self, listener: Listener) -> None:
        """Tell a listener from now on, after the others; ``TypeError`` where it has none of the methods."""
        if not any(callable(getattr(listener, call, None)) for call in CALLS):
            raise TypeError(f"listeners must have one of the methods {', '.join(CALLS)}, got {listener!r}")
        self.all = (*self.all, listener)
        self._collect()

    def remove(self, listener: Listener) -> None:
        """Tell a listener no more."""
        self.all = tuple(one for one in self.all if one is not listener)
        self._collect()

    def _collect(self) -> None:
        def bound(call: str) -> tuple[tuple[str, Callable[..., object]], ...]:
            return tuple((type(one).__name__, getattr(one, call)) for one in self.all if hasattr(one, call))

        self._calls = {call: bound(call) for call in CALLS}
        self.keeps_parts = any(getattr(one, "keeps_parts", False) for one in self.all)
        self.deciding = bool(self._calls["decided"])

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Tell nobody but those who follow replays, for the length of a ``with``: the others were told before."""
        calls, told = self._calls, self.all
        self.all = tuple(one for one in told if getattr(one, "hears_replays", False))
        self._collect()
        self.all = told
        try:
            yield
        finally:
            self._calls = calls

    def decided(self, *what: Any) -> None:
        """Tell of a decision: (decision, request, pending, forced, parts)."""
        for name, call in self._calls["decided"]:
            self._books.guarded(name, call, *what)

    def learned(self, feedback: Any) -> None:
        """Tell of a reward that was learned."""
        for name, call in self._calls["learned"]:
            self._books.guarded(name, call, feedback)

    def dropped(self, decision_id: int, why: str) -> None:
        """Tell of a decision that ended without a reward."""
        for name, call in self._calls["dropped"]:
            self._books.guarded(name, call, decision_id, why)

    def deferred(self, event: Any) -> None:
        """Tell of an answer that waits for the store."""
        for name, call in self._calls["deferred"]:
            self._books.guarded(name, call, event)

    def arms_changed(self, change: Any) -> None:
        """Tell of a change of arms."""
        for name, call in self._calls["arms_changed"]:
            self._books.guarded(name, call, change)

    def marked(self, mark: Any) -> None:
        """Tell what a term was told from outside."""
        for name, call in self._calls["marked"]:
            self._books.guarded(name, call, mark)

"""Arms, terms and listeners of a Router that come and go while it serves."""

import threading
from collections.abc import Mapping
from typing import Any

from banditroute.records import Listener, Term
from banditroute.router import changes
from banditroute.router.assembly import check_terms
from banditroute.router.feedback_path import FeedbackPath
from banditroute.router.ownership import take_over
from banditroute.router.parts import RouterParts
from banditroute.router.request_path import RequestPath

__all__ = ["Changing"]


class Changing:
    """The calls of a Router that change its arms, terms and listeners.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(["small"], 2, rng=0))
    >>> router.add_arm("large")
    >>> router.arms, isinstance(router, Changing)
    (('small', 'large'), True)
    """

    __slots__ = ("_feedback", "_lock", "_requests", "parts")

    parts: RouterParts
    _feedback: FeedbackPath
    _lock: threading.RLock
    _requests: RequestPath

    def add_arm(self, name: str, *, size: float = 1.0, fault: float | None = None) -> None:
        """Add an arm while running; it starts cold and not resident.

        Parameters
        ----------
        name : str
            A new name of at most 65,535 bytes in UTF-8.
        size : float
            Its size in the unit of the controller's capacity; positive.
        fault : float, optional
            Price of its fault, reward units; needed where `paging` prices the arms one by one.

        Raises
        ------
        ValueError, TypeError
            The name is taken, a number is out of range or missing, or the router was closed; nothing changed.
        """
        with self._lock:
            self.parts.books.check_open()
            changes.add_arm(self.parts, name, size, fault)

    def remove_arm(self, name: str) -> None:
        """Remove an arm while running; feedback still due for it will be counted and dropped.

        The server unloads it. A later arm of that name starts from nothing.

        Raises
        ------
        UnknownArm, ValueError
            No such arm, or one that must stay: pinned, the last, or the last not in quarantine; or the router was
            closed. Nothing changed.
        """
        with self._lock:
            self.parts.books.check_open()
            changes.remove_arm(self.parts, self._feedback, name)

    def forget_arm(self, name: str) -> None:
        """Forget all that was learned of an arm, what it told a pooled prior included: it starts cold.

        Raises
        ------
        UnknownArm
            No such arm; nothing changed.
        """
        with self._lock:
            self.parts.books.check_open()
            changes.forget_arm(self.parts, name)

    def quarantine(self, arm: str) -> None:
        """Stop choosing an arm and drop its feedback, counted, until `release`; its statistics stay as they are.

        Raises
        ------
        UnknownArm
            No such arm; nothing changed.
        ValueError
            It is the last arm not in quarantine; nothing changed.

        Examples
        --------
        >>> from banditroute import LinUCB, Router
        >>> router = Router(LinUCB(["old", "canary"], 2, rng=0))
        >>> router.quarantine("canary")
        >>> {router.select([1.0, 0.0]).arm for _ in range(50)}
        {'old'}
        """
        with self._lock:
            self.parts.books.check_open()
            changes.mute(self.parts, arm, True)

    def release(self, arm: str) -> None:
        """End the quarantine of an arm."""
        with self._lock:
            self.parts.books.check_open()
            changes.mute(self.parts, arm, False)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms, in the order in which they close arms."""
        return self.parts.table.terms

    def add_term(self, term: Term) -> None:
        """Bind one more term, after the others; decisions already pending hold nothing for it.

        Raises
        ------
        ValueError, TypeError
            Not a term, its name is taken, or it belongs to another Router; nothing changed.
        """
        with self._lock:
            check_terms([term])
            changes.add_term(self.parts, term)
            take_over(self, term)
            self._requests.collect()

    def tell_term(self, name: str, details: Mapping[str, Any]) -> None:
        """Have the term called `name` take up what it was told from outside; a journal has it from then on."""
        with self._lock:
            changes.tell_term(self.parts, name, details)

    def add_listener(self, listener: Listener) -> None:
        """Tell one more listener, after the others."""
        with self._lock:
            self.parts.listeners.add(listener)
            self._requests.collect()

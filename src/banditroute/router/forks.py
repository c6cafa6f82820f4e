"""Routers across forks.

Locks are taken before, so that a child never inherits a half-written state; a child keeps the statistics and drops what
belongs to its parent: pending decisions, prefetched ids and random numbers, journal, replica identity and threads.
"""

import os
import threading
import weakref
from typing import Protocol

from banditroute.router.parts import RouterParts

__all__ = ["follow_forks"]

PATIENCE_S = 0.02


class Forked(Protocol):
    """A Router."""

    parts: RouterParts

    def after_fork(self) -> None:
        """Go on in a forked child, with the lock held."""


_alive: "weakref.WeakSet[Forked]" = weakref.WeakSet()
_roster = threading.Lock()  # no Router comes into being while a fork is under way
_held: list[Forked] = []


def follow_forks(router: Forked) -> None:
    """Keep a Router whole across forks from now on.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> follow_forks(Router(LinUCB(2, 2)))  # every Router is followed already: harmless
    """
    with _roster:
        _alive.add(router)


def _taken(routers: list[Forked]) -> bool:
    """Take the locks of all, or of none: who waits for one while holding another may be waited for."""
    for at, router in enumerate(routers):
        if not router.parts.lock.acquire(timeout=PATIENCE_S):
            for other in routers[:at]:
                other.parts.lock.release()
            return False
    return True


def _before_fork() -> None:
    _roster.acquire()
    _held[:] = list(_alive)
    while True:
        while not _taken(_held):
            pass
        busy = [router for router in _held if router.parts.planning()]
        if not busy:
            return
        for router in reversed(_held):
            router.parts.lock.release()
        with busy[0].parts.lock:
            busy[0].parts.settle()


def _after_fork_in_parent() -> None:
    for router in reversed(_held):
        router.parts.lock.release()
    _held.clear()
    _roster.release()


def _after_fork_in_child() -> None:
    global _roster
    _roster = threading.Lock()
    for router in _held:
        router.after_fork()
    for router in reversed(_held):
        router.parts.lock.release()  # taken by this thread before the fork, and this is the thread that lives on
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )

"""File locks that a forked child does not take along."""

import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["lock", "locked", "unlock"]

_held: "weakref.WeakSet[IO[bytes]]" = weakref.WeakSet()


def lock(file: IO[bytes], *, wait: bool = True) -> None:
    """Lock a file against other processes and other openings until it is closed; a forked child has it closed.

    ``flock`` belongs to the opening, which a fork shares: a child that kept the file open would go on holding the
    lock of a parent that is dead, and wait for ever for a lock that it holds itself.

    Parameters
    ----------
    file : binary file
        Best unbuffered, so that a child has nothing of its parent's to write when it closes it.
    wait : bool
        Otherwise the lock must be free.

    Raises
    ------
    BlockingIOError
        It is held elsewhere, and `wait` is False.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as one, open(one.name, "rb") as two:
    ...     lock(one)
    ...     lock(two, wait=False)
    Traceback (most recent call last):
        ...
    BlockingIOError: [Errno 11] Resource temporarily unavailable
    """
    _held.add(file)  # before it is locked: a fork may come between
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def unlock(file: IO[bytes]) -> None:
    """Let a lock go, also where a child that was just forked has not yet closed its copy; never in that child.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as one, open(one.name, "rb") as two:
    ...     lock(one)
    ...     unlock(one)
    ...     lock(two, wait=False)
    """
    fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a path, made when missing, for the length of a ``with``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home, locked(Path(home) / "lock"):
    ...     "alone"
    'alone'
    """
    with open(path, "ab", buffering=0) as file:
        lock(file)
        try:
            yield
        finally:
            unlock(file)


def _leave() -> None:
    for file in list(_held):
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)

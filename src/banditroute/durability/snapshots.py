"""Snapshots: the whole state of a Router in one file, `container` being the form of the file."""

import os
from collections.abc import Callable
from time import sleep
from typing import Any, Literal

from banditroute._core import container
from banditroute._core.files import write
from banditroute._core.typing import Arrays, Header
from banditroute.records import Host, SlicedHost

__all__ = ["captured", "load", "rollback", "save"]

PAUSE_S = 5e-5  # between two slices


def captured(host: Host, cut: Callable[[], object] | None = None) -> tuple[Header, Arrays]:
    """Return the state of a host, copied slice by slice where it can be; the lock is held for one slice at a time.

    `cut` is called with the lock held at the moment whose state it is.
    """
    sliced: object = host
    if not isinstance(sliced, SlicedHost):
        with host.locked():
            state = host.capture()
            if cut is not None:
                cut()
        return state
    with host.locked():
        slices = sliced.capture_slices()
        given = next(slices)
        if cut is not None:
            cut()
    try:
        while given is None:
            sleep(PAUSE_S)  # a lock that is taken again at once is never had by those who wait for it
            with sliced.held():
                given = next(slices)
    finally:
        close = getattr(slices, "close", None)
        if close is not None:
            with sliced.held():
                close()
    return given


def save(host: Host, path: str | os.PathLike[str]) -> None:
    """Write the state of a host to a file; the file it replaces is kept beside it as ``<path>.previous``.

    Through a link the file that it leads to is written. The new file has the mode of the one it replaces, or is its
    owner's alone, for contexts are users' data.

    Raises
    ------
    OSError
        Disk full, read-only and so on; the old file is untouched.
    SnapshotError
        The state is larger than `load` would take; the old file is untouched.
    TypeError, ValueError
        The state is no plain data; the old file is untouched.
    """
    write(path, container.pieces(*captured(host)), previous=True)


def load(
    host: Host,
    path: str | os.PathLike[str],
    *,
    limit_bytes: int = container.LIMIT_BYTES,
    arms: Literal["file", "code"] = "file",
    replaced: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """Put back what `save` wrote; returns what `Host.restore` says.

    `replaced` is called once the state is another, with the lock held: see `Journal.replaced`.

    Raises
    ------
    SnapshotError
        Torn, altered, foreign, too large or not fitting; nothing changed.
    OSError
        The file cannot be read; nothing changed.
    """
    header, arrays = container.read(path, limit_bytes=limit_bytes)
    header.pop("journal", None)
    with host.locked():
        report = host.restore(header, arrays, arms=arms)
        if replaced is not None:
            replaced()
    return report


def rollback(
    host: Host, path: str | os.PathLike[str], *, replaced: Callable[[], object] | None = None
) -> None:
    """Put back the statistics alone of what `save` wrote; errors and `replaced` as for `load`."""
    header, arrays = container.read(path)
    with host.locked():
        host.restore_statistics(header, arrays)
        if replaced is not None:
            replaced()

"""Snapshots: a captured state as a file; `container` is the format."""

import os
from pathlib import Path
from typing import Any, Literal

from banditroute._core import container
from banditroute.records import Host

__all__ = ["load", "rollback", "save"]


def save(host: Host, path: str | os.PathLike[str]) -> None:
    """Write the whole state to a file; see `Router.save`."""
    with host.locked():
        header, arrays = host.capture()
    target = Path(path)
    data = container.encode(header, arrays)
    container.keep_previous(target)
    container.write(target, data)


def load(
    host: Host, path: str | os.PathLike[str], *, limit_bytes: int, arms: Literal["file", "code"] = "file"
) -> dict[str, Any]:
    """Continue from a file; see `Router.load`."""
    header, arrays = container.read(path, limit_bytes=limit_bytes)
    with host.locked():
        return host.restore(header, arrays, arms=arms)


def rollback(host: Host, path: str | os.PathLike[str]) -> None:
    """Put back the statistics of a file; see `Router.rollback`."""
    header, arrays = container.read(path)
    with host.locked():
        host.restore_statistics(header, arrays)

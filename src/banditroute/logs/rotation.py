"""Files of a recorder that rotate: so many rows each, so many of them."""

import os
import re
import time
from pathlib import Path
from typing import Generic, TypeVar

from banditroute._core import validation as check
from banditroute.logs import files
from banditroute.logs.trace import Trace

__all__ = ["Rotation", "Segment"]

Row = TypeVar("Row")


class Segment(Generic[Row]):
    """Rows that make one file, and how many of them have no answer yet.

    Examples
    --------
    >>> Segment().done(10)
    False
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.changed = False
        self.settled = 0
        self.name: str | None = None

    def done(self, full: int) -> bool:
        """Tell whether the file is as it will stay: full, written and answered."""
        return not self.changed and self.settled == len(self.rows) >= full


class Rotation:
    """A folder of files; the oldest go when there are more than `max_files`.

    Parameters
    ----------
    directory : path
        Made where missing. Files of other names are left alone.
    max_files : int
        Files of this kind that stay.
    suffix : str
        Format, as in `Trace.save`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     log = Rotation(Path(home), 2)
    ...     for reward in (0.0, 1.0, 2.0):
    ...         log.write(Segment(), Trace(names=["a"], arms=[0], rewards=[reward]))
    ...     Trace.load(home).rewards
    array([1., 2.])
    """

    def __init__(self, directory: Path, max_files: int, suffix: str = ".npz") -> None:
        if suffix not in files.SUFFIXES:
            raise ValueError(f"suffix must be one of {', '.join(files.SUFFIXES)}, got {suffix!r}")
        self.directory, self.suffix = directory, suffix
        self.max_files = check.integer("max_files", max_files, low=1)
        self.removed = 0  # files that went to keep the bound
        self._own = re.compile(rf"log-\d{{19}}-\d+-[0-9a-f]{{8}}{re.escape(suffix)}")
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, segment: Segment[Row], trace: Trace) -> None:
        """Write the rows of a segment, whole or not at all, and remove what is too old."""
        if segment.name is None:  # names sort by time
            segment.name = f"log-{time.time_ns():019d}-{os.getpid()}-{os.urandom(4).hex()}{self.suffix}"
        trace.save(self.directory / segment.name)
        own = sorted(path for path in self.directory.iterdir() if self._own.fullmatch(path.name))
        for path in own[: -self.max_files]:
            path.unlink(missing_ok=True)
            self.removed += 1

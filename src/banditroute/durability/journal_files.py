"""The files that records go to: numbered, one after another, each written at its end and never cut."""

import errno
import os
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from banditroute._core.files import Folder, write_all
from banditroute.durability import journal_records as form

__all__ = ["Kept", "RecordFiles", "Written", "file_name"]

BATCH = 1 << 20  # bytes of a write


class Kept(NamedTuple):
    """A snapshot of the directory: its number, and that of the first record that is not in it (-1: format 1)."""

    number: int
    record: int


class Written(NamedTuple):
    """A file of the journal: the number of its first record (-1: format 1), and its own number."""

    first: int
    number: int


def file_name(kind: str, number: int) -> str:
    """Return the name of a file of a generation.

    Examples
    --------
    >>> file_name("snapshot", 7)
    'snapshot-000000000007'
    """
    return f"{kind}-{number:012d}"


class RecordFiles:
    """Takes records from a queue into files; not locked, and never called with the host's lock held.

    What was handed to the system but not yet synced stays here and is written again, at the same place, until a sync
    has succeeded: half a write, and pages that a failed sync has dropped, repair themselves, and nothing that was
    durable is ever cut.

    Parameters
    ----------
    folder : Folder
    position : int
        The number of the next record.
    follows : int
        Up to where the files there must have been read for nothing to be missing before it.
    files : list of Written
        Those that are there, oldest first.
    number : int
        The highest number of a file or snapshot that is there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     files = RecordFiles(Folder(home), 0, 0, [], 0)
    ...     files.queue.append(b"one")
    ...     files.drain()
    ...     files.write(files.end)
    ...     found = files.first, os.listdir(home)
    ...     files.leave()
    >>> found
    (1, ['journal-000000000001'])
    """

    __slots__ = (
        "_chain", "_folder", "_follows", "_good", "_handle", "_unsaved", "all", "bytes_out", "first", "number", "queue",
    )  # fmt: skip

    def __init__(
        self, folder: Folder, position: int, follows: int, files: list[Written], number: int
    ) -> None:
        self._folder = folder
        # Payloads; a number: records before it were dropped. Other threads add to its end, and touch nothing else.
        self.queue: deque[bytes | int] = deque()
        self._unsaved: deque[bytes] = deque()  # taken from the queue, not yet durable
        self.first, self._follows = (
            position,
            follows,
        )  # number of the first of them; what the next file must tell
        self.all, self.number = files, number
        self.bytes_out = 0  # of records that have left memory
        self._handle: int | None = None
        self._good = self._chain = (
            0  # bytes of the file that are durable, and the checksum of the last record there
        )

    def __repr__(self) -> str:
        """Show where records go and how many wait."""
        return f"RecordFiles({file_name('journal', self.number)}, first={self.first}, waiting={len(self._unsaved)})"

    @property
    def end(self) -> int:
        """The number behind the last record that was taken from the queue."""
        return self.first + len(self._unsaved)

    @property
    def good(self) -> int:
        """How many bytes of the file are durable."""
        return self._good

    @property
    def broken_off(self) -> bool:
        """Whether records were dropped behind those that were taken from the queue."""
        return bool(self.queue) and isinstance(self.queue[0], int)

    @property
    def opened(self) -> bool:
        """Whether there is a file that records go to."""
        return self._handle is not None

    def drain(self) -> None:
        """Take from the queue what follows without a gap."""
        queue = self.queue
        for _ in range(len(queue)):
            if isinstance(queue[0], int):
                return
            self._unsaved.append(queue.popleft())  # type: ignore[arg-type]

    def write(self, end: int) -> None:
        """Make the records before record `end` durable."""
        count = end - self.first
        if count <= 0:
            return
        if self._handle is None:
            self.open()
        assert self._handle is not None
        place, chain, batch = self._good, self._chain, bytearray()
        for at, payload in enumerate(islice(self._unsaved, count), 1):
            frame, chain = form.framed(payload, chain)
            batch += frame
            batch += payload
            if len(batch) >= BATCH or at == count:
                write_all(self._handle, batch, place)
                place += len(batch)
                batch.clear()
        os.fsync(self._handle)
        if os.fstat(self._handle).st_nlink == 0:
            raise FileNotFoundError(
                errno.ENOENT, "the journal was removed", file_name("journal", self.number)
            )
        self.bytes_out += place - self._good
        self._good, self._chain = place, chain
        self.first = self._follows = end
        for _ in range(count):
            self._unsaved.popleft()

    def open(self) -> None:
        """Start a file with the first record that is not durable."""
        self.number += 1
        name, given = file_name("journal", self.number), form.head(self.first, self._follows)
        handle = self._folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            write_all(handle, given)
            os.fsync(handle)
            self._folder.sync()
        except BaseException:
            with suppress(OSError):
                os.close(handle)
            try:
                self._folder.unlink(name)
            except OSError:
                # It says that records from `first` on are in it or behind it: none may go to the file before any more.
                self.leave()
            raise
        self.leave()
        self._handle, self._good, self._chain = handle, len(given), form.chain(given)
        self.all.append(Written(self.first, self.number))

    def leave(self) -> None:
        """Close the file; the next record starts another."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with suppress(OSError):
                os.close(handle)

    def forget(self, cut: int) -> None:
        """Let go of records before `cut`: a durable snapshot holds what they did."""
        self.drain()
        while self.first < cut:
            if self._unsaved:
                self.bytes_out += len(self._unsaved.popleft()) + form.FRAME.size
                self.first += 1
            elif self.queue:
                mark = self.queue.popleft()
                assert isinstance(mark, int)
                self.first = mark
                self.drain()
            else:
                self.first = cut
        if self.queue and self.queue[0] == self.first and not self._unsaved:
            self.queue.popleft()
        self.leave()
        self._follows = self.first
        self.open()

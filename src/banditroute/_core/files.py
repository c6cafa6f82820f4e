"""Files that last: atomic writes, folders that are held by handle, and locks that a forked child does not take along.

Where the system has no ``fcntl`` (Windows) locks are those of ``msvcrt``; where it has neither, asking for a lock is an
``OSError`` and everything else works.
"""

import errno
import os
import stat
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from banditroute.errors import DirectoryInUse

__all__ = ["Folder", "lock", "locked", "previous_name", "regular", "unlock", "write", "write_all"]

fcntl: Any = None
msvcrt: Any = None
try:
    fcntl = import_module("fcntl")
except ImportError:
    with suppress(ImportError):
        msvcrt = import_module("msvcrt")

PRIVATE = 0o600  # contexts are users' data
LEFT_S = 3600.0  # after so long a temporary file is what a process left that was killed
CHUNK = 1 << 22
Data = bytes | bytearray | memoryview

_held: "weakref.WeakSet[IO[bytes]]" = weakref.WeakSet()


# Locks.


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
    OSError
        This platform has no file locks.

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
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    elif msvcrt is not None:
        _lock_windows(file, wait)
    else:
        raise OSError(
            errno.ENOTSUP, "this platform has no file locks: keep no journal and share no folder here"
        )


def _lock_windows(file: IO[bytes], wait: bool) -> None:
    while True:
        try:
            file.seek(0)
            return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[no-any-return]
        except OSError as error:
            if not wait:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
            time.sleep(0.01)


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
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)
    elif msvcrt is not None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)


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


# Writing.


def write_all(handle: int, data: Data, at: int | None = None) -> None:
    """Write all of it, from `at` on or where the file stands: ``write(2)`` may come back short without an error.

    Raises ``OSError``; how much was written is then unknown.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryFile(buffering=0) as file:
    ...     write_all(file.fileno(), b"abcd")
    ...     write_all(file.fileno(), b"XY", 1)
    ...     os.lseek(file.fileno(), 0, 0), file.read()
    (0, b'aXYd')
    """
    view = memoryview(data)
    while view:
        if at is None:
            count = os.write(handle, view)
        elif hasattr(os, "pwrite"):
            count = os.pwrite(handle, view, at)
            at += count
        else:
            os.lseek(handle, at, os.SEEK_SET)
            count = os.write(handle, view)
            at += count
        if count == 0:
            raise OSError(errno.EIO, "a write took nothing")
        view = view[count:]


def regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file for reading; anything else, such as a pipe that nobody fills, is an ``OSError``.

    Examples
    --------
    >>> regular(os.curdir)
    Traceback (most recent call last):
    IsADirectoryError: [Errno 21] must be a regular file: '.'
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return _regular(os.open(path, flags), os.fspath(path))


def _regular(handle: int, name: str) -> IO[bytes]:
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(
                errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "must be a regular file", name
            )
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def previous_name(name: str) -> str:
    """Return the name that the file before goes by: ``<name>.previous``, shortened where that is too long a name.

    Examples
    --------
    >>> previous_name("state"), len(previous_name("x" * 255))
    ('state.previous', 230)
    """
    full = f"{name}.previous"
    if len(os.fsencode(full)) <= 255:
        return full
    return f"{os.fsdecode(os.fsencode(name)[:208])}-{_mark(name)}.previous"


def _mark(name: str) -> str:
    return blake2b(os.fsencode(name), digest_size=6).hexdigest()


class Folder:
    """A folder held by its handle: what is written goes there, wherever its path leads by then.

    Where handles of folders cannot be used (Windows) names are joined to the path.

    Parameters
    ----------
    path : path
        Of a folder that exists.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     folder = Folder(home)
    ...     folder.write("note", b"one")
    ...     folder.write("note", [b"t", b"wo"], previous="note.previous")
    ...     found = folder.names(), folder.read("note"), folder.moved
    ...     folder.close()
    >>> found
    (['note', 'note.previous'], b'two', False)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._handle: int | None = None
        self._lock: IO[bytes] | None = None
        self.closed = False
        if os.open in os.supports_dir_fd and os.listdir in os.supports_fd:
            self._handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __repr__(self) -> str:
        """Show the path, and whether it leads elsewhere by now."""
        return f"Folder({str(self.path)!r}{', moved' if self.moved else ''})"

    @property
    def moved(self) -> bool:
        """Whether the path leads to another folder by now, or to none."""
        if self._handle is None:
            return not self.path.is_dir()
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        except OSError:
            return True

    def _at(self, name: str) -> str:
        return name if self._handle is not None else str(self.path / name)

    def names(self) -> list[str]:
        """Return the names in it, sorted."""
        return sorted(os.listdir(self.path if self._handle is None else self._handle))

    def open(self, name: str, flags: int, mode: int = PRIVATE) -> int:
        """Return a handle of a file in it."""
        extra = os.O_CLOEXEC if self._handle is not None else getattr(os, "O_BINARY", 0)
        return os.open(self._at(name), flags | extra, mode, dir_fd=self._handle)

    def reader(self, name: str) -> IO[bytes]:
        """Open a regular file for reading; anything else, such as a pipe that nobody fills, is an ``OSError``."""
        return _regular(self.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), name)

    def read(self, name: str) -> bytes:
        """Return the bytes of a regular file."""
        with self.reader(name) as file:
            return file.read()

    def stat(self, name: str) -> os.stat_result | None:
        """Return what a name stands for, links not followed; None where there is nothing."""
        try:
            return os.stat(self._at(name), dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def unlink(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(self._at(name), dir_fd=self._handle)

    def replace(self, old: str, new: str) -> None:
        """Rename within the folder."""
        os.replace(self._at(old), self._at(new), src_dir_fd=self._handle, dst_dir_fd=self._handle)

    def sync(self) -> None:
        """Make renames last; quietly nothing where the system cannot sync folders."""
        if self._handle is None:
            return
        try:
            os.fsync(self._handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EROFS):
                raise

    def write(
        self,
        name: str,
        data: Data | Iterable[Data],
        *,
        sync: bool = True,
        mode: int = PRIVATE,
        previous: str | None = None,
    ) -> None:
        """Write a file so that a crash leaves the old one or the new one: temporary file, fsync, rename, fsync.

        Without `sync` that holds for crashes of the process, not of the machine, and is hundreds of times faster. The
        new file has the mode and, where allowed, the owner of the one it replaces; `mode` where there was none. The
        old one is kept under the name `previous`, if given.

        Raises
        ------
        OSError
            The disk is full, the folder is read-only and so on; the old file is untouched, nothing is left behind.
        """
        old = self.stat(name)
        if old is not None and not stat.S_ISREG(old.st_mode):
            code = errno.EISDIR if stat.S_ISDIR(old.st_mode) else errno.EINVAL
            raise OSError(code, "only a regular file can be replaced", name)
        spare = self._spare(name)
        try:
            handle = self.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                if old is not None and hasattr(os, "fchmod"):
                    _like(handle, old)
                for piece in [data] if isinstance(data, Data) else data:
                    write_all(handle, piece)
                if sync:
                    os.fsync(handle)
            finally:
                os.close(handle)
            if previous is not None and old is not None:
                self._keep(name, previous, stat.S_IMODE(old.st_mode))
            self.replace(spare, name)
        except BaseException:
            with suppress(OSError):
                self.unlink(spare)
            raise
        if sync:
            self.sync()

    def _keep(self, name: str, previous: str, mode: int) -> None:
        """Keep a file under a second name, which is replaced; `name` stays in place throughout."""
        spare = self._spare(previous)
        try:
            os.link(self._at(name), self._at(spare), src_dir_fd=self._handle, dst_dir_fd=self._handle)
        except (OSError, NotImplementedError):  # vfat, exFAT, many network mounts: there are no hard links
            with self.reader(name) as file:
                self.write(previous, iter(lambda: file.read(CHUNK), b""), mode=mode)
            return
        try:
            self.replace(spare, previous)
        except BaseException:
            with suppress(OSError):
                self.unlink(spare)
            raise

    @staticmethod
    def _spare(name: str) -> str:
        """A name for a file on its way to `name`, which may be as long as names can be."""
        return f".banditroute-{_mark(name)}-{os.urandom(4).hex()}"

    def sweep(self, name: str | None = None, *, older_s: float = LEFT_S) -> None:
        """Remove what processes left that were killed while they wrote `name` (None: any file)."""
        start = ".banditroute-" if name is None else f".banditroute-{_mark(name)}-"
        for left in self.names():
            if left.startswith(start):
                found = self.stat(left)
                if found is not None and time.time() - found.st_mtime >= older_s:
                    with suppress(OSError):
                        self.unlink(left)

    def lock(self) -> None:
        """Take the folder for this process, until `close`.

        Raises
        ------
        DirectoryInUse
            Another process, or another part of this one, has it.
        """
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        file = os.fdopen(self.open("lock", flags), "r+b", buffering=0)
        try:
            lock(file, wait=False)
        except BlockingIOError:
            file.close()
            raise DirectoryInUse(
                f"directory must not be in use by another process, got {self.path}"
            ) from None
        except BaseException:
            file.close()
            raise
        self._lock = file

    def close(self, *, owner: bool = True) -> None:
        """Let the folder go; a forked child, which is not its `owner`, only closes its copies of the handles."""
        self.closed = True
        if self._lock is not None and not self._lock.closed:
            if owner:
                with suppress(OSError):
                    unlock(self._lock)
            self._lock.close()
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)


def _like(handle: int, old: os.stat_result) -> None:
    mine = os.fstat(handle)
    if (mine.st_uid, mine.st_gid) != (old.st_uid, old.st_gid):
        with suppress(OSError):
            os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode))


def write(
    path: str | os.PathLike[str],
    data: Data | Iterable[Data],
    *,
    sync: bool = True,
    mode: int = PRIVATE,
    previous: bool = False,
) -> None:
    """Write a file atomically, as `Folder.write` does; through a link, to the file that the link leads to.

    With `previous` the old file is kept beside the new one under its `previous_name`, and what an hour ago or earlier
    was left there by a process that was killed while saving is removed.

    Raises
    ------
    OSError
        The disk is full, the directory is read-only and so on; the old file is untouched.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     write(home + "/real", b"1")
    ...     os.symlink("real", home + "/link")
    ...     write(home + "/link", b"2", previous=True)
    ...     sorted(os.listdir(home)), Path(home, "real").read_bytes()
    (['link', 'real', 'real.previous'], b'2')
    """
    target = Path(os.path.realpath(path))
    folder = Folder(target.parent)
    try:
        folder.write(
            target.name, data, sync=sync, mode=mode, previous=previous_name(target.name) if previous else None
        )
        if previous:
            folder.sweep(target.name)
    finally:
        folder.close()

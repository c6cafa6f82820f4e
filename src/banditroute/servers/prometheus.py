"""Router statistics for Prometheus; needs the extra ``metrics``."""

import errno
import json
import logging
import os
import stat
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from banditroute._core import validation as check
from banditroute._core.background import Background
from banditroute._core.files import Folder, lock, write_all
from banditroute.servers.metrics import metric

__all__ = ["export"]

log = logging.getLogger("banditroute.prometheus")

Stats = dict[str, Any]
GROUPS = (("arms", "arm"), ("sources", "source"))
START, END = "worker-", ".banditroute"  # of the names of files
MAGIC = b"banditroute-metrics 1"
LARGEST = 1 << 24  # bytes of a file that is read
READS = 3  # of a file that is being written


class Counted(Protocol):
    """Whatever has statistics: a Router."""

    def stats(self) -> Stats:
        """Return counters as plain numbers, those of arms and sources in groups."""


def export(
    router: Counted,
    registry: Any = None,
    *,
    directory: str | os.PathLike[str] | None = None,
    write_s: float = 2.0,
    **labels: str,
) -> "Collector":
    """Register a Router with Prometheus.

    Parameters
    ----------
    router : Router
    registry : prometheus_client.CollectorRegistry, optional
        The default registry when left out.
    directory : path, optional
        For several worker processes behind one port: each writes its numbers there every `write_s` seconds, and
        whichever is scraped shows those of all that live and have the same labels, with their process id (and a number
        where that is taken) as the label ``worker``. A forked child is a worker of its own. Other files there are left
        alone.
    write_s : float
        Seconds, in (0, 1e9].
    **labels : str
        Constant labels.

    Returns
    -------
    Collector
        For ``registry.unregister``; ``close()`` ends the writing.

    Raises
    ------
    OSError
        The directory cannot be written.
    ValueError
        `write_s` is out of range, or the registry has these metrics already.

    Notes
    -----
    Numbers are read from ``router.stats()`` when scraped: nothing happens on the request path. In a forked child
    counters start at zero, so that no decision is counted twice. `metrics.METRICS` says what each number means.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> from banditroute import LinUCB, Router
    >>> router, registry = Router(LinUCB(["a", "b"], 2, rng=0)), CollectorRegistry()
    >>> collector = export(router, registry, service="chat")
    >>> decision = router.select([1.0, 0.0])
    >>> registry.get_sample_value("banditroute_decisions_total", {"service": "chat"})
    1
    """
    if registry is None:
        from prometheus_client import REGISTRY

        registry = REGISTRY
    collector = (
        Collector(router, labels) if directory is None else _Shared(router, labels, Path(directory), write_s)
    )
    try:
        registry.register(collector)
    except BaseException:
        collector.close()
        raise
    return collector


class Collector:
    """Turns statistics into metrics when asked; made by `export`."""

    def __init__(self, router: Counted, labels: Mapping[str, str]) -> None:
        self._router, self._labels = router, dict(labels)
        self._before: Stats = {}  # what the parent had counted at the fork
        self.closed = False
        _alive.add(self)

    def __repr__(self) -> str:
        """Show the labels."""
        return f"{type(self).__name__}({self._labels})"

    def stats(self) -> Stats:
        """Return the statistics, counters from the fork on in a child."""
        return _since(self._router.stats(), self._before)

    def _workers(self) -> Iterator[tuple[dict[str, str], Stats]]:
        yield self._labels, self.stats()

    def collect(self) -> Iterator[Any]:
        """Yield one metric family for each number."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, Any] = {}
        for labels, stats in self._workers():
            for name, own, value in _numbers(stats):
                one, all_labels = metric(name), {**labels, **own}
                if name not in families:
                    kind = CounterMetricFamily if one.counter else GaugeMetricFamily
                    families[name] = kind(f"banditroute_{name}", one.help, labels=list(all_labels))
                families[name].add_metric(list(all_labels.values()), value)
        yield from families.values()

    def close(self) -> None:
        """Follow no more forks."""
        self.closed = True

    def begin_again(self) -> None:
        """Go on in a forked child; nobody else calls it."""
        self._before = self._router.stats()


def _numbers(stats: Stats) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield name, labels and value of every number, those of groups included."""
    for name, value in stats.items():
        if isinstance(value, int | float):
            yield name, {}, value
    for group, label in GROUPS:
        for member, numbers in stats.get(group, {}).items():
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    yield f"{label}_{name}", {label: str(member)}, value


def _since(stats: Stats, before: Stats) -> Stats:
    """Return statistics whose counters have grown from zero since `before`."""
    if not before:
        return stats
    after: Stats = {}
    for name, value in stats.items():
        old = before.get(name, 0)
        counts = isinstance(value, int | float) and metric(name).counter
        after[name] = value - old if counts and isinstance(old, int | float) else value
    for group, label in GROUPS:
        then = before.get(group, {})
        after[group] = {
            member: {
                name: value - then.get(member, {}).get(name, 0)
                if metric(f"{label}_{name}").counter
                else value
                for name, value in numbers.items()
            }
            for member, numbers in stats.get(group, {}).items()
        }
    return after


class _Shared(Collector):
    """The numbers of all workers of a machine: a file each, locked by its owner for as long as that lives."""

    def __init__(self, router: Counted, labels: Mapping[str, str], directory: Path, write_s: float) -> None:
        self._write_s = check.finite("write_s", write_s, low=0.0, high=check.LONGEST_S, open_low=True)
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(router, labels)
        self._folder = Folder(directory)
        self._file: IO[bytes] | None = None
        self._name = ""
        self._turn = threading.Lock()
        try:
            self._write()
        except BaseException:
            self.close()
            raise
        self._thread = self._started()

    def _started(self) -> Background:
        thread = Background("metrics", self._write, period_s=self._write_s, log=log)
        thread.start()
        return thread

    def _write(self) -> None:
        body = json.dumps({"labels": self._labels, "stats": self.stats()}).encode()
        with self._turn:
            if self.closed:
                return
            if self._file is None:
                self._name, self._file = _claimed(self._folder)
            # One write, checked by its reader; what a longer one left behind it is not read.
            write_all(self._file.fileno(), b"%s %d %d\n%s" % (MAGIC, len(body), zlib.crc32(body), body), 0)

    def _workers(self) -> Iterator[tuple[dict[str, str], Stats]]:
        own = self._name
        yield {**self._labels, "worker": _worker(own) if own else str(os.getpid())}, self.stats()
        for name in self._folder.names():
            if name != own and name.startswith(START) and name.endswith(END):
                with suppress(OSError):  # gone meanwhile, or not for us to read
                    given = _read(self._folder, name)
                    if given is not None and given.get("labels") == self._labels:
                        yield {**self._labels, "worker": _worker(name)}, given["stats"]

    def close(self) -> None:
        """Stop writing and leave the directory."""
        if self.closed:
            return
        super().close()
        thread = getattr(self, "_thread", None)
        if thread is not None:
            thread.close()
        with self._turn:
            if self._file is not None and not self._file.closed:
                with suppress(OSError):
                    if _is(self._folder, self._name, self._file):
                        self._folder.unlink(self._name)
                self._file.close()
            self._folder.close()

    def begin_again(self) -> None:
        """Go on in a forked child: the file was closed there (`files`), and the thread is the parent's."""
        self._turn = threading.Lock()
        self._file, self._name = None, ""
        super().begin_again()
        self._thread = self._started()
        self._thread.wake()


def _worker(name: str) -> str:
    return name[len(START) : -len(END)]


def _claimed(folder: Folder) -> tuple[str, IO[bytes]]:
    """Make and lock a file of this process; its number alone is no name where every container has a process 1.

    A name that is taken is passed by, unless one of us left it: a link or a file of others is never opened to write.
    """
    n = 0
    while True:
        name = f"{START}{os.getpid()}{f'-{n}' if n else ''}{END}"
        n += 1
        try:
            handle = folder.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            found = folder.stat(name)
            if found is None or not stat.S_ISREG(found.st_mode) or _read(folder, name) is not None:
                continue  # of others, or of a worker that lives
            if folder.stat(name) is None:
                n -= 1  # it was left by one that has ended, and is gone now
            continue
        file = os.fdopen(handle, "r+b", buffering=0)
        with suppress(BlockingIOError):
            lock(file, wait=False)
            if _is(folder, name, file):  # whoever was scraped just now may have taken it for one that is left
                return name, file
        file.close()


def _read(folder: Folder, name: str) -> Stats | None:
    """Return what a living worker wrote; None where it is none of ours. What one of us left that has ended goes."""
    handle = folder.open(name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "must be a regular file", name)
        for _ in range(READS):
            file.seek(0)
            given = _parsed(file.read(LARGEST) or b"")
            if given is not None:
                break
        if given is None:
            return None
        try:
            lock(file, wait=False)
        except BlockingIOError:
            return given
        if _is(folder, name, file):
            folder.unlink(name)
        return None


def _parsed(data: bytes) -> Stats | None:
    """Return what a file holds, or None where it is not ours, or half of one that is being written."""
    head, _, rest = data.partition(b"\n")
    try:
        size, checksum = (int(number) for number in head.removeprefix(MAGIC).split())
        body = rest[:size]
        if not head.startswith(MAGIC) or len(body) != size or zlib.crc32(body) != checksum:
            return None
        given = json.loads(body)
        stats = given["stats"]
        groups = [stats.get(group, {}) for group, _ in GROUPS]
        inner = [numbers for group in groups for numbers in group.values()]
        good = isinstance(given["labels"], dict) and all(isinstance(numbers, dict) for numbers in inner)
        return given if good else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _is(folder: Folder, name: str, file: IO[bytes]) -> bool:
    """Whether a file is still what its name leads to."""
    found = folder.stat(name)
    return found is not None and os.path.samestat(os.fstat(file.fileno()), found)


_alive: "weakref.WeakSet[Collector]" = weakref.WeakSet()


def _begin_again() -> None:
    """See a fork, in the child."""
    for collector in list(_alive):
        if not collector.closed:
            try:
                collector.begin_again()
            except Exception:
                log.exception("metrics of a forked child")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again)

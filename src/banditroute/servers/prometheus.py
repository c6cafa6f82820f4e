"""Router statistics for Prometheus; needs the extra ``metrics``."""

import fcntl
import json
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from banditroute._core import validation as check
from banditroute._core.files import lock

__all__ = ["export"]

log = logging.getLogger("banditroute.prometheus")
_alive: "weakref.WeakSet[_Shared]" = weakref.WeakSet()

# What only grows is a counter; the rest is a gauge.
_GAUGES = {"pending", "epoch", "hit_rate", "replicas", "deferred", "generation", "mean_reward", "quarantined"}


def export(
    router: Any,
    registry: Any = None,
    *,
    directory: str | os.PathLike[str] | None = None,
    write_s: float = 2.0,
    **labels: str,
) -> Any:
    """Register a Router with Prometheus.

    Parameters
    ----------
    router : Router
    registry : prometheus_client.CollectorRegistry, optional
        The default registry when left out.
    directory : path, optional
        For several worker processes behind one port: each writes its numbers there every `write_s` seconds, and
        whichever is scraped shows those of all that live and have the same labels, with their process id (and a number
        where that is taken) as the label ``worker``. A forked child is a worker of its own.
    write_s : float
        Seconds.
    **labels : str
        Constant labels.

    Returns
    -------
    collector
        For ``registry.unregister``; ``close()`` ends the writing.

    Notes
    -----
    Numbers are read from ``router.stats()`` when scraped: nothing happens on the request path.

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
        _Collector(router, labels) if directory is None else _Shared(router, labels, Path(directory), write_s)
    )
    try:
        registry.register(collector)
    except BaseException:
        collector.close()
        raise
    return collector


class _Collector:
    """Turns statistics into metrics when asked."""

    def __init__(self, router: Any, labels: Mapping[str, str]) -> None:
        self._router, self._labels = router, dict(labels)

    def _workers(self) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        yield self._labels, self._router.stats()

    def collect(self) -> Iterator[Any]:
        """Yield one metric family for each number."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, Any] = {}

        def put(name: str, key: str, value: float, labels: dict[str, str]) -> None:
            if name not in families:
                kind = GaugeMetricFamily if key in _GAUGES else CounterMetricFamily
                text = f"{key} of the router, see Router.stats"
                families[name] = kind(f"banditroute_{name}", text, labels=list(labels))
            families[name].add_metric(list(labels.values()), value)

        for labels, stats in self._workers():
            for key, value in stats.items():
                if isinstance(value, int | float):
                    put(key, key, value, labels)
            for group, label in (("arms", "arm"), ("sources", "source")):
                for member, numbers in stats[group].items():
                    for key, value in numbers.items():
                        put(f"{label}_{key}", key, value, {**labels, label: member})
        yield from families.values()

    def close(self) -> None:
        """Nothing runs."""


class _Shared(_Collector):
    """The numbers of all workers of a machine: a file each, locked by its owner for as long as that lives."""

    def __init__(self, router: Any, labels: Mapping[str, str], directory: Path, write_s: float) -> None:
        super().__init__(router, labels)
        self._write_s = check.finite("write_s", write_s, low=0.0, high=check.LONGEST_S, open_low=True)
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._write()
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="banditroute-metrics", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        data = json.dumps({"labels": self._labels, "stats": self._router.stats()}).encode()
        if self._file is None:
            self._file = _claimed(self._directory)
        self._file.seek(0)
        self._file.write(data)
        self._file.truncate()

    def _run(self) -> None:
        while True:
            try:
                self._write()
            except OSError as error:  # a full disk may have room again
                log.warning("metrics in %s: %s", self._directory, error)
            if self._stopped.wait(self._write_s):
                return

    def _workers(self) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        own = str(os.getpid()) if self._file is None else Path(self._file.name).stem
        yield {**self._labels, "worker": own}, self._router.stats()
        for path in sorted(self._directory.glob("*.json")):
            try:
                with open(path, "rb") as file:
                    if path.stem == own:
                        continue
                    if _free(file):
                        if _is(file, path):
                            path.unlink(missing_ok=True)  # its worker has ended
                        continue
                    given = json.loads(file.read())
                    if (
                        given["labels"] == self._labels
                    ):  # several routers of a process may share the directory
                        yield {**self._labels, "worker": path.stem}, given["stats"]
            except (OSError, ValueError, LookupError, TypeError):  # gone, or being written
                continue

    def close(self) -> None:
        """Stop writing and leave the directory."""
        self._stopped.set()
        self._thread.join()
        if self._file is not None and not self._file.closed:
            Path(self._file.name).unlink(missing_ok=True)
            self._file.close()


def _claimed(directory: Path) -> IO[bytes]:
    """Open and lock a file of this process; its number alone is no name where every container has a process 1."""
    n = 0
    while True:
        path = directory / f"{os.getpid()}{f'-{n}' if n else ''}.json"
        file = open(path, "r+b", buffering=0, opener=_opened)  # noqa: SIM115 - held for its lock
        with suppress(BlockingIOError):
            lock(file, wait=False)
            if _is(file, path):  # whoever was scraped just now may have taken it for one that is left
                return file
        file.close()
        n += 1


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _is(file: IO[bytes], path: Path) -> bool:
    """Whether a file is still what its path leads to."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _free(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _begin_again() -> None:
    """See a fork, in the child: the file was closed there (`locks`), and the thread is the parent's."""
    for collector in list(_alive):
        if not collector._stopped.is_set():
            collector._file = None
            collector._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again)

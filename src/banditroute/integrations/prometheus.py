"""Router statistics for Prometheus; needs the extra ``metrics``."""

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from banditroute.locks import lock

__all__ = ["export"]

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
        whichever is scraped shows those of all that live, with their process id as the label ``worker``.
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
    registry.register(collector)
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
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._write_s = directory, write_s
        self._file = open(directory / f"{os.getpid()}.json", "w+b", buffering=0)  # noqa: SIM115 - held for its lock
        lock(self._file)
        self._guard, self._stopped = threading.Lock(), threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._run, name="banditroute-metrics", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        data = json.dumps(self._router.stats()).encode()
        with self._guard:
            self._file.seek(0)
            self._file.write(data)
            self._file.truncate()

    def _run(self) -> None:
        while not self._stopped.wait(self._write_s):
            self._write()

    def _workers(self) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        self._write()
        for path in sorted(self._directory.glob("*.json")):
            try:
                with open(path, "rb") as file:
                    if path.stem != str(os.getpid()) and _free(file):
                        path.unlink(missing_ok=True)  # its worker has ended
                        continue
                    yield {**self._labels, "worker": path.stem}, json.loads(file.read())
            except (FileNotFoundError, ValueError):
                continue

    def close(self) -> None:
        """Stop writing and leave the directory."""
        self._stopped.set()
        self._thread.join()
        Path(self._file.name).unlink(missing_ok=True)
        self._file.close()


def _free(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

"""Measured paging latency: recorded load times, timing of files on this machine, sampling from either."""

import csv
import gzip
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core.typing import Floats
from banditroute._core.validation import finite, integer, vector

__all__ = ["EmpiricalPaging", "Measurement", "load_times", "measure_paging", "normal_draw"]


# A second of waiting is worth one unit of reward, the whole range of a reward in [0, 1]: a fault of the
# default profile (85 ms) then costs 0.086, of the order of the differences between good arms.
MS_TO_REWARD = 1e-3
MAX_PRICE = 1.0


def normal_draw(value: float) -> float:
    """Return ``value`` if it can be a standard normal: beyond 40 sigma it is a slip.

    Examples
    --------
    >>> normal_draw(-1)
    -1.0
    """
    return finite("normal", value, low=-40.0, high=40.0)


def _loads(value: Any) -> tuple[float, ...]:
    array = vector("ms", value, np.size(value))
    if not array.size or array.min() < 0.0:
        raise ValueError(f"ms must hold measurements >= 0 for each arm, got {value!r}")
    return tuple(np.sort(array).tolist())


@dataclass(frozen=True, slots=True)
class EmpiricalPaging:
    """Waits drawn from measured loads, without a model of them. Immutable and hashable.

    Parameters
    ----------
    ms
        Measured milliseconds, >= 0: one list for all arms, or a list of lists, one for each arm. Kept sorted.
    ms_to_reward, max_price
        Reward units per millisecond and the most a fault costs, as in `PagingModel`.

    Raises
    ------
    ValueError, TypeError
        If a list is empty or a measurement is negative or not finite.

    Examples
    --------
    >>> paging = EmpiricalPaging([[10.0, 20.0, 60.0], [5.0]])
    >>> paging.prices(2)
    array([0.03 , 0.005])
    >>> paging.sample_ms(0, normal=0.0), paging.sample_ms(0, normal=2.0)
    (20.0, 60.0)
    """

    ms: Any
    ms_to_reward: float = MS_TO_REWARD
    max_price: float = MAX_PRICE

    def __post_init__(self) -> None:
        """Sort the measurements, so that a draw is one look-up, and freeze them."""
        if not isinstance(self.ms, Iterable) or isinstance(self.ms, str):
            raise TypeError(f"ms must be a list of measurements, or one list for each arm, got {self.ms!r}")
        given = tuple(self.ms)
        nested = bool(given) and np.ndim(given[0]) > 0
        store = object.__setattr__
        store(self, "ms", tuple(map(_loads, given)) if nested else _loads(given))
        for name in ("ms_to_reward", "max_price"):
            store(self, name, finite(name, getattr(self, name), low=0.0))

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        ms_to_reward: float = MS_TO_REWARD,
        max_price: float = MAX_PRICE,
        **filters: Any,
    ) -> Self:
        r"""Return a sampler of the load times in a csv file; `filters` as in `load_times`.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "loads.csv")
        ...     _ = file.write_text("tier,seconds\ndisk,0.5\ndisk,0.08\ndisk,0.06\n")
        ...     EmpiricalPaging.from_csv(file, tier="disk").ms
        (60.0, 80.0)
        """
        return cls(load_times(path, **filters), ms_to_reward, max_price)

    def prices(self, n_arms: int, sizes: ArrayLike | None = None) -> Floats:
        """Return the price of a fault per arm: the mean wait in reward units, clipped at ``max_price``.

        `sizes` is ignored: the measurements hold it already. Raises ValueError if there are lists for another
        number of arms.

        Examples
        --------
        >>> EmpiricalPaging([10.0, 30.0]).prices(2)
        array([0.02, 0.02])
        """
        integer("n_arms", n_arms, low=1)
        if isinstance(self.ms[0], tuple):
            means = vector("ms", [np.mean(own) for own in self.ms], n_arms)
        else:
            means = np.full(n_arms, np.mean(self.ms))
        return np.minimum(means * self.ms_to_reward, self.max_price)

    def sample_ms(self, arm: int, normal: float, size: float | None = None) -> float:
        """Return one of the measured waits of an arm, milliseconds: the quantile at the normal's probability.

        A standard normal makes every measurement equally likely, and a larger one never makes a shorter wait.
        `size` is ignored. Raises ValueError for an unknown arm or a number that is no standard normal.

        Examples
        --------
        >>> EmpiricalPaging([10.0, 30.0]).sample_ms(0, -0.5)
        10.0
        """
        own: tuple[float, ...] = self.ms
        if isinstance(self.ms[0], tuple):
            own = self.ms[integer("arm", arm, high=len(self.ms) - 1)]
        else:
            integer("arm", arm)
        probability = 0.5 * math.erfc(-normal_draw(normal) / math.sqrt(2.0))
        return own[min(int(probability * len(own)), len(own) - 1)]

    def to_reward(self, ms: float) -> float:
        """Return what a wait of `ms` >= 0 milliseconds costs in reward units, at most ``max_price``.

        Examples
        --------
        >>> EmpiricalPaging([10.0], ms_to_reward=0.002).to_reward(50.0)
        0.1
        """
        return min(finite("ms", ms, low=0.0) * self.ms_to_reward, self.max_price)


def load_times(
    path: str | Path, *, column: str = "seconds", drop_first: int = 1, **filters: object
) -> NDArray[np.float64]:
    r"""Read recorded load times, in milliseconds, from a csv file (plain or ``.gz``).

    Parameters
    ----------
    path
        A csv file with a header: one row per load in the order they happened.
    column
        The column that holds seconds.
    drop_first
        Cold loads to leave out at the start of every series. Rows that agree in everything but `column` and
        ``event_index`` are a series.
    filters
        ``column=value``: keep the rows whose text in that column is ``str(value)``.

    Returns
    -------
    ndarray of shape (n,)
        Milliseconds, positive, in the order of the file.

    Raises
    ------
    ValueError
        If a column is missing, a time is not a positive finite number, or no row is left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "loads.csv")
    ...     _ = file.write_text("tier,seconds\ndisk,0.5\ndisk,0.08\nmemory,0.02\nmemory,0.01\n")
    ...     load_times(file), load_times(file, drop_first=0, tier="disk")
    (array([80., 10.]), array([500.,  80.]))
    """
    integer("drop_first", drop_first)
    wanted = {name: str(value) for name, value in filters.items()}
    seen: dict[tuple[str, ...], int] = {}
    times: list[float] = []
    with _opened(path) as file:
        reader = csv.DictReader(file)
        columns = tuple(reader.fieldnames or ())
        for name in (column, *wanted):
            if name not in columns:
                raise ValueError(f"{path} must have a column {name!r}, got {', '.join(columns) or 'none'}")
        series = [name for name in columns if name not in (column, "event_index")]
        for row in reader:
            if any(row[name] != value for name, value in wanted.items()):
                continue
            key = tuple(row[name] or "" for name in series)
            seen[key] = seen.get(key, 0) + 1
            if seen[key] > drop_first:
                times.append(_milliseconds(row[column], f"{path}, line {reader.line_num}: {column}"))
    if not times:
        raise ValueError(f"{path} must hold loads with {wanted} after the first {drop_first}, got none")
    return np.array(times)


def _opened(path: str | Path) -> IO[str]:
    if str(path).endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return open(path, encoding="utf-8", newline="")


def _milliseconds(text: str | None, where: str) -> float:
    try:
        ms = 1e3 * float(text or "")
    except ValueError:
        ms = math.nan
    if not 0.0 < ms < math.inf:
        raise ValueError(f"{where} must be a positive number of seconds, got {text!r}")
    return ms


@dataclass(frozen=True, slots=True)
class Measurement:
    """Timed loads of files on this machine; ``str`` gives a table.

    Attributes
    ----------
    paths, sizes
        The files, and their sizes in bytes.
    ms
        One tuple of milliseconds for each file, in the order measured.
    cold
        True when the system was asked to drop the file from its page cache before every read.

    Examples
    --------
    >>> print(Measurement(("math.safetensors",), (2_000_000,), ((3.0, 1.0, 2.0),), cold=False))
       bytes  median ms  file (read from the page cache)
     2000000      2.000  math.safetensors
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    cold: bool

    def __str__(self) -> str:
        """Return a table: bytes and median milliseconds per file."""
        how = "page cache dropped before each read" if self.cold else "read from the page cache"
        files = zip(self.paths, self.sizes, self.ms, strict=True)
        rows = [f"{size:12d} {np.median(ms):10.3f}  {path}" for path, size, ms in files]
        return "\n".join([f"{'bytes':>12} {'median ms':>10}  file ({how})", *rows])


def measure_paging(
    paths: Sequence[str | Path],
    *,
    repeats: int = 5,
    drop_cache: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Time how long adapter files take from disk into host memory on this machine.

    Every file is read whole, `repeats` times, in rounds over the files so that a slow spell touches them all.
    Parsing and the copy to the GPU are not included: this is the disk's part, and a lower bound of a load.

    Parameters
    ----------
    paths
        At least one file, of any format.
    repeats
        Timed reads of each file, >= 1.
    drop_cache
        Ask the system to drop each file from its page cache before reading it (``posix_fadvise``).
        ``cold`` in the result says whether it could be asked; file systems in memory ignore it. Without this
        every file comes from the page cache: it is read once before, untimed.
    clock
        Seconds, increasing.

    Returns
    -------
    Measurement
        Give it on as ``EmpiricalPaging(m.ms)``, or with two sizes or more ``PagingModel.fit(m.sizes, m.ms)``.

    Raises
    ------
    ValueError, OSError
        If there is no path, or a file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "adapter.safetensors")
    ...     _ = file.write_bytes(bytes(4096))
    ...     measured = measure_paging([file], repeats=2, drop_cache=False)
    >>> measured.sizes, len(measured.ms[0]), measured.cold
    ((4096,), 2, False)
    """
    files = [] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise ValueError(f"paths must be a list of at least one file, got {paths!r}")
    integer("repeats", repeats, low=1)
    cold = drop_cache and hasattr(os, "posix_fadvise")
    sizes = tuple(len(file.read_bytes()) for file in files)  # fills the page cache, where it is not dropped
    ms: list[list[float]] = [[] for _ in files]
    for _ in range(repeats):
        for file, own in zip(files, ms, strict=True):
            if cold:
                _drop_from_cache(file)
            start = clock()
            file.read_bytes()
            own.append(1e3 * (clock() - start))
    return Measurement(tuple(map(str, files)), sizes, tuple(map(tuple, ms)), cold)


def _drop_from_cache(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # pages that are not written yet cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)

"""Traces: what was decided, with which probability, and what came back; the data of all offline work."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core.typing import Floats
from banditroute._core.validation import matrix, names

__all__ = ["Trace"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trace:
    """Decisions and rewards in columns: n rows, k arms.

    Parameters
    ----------
    names : sequence of str
        Names of the k arms.
    arms : (n,) int array
        Index of the arm that was chosen.
    rewards : (n,) array
        Reward; NaN where none came back.
    propensities : (n,) array, optional
        Probability with which the arm was chosen, NaN where not known. Without it nothing can be evaluated off-policy.
    contexts : (n, d) array, optional
        Context vectors.
    times : (n,) array, optional
        Seconds; 0, 1, 2 ... when left out.
    ids : (n,) uint64 array, optional
        Decision ids; 0, 1, 2 ... when left out. They may repeat, as resampled rows do: see `repeated`.
    eligible : (n, k) bool array, optional
        Arms that were allowed; all when left out.
    prices : (n, k) array, optional
        Prices the policy saw, reward units.
    hits : (n,) bool array, optional
        Whether the arm was resident.
    latencies : (n,) array, optional
        Seconds until the answer; NaN where not known.
    policies : sequence of str
        Names of the policies that decided.
    policy : (n,) int array, optional
        Which of `policies` decided each row.
    versions : (n,) int array, optional
        Rewards that policy had learned by then: a version that moves tells a log of a learning policy.

    Raises
    ------
    TypeError, ValueError
        A column has the wrong shape or type, or an index out of range.

    Notes
    -----
    Columns are kept as given where type and layout allow; a million rows with 33 context components take 0.3 GB.

    Examples
    --------
    >>> trace = Trace(names=["a", "b"], arms=[0, 1, 1], rewards=[1.0, 0.0, 0.5], propensities=[0.5, 0.5, 0.5])
    >>> len(trace), trace[1:].rewards
    (3, array([0. , 0.5]))
    """

    names: tuple[str, ...]
    arms: NDArray[np.int64]
    rewards: Floats
    propensities: Floats | None = None
    contexts: Floats | None = None
    times: Floats | None = None
    ids: NDArray[np.uint64] | None = None
    eligible: NDArray[np.bool_] | None = None
    prices: Floats | None = None
    hits: NDArray[np.bool_] | None = None
    latencies: Floats | None = None
    policies: tuple[str, ...] = ("",)
    policy: NDArray[np.int64] | None = None
    versions: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__  # the record is frozen for everyone else
        put(self, "names", names("names", self.names))
        put(self, "policies", tuple(str(name) for name in self.policies))
        chosen = np.asarray(self.arms)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise TypeError(f"arms must be (n,) integers, got {chosen.dtype} of shape {chosen.shape}")
        count, width = len(chosen), len(self.names)
        put(self, "arms", _indices("arms", chosen, count, width))
        put(self, "rewards", _column("rewards", self.rewards, count))
        for name in ("propensities", "times", "latencies"):
            if getattr(self, name) is not None:
                put(self, name, _column(name, getattr(self, name), count))
        if self.contexts is not None:
            put(self, "contexts", matrix("contexts", self.contexts, rows=count))
        if self.prices is not None:
            put(self, "prices", matrix("prices", self.prices, width, count))
        if self.eligible is not None:
            put(self, "eligible", _mask("eligible", self.eligible, (count, width)))
        if self.hits is not None:
            put(self, "hits", _mask("hits", self.hits, (count,)))
        if self.policy is not None:
            put(self, "policy", _indices("policy", self.policy, count, len(self.policies)))
        if self.versions is not None:
            put(self, "versions", _indices("versions", self.versions, count, np.iinfo(np.int64).max))
        if self.ids is not None:
            ids = np.asarray(self.ids)
            if ids.shape != (count,) or (count and ids.dtype.kind not in "iu"):
                raise ValueError(f"ids must be {count} integers, got {ids.dtype} of shape {ids.shape}")
            if count and ids.dtype.kind == "i" and ids.min() < 0:
                raise ValueError(f"ids must be in [0, 2^64 - 1], got {ids.min()}")
            put(self, "ids", ids.astype(np.uint64, copy=False))

    def __len__(self) -> int:
        return len(self.arms)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Self:
        """Return the trace of some rows: a slice, a mask or indices."""
        chosen: dict[str, Any] = {
            name: None if (a := getattr(self, name)) is None else a[rows] for name in self.columns()
        }
        return type(self)(names=self.names, policies=self.policies, **chosen)

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns, present or not.

        Examples
        --------
        >>> Trace.columns()[:3]
        ('arms', 'rewards', 'propensities')
        """
        return tuple(f.name for f in fields(cls) if f.name not in ("names", "policies"))

    def answered(self) -> Self:
        """Return the rows whose reward is known; the trace itself when that is all of them.

        Examples
        --------
        >>> len(Trace(names=["a"], arms=[0, 0], rewards=[1.0, np.nan]).answered())
        1
        """
        known = ~np.isnan(self.rewards)
        return self if known.all() else self[known]

    def repeated(self) -> int:
        """Return how many rows have the decision id of an earlier row: 0 unless logs were merged twice.

        Examples
        --------
        >>> Trace(names=["a"], arms=[0, 0, 0], rewards=[1.0, 1.0, 0.0], ids=[7, 7, 8]).repeated()
        1
        """
        if self.ids is None:
            return 0
        ordered = np.sort(self.ids)  # numpy.unique takes seventy times as long
        return int(np.count_nonzero(ordered[1:] == ordered[:-1]))

    def save(self, path: str | Path) -> Path:
        """Write the trace; the suffix says how: ``.npz``, ``.csv``, ``.jsonl`` or ``.parquet`` (needs pyarrow).

        Every column that is present comes back from `load` bit for bit, in each of the formats.

        Examples
        --------
        >>> import tempfile
        >>> trace = Trace(names=["a", "b"], arms=[0, 1], rewards=[1.0, 0.5])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Trace.load(trace.save(folder + "/log.csv")).rewards
        array([1. , 0.5])
        """
        from banditroute.logs import files as trace_files  # formats are needed rarely

        return trace_files.save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError, ImportError
            No such file; not a trace; Parquet without pyarrow.

        Examples
        --------
        >>> Trace.load("nowhere.npz")
        Traceback (most recent call last):
        FileNotFoundError: no file nowhere.npz
        """
        from banditroute.logs import files as trace_files

        trace: Trace = trace_files.load(Path(path))
        return trace


def _column(name: str, value: ArrayLike, count: int) -> Floats:
    array = np.asarray(value)
    if count and array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},), got {array.shape}")
    result: Floats = np.ascontiguousarray(array, dtype=np.float64)
    if np.isinf(result).any():
        raise ValueError(f"{name} must be finite or NaN, got {result[np.isinf(result)][0]}")
    return result


def _indices(name: str, value: ArrayLike, count: int, top: int) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.shape != (count,) or (count and array.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be {count} integers, got {array.dtype} of shape {array.shape}")
    result: NDArray[np.int64] = np.ascontiguousarray(array, dtype=np.int64)
    if count and not (result.min() >= 0 and result.max() < top):
        raise ValueError(f"{name} must be in [0, {top - 1}], got {result.min()} .. {result.max()}")
    return result


def _mask(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.asarray(value)
    if array.dtype != np.bool_ or array.shape != shape:
        raise ValueError(f"{name} must be boolean of shape {shape}, got {array.dtype} of {array.shape}")
    return np.ascontiguousarray(array)

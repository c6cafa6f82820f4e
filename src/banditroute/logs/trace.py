"""Traces: what was decided, with which probability, and what came back; the data of all offline work."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core.typing import Floats
from banditroute._core.validation import matrix, names
from banditroute.logs import cells, files, frames
from banditroute.logs.joining import joined

__all__ = ["Trace"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trace:
    """Decisions and rewards in columns: n rows, k arms.

    Parameters
    ----------
    names : sequence of str
        Names of the k arms.
    arms : (n,) int array or names
        The arm that was chosen, by index or by name; kept as indices.
    rewards : (n,) array
        Reward; NaN where none came back.
    propensities : (n,) array, optional
        Probability with which the arm was chosen, NaN where not known. Without it nothing can be evaluated off-policy.
    contexts : (n, d) array, optional
        Context vectors.
    times : (n,) array, optional
        Seconds, or times as datetimes or ISO 8601 text; 0, 1, 2 ... when left out.
    ids : (n,) uint64 array, optional
        Decision ids, or text; 0, 1, 2 ... when left out. They may repeat, as resampled rows do: see `repeated`.
    eligible : (n, k) bool array, optional
        Arms that were allowed; all when left out.
    prices : (n, k) array, optional
        Prices the policy saw, reward units: of faults, of the caller and of everything else.
    fault_prices : (n, k) array, optional
        The part of `prices` that is for loading the arm; None where it is not known apart.
    costs : (n,) array, optional
        What the call did cost, in the caller's own unit; NaN where not known.
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
    candidates : (n, k f) array, optional
        Features of the candidates that each request brought, f for each arm in their order; 0 where an arm was no
        candidate, which `eligible` tells. See `candidates_of`.
    notes : sequence of str
        What a reader has to say of the file, such as columns it did not use; not stored.

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
    fault_prices: Floats | None = None
    costs: Floats | None = None
    candidates: Floats | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        put = object.__setattr__  # the record is frozen for everyone else
        put(self, "names", names("names", self.names))
        put(self, "policies", tuple(str(name) for name in self.policies))
        put(self, "notes", tuple(str(note) for note in self.notes))
        chosen = np.asarray(self.arms)
        if chosen.ndim == 1 and chosen.size and chosen.dtype.kind in "UO":
            chosen = cells.Words(self.names).encode("arms", chosen.tolist())
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise TypeError(f"arms must be (n,) integers, got {chosen.dtype} of shape {chosen.shape}")
        count, width = len(chosen), len(self.names)
        put(self, "arms", _indices("arms", chosen, count, width))
        put(self, "rewards", _column("rewards", self.rewards, count))
        if self.times is not None and np.asarray(self.times).dtype.kind not in "fiub":
            put(self, "times", cells.times("times", _listed(self.times)))
        for name in ("propensities", "times", "latencies", "costs"):
            if getattr(self, name) is not None:
                put(self, name, _column(name, getattr(self, name), count))
        if self.contexts is not None:
            put(self, "contexts", matrix("contexts", self.contexts, rows=count))
        for name in ("prices", "fault_prices"):
            if getattr(self, name) is not None:
                put(self, name, matrix(name, getattr(self, name), width, count))
        if self.candidates is not None:
            put(self, "candidates", matrix("candidates", self.candidates, rows=count))
            if not self.candidates.shape[1] or self.candidates.shape[1] % width:
                raise ValueError(
                    f"candidates must have as many columns for each of {width} arms, got {self.candidates.shape[1]}"
                )
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
            if ids.size and ids.dtype.kind in "UO":
                ids = cells.ids("ids", ids.tolist())
            if ids.shape != (count,) or (count and ids.dtype.kind not in "iu"):
                raise ValueError(f"ids must be {count} integers, got {ids.dtype} of shape {ids.shape}")
            if count and ids.dtype.kind == "i" and ids.min() < 0:
                raise ValueError(f"ids must be in [0, 2^64 - 1], got {ids.min()}")
            put(self, "ids", ids.astype(np.uint64, copy=False))

    def __len__(self) -> int:
        return len(self.arms)

    def __repr__(self) -> str:
        arms = ", ".join(map(repr, self.names[:4])) + (", ..." if len(self.names) > 4 else "")
        held = [name for name in self.columns()[2:] if getattr(self, name) is not None]
        return f"Trace({len(self):,} rows, {len(self.names)} arms ({arms}), {', '.join(held) or 'no other columns'})"

    def __getitem__(self, rows: slice | NDArray[Any]) -> Self:
        """Return the trace of some rows: a slice, a mask or indices."""
        chosen: dict[str, Any] = {
            name: None if (a := getattr(self, name)) is None else a[rows] for name in self.columns()
        }
        return type(self)(names=self.names, policies=self.policies, notes=self.notes, **chosen)

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns, present or not.

        Examples
        --------
        >>> Trace.columns()[:3]
        ('arms', 'rewards', 'propensities')
        """
        return tuple(f.name for f in fields(cls) if f.name not in ("names", "policies", "notes"))

    def answered(self) -> Self:
        """Return the rows whose reward is known; the trace itself when that is all of them.

        Examples
        --------
        >>> len(Trace(names=["a"], arms=[0, 0], rewards=[1.0, np.nan]).answered())
        1
        """
        known = ~np.isnan(self.rewards)
        return self if known.all() else self[known]

    def candidates_of(self, row: int) -> tuple[tuple[str, ...], Floats]:
        """Return names and features, (m, f), of the candidates of one row, as `Router.select` takes them.

        Raises ``ValueError`` where the trace has none.

        Examples
        --------
        >>> log = Trace(names=["a", "b"], arms=[1], rewards=[1.0], candidates=[[0.0, 0.5]], eligible=[[False, True]])
        >>> log.candidates_of(0)
        (('b',), array([[0.5]]))
        """
        if self.candidates is None:
            raise ValueError("trace must hold candidates, got none")
        table = self.candidates[row].reshape(len(self.names), -1)
        open_ = np.ones(len(table), dtype=np.bool_) if self.eligible is None else self.eligible[row]
        return tuple(name for name, one in zip(self.names, open_.tolist(), strict=True) if one), table[open_]

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

        Every column that is present comes back from `load` bit for bit, in each of the formats, or the file is
        refused: it holds a checksum of its content. A new file with contexts can be read by its owner alone.

        Raises
        ------
        ValueError
            A propensity is not in (0, 1]; another suffix.

        Examples
        --------
        >>> import tempfile
        >>> trace = Trace(names=["a", "b"], arms=[0, 1], rewards=[1.0, 0.5])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Trace.load(trace.save(folder + "/log.csv")).rewards
        array([1. , 0.5])
        """
        return files.save(self, Path(path))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        arm: str | None = None,
        reward: str | None = None,
        propensity: str | None = None,
        context: str | Sequence[str] | None = None,
        cost: str | None = None,
        time: str | None = None,
        id: str | None = None,
        eligible: str | Sequence[str] | None = None,
        comment: str | None = None,
    ) -> Self:
        """Read what `save` wrote, a folder of such files, or a log from elsewhere: CSV, JSON lines or Parquet.

        Parameters
        ----------
        path : path
            A file; or a folder, whose traces are joined in the order of their names, as by `joined`. Files that do
            not say which arms there were hold those that were chosen: all arms of the folder were there then.
        arm, reward, propensity, cost, time, id : str, optional
            Titles of the columns where they are not these words. A column `arm` of names and a column `reward` are
            enough. Arms that are whole numbers come in their order, other names in that of the alphabet.
        context : str or list of str, optional
            One column of lists (in CSV as JSON), or several of numbers; ``"e_*"`` stands for all that begin so, by
            number where the rest is one.
        eligible : str or list of str, optional
            One column of lists of names, or one column of truth values per arm: ``"may_*"``.
        comment : str, optional
            Lines of a CSV file that begin so are passed over.

        Returns
        -------
        Trace
            Its `notes` name every column that was not used, and a ``UserWarning`` does.

        Raises
        ------
        FileNotFoundError, ValueError, ImportError
            No such file; what is wrong, with file, column and row, counted from 0; Parquet without pyarrow.

        Notes
        -----
        Text is read in rows of 4,096, Parquet in batches of 65,536: memory is that of the trace and one batch. A
        missing reward, propensity, time, cost or latency is NaN; a missing context is refused. Numbers, truth values,
        times and ids mean the same in every format, as text too. Ids are whole numbers below 2^64, to the digit;
        other text is kept as 63 bits of its hash.

        Examples
        --------
        >>> Trace.load("nowhere.npz")
        Traceback (most recent call last):
        FileNotFoundError: no file nowhere.npz
        """
        wanted = _wanted(arm, reward, propensity, context, cost, time, id, eligible)
        path = Path(path)
        if path.is_dir():
            parts = sorted(
                one for one in path.iterdir() if files.kind_of(one) in files.SUFFIXES and one.name[0] != "."
            )
            if not parts:
                raise FileNotFoundError(f"no trace in {path}")
            read = [cls._read(one, wanted, comment) for one in parts]
            traces, declared = zip(*read, strict=True)
            return cls(**joined(traces, cls.columns(), declared))
        return cls._read(path, wanted, comment)[0]

    @classmethod
    def _read(cls, path: Path, wanted: Mapping[str, Any], comment: str | None) -> tuple[Self, bool]:
        """Return the trace of a file, and whether the file says which arms there are."""
        found = files.load(path, wanted, comment=comment)
        for note in found.notes:
            warnings.warn(f"{path}: {note}", stacklevel=3)
        try:
            return cls(**found.values, notes=found.notes), found.declared
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        arm: str | None = None,
        reward: str | None = None,
        propensity: str | None = None,
        context: str | Sequence[str] | None = None,
        cost: str | None = None,
        time: str | None = None,
        id: str | None = None,
        eligible: str | Sequence[str] | None = None,
    ) -> Self:
        """Return the trace of a frame of pandas or polars, a table of pyarrow, or a mapping of columns.

        Parameters are those of `load`; so are the rules and the notes. Categories of arms are their names, in order.

        Examples
        --------
        >>> log = {"model": ["small", "large"], "score": [1, 0], "p": [0.5, 0.5], "tokens": [3, 9]}
        >>> trace = Trace.from_frame(log, arm="model", reward="score", propensity="p", context=["tokens"])
        >>> trace.names, trace.arms, trace.contexts.tolist()
        (('large', 'small'), array([1, 0]), [[3.0], [9.0]])
        """
        found = frames.read_frame(
            frame, _wanted(arm, reward, propensity, context, cost, time, id, eligible)
        ).gathered()
        for note in found.notes:
            warnings.warn(note, stacklevel=2)
        return cls(**found.values, notes=found.notes)

    def to_frame(self) -> Any:
        """Return the columns as a frame of pandas, which `from_frame` takes back as it is; needs pandas.

        Matrices are columns such as ``context:0`` or ``prices:small``.

        Examples
        --------
        >>> import pytest; _ = pytest.importorskip("pandas")
        >>> Trace(names=["a"], arms=[0], rewards=[1.0], contexts=[[0.5, 1.0]]).to_frame().columns.tolist()
        ['arm', 'reward', 'context:0', 'context:1']
        """
        return frames.frame_of(self)

    @classmethod
    def joined(cls, traces: "Sequence[Trace]") -> Self:
        """Return the rows of several traces, one after the other, such as those of several workers.

        Arms are those of all; where a trace did not know an arm, it was not eligible. A column is kept where all have
        it, and a time, propensity, cost or latency where any has it.

        Raises
        ------
        ValueError
            No traces; contexts of different lengths.

        Examples
        --------
        >>> one, two = Trace(names=["a"], arms=[0], rewards=[1.0]), Trace(names=["b"], arms=[0], rewards=[0.0])
        >>> both = Trace.joined([one, two])
        >>> both.names, both.arms, both.eligible.tolist()
        (('a', 'b'), array([0, 1]), [[True, False], [False, True]])
        """
        if not traces:
            raise ValueError("traces must not be empty, got none")
        return cls(**joined(traces, cls.columns()))


def _wanted(*given: str | Sequence[str] | None) -> dict[str, Any]:
    fields = ("arm", "reward", "propensity", "context", "cost", "time", "id", "eligible")
    return dict(zip(fields, given, strict=True))


def _listed(value: Any) -> Any:
    array = np.asarray(value)
    return array if array.dtype.kind == "M" else array.tolist()


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

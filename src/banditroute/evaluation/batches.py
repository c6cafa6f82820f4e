"""Evaluation and warm starts over logs larger than memory: a folder of files read part by part, anywhere."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute._core import validation as check
from banditroute._core.regression import Columns
from banditroute._core.typing import Floats, Ints, Mask
from banditroute.evaluation.estimators import ESTIMATORS
from banditroute.evaluation.overlap import Target, known_propensities, target_array
from banditroute.evaluation.question import LEARNING, UNANSWERED, Evaluation, Question
from banditroute.evaluation.reward_model import RewardModel, RewardSums
from banditroute.evaluation.sums import ValueSums, joined, value_sums
from banditroute.evaluation.workers import spread
from banditroute.logs import Trace
from banditroute.logs.cells import sorted_names
from banditroute.logs.files import kind_of
from banditroute.logs.parquet import parquet_batches
from banditroute.policies import Policy

__all__ = ["Batches", "compare_batches", "warm_start_batches"]

_BATCH = 131_072  # rows of Parquet at once
_GROUPS = 256  # of neighbouring rows in a batch, for the intervals


@dataclass(frozen=True, slots=True)
class Batches:
    """Parts of a log that is never in memory as a whole: paths of files, or calls that return traces.

    Parameters
    ----------
    parts : tuple of path or callable
        In the order of time. A Parquet file is read by row batches, any other file at once. A callable takes nothing
        and returns a Trace; it goes to other processes, so no lambda.

    Examples
    --------
    >>> from functools import partial
    >>> one = partial(Trace, names=["a"], arms=[0], rewards=[1.0])
    >>> [len(trace) for trace in Batches((one, one)).traces()]
    [1, 1]
    """

    parts: tuple[Path | Callable[[], Trace], ...]

    @classmethod
    def of(cls, folder: str | Path) -> "Batches":
        """Return the files of a folder in the order of their names, or a single file.

        Raises
        ------
        FileNotFoundError
            Nothing is there that a trace could be read from.

        Examples
        --------
        >>> Batches.of("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: no folder or file nowhere with traces in it
        """
        path = Path(folder)
        known = (".parquet", ".npz", ".csv", ".jsonl")
        found = (
            [path]
            if path.is_file()
            else sorted(p for p in path.rglob("*") if kind_of(p) in known and p.is_file())
        )
        if not found:
            raise FileNotFoundError(f"no folder or file {path} with traces in it")
        return cls(tuple(found))

    def traces(self) -> Iterator[Trace]:
        """Yield the traces one after the other."""
        for part in self.parts:
            yield from _read(part)


def _read(part: Path | Callable[[], Trace]) -> Iterator[Trace]:
    if callable(part):
        yield part()
    elif part.suffix == ".parquet":
        for builder in parquet_batches(part, _BATCH):
            found = builder.gathered()
            yield Trace(**found.values, notes=found.notes)
    else:
        yield Trace.load(part)


class _Seen(NamedTuple):
    """First pass over one part: what the second must know. Arms are those of the part."""

    names: tuple[str, ...]
    rows: int
    answered: int
    counts: Ints
    versions: tuple[int, int]
    sums: RewardSums | None


def compare_batches(
    batches: Batches | str | Path,
    targets: Mapping[str, Target],
    *,
    estimators: Iterable[str] = ESTIMATORS,
    jobs: int = 1,
    backend: str = "loky",
    **options: Any,
) -> dict[str, Evaluation]:
    """Estimate what several rules would have earned on a log of any size, in bounded memory.

    Parameters
    ----------
    batches : Batches or path
        A folder of files with the same columns, see `Batches`; arms are matched by name.
    targets : mapping of name to target
        As in `evaluate`, but no arrays by row: an arm, probabilities of the arms, a function of the contexts, a policy
        as it stands.
    estimators, **options
        As in `compare`: clip, ridge, folds, confidence, min_ess.
    jobs, backend
        As in `sweep`: ``backend="ray"`` reads and sums on a Ray cluster, part by part.

    Returns
    -------
    dict of str to Evaluation
        The values of `compare` on the whole log up to rounding; intervals rest on 256 groups of neighbouring rows a
        batch, 4,096 in all.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError, ImportError
        As `compare` and `Batches`; parts whose contexts differ in length.

    Notes
    -----
    Two passes where a model of rewards is needed: all statistics are sums. Memory is that of a batch and of
    ``folds k (d + 1)^2`` numbers in each process.

    Examples
    --------
    >>> from functools import partial
    >>> one = partial(Trace, names=["a", "b"], arms=[0, 1] * 50, rewards=[1.0, 0.0] * 50, propensities=[0.5] * 100)
    >>> compare_batches(Batches((one, one)), {"a": "a"})["a"]["dr"].value
    1.0
    """
    ask = Question.of(estimators, **options)
    source = batches if isinstance(batches, Batches) else Batches.of(batches)
    if not targets:
        raise ValueError("targets must name at least one target, got none")
    first = next(source.traces(), None)
    if first is None:
        raise ValueError("batches must hold a row, got none")
    columns = Columns.of(_table(first.answered())) if ask.modelled else None
    setup = (columns, ask.folds)
    seen = spread(_seen, [(part, *setup) for part in source.parts], jobs=jobs, backend=backend)
    total = int(sum(one.answered for one in seen))
    if total < ask.folds:
        raise ValueError(f"batches must hold at least {ask.folds} rows with a reward, got {total}")
    whole = _together(seen, _all_names([one.names for one in seen]))
    model = None if whole.sums is None else whole.sums.solved(ask.ridge)
    work = (whole.names, dict(targets), ask, ask.limit(total), model, whole.counts > 0)
    parts = spread(
        _valued,
        [(part, *work) for part, one in zip(source.parts, seen, strict=True) if one.answered],
        jobs=jobs,
        backend=backend,
    )
    notes = [] if whole.sums is None else list(whole.sums.words())
    if whole.versions[0] != whole.versions[1]:
        notes.append(LEARNING)
    missing = whole.rows - total
    if missing:
        notes.append(f"{missing} rows {UNANSWERED}")
    return ask.answers(joined(parts), missing, notes, {})


def _table(log: Trace) -> Floats:
    return np.zeros((len(log), 0)) if log.contexts is None else log.contexts


def _all_names(each: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the arms of all parts: in their order where all agree, else as files from elsewhere are sorted."""
    known = list(dict.fromkeys(each))
    if len(known) == 1:
        return known[0]
    return tuple(sorted_names({name for names in known for name in names}))


def _together(seen: Sequence[_Seen], names: tuple[str, ...]) -> _Seen:
    """Return what was found in all parts, with the arms in the order of `names`."""
    counts: Ints = np.zeros(len(names), dtype=np.int64)
    sums: RewardSums | None = None
    for one in seen:
        place = [names.index(name) for name in one.names]
        counts[place] += one.counts
        if one.sums is not None:
            own = one.sums.placed(place, len(names))
            if sums is None:
                sums = own
            else:
                sums += own
    known = [one.versions for one in seen if one.versions[0] >= 0]
    versions = (min(v[0] for v in known), max(v[1] for v in known)) if known else (-1, -1)
    rows, answered = (int(sum(getattr(one, field) for one in seen)) for field in ("rows", "answered"))
    return _Seen(names, rows, answered, counts, versions, sums)


def _seen(part: Path | Callable[[], Trace], columns: Columns | None, folds: int) -> _Seen:
    """Return what the first pass finds in one part; rows are numbered within it, and so are their folds."""
    found, answered = [], 0
    for trace in _read(part):
        log = trace.answered()
        sums = None
        if columns is not None:
            if _table(log).shape[1] + 1 != columns.dim:
                raise ValueError(
                    f"all parts must have contexts of length {columns.dim - 1}, got {_table(log).shape[1]} in {part}"
                )
            sums = RewardSums(columns, len(log.names), folds)
            sums.add(_table(log), log.arms, log.rewards, answered)
        answered += len(log)
        own = log.versions
        versions = (-1, -1) if own is None or not len(own) else (int(own.min()), int(own.max()))
        counts = np.bincount(log.arms, minlength=len(log.names))
        found.append(_Seen(log.names, len(trace), len(log), counts, versions, sums))
    if not found:
        return _Seen((), 0, 0, np.zeros(0, np.int64), (-1, -1), None)
    return _together(found, _all_names([one.names for one in found]))


def _valued(
    part: Path | Callable[[], Trace],
    names: tuple[str, ...],
    targets: Mapping[str, Target],
    ask: Question,
    limit: float,
    model: RewardModel | None,
    seen: Mask,
) -> ValueSums:
    """Return the sums over one part; a row's fold follows from its number in the part, as in the first pass."""
    found, at = [], 0
    for trace in _read(part):
        log = _renamed(trace.answered(), names)
        if not len(log):
            continue
        arrays = {name: _fixed(log, name, target) for name, target in targets.items()}
        expected = None if model is None else model.expected(_table(log), at)
        own = value_sums(
            log,
            known_propensities(log),
            arrays,
            ask.estimators,
            limit,
            expected=expected,
            seen=seen,
            groups=_GROUPS,
        )
        found.append(own)
        at += len(log)
    return joined(found)


def _fixed(log: Trace, name: str, target: Target) -> NDArray[Any]:
    if (
        isinstance(target, str | int | Mapping | Policy)
        or callable(target)
        or np.shape(target) == (len(log.names),)
    ):
        return target_array(log, target)
    raise TypeError(
        f"{name}: a log in batches takes an arm, probabilities of the {len(log.names)} arms, a function of the "
        f"contexts or a policy, got {check.shown(target)}"
    )


def _renamed(log: Trace, names: tuple[str, ...]) -> Trace:
    """Return a trace with the arms of the whole log; their masks and prices follow."""
    if log.names == names:
        return log
    place = [names.index(name) for name in log.names]
    eligible = np.zeros((len(log), len(names)), dtype=np.bool_)
    eligible[:, place] = True if log.eligible is None else log.eligible
    tables: dict[str, Any] = {}
    for field in ("prices", "fault_prices"):
        own = getattr(log, field)
        if own is not None:
            tables[field] = np.zeros((len(log), len(names)))
            tables[field][:, place] = own
    masked = None if log.eligible is None else eligible
    return replace(log, names=names, arms=np.array(place)[log.arms], eligible=masked, **tables)


def warm_start_batches(policy: Policy, batches: Batches | str | Path) -> int:
    """Let a policy learn a log of any size, batch by batch; returns how many rewards it learned.

    Parameters
    ----------
    policy : Policy
        With the arms of the log, in any order.
    batches : Batches or path
        See `Batches`.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        Contexts are missing or of another length, other arms; batches before the one at fault were learned.

    Examples
    --------
    >>> from functools import partial
    >>> from banditroute import LinUCB
    >>> one = partial(Trace, names=["a", "b"], arms=[0, 1], rewards=[1.0, 0.0], contexts=[[1.0], [1.0]])
    >>> policy = LinUCB(["a", "b"], 1, rng=0)
    >>> warm_start_batches(policy, Batches((one, one))), policy.counts
    (4, array([2, 2]))
    """
    source = batches if isinstance(batches, Batches) else Batches.of(batches)
    learned = 0
    for trace in source.traces():
        log = trace.answered()
        if log.contexts is None:
            raise ValueError("batches must hold contexts for a policy to learn, got none")
        unknown = sorted(set(log.names) - set(policy.arms))
        if unknown:
            raise ValueError(
                f"policy must have the arms of the log, {log.names}, got none called {unknown[0]!r}"
            )
        place = np.array([policy.arms.index(name) for name in log.names])
        policy.update_batch(log.contexts, place[log.arms], log.rewards)
        learned += len(log)
    return learned

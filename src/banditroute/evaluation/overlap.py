"""What a log can answer: targets as arrays, and whether the logging policy could have done what they do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints, Mask
from banditroute.logs import Trace
from banditroute.policies import Policy
from banditroute.policies.candidates import chooser

__all__ = [
    "Target",
    "as_target",
    "check_overlap",
    "known_propensities",
    "policy_probabilities",
    "target_array",
]

Target = str | int | ArrayLike | Policy | Mapping[str, float] | Callable[[Any], Any]


def known_propensities(log: Trace) -> Floats:
    """Return the propensities of a log, all in (0, 1], or refuse.

    Examples
    --------
    >>> known_propensities(Trace(names=["a"], arms=[0], rewards=[1.0]))
    Traceback (most recent call last):
    ValueError: propensities must be in the trace, got none: without them nothing can be evaluated
    """
    given = log.propensities
    if given is None:
        raise ValueError("propensities must be in the trace, got none: without them nothing can be evaluated")
    bad = ~((given > 0.0) & (given <= 1.0 + 1e-9))
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"propensities must be in (0, 1], got {given[at]} at row {at} and {int(bad.sum())} such rows"
        )
    return given


def target_array(log: Trace, target: Target) -> NDArray[Any]:
    """Return the arm of each row, (n,) integers, or probabilities, (n, k).

    Arms are names wherever there are names: a text, texts by row, a mapping from names to probabilities, a frame whose
    columns are names. Where all names of a log are whole numbers a whole number is such a name too; elsewhere it is a
    position. Plain arrays of probabilities are in the order of ``log.names``.

    Examples
    --------
    >>> log = Trace(names=["10", "9"], arms=[0, 1], rewards=[1.0, 0.0])
    >>> target_array(log, "9"), target_array(log, 9), target_array(log, ["9", "10"])
    (array([1, 1]), array([1, 1]), array([1, 0]))
    >>> target_array(log, {"9": 0.25, "10": 0.75})[0]
    array([0.75, 0.25])
    """
    if isinstance(target, Policy):
        return policy_probabilities(log, target)
    if callable(target):
        if log.contexts is None:
            raise ValueError("trace must hold contexts for a target that reads them, got none")
        target = target(log.contexts)
    count = len(log)
    if isinstance(target, str | int | np.integer) and not isinstance(target, bool):
        return np.broadcast_to(_positions(log.names, np.asarray([target]))[0], (count,))
    if isinstance(target, Mapping):
        return np.broadcast_to(
            _by_name(log.names, list(target), np.asarray([list(target.values())])), (count, len(log.names))
        )
    if hasattr(target, "columns") and hasattr(target, "to_numpy"):
        array = np.asarray(target.to_numpy())
        _check_rows(count, array)
        return _probabilities(log.names, count, _by_name(log.names, list(target.columns), array))
    array = np.asarray(target)
    if (
        array.shape == (len(log.names),)
        and array.dtype.kind == "f"
        and (labels := _labels(target, log.names))
    ):
        array = _by_name(log.names, labels, array[None, :])[0]
    if array.shape == (count,) and array.dtype.kind in "iuUSOT":
        return _positions(log.names, array)
    return _probabilities(log.names, count, array)


def _labels(target: Any, names: tuple[str, ...]) -> list[Any]:
    """Return the index of a series whose entries are names of arms; an index of row numbers says nothing."""
    index = getattr(target, "index", None)
    labels = [] if index is None or callable(index) else list(index)
    named = any(isinstance(one, str) for one in labels) or {str(one) for one in labels} <= set(names)
    return labels if named else []


def _check_rows(count: int, array: NDArray[Any]) -> None:
    if array.ndim != 2 or len(array) != count:
        raise ValueError(
            f"target must have one row for each of the {count} rows of the log, got shape {array.shape}"
        )


def _probabilities(names: tuple[str, ...], count: int, array: NDArray[Any]) -> Floats:
    width = len(names)
    if array.shape == (width,):
        array = np.broadcast_to(array, (count, width))
    if array.shape != (count, width) or array.dtype.kind not in "fiub":
        got = f"{array.dtype} of shape {array.shape}" if array.ndim else check.shown(array.item())
        raise ValueError(
            f"target must be an arm, ({count},) arms, ({count}, {width}) probabilities or a function of the contexts "
            f"that returns these, such as the predict of an estimator, got {got}"
        )
    given: Floats = array if array.dtype == np.float64 else array.astype(np.float64)
    sums = given.sum(axis=1)
    if not (given.min(initial=0.0) >= 0.0 and np.abs(sums - 1.0).max(initial=0.0) < 1e-6):
        raise ValueError(f"target must be probabilities that sum to 1, got sums {sums.min()} .. {sums.max()}")
    return given


def _by_name(names: tuple[str, ...], columns: Sequence[Any], values: NDArray[Any]) -> Floats:
    """Return columns of probabilities in the order of `names`; an arm without a column has probability 0."""
    given = [str(c) for c in columns]
    unknown = [c for c in given if c not in names]
    if unknown:
        raise ValueError(f"target must have columns of {list(names)}, got {unknown[0]!r}")
    check.names("columns of the target", given)
    out = np.zeros((len(values), len(names)))
    out[:, [names.index(c) for c in given]] = values
    return out


def _positions(names: tuple[str, ...], arms: NDArray[Any]) -> Ints:
    """Return the positions of arms given by name; whole numbers are positions unless all names are whole numbers."""
    width = len(names)
    if arms.dtype.kind in "iu":
        if not all(_is_whole(name) for name in names):
            if arms.size and (arms.min() < 0 or arms.max() >= width):
                raise ValueError(f"target must be in [0, {width - 1}], got {arms.min()} .. {arms.max()}")
            return arms.astype(np.int64)
        values = np.array([int(name) for name in names])
        order = np.argsort(values)
        at = order[np.searchsorted(values, arms, sorter=order).clip(max=width - 1)]
        wrong = values[at] != arms
        if wrong.any():
            raise ValueError(
                f"target must be one of {names}, got {arms[wrong][0]}: these names are whole numbers, so whole numbers "
                "are names; np.array(trace.names)[positions] makes names of positions"
            )
        found: Ints = at.astype(np.int64)
        return found
    place = {name: i for i, name in enumerate(names)}
    found = np.empty(len(arms), dtype=np.int64)
    for i, arm in enumerate(arms.tolist()):
        key = arm.decode() if isinstance(arm, bytes) else str(arm)
        if key not in place:
            raise ValueError(f"target must be one of {names}, got {arm!r}")
        found[i] = place[key]
    return found


def _is_whole(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= 18 and str(int(name)) == name


def as_target(names: tuple[str, ...], positions: Ints) -> Ints:
    """Return arms by position, (n,), as `target_array` takes them: where all names are whole numbers, the numbers.

    Examples
    --------
    >>> as_target(("10", "9"), np.array([0, 1])), as_target(("a", "b"), np.array([0, 1]))
    (array([10,  9]), array([0, 1]))
    """
    if not all(_is_whole(name) for name in names):
        return positions
    found: Ints = np.array([int(name) for name in names])[positions]
    return found


def policy_probabilities(log: Trace, policy: Policy) -> Floats:
    """Return the probabilities of a policy as it stands on each row, (n, k), with the row's prices and mask.

    Arms are matched by name: the policy may have them in another order, and must have the same ones. Where the log has
    candidates the policy chooses among those of each row, and its own arms need not be there.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> log = Trace(names=["a", "b"], arms=[0, 1], rewards=[1.0, 0.0], contexts=[[1.0], [2.0]])
    >>> policy_probabilities(log, LinUCB(["b", "a"], 1, mix=1.0, rng=0))[0]
    array([0.5, 0.5])
    """
    if log.contexts is None:
        raise ValueError("trace must hold contexts to evaluate a policy, got none")
    if log.candidates is not None:
        return _of_candidates(log, policy)
    if sorted(policy.arms) != sorted(log.names):
        raise ValueError(f"policy must have the arms of the trace, {log.names}, got {policy.arms}")
    if policy.dim != log.contexts.shape[1]:
        raise ValueError(f"policy must have dim {log.contexts.shape[1]} as the trace has, got {policy.dim}")
    own = np.array([log.names.index(name) for name in policy.arms])
    prices = None if log.prices is None else log.prices[:, own]
    eligible = None if log.eligible is None else log.eligible[:, own]
    out = np.zeros((len(log), len(own)))
    for i, x in enumerate(log.contexts):
        out[i, own] = policy.propensities(
            x,
            prices=None if prices is None else prices[i],
            eligible=None if eligible is None else eligible[i],
        )
    return out


def _of_candidates(log: Trace, policy: Policy) -> Floats:
    """Return the probabilities of a policy that takes candidates on those of each row, (n, k)."""
    assert log.candidates is not None
    assert log.contexts is not None
    try:
        chooses = chooser(policy)
    except TypeError as error:
        raise TypeError(f"policy must take candidates, which the trace holds: {error}") from None
    if policy.arms and any("places among the candidates" in note for note in log.notes):
        raise ValueError(
            f"policy must have no arms where those of the trace are places among the candidates, got {policy.arms}"
        )
    size = log.candidates.shape[1] // len(log.names)
    if size != policy.candidate_size:
        raise ValueError(f"policy must take candidates of {size} features, got {policy.candidate_size}")
    place = {name: i for i, name in enumerate(log.names)}
    out = np.zeros((len(log), len(log.names)))
    for i, x in enumerate(log.contexts):
        names, z = log.candidates_of(i)
        at = [place[name] for name in names]
        prices = None if log.prices is None else log.prices[i, at]
        out[i, at] = chooses.candidate_propensities(x, (names, z), prices)
    return out


def check_overlap(
    log: Trace, propensities: Floats, target: NDArray[Any], name: str, *, seen: Mask | None = None
) -> None:
    """Refuse a target that plays what the log could not have played.

    Arms `seen`, (k,), are those of the whole log where `log` is a part of it.

    Examples
    --------
    >>> log = Trace(names=["a", "b"], arms=[0, 0], rewards=[1.0, 0.0])
    >>> check_overlap(log, np.ones(2), np.array([1, 1]), "b")
    Traceback (most recent call last):
    ValueError: b: an arm the target plays must have been logged, got no row of 'b'
    """
    width, each = len(log.names), np.arange(len(log))
    if seen is None:
        seen = np.bincount(log.arms, minlength=width) > 0
    used = np.bincount(target, minlength=width) > 0 if target.ndim == 1 else target.max(axis=0) > 0.0
    if log.candidates is None and (used & ~seen).any():  # candidates come and go: what counts is each row
        arm = log.names[int((used & ~seen).argmax())]
        raise ValueError(f"{name}: an arm the target plays must have been logged, got no row of {arm!r}")
    if log.eligible is not None:
        if target.ndim == 1:
            outside = ~log.eligible[each, target]
        else:
            outside = (target * ~log.eligible).max(axis=1) > 0.0
        if outside.any():
            raise ValueError(
                f"{name}: the target must play eligible arms, got another at row {outside.argmax()}"
            )
    sure = np.flatnonzero(propensities > 1.0 - 1e-12)
    own = (target[sure] == log.arms[sure]) if target.ndim == 1 else target[sure, log.arms[sure]]
    away = np.flatnonzero(own < 1.0 - 1e-6)
    if len(away):
        raise ValueError(
            f"{name}: the log must be able to choose what the target plays, got propensity 1 for another arm on "
            f"{len(away)} rows (first: {sure[away[0]]}); log with a share of exploration (mix > 0)"
        )

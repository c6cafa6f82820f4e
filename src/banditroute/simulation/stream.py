"""Streams: runs of requests in which the reward of every arm is known, and the residency problem on them.

A bandit sees one reward per request; a `Stream` holds them all, so that regret is exact and several policies
can be compared on the same randomness. A `Problem` adds what fast memory costs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core.typing import Floats, Ints, Mask
from banditroute._core.validation import finite, integer, matrix, names, non_negative, vector

__all__ = ["Problem", "Stream", "best_static_set", "value_with"]

Seed = int | np.random.SeedSequence


def _unset() -> Ints:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """A run of T requests with the reward of all N arms on each.

    Parameters
    ----------
    contexts
        Context vectors, shape (T, d), float64, C-contiguous.
    means
        Expected reward of every arm on every request, shape (T, N).
    rewards
        Realised reward of every arm, shape (T, N). Synthetic environments add the same noise to all arms of
        one request (common random numbers). May be the same object as `means` where nothing is random.
    arms
        N distinct names.
    groups
        Popularity group (centre, class, block) of each request, shape (T,); zeros when not given.
    delays
        Feedback of request t arrives just before request ``t + 1 + delays[t]``, shape (T,), >= 0; zeros
        (immediately) when not given.
    costs
        Money charged by each arm on each request, shape (T, N), or None.
    available
        Which arms exist at each request, shape (T, N), or None when all do. Every request has at least one.
    arrivals
        Arrival times in seconds, shape (T,), non-decreasing, or None.

    Raises
    ------
    TypeError, ValueError
        When an array has the wrong shape, holds a non-finite number, or breaks a rule above.

    Examples
    --------
    >>> stream = Stream(np.eye(2), np.ones((2, 3)), np.ones((2, 3)), ("a", "b", "c"))
    >>> len(stream), stream.dim, stream.delays
    (2, 2, array([0, 0]))
    """

    contexts: Floats
    means: Floats
    rewards: Floats
    arms: tuple[str, ...]
    groups: Ints = field(default_factory=_unset)
    delays: Ints = field(default_factory=_unset)
    costs: Floats | None = None
    available: Mask | None = None
    arrivals: Floats | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__  # the record is frozen for everyone else
        put(self, "arms", names("arms", self.arms))
        put(self, "contexts", matrix("contexts", self.contexts))
        length, width = len(self.contexts), len(self.arms)
        if length == 0:
            raise ValueError("contexts must hold at least one request, got none")
        put(self, "means", matrix("means", self.means, width, length))
        put(self, "rewards", matrix("rewards", self.rewards, width, length))
        put(self, "groups", _counts("groups", self.groups, length))
        put(self, "delays", _counts("delays", self.delays, length))
        if self.costs is not None:
            put(self, "costs", matrix("costs", self.costs, width, length))
        if self.available is not None:
            put(self, "available", _mask(self.available, length, width))
        if self.arrivals is not None:
            put(self, "arrivals", vector("arrivals", self.arrivals, length))
            if (np.diff(self.arrivals) < 0).any():
                raise ValueError("arrivals must be non-decreasing, got a step back in time")

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def dim(self) -> int:
        """Length of a context vector."""
        return int(self.contexts.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A stream and the prices of its fast memory.

    Parameters
    ----------
    stream
        T requests, N arms.
    faults
        Price of serving through a non-resident arm, reward units, shape (N,), >= 0.
    loads
        Price of making an arm resident, reward units, shape (N,), >= 0.
    capacity
        Slots, or the unit of `sizes`; > 0.
    sizes
        Size of each arm, shape (N,), > 0, or None for one slot each.

    Raises
    ------
    TypeError, ValueError
        When a rule above is broken, or an arm is larger than the capacity.

    Examples
    --------
    >>> stream = Stream(np.eye(2), np.eye(2), np.eye(2), ("a", "b"))
    >>> Problem(stream, [0.2, 0.2], [0.5, 0.5], capacity=1).faults
    array([0.2, 0.2])
    """

    stream: Stream
    faults: Floats
    loads: Floats
    capacity: int | float
    sizes: Floats | None = None

    def __post_init__(self) -> None:
        put, width = object.__setattr__, len(self.stream.arms)
        for name in ("faults", "loads", "sizes"):
            given = getattr(self, name)
            if given is not None:
                put(self, name, non_negative(name, given, width))
        finite("capacity", self.capacity, low=0.0, open_low=True)
        if self.sizes is not None and not (self.sizes.min() > 0 and self.sizes.max() <= self.capacity):
            raise ValueError(f"sizes must be in (0, capacity = {self.capacity}], got {self.sizes}")


def _counts(name: str, value: Any, length: int) -> Ints:
    array = np.asarray(value)
    if array.size == 0:
        return np.zeros(length, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got dtype {array.dtype}")
    if array.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {array.shape}")
    if array.min() < 0:
        raise ValueError(f"{name} must be >= 0, got {array.min()}")
    return np.ascontiguousarray(array, np.int64)


def _mask(value: Any, length: int, width: int) -> Mask:
    array = np.asarray(value)
    if array.dtype != np.bool_:
        raise TypeError(f"available must be boolean, got dtype {array.dtype}")
    if array.shape != (length, width):
        raise ValueError(f"available must have shape ({length}, {width}), got {array.shape}")
    left = array.any(axis=1)
    if not left.all():
        raise ValueError(f"available must leave an arm on every request, got none at request {left.argmin()}")
    return np.ascontiguousarray(array)


def value_with(stream: Stream, resident: Iterable[int], faults: ArrayLike) -> Floats:
    """Return the value of each request under the best routing with a given resident set.

    ``v_C(x_t) = max_i (mean_ti - faults_i [i not in C])`` over the arms available at t.

    Parameters
    ----------
    stream
        T requests, N arms.
    resident
        Indices of the resident arms C; may be empty.
    faults
        Price of serving through a non-resident arm, reward units, shape (N,) or one number for all, >= 0.

    Returns
    -------
    NDArray
        Values, shape (T,). Cost O(T N).

    Raises
    ------
    ValueError
        When an index or a price is out of range.

    Examples
    --------
    >>> stream = Stream(np.eye(2), np.eye(2), np.eye(2), ("a", "b"))
    >>> value_with(stream, [0], 0.25)
    array([1.  , 0.75])
    """
    values = stream.means - _outside(stream, resident, faults)
    if stream.available is not None:
        values[~stream.available] = -np.inf
    result: Floats = values.max(axis=1)
    return result


def _prices(stream: Stream, faults: ArrayLike) -> Floats:
    width = len(stream.arms)
    return non_negative("faults", np.full(width, faults) if np.ndim(faults) == 0 else faults, width)


def _outside(stream: Stream, resident: Iterable[int], faults: ArrayLike) -> Floats:
    prices = _prices(stream, faults).copy()
    for arm in resident:
        prices[integer("resident", arm, high=len(prices) - 1)] = 0.0
    return prices


def best_static_set(
    stream: Stream,
    capacity: float,
    faults: ArrayLike,
    *,
    sizes: ArrayLike | None = None,
    exact_limit: int = 20_000,
) -> tuple[int, ...]:
    """Return the resident set that serves the whole stream best: the comparator of regret.

    ``argmax_C sum_t v_C(x_t)`` over the sets that fit, known in hindsight and loaded free of charge.

    Parameters
    ----------
    stream
        T requests, N arms.
    capacity
        Slots, or the unit of `sizes`.
    faults
        Price of serving through a non-resident arm, shape (N,) or one number, >= 0.
    sizes
        Size of each arm, shape (N,); one slot each when not given.
    exact_limit
        Enumerate when there are at most so many sets, otherwise greedy and swaps.

    Returns
    -------
    tuple
        Sorted indices of the resident arms.

    Examples
    --------
    >>> means = np.array([[1.0, 0.0, 0.9], [0.0, 1.0, 0.9]])
    >>> best_static_set(Stream(np.eye(2), means, means, ("a", "b", "c")), 1, 0.5)
    (2,)
    """
    from banditroute.residency import best_set

    prices = _prices(stream, faults)
    utilities = stream.means
    if stream.available is not None:
        # An arm that is not there must lose to any that is, even when that one is charged a fault.
        utilities = np.where(stream.available, utilities, (utilities - prices).min() - 1.0)
    return best_set(utilities, prices, capacity, sizes=sizes, exact_limit=exact_limit)

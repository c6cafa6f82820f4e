"""Which arms should be resident: the value of a set, and the best set under a budget.

Serving context s with set C resident earns max(A_s, max_{i in C} u_si), where A_s = max_j(u_sj - fault_j)
is what paging in on demand already earns. The mean over contexts, less A, is a facility-location function:
monotone and submodular, so greedy reaches 1 - 1/e of the best set of equal-sized arms, and more in practice.
The objective is POLAR-style, reconstructed from the abstract of arXiv 2604.16583.
"""

from collections.abc import Iterable, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core.kernels import facility, facility_exact
from banditroute._core.typing import Floats
from banditroute._core.validation import finite, integer, matrix, vector

__all__ = ["best_set", "coverage", "gains", "gap", "objective"]


EXACT_LIMIT = 20_000  # sets: at most a few ms at 2,048 contexts
_TIE = 1e-10  # of the largest value: differences below it are rounding, and ties
NEW, BEFORE, PINNED = 0, 1, 2


def objective(
    utilities: ArrayLike,
    faults: ArrayLike,
    chosen: Iterable[int],
    *,
    loads: ArrayLike | None = None,
    previous: Iterable[int] = (),
) -> float:
    """Return what keeping `chosen` resident is worth per request, less what loading it costs.

    Parameters
    ----------
    utilities
        Estimated reward of every arm on a sample of contexts, shape (n, N), any finite numbers.
    faults
        Price of a request to an arm that is not resident, shape (N,), reward units, >= 0.
    chosen
        Indices of the resident arms.
    loads
        Price of loading an arm, per request: divided by the number of requests it is loaded for. Shape (N,),
        reward units, >= 0, default 0.
    previous
        Indices of the arms that are resident already: they load for nothing.

    Returns
    -------
    float
        mean_s [max(A_s, max_{i in chosen} u_si) - A_s] - sum of the loads of the new arms, with
        A_s = max_j(u_sj - fault_j); without loads between 0 and max(faults). Cost O(n N).

    Raises
    ------
    ValueError, TypeError
        For arrays of the wrong shape, non-finite or negative prices, unknown or repeated indices.

    Examples
    --------
    >>> utilities = [[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.1, 0.7, 0.6]]
    >>> round(objective(utilities, [0.3, 0.3, 0.3], [1]), 6)
    0.2
    >>> round(objective(utilities, [0.3, 0.3, 0.3], [1], loads=[0.05, 0.05, 0.05]), 6)
    0.15
    """
    U, fault = _values(utilities, faults)
    arms = _indices("chosen", chosen, len(fault))
    load = _prices("loads", loads, len(fault))
    fresh = sorted(set(arms) - set(_indices("previous", previous, len(fault))))
    return float(gains(U, fault, arms).mean() - load[fresh].sum())


def gains(utilities: ArrayLike, faults: ArrayLike, chosen: Iterable[int]) -> Floats:
    """Return what keeping `chosen` resident is worth on each context, without load prices.

    The differences between two sets, context by context, tell how sure it is that one beats the other.

    Parameters
    ----------
    utilities, faults, chosen
        As in `objective`.

    Returns
    -------
    (n,) array
        max(A_s, max_{i in chosen} u_si) - A_s, reward units, in [0, max(faults)]. Cost O(n N).

    Raises
    ------
    ValueError, TypeError
        As `objective`.

    Examples
    --------
    >>> gains([[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.1, 0.7, 0.6]], [0.3, 0.3, 0.3], [1]).round(6)
    array([0. , 0.3, 0.3])
    """
    U, fault = _values(utilities, faults)
    arms = _indices("chosen", chosen, len(fault))
    floor = (U - fault).max(axis=1)
    return np.maximum(floor, U[:, arms].max(axis=1)) - floor if arms else np.zeros(len(U))


def best_set(
    utilities: ArrayLike,
    faults: ArrayLike,
    capacity: float,
    *,
    previous: Iterable[int] = (),
    loads: ArrayLike | None = None,
    sizes: ArrayLike | None = None,
    pinned: Iterable[int] = (),
    method: str = "auto",
    exact_limit: int = EXACT_LIMIT,
) -> tuple[int, ...]:
    """Return the arms to keep resident: the set of largest `objective` that fits.

    Parameters
    ----------
    utilities, faults, loads, previous
        As in `objective`.
    capacity
        Number of slots, or with `sizes` the room in their unit, >= 0.
    sizes
        Room taken by each arm, shape (N,), > 0; default 1 each.
    pinned
        Indices of arms that stay in whatever they are worth.
    method
        "exact" enumerates the sets that fit. "greedy" adds the arm of largest net gain per size while one
        fits and pays; with unequal sizes it also tries starting from the best single arm. "swap" goes on
        exchanging one member for one arm, the best exchange first, while that wins. "auto" is "exact" up to
        `exact_limit` sets, else "swap".
    exact_limit
        Largest number of sets to enumerate: comb(N, capacity) when sizes are equal and nothing costs to load,
        otherwise all sets of at most so many arms as the smallest arms that fit.

    Returns
    -------
    tuple of int
        Sorted indices. A new arm is in only if it gains more than its load price on top of the others; arms
        that were resident before stay while there is room, even if they gain nothing. Sets closer than 1e-10
        of the largest value are tied; ties go to arms resident before, then to the lowest index.

    Raises
    ------
    ValueError, TypeError
        As `objective`; for pinned arms that do not fit, an unknown method, or "exact" with more than
        `exact_limit` sets.

    Notes
    -----
    Greedy has at least 1 - 1/e of the best value for equal sizes and no load prices (Nemhauser, Wolsey and
    Fisher, 1978). Every move costs O(n + N x contexts it changes); N = 500, capacity 64 and n = 2,048 take a
    few milliseconds. Scratch memory is 5 n + capacity x N numbers. Without enumeration the answer may be
    worth less than `previous`: compare their objectives before paying for a change.

    Examples
    --------
    >>> utilities = [[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.1, 0.7, 0.6]]
    >>> best_set(utilities, [0.3, 0.3, 0.3], 2)
    (0, 1)
    >>> best_set(utilities, [0.3, 0.3, 0.3], 2, loads=[0.2, 0.2, 0.2], previous=[2])
    (2,)
    """
    U, fault = _values(utilities, faults)
    task = _task(U, fault, capacity, previous, loads, sizes, pinned)
    limit = integer("exact_limit", exact_limit)
    if method not in ("auto", "greedy", "swap", "exact"):
        raise ValueError(f"method must be 'auto', 'greedy', 'swap' or 'exact', got {method!r}")
    work = facility.workspace(len(U), len(fault), how_many_fit(task.sizes, task.capacity))
    inside, rows = work[:2]
    rows[0] = task.floor
    fixed = U, task.price, task.sizes, task.standing, task.capacity, task.tie
    facility.plan(*fixed, method != "greedy", *work)
    if method in ("auto", "exact"):
        if _enumerate(U, task, limit, inside) is not None:
            facility.settle(*fixed, False, *work)  # drops what wins nothing, keeps old residents in free room
        elif method == "exact":
            raise ValueError(f"method 'exact' must enumerate at most exact_limit={limit} sets, got more")
    return tuple(int(i) for i in np.flatnonzero(inside))


def coverage(utilities: ArrayLike, faults: ArrayLike, capacities: Sequence[int]) -> Floats:
    """Return the share of what residency can win that the best set of each capacity wins.

    cov(K) = F(best set of K arms) / F(all arms), with F the `objective` without load prices: 1 means that K
    slots lose nothing. The best sets come from `best_set`.

    Parameters
    ----------
    utilities, faults
        As in `objective`.
    capacities
        Numbers of slots, >= 0, in any order.

    Returns
    -------
    (len(capacities),) array
        In [0, 1], not decreasing in the capacity; all 1 where residency can win nothing. One `best_set` per
        capacity.

    Raises
    ------
    ValueError, TypeError
        As `objective`.

    Examples
    --------
    >>> utilities = [[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.1, 0.7, 0.6]]
    >>> coverage(utilities, [0.3, 0.3, 0.3], [0, 1, 2]).round(3)
    array([0.   , 0.667, 1.   ])
    """
    U, fault = _values(utilities, faults)
    slots = [integer("capacities", k, low=0) for k in capacities]
    every = objective(U, fault, range(len(fault)))
    if every <= 0.0:
        return np.ones(len(slots))
    worth = np.array([objective(U, fault, best_set(U, fault, k)) for k in slots]) / every
    order = np.argsort(slots, kind="stable")
    # beyond exact enumeration the set found for K slots could lose to one found for fewer
    worth[order] = np.maximum.accumulate(worth[order])
    return np.minimum(worth, 1.0)


def gap(utilities: ArrayLike, faults: ArrayLike, capacity: int) -> float:
    """Return by how much the best set of at most `capacity` arms beats every other one, per request.

    The separation of the best resident set, by exact enumeration; 0 when the best set is not unique.

    Parameters
    ----------
    utilities, faults
        As in `objective`.
    capacity
        Number of slots, >= 1.

    Returns
    -------
    float
        Reward units, >= 0. When everything fits: what leaving out the least useful arm loses.

    Raises
    ------
    ValueError, TypeError
        As `objective`, and when there are more than 20,000 sets.

    Examples
    --------
    >>> utilities = [[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.1, 0.7, 0.6]]
    >>> round(gap(utilities, [0.3, 0.3, 0.3], 1), 6)
    0.1
    """
    U, fault = _values(utilities, faults)
    count = len(fault)
    slots = min(integer("capacity", capacity, low=1), count)
    task = _task(U, fault, slots, (), None, None, ())._replace(tie=0.0)
    found = _enumerate(U, task, EXACT_LIMIT, np.zeros(count, np.bool_), fewest=min(slots, count - 1))
    if found is None:
        sets = comb(count, slots)
        raise ValueError(f"capacity must leave at most {EXACT_LIMIT} sets to enumerate, got {sets}")
    best, runner_up = found
    return (best - max(runner_up, 0.0)) / len(U)


class _Task(NamedTuple):
    """Arrays in the form the kernels take; prices and the tie are sums over contexts."""

    price: Floats
    sizes: Floats
    standing: NDArray[np.int8]
    capacity: float
    floor: Floats
    tie: float


def _task(
    U: Floats,
    fault: Floats,
    capacity: float,
    previous: Iterable[int],
    loads: ArrayLike | None,
    sizes: ArrayLike | None,
    pinned: Iterable[int],
) -> _Task:
    n, count = U.shape
    if sizes is None:
        room, size = float(integer("capacity", capacity)), np.ones(count)
    else:
        room, size = finite("capacity", capacity, low=0.0), vector("sizes", sizes, count).copy()
        if not (size > 0.0).all():
            raise ValueError(f"sizes must be > 0, got {size.min()}")
        room, size = whole_slots(room, size)
    standing = np.full(count, NEW, np.int8)
    standing[_indices("previous", previous, count)] = BEFORE
    kept = _indices("pinned", pinned, count)
    standing[kept] = PINNED
    price = np.where(standing == NEW, n * _prices("loads", loads, count), 0.0)
    if size[kept].sum() > room:
        raise ValueError(f"pinned arms must fit the capacity {capacity}, got {kept}")
    floor = np.empty(n)
    facility.floor_values(U, fault, floor)
    return _Task(price, size, standing, room, floor, tie_width(floor, fault))


def whole_slots(room: float, sizes: Floats) -> tuple[float, Floats]:
    """Return room and sizes in the unit of the search: slots where all arms are of one size."""
    room *= 1.0 + 1e-12  # sizes such as 0.1 may fill the room to the last digit
    if (sizes == sizes[0]).all():
        return float(room // sizes[0]), np.ones(len(sizes))
    return room, sizes


def tie_width(floor: Floats, fault: Floats) -> float:
    return len(floor) * _TIE * (float(np.abs(floor).max()) + float(fault.max()))


def _enumerate(
    U: Floats, task: _Task, limit: int, inside: NDArray[np.bool_], fewest: int | None = None
) -> tuple[float, float] | None:
    """Replace `inside`, any set that fits, by the best one, or return None above the limit.

    Returns the value added to the pinned arms and, with `fewest` (least number to take), of the next best.
    """
    kept = task.standing == PINNED
    room = task.capacity - task.sizes[kept].sum()
    free = np.flatnonzero(~kept & (task.sizes <= room))
    order = free[np.argsort(-task.standing[free], kind="stable")]
    deepest = how_many_fit(task.sizes[order], room)
    second = fewest is not None
    if fewest is None:  # where slots cost nothing only full sets need a look
        slots = (task.sizes == 1.0).all() and not task.price[order].any()
        fewest = deepest if slots else 0
    sets = 0
    for k in range(fewest, deepest + 1):
        sets += comb(order.size, k)
        if sets > limit:
            return None
    stack, spent = np.empty((deepest + 1, len(U))), np.empty((3, deepest + 1))
    path, nets = np.empty((2, deepest + 1), np.int64), np.empty((2, deepest + 1, order.size))
    stack[0] = np.maximum(task.floor, U[:, kept].max(axis=1)) if kept.any() else task.floor
    known = -np.inf
    if not second and (inside & ~kept).any():  # reached already: a little less, so that ties are visited
        known = np.maximum(stack[0], U[:, inside].max(axis=1)).sum() - stack[0].sum()
        known = float(known - task.price[inside & ~kept].sum() - 3.0 * task.tie)
    inside[:] = kept
    V = np.ascontiguousarray(U.T)
    best, runner_up = facility_exact.exact(
        V, task.price, task.sizes, order, task.capacity, fewest, task.tie, known, second,
        inside, stack, spent, path, nets,
    )  # fmt: skip
    return float(best), float(runner_up)


def how_many_fit(sizes: Floats, room: float) -> int:
    """Return a bound, in any order of summation, on the number of arms in a set that fits."""
    return int(np.searchsorted(np.cumsum(np.sort(sizes)), room * (1.0 + 1e-9), side="right"))


def _values(utilities: ArrayLike, faults: ArrayLike) -> tuple[Floats, Floats]:
    U = matrix("utilities", utilities)
    if 0 in U.shape:
        raise ValueError(f"utilities must have at least one context and one arm, got shape {U.shape}")
    # read-only arrays are another type to a compiled kernel
    return (U if U.flags.writeable else U.copy()), _prices("faults", faults, U.shape[1])


def _prices(name: str, value: ArrayLike | None, count: int) -> Floats:
    if value is None:
        return np.zeros(count)
    price = vector(name, value, count).copy()
    if (price < 0.0).any():
        raise ValueError(f"{name} must be >= 0, got {price.min()}")
    return price


def _indices(name: str, value: Iterable[int], count: int) -> list[int]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must hold arm indices, got {value!r}")
    arms = sorted(integer(name, i, low=0, high=count - 1) for i in value)
    if len(set(arms)) != len(arms):
        raise ValueError(f"{name} must be distinct, got {arms}")
    return arms

"""Diagnosis of a workload: would keeping adapters resident help at all, and how many slots does it take?

Two questions with two kinds of answer. What residency can *earn* comes from rewards and fault prices: coverage and gap.
Whether epochs *suit* the workload comes from the order of requests: segment routing performance (SRP) and segment cache
hit rate (SCH), after arXiv 2505.16056, with adapters in place of
experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints
from banditroute.residency import coverage, gap, objective

__all__ = ["Diagnosis", "diagnose", "segment_cache", "segment_hits", "segment_routing"]

SAMPLE = 2048  # contexts used for coverage and gap, evenly spaced
ENOUGH = 0.9  # share of what residency can win at which more slots are hardly worth it


def segment_routing(trace: ArrayLike, window: int, arms: int | None = None) -> tuple[float, float]:
    """Return the segment routing best performance SRP: how well "resident for the whole window" describes a trace.

    For each window of `window` requests and each arm, the arm is called active when at least so many of the requests
    go to it; SRP is the best F1 score of that call over all thresholds.

    Parameters
    ----------
    trace : (T,) int array
        Arm of each request.
    window : int
        Requests per window, at most T; windows overlap.
    arms : int, optional
        Number of arms; one more than the largest in the trace when left out.

    Returns
    -------
    srp : float
        In (0, 1]; 1 where each window goes to one arm.
    group : float
        Arms called active per window at that threshold.

    Raises
    ------
    ValueError, TypeError
        No request, a negative arm, a window longer than the trace.

    Examples
    --------
    >>> segment_routing([0, 0, 0, 1, 1, 1], window=3)
    (0.8333333333333334, 1.0)
    >>> segment_routing([0] * 6, window=3)
    (1.0, 1.0)
    """
    counts = _windows(trace, window, arms)
    tally = np.bincount(counts.ravel(), minlength=window + 1).astype(np.float64)
    chosen = np.cumsum(tally[::-1])[::-1][1:]  # windows times arms with at least 1 .. window requests
    right = np.cumsum((tally * np.arange(window + 1))[::-1])[::-1][1:]
    score = 2.0 * right / (window * chosen + window * len(counts))
    best = int(score.argmax())
    return float(score[best]), float(chosen[best] / len(counts))


def segment_cache(trace: ArrayLike, window: int, arms: int | None = None) -> Floats:
    """Return the segment cache best hit rate SCH of every number of slots, for a cache that sees `window` ahead.

    The cache starts empty, takes in what is requested and evicts the arm with the fewest uses among the next `window`
    requests, ties to the least recently used.

    Parameters
    ----------
    trace : (T,) int array
        Arm of each request.
    window : int
        Requests it sees ahead.
    arms : int, optional
        As in `segment_routing`.

    Returns
    -------
    (N,) array
        Hit rate with 1 .. N slots, not decreasing. All sizes at once by a stack algorithm, O(T N).

    Raises
    ------
    ValueError, TypeError
        As `segment_routing`.

    Examples
    --------
    >>> segment_cache([0, 1, 0, 2, 0, 1], window=3).round(3)
    array([0.   , 0.333, 0.5  ])
    """
    requests, count = _trace(trace, arms)
    ahead = check.integer("window", window, low=1)
    future = np.bincount(requests[1 : 1 + ahead], minlength=count)
    used = np.full(count, -1, dtype=np.int64)
    depths = np.zeros(count + 1, dtype=np.int64)
    stack: list[int] = []
    for t, arm in enumerate(requests.tolist()):
        used[arm] = t
        depth = stack.index(arm) if arm in stack else len(stack)
        if depth < len(stack):
            depths[depth] += 1
            del stack[depth]
        # A cache of c slots holds the first c: whoever is needed least moves on to the next larger cache.
        if depth:
            moving = stack[0]
            for place in range(1, depth):
                other = stack[place]
                if (future[other], used[other]) < (future[moving], used[moving]):
                    stack[place], moving = moving, other
            stack[0] = arm
            stack.insert(depth, moving)
        else:
            stack.insert(0, arm)
        if t + 1 < len(requests):
            future[requests[t + 1]] -= 1
        if t + 1 + ahead < len(requests):
            future[requests[t + 1 + ahead]] += 1
    return np.cumsum(depths[:-1]) / len(requests)


def segment_hits(trace: ArrayLike, window: int, arms: int | None = None) -> Floats:
    """Return the hit rate of the best set of every size, chosen anew for each window: a bound for epoch controllers.

    Parameters
    ----------
    trace : (T,) int array
        Arm of each request.
    window : int
        Requests per window; windows follow one another, the last may be shorter.
    arms : int, optional
        As in `segment_routing`.

    Returns
    -------
    (N,) array
        Share of requests to the 1 .. N most used arms of their window: no controller that changes the set at these
        boundaries only has a higher hit rate on this trace.

    Raises
    ------
    ValueError, TypeError
        As `segment_routing`.

    Examples
    --------
    >>> segment_hits([0, 0, 1, 1, 1, 2], window=3).round(3)
    array([0.667, 1.   , 1.   ])
    """
    requests, count = _trace(trace, arms)
    width = check.integer("window", window, low=1)
    segments = np.arange(len(requests)) // width
    counts = np.bincount(segments * count + requests, minlength=(segments[-1] + 1) * count)
    ordered = -np.sort(-counts.reshape(-1, count), axis=1)
    result: Floats = np.cumsum(ordered.sum(axis=0)) / len(requests)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """What `diagnose` found; arrays are over `slots`.

    Parameters
    ----------
    arms : int
        Number of arms N.
    slots : (m,) int array
        Numbers of slots looked at.
    worth : float
        What keeping everything resident earns per request over paging in on demand, reward units.
    coverage, gap : (m,) arrays
        Share of it that the best set of each size earns; by how much, per request, it beats the next set (NaN where
        there are too many to list).
    window : int
        Requests per window, for what follows.
    srp, group : float
        See `segment_routing`.
    sch, hits, fixed : (m,) arrays
        Hit rates: see `segment_cache` and `segment_hits`; of the best fixed set.

    Examples
    --------
    >>> diagnose(np.eye(3).repeat(4, axis=0), 0.3, window=4).coverage
    array([0.33333333, 0.66666667, 1.        ])
    """

    arms: int
    slots: Ints
    worth: float
    coverage: Floats
    gap: Floats
    window: int
    srp: float
    group: float
    sch: Floats
    hits: Floats
    fixed: Floats

    @property
    def enough(self) -> int | None:
        """Fewest slots that earn 90 % of what residency can; None when none of `slots` does, 0 when nothing can."""
        if self.worth <= 0.0:
            return 0
        reached = self.slots[self.coverage >= ENOUGH]
        return int(reached.min()) if reached.size else None

    def summary(self) -> str:
        """Return the answer in plain words, one line."""
        if self.worth <= 0.0:
            return "Residency cannot help: paging in on demand loses nothing on this workload."
        at = int(self.coverage.argmax() if self.enough is None else (self.slots == self.enough).argmax())
        count, share = int(self.slots[at]), self.coverage[at]
        chance = min(count / self.arms, 1.0)
        line = (
            f"Keeping all {self.arms} adapters resident would earn {self.worth:.4g} per request; "
            f"{count} slot{'s' * (count > 1)} earn{'s' * (count == 1)} {share:.0%} of that. "
        )
        if count >= self.arms or self.hits[at] < 1.1 * chance:
            return f"{line}With fewer, any set serves about its share of the requests: caching has little to go by."
        gain = "worth re-planning" if self.hits[at] - self.fixed[at] >= 0.02 else "no need to re-plan"
        return (
            f"{line}Such a set can serve {self.hits[at]:.0%} of the requests when chosen anew for each {self.window}, "
            f"{self.fixed[at]:.0%} when chosen once, {chance:.0%} by chance: {gain}."
        )


def diagnose(
    utilities: ArrayLike,
    faults: float | ArrayLike,
    *,
    slots: Sequence[int] | None = None,
    window: int = 500,
    trace: ArrayLike | None = None,
) -> Diagnosis:
    """Tell what residency is worth on a workload, how many slots it takes, and whether epochs suit it.

    Parameters
    ----------
    utilities : (n, N) array
        Expected reward of every arm on every request, in order: ``stream.means``, or `cross_fitted` rewards.
    faults : float or (N,) array
        Price of serving through an arm that is not resident, reward units, >= 0.
    slots : sequence of int, optional
        Numbers of slots to look at; 1 .. N, at most 16, when left out.
    window : int
        Requests per window: the epoch one has in mind. Cut to n.
    trace : (T,) int array, optional
        Arms that served; those of largest utility when left out.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError, TypeError
        Arrays that do not fit together, negative prices, numbers of slots outside 1 .. N.

    Notes
    -----
    Coverage and gap use 2,048 evenly spaced requests at most. Every capacity is one `best_set` and one enumeration,
    which is exact up to 20,000 sets.

    Examples
    --------
    >>> from banditroute.simulation import homes
    >>> problem = homes(2000, 0)
    >>> found = diagnose(problem.stream.means, problem.faults)
    >>> found.enough, found.summary()[:44]
    (7, 'Keeping all 15 adapters resident would earn ')
    """
    U = check.matrix("utilities", utilities)
    count = U.shape[1]
    if 0 in U.shape:
        raise ValueError(f"utilities must have at least one request and one arm, got shape {U.shape}")
    prices = check.non_negative("faults", np.full(count, faults) if np.ndim(faults) == 0 else faults, count)
    sizes = np.array(
        range(1, min(count, 16) + 1)
        if slots is None
        else [check.integer("slots", j, low=1, high=count) for j in slots],
        dtype=np.int64,
    )
    if not sizes.size:
        raise ValueError("slots must hold at least one number, got none")
    rows = U[np.linspace(0, len(U) - 1, min(len(U), SAMPLE)).astype(np.int64)]
    requests, _ = _trace(U.argmax(axis=1) if trace is None else trace, count)
    width = min(check.integer("window", window, low=1), len(requests))
    srp, group = segment_routing(requests, width, count)
    return Diagnosis(
        arms=count,
        slots=sizes,
        worth=objective(rows, prices, range(count)),
        coverage=coverage(rows, prices, sizes.tolist()),
        gap=np.array([_gap(rows, prices, j) for j in sizes.tolist()]),
        window=width,
        srp=srp,
        group=group,
        sch=segment_cache(requests, width, count)[sizes - 1],
        hits=segment_hits(requests, width, count)[sizes - 1],
        fixed=segment_hits(requests, len(requests), count)[sizes - 1],
    )


def _gap(rows: Floats, prices: Floats, slots: int) -> float:
    try:
        return gap(rows, prices, slots)
    except ValueError:  # too many sets to list
        return float("nan")


def _trace(trace: ArrayLike, arms: int | None) -> tuple[Ints, int]:
    requests = np.asarray(trace)
    if requests.ndim != 1 or not requests.size:
        raise ValueError(f"trace must be a sequence of arms, got shape {requests.shape}")
    if requests.dtype.kind not in "iu":
        raise TypeError(f"trace must hold integers, got dtype {requests.dtype}")
    count = int(requests.max()) + 1 if arms is None else check.integer("arms", arms, low=1)
    if requests.min() < 0 or requests.max() >= count:
        raise ValueError(f"trace must be in [0, {count - 1}], got {requests.min()} .. {requests.max()}")
    return requests.astype(np.int64), count


def _windows(trace: ArrayLike, window: int, arms: int | None) -> Ints:
    """Return how often each arm occurs in each window, shape (T - window + 1, N)."""
    requests, count = _trace(trace, arms)
    width = check.integer("window", window, low=1, high=len(requests))
    seen = np.zeros((len(requests) + 1, count), dtype=np.int64)
    seen[np.arange(1, len(requests) + 1), requests] = 1
    np.cumsum(seen, axis=0, out=seen)
    return seen[width:] - seen[:-width]

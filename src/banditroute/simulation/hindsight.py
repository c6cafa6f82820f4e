"""What could have been earned: best fixed arm, oracle routing, and the joint optimum of routing and residency.

Everything is known beforehand here, so each answer bounds what a controller can earn on the same problem. All but
the linear programme come as a `Run`, so that `earned` and `regret` treat them like any other.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, sparse

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints
from banditroute.simulation.run import Run
from banditroute.simulation.stream import Problem, best_static_set

__all__ = ["best_fixed_arm", "earned", "joint_bound", "joint_optimum", "oracle_routing"]

STATE_LIMIT = 20_000
BLOCK = 4_000_000  # numbers held at a time


def earned(run: Run, problem: Problem) -> float:
    """Return what a run earned in expectation: expected rewards, less faults, less loads.

    Parameters
    ----------
    run : Run
    problem : Problem
        What it ran over.

    Returns
    -------
    float
        Reward units, summed over the stream; the total that the regret of a run falls short of.

    Examples
    --------
    >>> from banditroute.simulation.workloads import homes
    >>> problem = homes(300, 0)
    >>> bool(earned(best_fixed_arm(problem), problem) < earned(oracle_routing(problem), problem))
    True
    """
    rows = np.arange(len(run))
    served = problem.stream.means[rows, run.arms] - np.where(run.hits, 0.0, problem.faults[run.arms])
    return float(served.sum() - sum(price for _, price in run.loads))


def best_fixed_arm(problem: Problem) -> Run:
    """Return the run of the single arm that earns most, resident throughout.

    Parameters
    ----------
    problem : Problem
        Where that arm is not available, the best one that is serves as a fault.

    Returns
    -------
    Run

    Examples
    --------
    >>> from banditroute.simulation.workloads import homes
    >>> len(set(best_fixed_arm(homes(300, 0)).arms.tolist()))
    1
    """
    utilities = _utilities(problem)
    away = (utilities - problem.faults).max(axis=1)
    totals = np.where(np.isfinite(utilities), utilities, away[:, None]).sum(axis=0)
    best = int(totals.argmax())
    run = _served(problem, [(0, (best,))])
    there = np.isfinite(utilities[:, best])
    run.arms[there] = best
    run.hits[:] = there
    return run


def oracle_routing(problem: Problem, resident: Iterable[int] | None = None) -> Run:
    """Return the run of a router that knows every expected reward, over a fixed set.

    Parameters
    ----------
    problem : Problem
    resident : iterable of int, optional
        Indices of the resident arms; the best set in hindsight when left out, which makes its regret zero.

    Returns
    -------
    Run

    Examples
    --------
    >>> from banditroute.simulation import regret
    >>> from banditroute.simulation.workloads import homes
    >>> problem = homes(300, 0)
    >>> regret(oracle_routing(problem), problem).final
    0.0
    """
    if resident is None:
        chosen = best_static_set(problem.stream, problem.capacity, problem.faults, sizes=problem.sizes)
    else:
        count = len(problem.faults)
        chosen = tuple(sorted(check.integer("resident", a, high=count - 1) for a in resident))
    return _served(problem, [(0, chosen)])


def joint_optimum(problem: Problem, *, epoch: int = 1, loads: ArrayLike | None = None) -> Run:
    """Return the best run of all: perfect routing over the best sequence of resident sets, known in hindsight.

    Exact dynamic programming over the sets that fit. With the defaults nothing that `simulate` runs earns more:
    the set may change before any request, starts as anything free of charge, and an arm comes in for its load or its
    fault, whichever is less (a controller that inserts on a fault pays the fault).

    Parameters
    ----------
    problem : Problem
    epoch : int
        Requests between changes of the set.
    loads : (N,) array, optional
        Price of making an arm resident, reward units; by default ``min(problem.loads, problem.faults)``.

    Returns
    -------
    Run
        Its ``loads`` are at the prices used here.

    Raises
    ------
    ValueError
        More than 20,000 sets fit.

    Notes
    -----
    With M sets (1,941 for 4 slots of 15 arms) two passes of O(M (T + N T / epoch)), 15 s for T = 32,768 and epoch 1.
    A change of set is a way down to the arms that stay, free, and up again, load by load: so each step is exact without
    looking at pairs of sets.

    Examples
    --------
    >>> from banditroute import LRU, LinUCB
    >>> from banditroute.simulation import simulate
    >>> from banditroute.simulation.workloads import homes
    >>> problem = homes(300, 0, n_arms=6, capacity=2)
    >>> best = earned(joint_optimum(problem), problem)
    >>> best > earned(simulate(LinUCB(6, 10, rng=0), problem, LRU(2)), problem)
    True
    """
    length = check.integer("epoch", epoch, low=1)
    prices = _loads(problem, loads)
    sets = _Sets.of(problem)
    utilities = _utilities(problem)
    epochs = -(-len(utilities) // length)
    step = max(1, BLOCK // (len(sets.members) * min(length, len(utilities))))
    bounds = [*range(0, epochs, step), epochs]
    saved = []  # best total of each set just before each block, changes paid
    best = np.zeros(len(sets.members))
    for first, last in pairwise(bounds):
        saved.append(best)
        for values in sets.values(problem, utilities, length, first, last):
            total = best + values
            best = sets.changed(total, prices)
    state = (
        len(total) - 1 - int(total[::-1].argmax())
    )  # of equal sets the largest: dropping arms is no change
    path = np.zeros(epochs, dtype=np.int64)
    for (first, last), best in zip(reversed(list(pairwise(bounds))), reversed(saved), strict=True):
        totals = []
        for values in sets.values(problem, utilities, length, first, last):
            totals.append(best + values)
            best = sets.changed(totals[-1], prices)
        if last < epochs:
            state = sets.before(totals[-1], state, prices)
        path[last - 1] = state
        for e in range(last - 2, first - 1, -1):
            state = sets.before(totals[e - first], state, prices)
            path[e] = state
    chosen = [sets.members[s] for s in path]
    changes = [e for e in range(epochs) if e == 0 or chosen[e] != chosen[e - 1]]
    run = _served(problem, [(e * length, chosen[e]) for e in changes])
    for e in changes[1:]:
        fresh = sorted(set(chosen[e]) - set(chosen[e - 1]))
        run.page_ins += len(fresh)
        if fresh:
            run.loads.append((e * length, float(prices[fresh].sum())))
    return run


def joint_bound(problem: Problem, *, epoch: int, loads: ArrayLike | None = None) -> float:
    """Return an upper bound on what any run with residency epochs can earn, by linear programming.

    The epochs are those of `joint_optimum`, whose value this bounds where its sets are too many to list: residency
    is relaxed to fractions of an arm, served shares of a request included, so the bound need not be reached.

    Parameters
    ----------
    problem : Problem
    epoch : int
        Requests between changes of the set.
    loads : (N,) array, optional
        As in `joint_optimum`.

    Returns
    -------
    float
        Reward units, to the tolerance of the solver (1e-7 relative).

    Raises
    ------
    RuntimeError
        The solver gave up.

    Notes
    -----
    Facility location with switching: maximise ``sum gain_ti w_ti - sum load_i z_ei`` with ``sum_i w_ti <= 1``,
    ``w_ti <= y_ei`` for t in epoch e, ``y_ei - y_(e-1)i <= z_ei``, ``sum_i size_i y_ei <= capacity``, 0 <= y <= 1,
    where ``gain_ti = max(mean_ti - floor_t, 0)`` and the floor is what paging in on demand earns.

    Examples
    --------
    >>> from banditroute.simulation.workloads import homes
    >>> problem = homes(300, 0, n_arms=6, capacity=2)
    >>> joint_bound(problem, epoch=50) >= earned(joint_optimum(problem, epoch=50), problem) - 1e-6
    True
    """
    length = check.integer("epoch", epoch, low=1)
    prices = _loads(problem, loads)
    utilities = _utilities(problem)
    floor = (utilities - problem.faults).max(axis=1)
    gain = np.maximum(utilities - floor[:, None], 0.0)
    requests, arms = np.nonzero(gain)
    count, served = len(prices), len(requests)
    epochs = -(-len(utilities) // length)
    places, shares = epochs * count, np.arange(served)
    sizes = np.ones(count) if problem.sizes is None else problem.sizes
    one, ahead = sparse.identity(places, format="csr"), places - count

    def picks(columns: Ints, width: int) -> sparse.csr_matrix:
        return sparse.csr_matrix((np.ones(served), (shares, columns)), shape=(served, width))

    rows = [
        [None, None, picks(requests, len(utilities)).T],
        [-picks(requests // length * count + arms, places), None, sparse.identity(served)],
        [sparse.kron(sparse.identity(epochs), sizes[None, :]), None, None],
    ]
    limits = [np.ones(len(utilities)), np.zeros(served), np.full(epochs, float(problem.capacity))]
    if ahead:
        rows.append([one[count:] - one[:ahead], -sparse.identity(ahead), None])
        limits.append(np.zeros(ahead))
    else:
        rows = [[row[0], row[2]] for row in rows]
    worth = np.concatenate([np.zeros(places), np.tile(prices, epochs - 1), -gain[requests, arms]])
    if not served:
        return float(floor.sum())
    answer = optimize.linprog(
        worth,
        A_ub=sparse.bmat(rows, format="csr"),
        b_ub=np.concatenate(limits),
        bounds=(0.0, 1.0),
        method="highs",
    )
    if answer.status != 0:
        raise RuntimeError(f"the linear programme was not solved: {answer.message}")
    return float(floor.sum() - answer.fun)


def _utilities(problem: Problem) -> Floats:
    """Return expected rewards (T, N), minus infinity where an arm is not available."""
    stream = problem.stream
    return stream.means if stream.available is None else np.where(stream.available, stream.means, -np.inf)


def _loads(problem: Problem, loads: ArrayLike | None) -> Floats:
    if loads is None:
        return np.minimum(problem.loads, problem.faults)
    return check.non_negative("loads", loads, len(problem.faults))


def _served(problem: Problem, sets: Sequence[tuple[int, tuple[int, ...]]]) -> Run:
    """Return the run that routes perfectly over sets given with the first request of each."""
    utilities = _utilities(problem)
    run = Run(len(utilities))
    run.epochs = [(start, frozenset(chosen)) for start, chosen in sets]
    for start, stop, chosen in run.residents():
        offers = problem.faults.copy()
        offers[sorted(chosen)] = 0.0
        run.arms[start:stop] = (utilities[start:stop] - offers).argmax(axis=1)
        run.hits[start:stop] = np.isin(run.arms[start:stop], sorted(chosen))
    return run


class _Sets(NamedTuple):
    """All sets of arms that fit, by size: level j is members[starts[j] : starts[j + 1]].

    ``parents`` is the set without its last arm ``last``; ``less[j]`` (j, n_j) the sets with one arm fewer and
    ``arms[j]`` which; ``more[j]`` (N - j, n_j) the sets with one arm more, filled up with the index of no set;
    ``holds`` (N, M) tells which arm is in which set.
    """

    members: list[tuple[int, ...]]
    starts: list[int]
    parents: Ints
    last: Ints
    less: list[Ints]
    arms: list[Ints]
    more: list[Ints]
    holds: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: Problem) -> "_Sets":
        count = len(problem.faults)
        sizes = np.ones(count) if problem.sizes is None else problem.sizes
        room = problem.capacity * (1.0 + 1e-12)
        members: list[tuple[int, ...]] = [()]
        starts = [0, 1]
        level: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
        while level:
            level = [
                ((*chosen, a), used + sizes[a])
                for chosen, used in level
                for a in range(chosen[-1] + 1 if chosen else 0, count)
                if used + sizes[a] <= room
            ]
            members += [chosen for chosen, _ in level]
            if len(members) > STATE_LIMIT:
                raise ValueError(f"problem must have at most {STATE_LIMIT} sets that fit, got more")
            if level:
                starts.append(len(members))
        place = {chosen: i for i, chosen in enumerate(members)}
        nowhere = len(members)
        less, arms, more = [], [], []
        for low, high in pairwise(starts):
            here = members[low:high]
            width = len(here[0])
            arms.append(np.array(here, dtype=np.int64).T.copy())
            less.append(
                np.array([[place[c[:i] + c[i + 1 :]] for c in here] for i in range(width)], dtype=np.int64)
            )
            wider = [
                [place.get(tuple(sorted((*c, a))), nowhere) for a in range(count) if a not in c] for c in here
            ]
            more.append(np.array(wider, dtype=np.int64).T.copy())
        parents = np.array([place[c[:-1]] for c in members], dtype=np.int64)
        last = np.array([c[-1] if c else 0 for c in members], dtype=np.int64)
        holds = np.zeros((count, len(members)), dtype=np.bool_)
        for i, chosen in enumerate(members):
            holds[list(chosen), i] = True
        return cls(members, starts, parents, last, less, arms, more, holds)

    def values(
        self, problem: Problem, utilities: Floats, epoch: int, first: int, last: int
    ) -> Iterator[Floats]:
        """Yield what each set earns in each of the epochs first .. last - 1, shape (M,)."""
        rows = max(1, BLOCK // len(self.members))
        pieces = max(1, rows // epoch) * epoch if epoch <= rows else rows
        total, filled = np.zeros(len(self.members)), 0
        for start in range(first * epoch, min(last * epoch, len(utilities)), pieces):
            part = utilities[start : min(start + pieces, last * epoch)]
            best = np.empty((len(self.members), len(part)))
            best[0] = (part - problem.faults).max(axis=1)
            columns = np.ascontiguousarray(part.T)
            for low, high in pairwise(self.starts[1:]):
                np.maximum(best[self.parents[low:high]], columns[self.last[low:high]], out=best[low:high])
            at = 0
            while at < len(part):
                take = min(epoch - filled, len(part) - at)
                total = total + best[:, at : at + take].sum(axis=1)
                at, filled = at + take, filled + take
                if filled == epoch:
                    yield total
                    total, filled = np.zeros(len(self.members)), 0
        if filled:
            yield total

    def changed(self, total: Floats, prices: Floats) -> Floats:
        """Return the best total with which the next epoch can start in each set."""
        best = np.append(total, -np.inf)
        levels = list(pairwise(self.starts))
        for j in range(len(levels) - 2, -1, -1):  # evict
            low, high = levels[j]
            np.maximum(best[low:high], best[self.more[j]].max(axis=0), out=best[low:high])
        for j in range(1, len(levels)):  # load
            low, high = levels[j]
            loaded = (best[self.less[j]] - prices[self.arms[j]]).max(axis=0)
            np.maximum(best[low:high], loaded, out=best[low:high])
        return best[:-1]

    def before(self, total: Floats, state: int, prices: Floats) -> int:
        """Return the set of an epoch with totals `total` from which `state` was best reached, itself if it ties."""
        inside = list(self.members[state])
        paid = prices[inside] @ ~self.holds[inside]
        reached = total - paid
        best = int(reached.argmax())
        return best if reached[best] > reached[state] else state

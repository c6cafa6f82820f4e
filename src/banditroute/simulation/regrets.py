"""Regret: what a run lost against the best fixed resident set with perfect routing, and where it lost it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.simulation.run import Run
from banditroute.simulation.stream import Problem, Stream, best_static_set, value_with

__all__ = ["Regret", "RegretTracker", "bands", "interval", "regret", "slope"]


@dataclass(frozen=True, slots=True, eq=False)
class Regret:
    """Cumulative regret of one run, split as ``total = route + residency + switching``; each (T,), reward units.

    ``route`` is lost by serving another arm than the best one under the current set, ``residency`` by that set
    against the best fixed one, ``switching`` is what loads between epochs cost.

    Examples
    --------
    >>> one = np.ones(2)
    >>> Regret(one, one, one).total
    array([3., 3.])
    """

    route: Floats
    residency: Floats
    switching: Floats

    @property
    def total(self) -> Floats:
        """Sum of the three parts, shape (T,)."""
        return self.route + self.residency + self.switching

    @property
    def final(self) -> float:
        """Regret at the end of the run."""
        return float(self.total[-1])


def regret(run: Run, problem: Problem | Stream, best: Sequence[int] | None = None) -> Regret:
    """Return the cumulative pseudo-regret of a run and its parts.

    Parameters
    ----------
    run : Run
    problem : Problem or Stream
        What it ran over. Without prices everything is resident.
    best : sequence of int, optional
        The comparator: indices of a fixed set; by default the best one in hindsight.

    Returns
    -------
    Regret

    Notes
    -----
    With v_C(x) = max_i (mean_i(x) - fault_i [i not in C]): route sums v_{C_t}(x_t) less the value obtained, residency
    sums v_{C*}(x_t) - v_{C_t}(x_t), switching sums the loads. Expected rewards are used, so noise does not enter.
    Residency can be negative: a set that follows the requests may beat every fixed one. O(T N) per resident set.

    Examples
    --------
    >>> from banditroute import LRU, LinUCB
    >>> from banditroute.simulation import simulate
    >>> from banditroute.simulation.workloads import homes
    >>> problem = homes(1000, 0)
    >>> parts = regret(simulate(LinUCB(15, 10, rng=0), problem, LRU(4)), problem)
    >>> bool(np.isclose(parts.total[-1], parts.route[-1] + parts.residency[-1] + parts.switching[-1]))
    True
    """
    stream = problem if isinstance(problem, Stream) else problem.stream
    count = len(stream.arms)
    faults = np.zeros(count) if isinstance(problem, Stream) else problem.faults
    if best is None:
        if isinstance(problem, Stream):
            best = tuple(range(count))
        else:
            best = best_static_set(stream, problem.capacity, faults, sizes=problem.sizes)
    rows = np.arange(len(stream))
    comparator = value_with(stream, list(best), faults)
    masked = stream.means if stream.available is None else np.where(stream.available, stream.means, -np.inf)
    floor = (masked - faults).max(axis=1)  # value with nothing resident
    current = floor.copy()
    for start, stop, chosen in run.residents():
        if chosen:
            inside = masked[start:stop, sorted(chosen)].max(axis=1)
            current[start:stop] = np.maximum(floor[start:stop], inside)
    obtained = stream.means[rows, run.arms] - np.where(run.hits, 0.0, faults[run.arms])
    switching = np.zeros(len(stream))
    for at, price in run.loads:
        switching[at] += price
    return Regret(np.cumsum(current - obtained), np.cumsum(comparator - current), np.cumsum(switching))


def slope(total: ArrayLike, *, octaves: float = 5.0) -> float:
    """Return the exponent of growth: the log-log slope of cumulative regret over the last `octaves` doublings.

    Parameters
    ----------
    total : (T,) array
        Cumulative regret, positive over the range fitted.
    octaves : float
        The fit covers T / 2**octaves .. T, at 32 points evenly spaced in log time.

    Examples
    --------
    >>> round(slope(np.sqrt(np.arange(1, 1025))), 3)
    0.5
    """
    values = np.asarray(total, dtype=np.float64)
    times = np.unique(np.geomspace(max(1.0, len(values) / 2.0**octaves), len(values), 32).astype(np.int64))
    curve = values[times - 1]
    if (curve <= 0).any():
        raise ValueError(f"total must be positive over the fitted range, got {curve.min():g}")
    return float(np.polyfit(np.log(times), np.log(curve), 1)[0])


def interval(values: ArrayLike, *, level: float = 0.95) -> tuple[float, float, float]:
    """Return (mean, low, high): the mean over seeds and its Student t interval.

    Examples
    --------
    >>> mean, low, high = interval([1.0, 2.0, 3.0])
    >>> mean, round(low, 2), round(high, 2)
    (2.0, -0.48, 4.48)
    """
    from scipy import stats  # half a second to import: the request path never needs it

    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return mean, float("-inf"), float("inf")
    half = float(stats.t.ppf(0.5 + check.unit("level", level) / 2, len(sample) - 1) * stats.sem(sample))
    return mean, mean - half, mean + half


def bands(curves: ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """Return (mean, low, high), each (T,): pointwise Student t bands over the rows of ``curves`` (seeds, T).

    Examples
    --------
    >>> bands([[0.0, 1.0], [0.0, 3.0]])[0]
    array([0., 2.])
    """
    from scipy import stats

    rows = check.matrix("curves", curves)
    mean = rows.mean(axis=0)
    if len(rows) < 2:
        return mean, np.full_like(mean, -np.inf), np.full_like(mean, np.inf)
    half = stats.t.ppf(0.5 + check.unit("level", level) / 2, len(rows) - 1) * stats.sem(rows, axis=0)
    return mean, mean - half, mean + half


class RegretTracker:
    """Running totals of a live router: reward, hits, page-ins, latency, and regret where the truth is known.

    Parameters
    ----------
    reservoir : int
        Latencies kept for the percentiles: a uniform sample of all seen.
    rng : int, SeedSequence, Generator or None
        Draws the sample.

    Examples
    --------
    >>> tracker = RegretTracker()
    >>> tracker.add(reward=0.5, expected=0.5, best=0.9, hit=False, latency_ms=80.0)
    >>> summary = tracker.summary()
    >>> summary["regret"], summary["hit_rate"], summary["latency_p99_ms"]
    (0.4, 0.0, 80.0)
    """

    def __init__(
        self,
        *,
        reservoir: int = 10_000,
        rng: int | np.random.SeedSequence | np.random.Generator | None = None,
    ) -> None:
        self._size = check.integer("reservoir", reservoir, low=1)
        self._rng = np.random.default_rng(rng)
        self._latency: list[float] = []
        self.requests = self.hits = self.page_ins = self.known = 0
        self.reward = self.regret = self.load_price = 0.0

    def add(
        self,
        *,
        reward: float,
        hit: bool = True,
        latency_ms: float = 0.0,
        expected: float | None = None,
        best: float | None = None,
    ) -> None:
        """Count one answered request.

        Parameters
        ----------
        reward : float
            What came back.
        hit : bool
            ``Decision.hit``.
        latency_ms : float
            Wait that paging added.
        expected, best : float, optional
            Expected value of what was served (less its fault price) and of the best choice, where the environment
            knows them: regret grows by ``best - expected``.
        """
        value, wait = check.finite("reward", reward), check.finite("latency_ms", latency_ms, low=0.0)
        if (expected is None) != (best is None):
            raise ValueError(f"expected and best must be given together, got {expected!r} and {best!r}")
        gap = 0.0
        if expected is not None and best is not None:
            gap = check.finite("best", best) - check.finite("expected", expected)
            self.known += 1
        self.requests += 1
        self.hits += bool(hit)
        self.reward += value
        self.regret += gap
        if len(self._latency) < self._size:
            self._latency.append(wait)
        else:
            at = int(self._rng.integers(self.requests))
            if at < self._size:
                self._latency[at] = wait

    def load(self, count: int, price: float = 0.0) -> None:
        """Count `count` arms loaded between epochs at a total price, which is part of the regret."""
        loads, paid = check.integer("count", count), check.finite("price", price, low=0.0)
        self.page_ins += loads
        self.load_price += paid
        self.regret += paid

    def summary(self) -> dict[str, Any]:
        """Return totals, means and latency percentiles as plain numbers; regret is None when nothing was known."""
        waits = np.array(self._latency) if self._latency else np.zeros(1)
        p50, p99 = (float(v) for v in np.percentile(waits, [50, 99]))
        total = max(self.requests, 1)
        return {
            "requests": self.requests,
            "reward": self.reward,
            "mean_reward": self.reward / total,
            "regret": self.regret if self.known or self.load_price else None,
            "hit_rate": self.hits / total,
            "page_ins": self.page_ins,
            "load_price": self.load_price,
            "latency_p50_ms": p50,
            "latency_p99_ms": p99,
        }

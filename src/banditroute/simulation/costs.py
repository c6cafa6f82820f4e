"""Money: what routing costs, at which price of money, and the frontier of reward against cost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies import Policy
from banditroute.simulation.engine import simulate
from banditroute.simulation.stream import Problem, Stream

__all__ = ["Frontier", "Point", "frontier", "hull"]


class Point(NamedTuple):
    """Mean reward and mean cost per request at one price of money.

    Examples
    --------
    >>> Point(0.0, 0.8, 0.01).reward
    0.8
    """

    price: float
    reward: float
    cost: float


def hull(costs: ArrayLike, rewards: ArrayLike) -> tuple[Floats, Floats]:
    """Return the corners of the non-decreasing concave hull of points: what mixing two of them reaches.

    Parameters
    ----------
    costs, rewards : (n,) arrays

    Returns
    -------
    costs, rewards : (m,) arrays
        Increasing in both.

    Examples
    --------
    >>> hull([1.0, 2.0, 3.0, 4.0], [0.5, 0.55, 0.9, 0.8])
    (array([1., 3.]), array([0.5, 0.9]))
    """
    c = check.vector("costs", costs, np.size(costs))
    r = check.vector("rewards", rewards, len(c))
    order = np.lexsort((-r, c))
    corners: list[tuple[float, float]] = []
    for x, y in zip(c[order].tolist(), r[order].tolist(), strict=True):
        if corners and y <= corners[-1][1]:
            continue  # dearer and no better
        while len(corners) > 1 and _below(corners[-2], corners[-1], (x, y)):
            corners.pop()
        corners.append((x, y))
    table = np.array(corners)
    return table[:, 0], table[:, 1]


def _below(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """Points by contestant, one for each price of money, and by seed: (prices, seeds) arrays of reward and cost.

    Examples
    --------
    >>> found = Frontier({"a": (np.array([[0.5], [0.9]]), np.array([[1.0], [3.0]]))}, np.array([1.0, 0.0]))
    >>> found.at("a", 2.0), round(found.aiq("a", (1.0, 3.0)), 6)
    (0.7, 0.7)
    """

    tables: dict[str, tuple[Floats, Floats]]
    prices: Floats

    def points(self, name: str) -> list[Point]:
        """Return the means over seeds of a contestant, by price."""
        rewards, costs = (table.mean(axis=1).tolist() for table in self.tables[name])
        return [Point(*one) for one in zip(self.prices.tolist(), rewards, costs, strict=True)]

    def at(self, name: str, cost: float) -> float:
        """Return the reward that a contestant reaches with so much money a request, mixing two prices where need be.

        NaN where its cheapest point costs more.
        """
        costs, rewards = hull(*self._means(name))
        return float(np.interp(cost, costs, rewards)) if cost >= costs[0] else float("nan")

    def span(self) -> tuple[float, float]:
        """Return the range of costs that all contestants are compared over: the cheapest and the dearest point."""
        costs = np.concatenate([table.mean(axis=1) for _, table in self.tables.values()])
        return float(costs.min()), float(costs.max())

    def aiq(self, name: str, span: tuple[float, float] | None = None) -> float:
        """Return the mean reward over the range of costs: the area under the hull, over its width.

        RouterBench's average improvement in quality (arXiv 2403.12031). Below its cheapest point a contestant earns
        nothing, beyond its best point what that earns.
        """
        low, high = self.span() if span is None else span
        if not low < high:
            raise ValueError(f"span must be (low, high) with low < high, got {(low, high)}")
        costs, rewards = hull(*self._means(name))
        marks = np.unique(np.clip(np.append(costs, [low, high]), low, high))
        marks = marks[marks >= min(max(costs[0], low), high)]
        values = np.interp(marks, costs, rewards)
        return float(((values[1:] + values[:-1]) / 2.0 * np.diff(marks)).sum() / (high - low))

    def _means(self, name: str) -> tuple[Floats, Floats]:
        rewards, costs = self.tables[name]
        return costs.mean(axis=1), rewards.mean(axis=1)


def frontier(
    policies: dict[str, Callable[[Stream, int], Policy]],
    draw: Callable[[int], Stream | Problem],
    prices: Sequence[float],
    seeds: Iterable[int] = range(3),
    *,
    known_costs: bool = False,
    progress: Callable[[str], object] = str,
) -> Frontier:
    """Run policies at several prices of money and note what they earn and spend.

    Parameters
    ----------
    policies : dict of str to callable
        Makes a fresh policy of a stream and a seed.
    draw : callable
        Returns the stream, with costs, of a seed.
    prices : sequence of float
        Rewards that a unit of money is worth, >= 0: 0 spends freely.
    seeds : iterable of int
    known_costs : bool
        As in `simulate`.
    progress : callable
        Is told before each run what comes.

    Returns
    -------
    Frontier

    Raises
    ------
    ValueError
        Streams without costs, negative prices.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> costs = np.tile([0.1, 1.0], (200, 1))
    >>> means = np.tile([0.4, 0.9], (200, 1))
    >>> stream = Stream(np.ones((200, 1)), means, means, ("small", "large"), costs=costs)
    >>> found = frontier({"LinUCB": lambda s, seed: LinUCB(s.arms, s.dim, rng=seed)}, lambda seed: stream, [0.0, 2.0])
    >>> free, dear = found.points("LinUCB")
    >>> free.cost > 0.8 and dear.cost < 0.3
    True
    """
    weights = check.non_negative("prices", list(prices))
    runs = [(int(seed), draw(int(seed))) for seed in seeds]
    tables = {
        name: (np.zeros((len(weights), len(runs))), np.zeros((len(weights), len(runs)))) for name in policies
    }
    for j, (seed, problem) in enumerate(runs):
        stream = problem if isinstance(problem, Stream) else problem.stream
        if stream.costs is None:
            raise ValueError("draw must return streams with costs, got one without")
        each = np.arange(len(stream))
        for name, make in policies.items():
            for i, price in enumerate(weights.tolist()):
                progress(f"{name}, price {price:g}")
                run = simulate(make(stream, seed), stream, cost_price=price, known_costs=known_costs)
                tables[name][0][i, j] = stream.means[each, run.arms].mean()
                tables[name][1][i, j] = stream.costs[each, run.arms].mean()
    return Frontier(tables, weights)

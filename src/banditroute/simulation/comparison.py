"""Comparisons on equal terms: several routers over the same requests, seed by seed."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from banditroute._core.regression import positive_solve
from banditroute._core.typing import Floats
from banditroute._core.validation import integer
from banditroute.policies import LinUCB
from banditroute.residency import LFU, LRU, Controller, Polar, Polaris, Static, best_set
from banditroute.residency.paging import PagingModel
from banditroute.router import Router
from banditroute.simulation.engine import simulate
from banditroute.simulation.regrets import interval, regret
from banditroute.simulation.run import Run
from banditroute.simulation.stream import Problem, Stream

__all__ = ["Outcome", "compare_policies", "compare_residency", "linear_set", "microseconds", "summary"]

POINTS = 400  # of a regret curve: more than a picture shows


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one contestant achieved on the requests of one seed.

    Parameters
    ----------
    name
        Of the contestant.
    figures
        Totals and means by name.
    times, curve
        Cumulative regret `curve` after so many requests `times`, both shape (n,), n <= 400.
    run
        The run itself, None where nothing was simulated.

    Examples
    --------
    >>> Outcome("LRU", {"regret": 3.0}, np.ones(1), np.ones(1)).figures["regret"]
    3.0
    """

    name: str
    figures: Mapping[str, float]
    times: Floats
    curve: Floats
    run: Run | None = None


def compare_residency(problem: Problem, paging: PagingModel, seed: int) -> list[Outcome]:
    """Let the same router serve the same requests under seven ways to keep adapters resident.

    Parameters
    ----------
    problem
        Requests, prices and capacity.
    paging
        Where waits are sampled; every contestant meets the same noise.
    seed
        Of the policy and the waits, >= 0.

    Returns
    -------
    list of Outcome
        Polaris, Polar, LRU, LFU, static (the first arms that fit), oracle (`linear_set`) and uncached. Figures: regret,
        reward (mean, before prices), hit_rate, page_ins, loads (faults that pass through are loads too), and mean_ms,
        p50_ms, p95_ms and p99_ms of the wait added to a request.

    Examples
    --------
    >>> from banditroute.simulation.workloads import homes
    >>> [o.name for o in compare_residency(homes(200, 0), PagingModel(), seed=0)]
    ['Polaris', 'Polar', 'LRU', 'LFU', 'static', 'oracle', 'uncached']
    """
    stream = problem.stream
    rows = np.arange(len(stream))
    medians = paging.latency_ms(len(stream.arms))
    noise = np.exp(paging.jitter * np.random.default_rng([seed, 1]).standard_normal(len(stream)))
    outcomes = []
    for name, make in controllers(problem).items():
        run = simulate(LinUCB(stream.arms, stream.dim, rng=seed), problem, make())
        waits = np.where(run.hits, 0.0, medians[run.arms] * noise)
        p50, p95, p99 = np.percentile(waits, [50, 95, 99])
        total = regret(run, problem).total
        figures = {
            "regret": total[-1],
            "reward": stream.rewards[rows, run.arms].mean(),
            "hit_rate": run.hits.mean(),
            "page_ins": run.page_ins,
            "loads": run.load_count,
            "mean_ms": waits.mean(),
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
        }
        outcomes.append(_outcome(name, figures, total, run))
    return outcomes


def controllers(problem: Problem) -> dict[str, Callable[[], Controller]]:
    """Return a maker of a fresh controller per contestant of `compare_residency`.

    Examples
    --------
    >>> from banditroute.simulation.workloads import homes
    >>> controllers(homes(50, 0))["uncached"]().capacity
    0.0
    """
    capacity = problem.capacity
    sizes = np.ones(len(problem.stream.arms)) if problem.sizes is None else problem.sizes
    first = np.flatnonzero(np.cumsum(sizes) <= capacity).tolist()
    return {
        "Polaris": lambda: Polaris(capacity),
        "Polar": lambda: Polar(capacity),
        "LRU": lambda: LRU(capacity),
        "LFU": lambda: LFU(capacity),
        "static": lambda: Static(first, capacity),
        "oracle": lambda: Static(linear_set(problem), capacity),
        "uncached": lambda: Static(()),
    }


def linear_set(problem: Problem) -> tuple[int, ...]:
    """Return the fixed set that would serve the requests best if the router knew each arm's linear model.

    The model of an arm is the ridge regression of its rewards on all contexts, known in hindsight only. On recorded
    rewards this is what a linear router can make use of; `best_static_set` would choose for a router that knows the
    outcome of every single request.

    Examples
    --------
    >>> from banditroute.simulation.workloads import homes
    >>> len(linear_set(homes(500, 0)))
    4
    """
    x, count = problem.stream.contexts, problem.stream.dim
    theta = positive_solve(x.T @ x, x.T @ problem.stream.rewards, np.ones(count))
    return best_set(x @ theta, problem.faults, problem.capacity, sizes=problem.sizes)


def compare_policies(stream: Stream, seed: int) -> list[Outcome]:
    """Let LinUCB with its defaults serve the same requests as the textbook's and as three yardsticks.

    Parameters
    ----------
    stream
        Requests of which the reward of every arm is known.
    seed
        Of the policies, >= 0.

    Returns
    -------
    list of Outcome
        Figures: reward, late_reward (mean of the second half), regret (against the best arm of each request), and
        cost (mean per request) where the stream has costs. The best single arm is known in hindsight; random is its
        expectation; the oracle knows every reward.

    Examples
    --------
    >>> from banditroute.simulation.workloads import homes
    >>> outcomes = compare_policies(homes(500, 0).stream, seed=0)
    >>> [o.name for o in outcomes][-3:], round(outcomes[-1].figures["regret"], 9)
    (['best single arm', 'random', 'oracle'], 0.0)
    """
    rows = np.arange(len(stream))
    top, best = int(stream.means.mean(axis=0).argmax()), stream.means.argmax(axis=1)
    shares: list[tuple[str, Any, Run | None]] = []
    for name, settings in POLICIES.items():
        played = simulate(LinUCB(stream.arms, stream.dim, rng=seed, **settings), stream)
        shares.append((name, played.arms, played))
    shares += [
        ("best single arm", np.full(len(stream), top), None),
        ("random", None, None),
        ("oracle", best, None),
    ]
    outcomes = []
    for name, arms, run in shares:
        gained = stream.means.mean(axis=1) if arms is None else stream.means[rows, arms]
        figures = {
            "reward": gained.mean(),
            "late_reward": gained[len(stream) // 2 :].mean(),
            "regret": (stream.means.max(axis=1) - gained).sum(),
        }
        if stream.costs is not None:
            spent = stream.costs.mean(axis=1) if arms is None else stream.costs[rows, arms]
            figures["cost"] = spent.mean()
        outcomes.append(_outcome(name, figures, np.cumsum(stream.means.max(axis=1) - gained), run))
    return outcomes


POLICIES: dict[str, dict[str, Any]] = {
    "LinUCB": {},
    "textbook, alpha 0.1": {"prior": None, "alpha": 0.1, "ridge": 1.0},
    "textbook, alpha 0.3": {"prior": None, "alpha": 0.3, "ridge": 1.0},
}


def _outcome(name: str, figures: Mapping[str, Any], total: Floats, run: Run | None) -> Outcome:
    at = np.unique(np.linspace(0, len(total) - 1, POINTS).astype(np.int64))
    times = at.astype(np.float64) + 1.0
    return Outcome(name, {k: float(v) for k, v in figures.items()}, times, total[at], run)


def microseconds(problem: Problem, paging: PagingModel, *, requests: int = 4000) -> dict[str, float]:
    """Return the CPU time of one select and one update on a live `Router`, re-planning included, per contestant.

    The mean over `requests` after as many again to warm up, the fastest of three rounds: a busy machine only ever
    adds. Takes seconds, not milliseconds.

    Examples
    --------
    >>> from banditroute.simulation.workloads import homes
    >>> times = microseconds(homes(100, 0), PagingModel(), requests=50)
    >>> list(times)[:2], min(times.values()) > 0
    (['Polaris', 'Polar'], True)
    """
    stream = problem.stream
    count = integer("requests", min(requests, len(stream) // 2), low=1)
    result = {}
    for name, make in controllers(problem).items():
        rounds = []
        for _ in range(3):
            router = Router(LinUCB(stream.arms, stream.dim, rng=0), make(), paging, sizes=problem.sizes)
            _serve(router, stream, range(count))
            start = time.process_time()
            _serve(router, stream, range(count, 2 * count))
            rounds.append((time.process_time() - start) / count)
        result[name] = 1e6 * min(rounds)
    return result


def _serve(router: Router, stream: Stream, requests: Iterable[int]) -> None:
    index = router.policy.index
    for t in requests:
        decision = router.select(stream.contexts[t])
        router.update(decision.id, float(stream.rewards[t, index(decision.arm)]))


def summary(seeds: Iterable[Iterable[Outcome]], *, against: str | None = None) -> list[dict[str, Any]]:
    """Return one row per contestant: of every figure the mean over seeds and its 95 % interval.

    Parameters
    ----------
    seeds
        Outcomes of each seed.
    against
        A contestant: rows also hold ``regret_less``, the regret less that contestant's on the same seeds.

    Returns
    -------
    list of dict
        ``name`` and, per figure, ``{"mean", "low", "high"}``; low and high are None with a single seed.

    Examples
    --------
    >>> one = Outcome("LRU", {"regret": 3.0}, np.ones(1), np.ones(1))
    >>> two = Outcome("LRU", {"regret": 5.0}, np.ones(1), np.ones(1))
    >>> summary([[one], [two]])[0]["regret"]["mean"]
    4.0
    """
    table = [{o.name: o.figures for o in outcomes} for outcomes in seeds]
    rows = []
    for name, first in table[0].items():
        row: dict[str, Any] = {"name": name}
        for figure in first:
            row[figure] = _interval([seed[name][figure] for seed in table])
        if against is not None:
            row["regret_less"] = _interval([s[name]["regret"] - s[against]["regret"] for s in table])
        rows.append(row)
    return rows


def _interval(values: list[float]) -> dict[str, float | None]:
    mean, low, high = interval(values)
    known = len(values) > 1
    return {"mean": mean, "low": low if known else None, "high": high if known else None}

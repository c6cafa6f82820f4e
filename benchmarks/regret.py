"""Regret of every routing policy on every workload, as JSON lines and a markdown table.

Each figure is the regret of a run against the best arm of every request, in per cent of the regret of uniform play on
the same run: mean over seeds, and half the width of a 95 % interval. No residency: everything fits.

    python benchmarks/regret.py --seeds 20 --length 5000 > regret.jsonl
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import numpy as np

from banditroute import EpsilonGreedy, LinTS, LinUCB, Policy, Stream, simulate
from banditroute.environments import LinearEnvironment
from banditroute.policies import (
    EMA,
    UCB1,
    BetaThompson,
    GaussianThompson,
    HybridLinUCB,
    RarelySwitching,
    Restarting,
    RoundRobin,
    SlidingWindow,
    SquareCB,
    Stale,
    Uniform,
)
from banditroute.workloads import FAMILIES

POLICIES: dict[str, Callable[[int, int], Policy]] = {
    "Uniform": lambda k, d: Uniform(k, d, rng=0),
    "RoundRobin": lambda k, d: RoundRobin(k, d, rng=0),
    "UCB1": lambda k, d: UCB1(k, d, rng=0),
    "BetaThompson": lambda k, d: BetaThompson(k, d, rng=0),
    "GaussianThompson": lambda k, d: GaussianThompson(k, d, rng=0),
    "EMA": lambda k, d: EMA(k, d, rng=0),
    "EpsilonGreedy": lambda k, d: EpsilonGreedy(k, d, rng=0),
    "LinUCB": lambda k, d: LinUCB(k, d, rng=0),
    "LinUCB textbook": lambda k, d: LinUCB(k, d, alpha=1.0, ridge=1.0, prior=None, rng=0),
    "LinUCB discount .998": lambda k, d: LinUCB(k, d, discount=0.998, rng=0),
    "LinTS": lambda k, d: LinTS(k, d, propensities=False, rng=0),
    "HybridLinUCB": lambda k, d: HybridLinUCB(k, d, rng=0),
    "SquareCB": lambda k, d: SquareCB(LinUCB(k, d, rng=0)),
    "SlidingWindow": lambda k, d: SlidingWindow(LinUCB(k, d, rng=0), 1000),
    "Stale": lambda k, d: Stale(LinUCB(k, d, rng=0)),
    "Restarting": lambda k, d: Restarting(LinUCB(k, d, mix=0.02, rng=0)),
    "RarelySwitching": lambda k, d: RarelySwitching(LinUCB(k, d, rng=0)),
}


def linear(length: int, seed: int) -> Stream:
    """15 linear arms, 16 dimensions, isotropic contexts, noise .1."""
    return LinearEnvironment(n_arms=15, dim=16, spread=float("inf"), own=1.0, noise=0.1).stream(length, seed)


def with_constant(stream: Stream) -> Stream:
    """A context component that is always 1."""
    return replace(stream, contexts=np.column_stack([stream.contexts, np.ones(len(stream))]))


def family(name: str) -> Callable[[int, int], Stream]:
    """The stream of a residency family, without its prices."""
    return lambda length, seed: with_constant(FAMILIES[name](length, seed).stream)


def drift(length: int, seed: int) -> Stream:
    """At half time the arms trade places."""
    stream, half = linear(length, seed), length // 2
    means, rewards = stream.means.copy(), stream.rewards.copy()
    means[half:], rewards[half:] = np.roll(means[half:], 1, axis=1), np.roll(rewards[half:], 1, axis=1)
    return replace(stream, means=means, rewards=rewards)


def failure(length: int, seed: int) -> Stream:
    """The arm that is best most often earns 0 in the middle third."""
    stream = linear(length, seed)
    busy = np.bincount(stream.means.argmax(axis=1)).argmax()
    means, rewards = stream.means.copy(), stream.rewards.copy()
    third = slice(length // 3, 2 * length // 3)
    means[third, busy] = rewards[third, busy] = means.min()
    return replace(stream, means=means, rewards=rewards)


def cold_arm(length: int, seed: int) -> Stream:
    """An arm better than all others by .1 appears after a third."""
    stream = linear(length, seed)
    lift = stream.means.max(axis=1) + 0.1 - stream.means[:, 0]
    means, rewards = stream.means.copy(), stream.rewards.copy()
    means[:, 0] += lift
    rewards[:, 0] += lift
    available = np.ones(means.shape, dtype=np.bool_)
    available[: length // 3, 0] = False
    return replace(stream, means=means, rewards=rewards, available=available)


def sparse(length: int, seed: int) -> Stream:
    """Four of five answers never come."""
    stream = linear(length, seed)
    never = np.random.default_rng(seed).random(length) < 0.8
    return replace(stream, delays=np.where(never, 10 * length, 0))


def delayed(length: int, seed: int) -> Stream:
    """Feedback comes after 1 to 200 requests."""
    return replace(linear(length, seed), delays=np.random.default_rng(seed).integers(1, 201, size=length))


def poisoned(length: int, seed: int) -> Stream:
    """One answer in twenty is turned around: 1 less the reward."""
    stream = linear(length, seed)
    bad = np.random.default_rng(seed).random(length) < 0.05
    return replace(stream, rewards=np.where(bad[:, None], 1.0 - stream.rewards, stream.rewards))


WORKLOADS: dict[str, Callable[[int, int], Stream]] = {
    "linear": linear,
    "clustered": family("clustered"),
    "drift": drift,
    "failure": failure,
    "cold arm": cold_arm,
    "sparse": sparse,
    "delayed": delayed,
    "poisoned": poisoned,
    "digits": family("digits"),
    "llmrouter9": family("llmrouter9"),
    "pareto4": family("pareto4"),
}


def lost(stream: Stream, arms: np.ndarray) -> float:
    """Regret of a run in per cent of that of uniform play."""
    offered = stream.means if stream.available is None else np.where(stream.available, stream.means, np.nan)
    best, mean = np.nanmax(offered, axis=1), np.nanmean(offered, axis=1)
    return float(100.0 * (best - stream.means[np.arange(len(stream)), arms]).sum() / (best - mean).sum())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--length", type=int, default=5000)
    parser.add_argument("--policies", nargs="*", default=list(POLICIES))
    parser.add_argument("--workloads", nargs="*", default=list(WORKLOADS))
    given = parser.parse_args()
    table: dict[tuple[str, str], str] = {}
    columns = []
    for workload in given.workloads:
        try:
            streams = [WORKLOADS[workload](given.length, seed) for seed in range(given.seeds)]
        except FileNotFoundError as error:
            print(f"{workload} left out: {error}", file=sys.stderr)
            continue
        columns.append(workload)
        for name in given.policies:
            start = perf_counter()
            try:
                runs = [simulate(POLICIES[name](len(s.arms), s.dim), s, engine="auto") for s in streams]
            except ValueError as error:  # rewards outside [0, 1]
                table[name, workload] = "-"
                print(f"{name} does not take {workload}: {error}", file=sys.stderr)
                continue
            values = np.array([lost(s, run.arms) for s, run in zip(streams, runs, strict=True)])
            half = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            row = {"policy": name, "workload": workload, "per_cent": values.mean(), "half_width": half,
                   "seeds": given.seeds, "length": given.length,
                   "us_per_request": 1e6 * (perf_counter() - start) / given.length / given.seeds}  # fmt: skip
            print(json.dumps(row), flush=True)
            table[name, workload] = f"{values.mean():.0f} +- {half:.0f}"
    print(f"\n| policy | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in given.policies:
        print(f"| {name} | {' | '.join(table[name, w] for w in columns)} |")


if __name__ == "__main__":
    main()

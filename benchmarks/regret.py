"""Measure routing policies: every policy on every workload, the same requests for all. No residency: everything fits.

    python benchmarks/regret.py run --seeds 20 --length 5000 --out out/regret.jsonl     # resumable
    python benchmarks/regret.py table out/regret.jsonl --save benchmarks/results/regret.json

A figure is the regret of a run against the best arm of every request, in per cent of that of uniform play on the same
requests: mean over seeds and half the width of a 95 % t interval. A seed draws one stream, on which all policies run,
so differences are paired. `BANDITROUTE_DATA` names the directory of the recorded data; workloads that need them are
left out without it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from recorded import WORKLOADS as FAMILIES
from scipy.stats import t as student

from banditroute import DiagLinUCB, EpsilonGreedy, LinTS, LinUCB, Policy, Stream, simulate
from banditroute.policies import (
    EMA,
    UCB1,
    BatchedUpdates,
    BetaThompson,
    Choice,
    GaussianThompson,
    HybridLinUCB,
    LogisticUCB,
    Restarting,
    RoundRobin,
    SlidingWindow,
    SquareCB,
    StalenessInflation,
)
from banditroute.simulation import LinearEnvironment


class DrawnBeta(BetaThompson):
    """Draws from the posteriors instead of integrating: the same choices in distribution, propensities unknown."""

    def select(self, x: Any, *, prices: Any = None, eligible: Any = None) -> Choice:
        """Choose the largest draw."""
        won, offers = 1.0 + self._own["total"], self.effective_prices(prices, eligible)
        drawn = self._rng.beta(won, np.maximum(2.0 + self._own["weight"] - won, 1.0))
        return Choice(int(np.argmax(drawn - offers)), 1.0)


class DrawnGaussian(GaussianThompson):
    """As `DrawnBeta`."""

    def select(self, x: Any, *, prices: Any = None, eligible: Any = None) -> Choice:
        """Choose the largest draw."""
        mean, std = self.scores(x)
        drawn = mean + self.sigma * std * self._rng.standard_normal(len(mean))
        return Choice(int(np.argmax(drawn - self.effective_prices(prices, eligible))), 1.0)


POLICIES: dict[str, Callable[[int, int, int], Policy]] = {
    "RoundRobin": lambda k, d, s: RoundRobin(k, d, rng=s),
    "UCB1": lambda k, d, s: UCB1(k, d, rng=s),
    "BetaThompson": lambda k, d, s: DrawnBeta(k, d, rng=s),
    "GaussianThompson": lambda k, d, s: DrawnGaussian(k, d, rng=s),
    "EMA": lambda k, d, s: EMA(k, d, rng=s),
    "EpsilonGreedy": lambda k, d, s: EpsilonGreedy(k, d, rng=s),
    "LinUCB": lambda k, d, s: LinUCB(k, d, rng=s),
    "LinUCB mix .05": lambda k, d, s: LinUCB(k, d, mix=0.05, rng=s),
    "LinUCB textbook": lambda k, d, s: LinUCB(k, d, alpha=1.0, ridge=1.0, prior=None, rng=s),
    "LinUCB discount .998": lambda k, d, s: LinUCB(k, d, discount=0.998, rng=s),
    "LinTS": lambda k, d, s: LinTS(k, d, propensities=False, rng=s),
    "DiagLinUCB": lambda k, d, s: DiagLinUCB(k, d, rng=s),
    "LogisticUCB": lambda k, d, s: LogisticUCB(k, d, rng=s),
    "HybridLinUCB": lambda k, d, s: HybridLinUCB(k, d, rng=s),
    "SquareCB": lambda k, d, s: SquareCB(LinUCB(k, d, rng=s)),
    "SlidingWindow 1000": lambda k, d, s: SlidingWindow(LinUCB(k, d, rng=s), 1000),
    "Stale": lambda k, d, s: StalenessInflation(LinUCB(k, d, rng=s)),
    "Restarting": lambda k, d, s: Restarting(LinUCB(k, d, rng=s)),
    "RarelySwitching": lambda k, d, s: BatchedUpdates(LinUCB(k, d, rng=s)),
}
FIXED = "best Fixed"  # known in hindsight only
REFERENCE = "LinUCB"
SURE = 0.001  # a cell is marked when a paired t test against the reference is surer than that


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


def yes_no(length: int, seed: int) -> Stream:
    """Ten arms that succeed or fail: chances are logistic, of the best arm .004 to 1, of an arm .05 at the median."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((length, 8))
    x = np.column_stack([x / np.linalg.norm(x, axis=1, keepdims=True), np.ones(length)])
    theta = np.column_stack([3.0 * rng.standard_normal((10, 8)), np.full(10, -3.0)])
    means = 1.0 / (1.0 + np.exp(-x @ theta.T))
    return Stream(x, means, (rng.random((length, 1)) < means).astype(np.float64), tuple("abcdefghij"))


WORKLOADS: dict[str, Callable[[int, int], Stream]] = {
    "linear": linear,
    "clustered": family("clustered"),
    "drift": drift,
    "failure": failure,
    "cold arm": cold_arm,
    "sparse": sparse,
    "delayed": delayed,
    "poisoned": poisoned,
    "yes / no": yes_no,
    "digits": family("digits"),
    "llmrouter9": family("llmrouter9"),
    "pareto4": family("pareto4"),
}


def lost(stream: Stream, arms: np.ndarray) -> float:
    """Regret of a run in per cent of that of uniform play."""
    offered = stream.means if stream.available is None else np.where(stream.available, stream.means, np.nan)
    best, mean = np.nanmax(offered, axis=1), np.nanmean(offered, axis=1)
    return float(100.0 * (best - stream.means[np.arange(len(stream)), arms]).sum() / (best - mean).sum())


@lru_cache(maxsize=1)  # the policies of a workload and seed are run one after the other
def posed(workload: str, seed: int, length: int) -> Stream:
    """Return the stream."""
    return WORKLOADS[workload](length, seed)


def cell(workload: str, name: str, seed: int, length: int) -> dict[str, Any]:
    """Run one policy on one workload and seed; `lost` is None where it does not take the rewards."""
    stream = posed(workload, seed, length)
    start, value = time.process_time(), None
    if name == FIXED:
        offered = (
            np.ones(len(stream.arms), bool) if stream.available is None else stream.available.all(axis=0)
        )
        arm = int(np.where(offered, stream.means.sum(axis=0), -np.inf).argmax())
        value = lost(stream, np.full(length, arm))
    else:
        try:
            run = simulate(POLICIES[name](len(stream.arms), stream.dim, seed), stream)
            value = lost(stream, run.arms)
        except ValueError as error:
            if "[0, 1]" not in str(error):
                raise
    spent = 1e6 * (time.process_time() - start) / length
    return {"workload": workload, "policy": name, "seed": seed, "length": length, "lost": value, "us": spent}


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Identify a cell."""
    return row["workload"], row["policy"], row["seed"], row["length"]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read what has been measured."""
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line)


def available(workload: str) -> bool:
    """Tell whether the data of a workload are there."""
    try:
        WORKLOADS[workload](64, 0)
    except FileNotFoundError as error:
        print(f"{workload} left out: {error}", file=sys.stderr)
        return False
    return True


def measure(given: argparse.Namespace) -> None:
    """Run the cells that the file does not hold yet, and append them as they are done."""
    known = {key(row) for row in rows(given.out)}
    places = [w for w in given.workloads if available(w)]
    tasks = [(w, p, s, given.length) for s in range(given.seeds) for w in places for p in given.policies]
    todo = [task for task in tasks if task not in known]
    print(f"{len(tasks) - len(todo)} cells known, {len(todo)} to run", flush=True)
    with given.out.open("a") as file:
        for task in todo:
            file.write(json.dumps(cell(*task)) + "\n")
            file.flush()


def half_width(values: np.ndarray) -> float:
    """Half the width of a 95 % t interval of the mean."""
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def shown(values: np.ndarray, reference: np.ndarray | None) -> str:
    """Mean and half width; bold where surely below the reference."""
    text = f"{values.mean():.1f} ± {half_width(values):.1f}"
    if reference is None:
        return text
    apart = values - reference
    t = apart.mean() / max(apart.std(ddof=1) / len(apart) ** 0.5, 1e-12)
    sure = 2.0 * student.sf(abs(t), len(apart) - 1) < SURE
    return f"**{text}**" if sure and t < 0.0 else text


def table(given: argparse.Namespace) -> None:
    """Print the table, or write it where the report finds it."""
    measured = [row for row in rows(given.path) if given.length is None or row["length"] == given.length]
    lengths, seeds = {row["length"] for row in measured}, sorted({row["seed"] for row in measured})
    if len(lengths) != 1:
        raise SystemExit(f"one length at a time, got {sorted(lengths)}: choose with --length")
    found = {(row["policy"], row["workload"], row["seed"]): row for row in measured}
    places = [w for w in WORKLOADS if any(w == row["workload"] for row in measured)]
    lines: list[list[Any]] = []
    for name in [FIXED, *POLICIES]:
        cells: list[Any] = [name]
        for place in places:
            mine, base = (
                [found.get((p, place, s), {}).get("lost") for s in seeds] for p in (name, REFERENCE)
            )
            if None in mine:
                cells.append("" if all(v is None for v in mine) else "unfinished")
                continue
            cells.append(shown(np.array(mine), None if name in (FIXED, REFERENCE) else np.array(base)))
        spent = [row["us"] for row in measured if row["policy"] == name and row["lost"] is not None]
        lines.append([*cells, f"{np.median(spent):.0f}" if spent and name != FIXED else ""])
    note = (
        f"{lengths.pop():,} requests, {len(seeds)} seeds, ± half a 95 % t interval. Bold: better than `{REFERENCE}` on "
        f"the same requests, paired t test, p < {SURE:g}. Empty: rewards outside [0, 1], which the policy refuses. "
        "Last column: median CPU time per request in µs of decision, ledger and learning; below 10 it is the compiled "
        "loop."
    )
    result = {"columns": ["policy", *places, "µs"], "rows": lines, "note": note}
    if given.save:
        given.save.write_text(json.dumps({"tables": {"regret": result}}, indent=1, ensure_ascii=False) + "\n")
    for line in (result["columns"], ["---"] * len(result["columns"]), *lines):
        print(f"| {' | '.join(line)} |")
    print(f"\n{note}")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="measure what the file does not hold yet")
    runs.add_argument("--seeds", type=int, default=20)
    runs.add_argument("--length", type=int, default=5000)
    runs.add_argument("--policies", nargs="*", default=[FIXED, *POLICIES])
    runs.add_argument("--workloads", nargs="*", default=list(WORKLOADS))
    runs.add_argument("--out", type=Path, default=Path("out/regret.jsonl"))
    runs.set_defaults(call=measure)
    tables = commands.add_parser("table", help="print the table of a file")
    tables.add_argument("path", type=Path)
    tables.add_argument("--length", type=int)
    tables.add_argument("--save", type=Path, help="write it for benchmarks/report.py")
    tables.set_defaults(call=table)
    given = parser.parse_args()
    given.call(given)


if __name__ == "__main__":
    main()

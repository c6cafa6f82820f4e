"""How soon policies leave an arm that fails, take it up again when it recovers, and earn again after a change.

    python benchmarks/recovery.py --seeds 20 --save benchmarks/results/recovery.json

Five linear arms, six dimensions, noise .1, one of them the best on most requests. Failure: it earns nothing from
request 2,000 to 4,000, and nobody says so; the bars are a share below 5 % from 200 requests after the failure on, and
nine tenths of its share before within 2,000 requests of the recovery. Change: at request 8,000 the arms trade places;
the bar is nine tenths of the reward before within 1,000 requests, where a stationary policy earns less. Figures are
means over seeds and half the width of a 95 % t interval, and how many seeds meet the bar.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from banditroute import LinUCB, Policy, Stream, simulate
from banditroute.policies import Restarting, SlidingWindow, StalenessInflation

POLICIES: dict[str, Callable[[int], Policy]] = {
    "Restarting(LinUCB(mix=.05))": lambda s: Restarting(LinUCB(5, 6, mix=0.05, rng=s)),
    "Restarting(LinUCB(discount=.995, mix=.02))": lambda s: Restarting(
        LinUCB(5, 6, discount=0.995, mix=0.02, rng=s)
    ),
    "Restarting(LinUCB())": lambda s: Restarting(LinUCB(5, 6, rng=s)),
    "LinUCB(discount=.995)": lambda s: LinUCB(5, 6, discount=0.995, rng=s),
    "SlidingWindow(LinUCB(), 1000)": lambda s: SlidingWindow(LinUCB(5, 6, rng=s), 1000),
    "StalenessInflation(LinUCB())": lambda s: StalenessInflation(LinUCB(5, 6, rng=s)),
    "LinUCB(mix=.05)": lambda s: LinUCB(5, 6, mix=0.05, rng=s),
    "LinUCB()": lambda s: LinUCB(5, 6, rng=s),
}
COLUMNS = ["policy", "share before", "200 after", "next 200", "worst 200 then", "left", "recovered share", "back",
           "reward after a change", "earns again"]  # fmt: skip


def course(seed: int, length: int) -> tuple[Stream, np.ndarray]:
    """Five linear arms of which the first is the best on most requests, and their coefficients."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((length, 6))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x[:, -1] = 1.0
    theta = 0.3 * rng.standard_normal((5, 6))
    theta[:, -1] = 0.5 + 0.05 * rng.standard_normal(5)
    theta[0, -1] = 0.9
    means = x @ theta.T
    return Stream(x, means, means + 0.1 * rng.standard_normal((length, 1)), tuple("abcde")), theta


def replaced(stream: Stream, means: np.ndarray) -> Stream:
    """The stream with other means and the same noise."""
    return Stream(stream.contexts, means, means + stream.rewards - stream.means, stream.arms)


def failure(policy: Policy, seed: int) -> list[float]:
    """Shares of the arm that fails: before, in the 200 after, in the next, in the worst later 200, after recovery."""
    stream, _ = course(seed, 6000)
    means = stream.means.copy()
    means[2000:4000, 0] = 0.0
    share = (simulate(policy, replaced(stream, means)).arms == 0).reshape(-1, 200).mean(axis=1)
    return [share[7:10].mean(), share[10], share[11], share[11:20].max(), share[28:30].mean()]


def change(policy: Policy, seed: int) -> float:
    """Reward between 800 and 1,000 requests after the arms traded places, over that before."""
    stream, theta = course(seed, 9000)
    means = stream.means.copy()
    means[8000:] = stream.contexts[8000:] @ np.roll(theta, 1, axis=0).T
    earned = means[np.arange(9000), simulate(policy, replaced(stream, means)).arms]
    return float(earned[8800:].mean() / earned[7000:8000].mean())


def shown(values: np.ndarray) -> str:
    """Per cent, with half the width of a 95 % t interval."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{100 * values.mean():.1f} ± {100 * half:.1f}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--save", type=Path, help="write the table for benchmarks/report.py")
    given = parser.parse_args()
    lines: list[list[Any]] = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, make in POLICIES.items():
        shares = np.array([failure(make(seed), seed) for seed in range(given.seeds)])
        again = np.array([change(make(seed), seed) for seed in range(given.seeds)])
        left = int((shares[:, 3] < 0.05).sum())
        back = int((shares[:, 4] >= 0.9 * shares[:, 0]).sum())
        lines.append([name, *(shown(shares[:, i]) for i in range(4)), f"{left} of {given.seeds}",
                      shown(shares[:, 4] / shares[:, 0]), f"{back} of {given.seeds}", shown(again),
                      f"{(again >= 0.9).sum()} of {given.seeds}"])  # fmt: skip
        print(f"| {' | '.join(lines[-1])} |", flush=True)
    note = (
        f"Per cent, {given.seeds} seeds, ± half a 95 % t interval. Failure: share of requests of the best arm in the "
        "600 before it fails, and after; left: seeds with less than 5 % in every later 200 while it is down. Recovered "
        "share: of the one before, 1,600 to 2,000 requests after the recovery; back: seeds with at least 90 %. "
        "Change: reward 800 to 1,000 requests after the arms traded places, of that before; earns again: seeds with "
        "at least 90 %."
    )
    if given.save:
        table = {"columns": COLUMNS, "rows": lines, "note": note}
        given.save.write_text(
            json.dumps({"tables": {"recovery": table}}, indent=1, ensure_ascii=False) + "\n"
        )
    print(f"\n{note}")


if __name__ == "__main__":
    main()

"""What change detection costs where nothing changes, and what it saves where something does.

    python benchmarks/changes.py --data DIR --first 2000 --seeds 10 --save benchmarks/results/changes.json

The streams are those of `development.py`: 12,000 requests drawn with replacement. Cost: mean reward of the second half
where nothing changes, of `Restarting` less that of the plain default on the same requests. Fall: at request 6,000 the
arm with the best mean falls below every other arm by .05, .1 or .3; its share of requests 500 to 1,000 afterwards, mean
and largest over seeds, and the reward in these. Rise: the arm in the middle becomes the best by .1; the reward in the
second thousand afterwards. Means over seeds with half of a 95 % t interval.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
from development import drawn, half

from banditroute import LinUCB
from banditroute.policies import Restarting
from banditroute.simulation import Stream, simulate

LENGTH, MOMENT = 12_000, 6_000
DATA = ("mmlupro28", "llmrouter9", "pareto4", "digits", "wine", "breast_cancer")
POLICIES = {
    "LinUCB": lambda k, d, s: LinUCB(k, d, rng=s),
    "Restarting": lambda k, d, s: Restarting(LinUCB(k, d, rng=s)),
}
COLUMNS = ["data", "policy", "where nothing changes", "less LinUCB", "false alarms", "share after a fall of .05",
           "of .1", "of .3", "reward after a fall of .1", "reward after a rise"]  # fmt: skip


def changed(run: Stream, kind: str, by: float) -> tuple[Stream, int]:
    """The stream with an arm that falls below all others or rises above them, by so much in the mean; and that arm."""
    level = run.means.mean(axis=0)
    order = level.argsort()
    arm = int(order[-1] if kind == "fall" else order[len(order) // 2])
    shift = level[order[0]] - by - level[arm] if kind == "fall" else level[order[-1]] + by - level[arm]
    means, rewards = run.means.copy(), run.rewards.copy()
    means[MOMENT:, arm] += shift
    rewards[MOMENT:, arm] += shift
    return Stream(run.contexts, means, rewards, run.arms), arm


def earned(run: Stream, arms: np.ndarray, first: int, last: int) -> float:
    """Mean reward of some requests."""
    return float(run.means[np.arange(first, last), arms[first:last]].mean())


def seen(name: str, folder: Path, policy: str, seed: int) -> list[float]:
    """Numbers of one seed, in the order of the columns."""
    run = drawn(name, folder, LENGTH, seed)
    make = partial(POLICIES[policy], len(run.arms), run.dim, seed)
    own = make()
    numbers = [earned(run, simulate(own, run).arms, MOMENT, LENGTH)]
    numbers.append(float(own.restarts.sum()) if isinstance(own, Restarting) else 0.0)
    for kind, by in (("fall", 0.05), ("fall", 0.1), ("fall", 0.3), ("rise", 0.1)):
        other, arm = changed(run, kind, by)
        arms = simulate(make(), other).arms
        late = arms[MOMENT + 500 : MOMENT + 1000]
        if kind == "fall":
            numbers.append(float((late == arm).mean()))
        if by == 0.1:
            span = (500, 1000) if kind == "fall" else (1000, 2000)
            numbers.append(earned(other, arms, MOMENT + span[0], MOMENT + span[1]))
    return numbers


def shown(values: np.ndarray) -> str:
    """A mean with half of its 95 % interval."""
    return f"{values.mean():.3f} ± {half(values):.3f}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the recorded matrices")
    parser.add_argument("--first", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--save", type=Path, help="write the table for benchmarks/report.py")
    given = parser.parse_args()
    lines: list[list[str]] = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in given.only:
        plain = np.zeros(given.seeds)
        for policy in POLICIES:
            table = np.array(
                [
                    seen(name, given.data, policy, seed)
                    for seed in range(given.first, given.first + given.seeds)
                ]
            )
            stays, alarms, *shares, fall, rise = table.T[[0, 1, 2, 3, 5, 4, 6]]
            if policy == "LinUCB":
                plain = stays
            less = "" if policy == "LinUCB" else f"{(stays - plain).mean():+.4f} ± {half(stays - plain):.4f}"
            falls = [f"{share.mean():.3f}, at most {share.max():.3f}" for share in shares]
            false = f"{alarms.sum():.0f} of {given.seeds * LENGTH:,}"
            lines.append([name, policy, shown(stays), less, false, *falls, shown(fall), shown(rise)])
            print(f"| {' | '.join(lines[-1])} |", flush=True)
    if given.save:
        table = {
            "columns": COLUMNS,
            "rows": lines,
            "note": f"Seeds {given.first} to {given.first + given.seeds - 1}, ± half a 95 % t interval.",
        }
        given.save.write_text(json.dumps({"tables": {"changes": table}}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

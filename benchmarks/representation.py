"""An experiment: a policy that chooses its representation and its memory while it runs.

    python benchmarks/representation.py --data DIR --first 3000 --seeds 8

Four parts, each a `LinUCB` that learns from every reward: levels only (the constant), linear, 64 random Fourier
features, and linear with a memory of 2,000 requests. The part in force plays with chance .95, and with .05 the arm of a
part drawn at random; so the propensity of an arm is known exactly, and the worth of every part is estimated doubly
robustly: what the linear part predicts for its arm, and, where that arm was played, the surprise over the propensity.
A part comes into force when its lead over the one in force exceeds two standard errors; linear is in force at first.
Reward of the second half of 12,000 requests: the master, and each part alone, less the best of the parts.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from development import drawn, half

from banditroute import LinUCB
from banditroute.simulation import Stream, simulate

LENGTH, SHARE, ERRORS = 12_000, 0.05, 2.0
DATA = ("mmlupro28", "llmrouter9", "pareto4", "digits", "wine", "breast_cancer")


def representations(contexts: np.ndarray, seed: int) -> dict[str, tuple[np.ndarray, float]]:
    """Contexts of each part, and its discount. Fourier waves are as long as requests are apart."""
    rng, inner = np.random.default_rng(seed), contexts[:, :-1]
    sample = inner[rng.integers(len(inner), size=(2, 500))]
    apart = np.median(np.linalg.norm(sample[0] - sample[1], axis=1))
    waves = inner @ (rng.standard_normal((inner.shape[1], 64)) / apart) + rng.uniform(0.0, 2.0 * np.pi, 64)
    bent = np.column_stack([np.cos(waves) * np.sqrt(2.0 / 64), np.ones(len(inner))])
    return {
        "level": (np.ascontiguousarray(contexts[:, -1:]), 1.0),
        "linear": (contexts, 1.0),
        "Fourier": (bent, 1.0),
        "forgets": (contexts, 0.9995),
    }


def mastered(run: Stream, parts: dict[str, tuple[np.ndarray, float]], seed: int) -> tuple[np.ndarray, str]:
    """Arms that the master chose, and what was in force at the end."""
    count, k = len(parts), len(run.arms)
    rows = [contexts for contexts, _ in parts.values()]
    policies = [LinUCB(k, c.shape[1], discount=d, rng=seed) for c, d in parts.values()]
    rng, force, arms = np.random.default_rng(seed), 1, np.empty(len(run), dtype=np.int64)
    total, outer = np.zeros(count), np.zeros((count, count))  # of the worth of the parts, and of its products
    for t in range(len(run)):
        wanted = np.array([p.select(c[t]).arm for p, c in zip(policies, rows, strict=True)])
        weight = np.full(count, SHARE / count)
        weight[force] += 1.0 - SHARE
        arm = wanted[rng.choice(count, p=weight)]
        reward = run.rewards[t, arm]
        mean = policies[1].scores(rows[1][t]).mean
        worth = mean[wanted] + (wanted == arm) * (reward - mean[arm]) / weight[wanted == arm].sum()
        total, outer = total + worth, outer + np.outer(worth, worth)
        for policy, contexts in zip(policies, rows, strict=True):
            policy.update(int(arm), contexts[t], float(reward))
        arms[t] = arm
        lead = (total - total[force]) / (t + 1)
        square = (outer.diagonal() - 2.0 * outer[force] + outer[force, force]) / (t + 1)
        error = np.sqrt(np.maximum(square - lead**2, 0.0) / (t + 1))
        sure = np.where(error > 0.0, lead - ERRORS * error, 0.0)
        if t >= 200 and sure.max() > 0.0:
            force = int(sure.argmax())
    return arms, list(parts)[force]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the recorded matrices")
    parser.add_argument("--first", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--alone", action="store_true", help="the parts without the master")
    given = parser.parse_args()
    for name in given.only:
        got: dict[str, list[float]] = {}
        ends, spent = [], 0.0
        for seed in range(given.first, given.first + given.seeds):
            run = drawn(name, given.data, LENGTH, seed)
            parts = representations(run.contexts, seed)
            played = {}
            if not given.alone:
                began = time.process_time()
                played["master"], end = mastered(run, parts, seed)
                spent, ends = spent + time.process_time() - began, [*ends, end]
            for part, (contexts, discount) in parts.items():
                own = Stream(contexts, run.means, run.rewards, run.arms)
                policy = LinUCB(len(run.arms), contexts.shape[1], discount=discount, rng=seed)
                played[part] = simulate(policy, own).arms
            for who, arms in played.items():
                got.setdefault(who, []).append(run.means[np.arange(LENGTH), arms][LENGTH // 2 :].mean())
        table = {who: np.array(values) for who, values in got.items()}
        best = max((who for who in table if who != "master"), key=lambda who: table[who].mean())
        gaps = {who: values - table["linear"] for who, values in table.items() if who != "linear"}
        less = ", ".join(f"{who} {gap.mean():+.4f} ± {half(gap):.4f}" for who, gap in gaps.items())
        print(f"{name}: linear {table['linear'].mean():.4f}; less linear: {less}", flush=True)
        if not given.alone:
            gap = table["master"] - table[best]
            print(
                f"    master less {best}: {gap.mean():+.4f} ± {half(gap):.4f}; in force at the end "
                f"{ {part: ends.count(part) for part in sorted(set(ends))} }; "
                f"{1e6 * spent / (given.seeds * LENGTH):.0f} µs a request",
                flush=True,
            )


if __name__ == "__main__":
    main()

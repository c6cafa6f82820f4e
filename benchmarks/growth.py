"""How the time of a call grows with arms, dimension, requests so far, exploration and pending decisions.

    OPENBLAS_NUM_THREADS=1 python benchmarks/growth.py [--rounds 7] [--json out/growth.json] [--quick]

CPU time of the calling thread. Each point is measured in every round, in random order, so that a slow minute of the
machine meets all of them; a round's figure is the mean of its calls and the table shows the median of the rounds. The
exponent is the slope of log time over log size by least squares on those medians, for the whole range and for its
upper half, where what does not grow weighs less; its interval is that of the slopes of the rounds (2.5 to 97.5 %,
bootstrap over rounds, seed 0). An exponent of 0 is a cost that does not grow, 1 a proportional one.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import thread_time_ns

import numpy as np

from banditroute import LinUCB, Router

ARMS, DIM = 15, 32
AXES: dict[str, tuple[float, ...]] = {
    "arms": (4, 8, 16, 32, 64, 128, 256, 512),
    "dim": (8, 16, 32, 64, 128, 256),
    "requests so far": (1_000, 4_000, 16_000, 64_000),
    "alpha": (0.1, 0.3, 1.0, 3.0),
    "pending": (100, 1_000, 10_000, 100_000),
}


def contexts(dim: int) -> np.ndarray:
    """Return 512 contexts of length one."""
    rows = np.random.default_rng(1).standard_normal((512, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def served(axis: str, size: float) -> Callable[[int], tuple[float, float]]:
    """Return what serves so many requests at this point: microseconds per select and per update."""
    arms = int(size) if axis == "arms" else ARMS
    dim = int(size) if axis == "dim" else DIM
    alpha = size if axis == "alpha" else 0.3
    rows = contexts(dim)
    theta = 0.3 * np.random.default_rng(2).standard_normal((arms, dim))
    policy = LinUCB(arms, dim, alpha=alpha, ridge=1.0, prior=None, rng=0)
    router = Router(policy)
    noise = 0.1 * np.random.default_rng(3).standard_normal(512)
    before = int(size) if axis == "requests so far" else 2_000
    for t in range(before):
        decision = router.select(rows[t & 511])
        arm = policy.positions[decision.arm]
        router.update(decision.id, float(theta[arm] @ rows[t & 511] + noise[t & 511]))
    if axis == "pending":
        for t in range(int(size)):
            router.select(rows[t & 511])

    def run(count: int) -> tuple[float, float]:
        took = [0, 0]
        for t in range(count):
            x = rows[t & 511]
            start = thread_time_ns()
            decision = router.select(x)
            middle = thread_time_ns()
            reward = float(theta[policy.positions[decision.arm]] @ x + noise[t & 511])
            again = thread_time_ns()
            router.update(decision.id, reward)
            took[0] += middle - start
            took[1] += thread_time_ns() - again
        return took[0] / count / 1e3, took[1] / count / 1e3

    return run


def exponent(sizes: Sequence[float], rounds: np.ndarray) -> tuple[float, float, float]:
    """Return the slope of log median time over log size, and its 95 % interval over rounds (rounds, sizes)."""
    logs = np.log(np.asarray(sizes, dtype=float))
    centred = logs - logs.mean()

    def slope(took: np.ndarray) -> float:
        return float(centred @ np.log(np.median(took, axis=0)) / (centred @ centred))

    draws = np.random.default_rng(0).integers(0, len(rounds), size=(400, len(rounds)))
    low, high = np.percentile([slope(rounds[draw]) for draw in draws], [2.5, 97.5])
    return slope(rounds), float(low), float(high)


def measured(axis: str, sizes: Sequence[float], rounds: int, count: int) -> np.ndarray:
    """Return microseconds (2, rounds, sizes) of select and of update."""
    points = [served(axis, size) for size in sizes]
    took = np.empty((2, rounds, len(sizes)))
    rng = np.random.default_rng(4)
    for point in points:
        point(count)
    for r in range(rounds):
        for i in rng.permutation(len(points)):
            took[:, r, i] = points[i](count)
    return took


def main() -> int:
    """Print a table per axis, and write the rows where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="the smallest sizes alone: to see that it works")
    given = parser.parse_args()
    rows: list[list[object]] = []
    for axis, all_sizes in AXES.items():
        sizes = all_sizes[:3] if given.quick else all_sizes
        took = measured(axis, sizes, given.rounds, given.count)
        half = len(sizes) // 2
        for i, call in enumerate(("select", "update")):
            medians = np.median(took[i], axis=0)
            whole, low, high = exponent(sizes, took[i])
            upper, upper_low, upper_high = exponent(sizes[half:], took[i][:, half:])
            rows.append(
                [
                    f"{call}, {axis} {sizes[0]:g} to {sizes[-1]:g}",
                    *(float(medians[k]) for k in (0, half, len(sizes) - 1)),
                    f"{whole:.2f} [{low:.2f}, {high:.2f}]",
                    f"{upper:.2f} [{upper_low:.2f}, {upper_high:.2f}]",
                ]
            )
            print(
                f"{rows[-1][0]:44s} " + " ".join(f"{m:7.2f}" for m in medians) + f"   exponent {whole:.2f} "
                f"[{low:.2f}, {high:.2f}], upper half {upper:.2f} [{upper_low:.2f}, {upper_high:.2f}]",
                flush=True,
            )
    if given.json is not None:
        ends = ["us at the start", "in the middle", "at the end"]
        note = (
            f"`python benchmarks/growth.py --rounds {given.rounds}`: Router over LinUCB at ({ARMS}, {DIM}) but for "
            "what grows; CPU time, which includes reading the clock twice."
        )
        table = {
            "columns": ["call and range", *ends, "exponent", "of the upper half"],
            "rows": rows,
            "note": note,
        }
        given.json.write_text(json.dumps({"tables": {"growth": table}}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

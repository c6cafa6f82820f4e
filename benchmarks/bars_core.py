"""Print the figures that the linear core is held to, at full length; the test suite runs short versions.

    python benchmarks/bars_core.py                    # sums against a batch solution, decisions against plain numpy
    python benchmarks/bars_core.py --prune [N]        # pruned argmax against the full scan, N decisions (1,000,000)

Exits with status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from recorded import digits, llmrouter9, pareto4

from banditroute import LinUCB
from banditroute.simulation import homes
from naive_linear import differences
from test_linear import prune_differences


def batch_error(
    n: int, ridge: float, discount: float, *, arms: int = 5, dim: int = 16, seed: int = 0
) -> float:
    """Return the largest relative error of precision, moment, cov and theta after n updates in random order."""
    rng = np.random.default_rng(seed)
    policy = LinUCB(arms, dim, alpha=0.3, ridge=ridge, prior=None, discount=discount, rng=0)
    rows, rewards, chosen = rng.standard_normal((n, dim)), rng.standard_normal(n), rng.integers(arms, size=n)
    for i in rng.permutation(n).tolist():
        policy.update(int(chosen[i]), rows[i], float(rewards[i]), at=i)
    span = max(policy.span, 1)
    weights = discount ** (span * ((n - 1) // span - np.arange(n) // span))
    worst = 0.0
    for a in range(arms):
        w = weights * (chosen == a)
        precision, moment = ridge * np.eye(dim) + (rows * w[:, None]).T @ rows, rows.T @ (w * rewards)
        pairs = [
            (policy.precision(a), precision),
            (policy.moment[a], moment),
            (policy.cov(a), np.linalg.inv(precision)),
            (policy.theta[a], np.linalg.solve(precision, moment)),
        ]
        worst = max(worst, *(float(np.abs(got - true).max() / np.abs(true).max()) for got, true in pairs))
    return worst


def sums() -> bool:
    """Bar: 1e-9 relative after 100,000 updates in random feedback order."""
    print(
        "statistics, cov, theta against a batch ridge solution, 100,000 updates in random order, 5 arms, dim 16"
    )
    good = True
    for discount in (1.0, 0.999):
        for ridge in (0.1, 1.0, 10.0):
            error = batch_error(100_000, ridge, discount)
            good &= error <= 1e-9
            print(f"  discount {discount:<5} ridge {ridge:<4}  largest relative error {error:.1e}")
    return good


def decisions() -> bool:
    """Bar: no decision differs from plain numpy LinUCB but ties to rounding, 10,000 steps."""
    print(
        "decisions against plain numpy LinUCB (prior None, ridge 1), 10,000 steps; a tie is a gap below 1e-9"
    )
    good = True
    for family in (digits, llmrouter9, pareto4, homes):
        for alpha in (0.3, 1.0):
            options = {} if family in (homes, digits) else {"order": "replace"}
            try:
                stream = family(10_000, 1, **options).stream
            except FileNotFoundError as error:
                print(f"  {family.__name__:<11} left out: {error}")
                break
            policy = LinUCB(stream.arms, stream.dim, alpha=alpha, ridge=1.0, prior=None, rng=0)
            real, ties, largest = differences(policy, stream, alpha, 1.0)
            good &= real == 0
            shape = f"{len(stream.arms)} arms, dim {stream.dim}"
            print(
                f"  {family.__name__:<11} {shape:<16} alpha {alpha}  "
                f"different {real}, ties {ties} (gap <= {largest:.0e})"
            )
    return good


def prune(count: int) -> bool:
    """Bar: the pruned argmax is the full scan's on every decision."""
    begun = time.perf_counter()
    made, different, evaluated, scanned = prune_differences(count, seed=1)
    spent = time.perf_counter() - begun
    print(
        f"pruned argmax against the full scan: {made:,} decisions, {different} different, "
        f"{evaluated / scanned:.0%} of arms evaluated, {spent:.0f} s"
    )
    return different == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prune", type=int, nargs="?", const=1_000_000, metavar="N")
    wanted = parser.parse_args().prune
    sys.exit(0 if (prune(wanted) if wanted else all([sums(), decisions()])) else 1)

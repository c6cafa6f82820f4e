"""Ten million rows, generated, evaluated in bounded memory; time per row against the path in memory.

    python benchmarks/batches.py [rows] [parts] [--jobs N] [--backend loky|ray]

Bars: memory that does not grow with the rows, and a time per row printed beside that of one trace in memory.
"""

import argparse
import resource
import time
from functools import partial

import numpy as np

from banditroute import Trace
from banditroute.evaluation import Batches, compare, compare_batches

ARMS, DIM = 5, 8
THETA = np.random.default_rng(0).standard_normal((DIM, ARMS)) / DIM


def part(rows, seed):
    """Return one part of the log: a linear world, logged at random."""
    rng = np.random.default_rng(seed)
    contexts = rng.standard_normal((rows, DIM))
    arms = rng.integers(ARMS, size=rows)
    rewards = 0.5 + np.einsum("ij,ji->i", contexts, THETA[:, arms]) + 0.1 * rng.standard_normal(rows)
    return Trace(
        names=[str(a) for a in range(ARMS)],
        arms=arms,
        rewards=rewards,
        propensities=np.full(rows, 1 / ARMS),
        contexts=contexts,
    )


def best(contexts):
    """The rule that is valued: the best arm by the true model."""
    return (contexts @ THETA).argmax(axis=1)


def peak():
    """Return the largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def batches(rows, parts):
    return Batches(tuple(partial(part, rows // parts, seed) for seed in range(parts)))


def grown(rows, parts, jobs=1, backend="loky"):
    """Evaluate, and print value, seconds and by how many MB the peak grew beyond that of one part."""
    compare_batches(batches(2 * (rows // parts), 2), {"best": best})
    before, start = peak(), time.perf_counter()
    found = compare_batches(batches(rows, parts), {"best": best}, jobs=jobs, backend=backend)["best"]
    took = time.perf_counter() - start
    one = found["dr"]
    print(f"{found.rows:,} rows in {parts} parts: dr {one.value:.5f} [{one.low:.5f}, {one.high:.5f}]")
    print(f"{took:.1f} s, {1e6 * took / found.rows:.2f} us a row; the peak grew by MB {peak() - before:.0f}")
    return took / found.rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=int, nargs="?", default=10_000_000)
    parser.add_argument("parts", type=int, nargs="?", default=100)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--backend", default="loky")
    args = parser.parse_args()
    grown(args.rows, args.parts, args.jobs, args.backend)
    count = min(args.rows, 1_000_000)
    trace = part(count, 0)
    start = time.perf_counter()
    compare(trace, {"best": best})
    took = time.perf_counter() - start
    print(f"in memory, {count:,} rows: {1e6 * took / count:.2f} us a row (without drawing them)")


if __name__ == "__main__":
    main()

"""How long one checkpoint holds the lock of a Router: the copy of its whole state.

python benchmarks/holds.py
"""

import time

import numpy as np

from banditroute import LinUCB, Router

SHAPES = ((4, 256, 100_000), (1000, 256, 300))  # arms, dimension, pending decisions


def holds(arms, dim, pending, repeats=5):
    """Return the milliseconds of each copy; the first touches fresh memory."""
    router = Router(LinUCB(arms, dim, alpha=0.3, ridge=1.0, prior=None, rng=0), pending_limit=200_000)
    contexts = np.random.default_rng(0).normal(size=(256, dim)) / np.sqrt(dim)
    for i in range(pending):
        router.select(contexts[i & 255])
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        router._lasting._host.capture()
        took.append(1e3 * (time.perf_counter() - start))
    return took


def main():
    for arms, dim, pending in SHAPES:
        took = ", ".join(f"{ms:.0f}" for ms in holds(arms, dim, pending))
        print(f"{arms:,} arms x {dim}, {pending:,} pending: {took} ms", flush=True)


if __name__ == "__main__":
    main()

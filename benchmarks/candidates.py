"""What a choice among 200 candidates of 16 features costs, beside numpy on ready features, and what packing costs.

Prints microseconds, the least mean of ten calls in a row, and the plain pair of `select` and `update` for comparison.

    python benchmarks/candidates.py
"""

import time
from collections.abc import Callable

import numpy as np

from banditroute import LinUCB, Router
from banditroute.policies import HybridLinUCB, SharedLinUCB

COUNT, SIZE, DIM = 200, 16, 4


def timed(call: Callable[[], object], rounds: int = 300) -> float:
    """Return the least mean of ten calls, microseconds."""
    for _ in range(50):
        call()
    best = np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(10):
            call()
        best = min(best, (time.perf_counter() - start) * 1e5)
    return float(best)


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    names, table, x = tuple(f"n{i}" for i in range(COUNT)), rng.standard_normal((COUNT, SIZE)), np.ones(DIM)
    cov, beta = np.linalg.inv(np.eye(SIZE) + table.T @ table), rng.standard_normal(SIZE)

    def numpy_alone() -> int:
        value = table @ beta + 0.25 * np.sqrt(np.einsum("ij,ij->i", table @ cov, table))
        best = value == value.max()
        chance = 0.9 * best / best.sum() + 0.1 / COUNT
        return int(np.searchsorted(np.cumsum(chance), rng.random()))

    policy = SharedLinUCB([], DIM, features=SIZE, mix=0.1, rng=0)
    router = Router(SharedLinUCB([], DIM, features=SIZE, mix=0.1, rng=0))
    hybrid = HybridLinUCB(names[:50], DIM, features=SIZE, mix=0.1, rng=0)
    plain = Router(LinUCB(8, DIM, rng=0))
    lists = {name: row.tolist() for name, row in zip(names, table, strict=True)}
    arrays = dict(zip(names, table, strict=True))
    lines = {
        "numpy on ready features": numpy_alone,
        "policy, (names, matrix)": lambda: policy.select_candidate(x, (names, table)),
        "router, (names, matrix)": lambda: router.select(x, candidates=(names, table)),
        "router, a dict of arrays": lambda: router.select(x, candidates=arrays),
        "router, a dict of lists": lambda: router.select(x, candidates=lists),
        "  of which packing it": lambda: np.array(list(lists.values())),
        "hybrid policy, 50 arms": lambda: hybrid.select_candidate(x, (names, table)),
        "a list of 3 of 8 arms": lambda: plain.select(x, k=3),
        "explaining 8 arms": lambda: plain.explain(x),
        "plain select and update": lambda: plain.update(plain.select(x).id, 0.5),
    }
    for title, call in lines.items():
        print(f"{title:26} {timed(call):8.1f} us")


if __name__ == "__main__":
    main()

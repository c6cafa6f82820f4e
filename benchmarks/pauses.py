"""The longest select, update and add_arm of `LinUCB` with its defaults, CPU time of the calling thread.

The second longest of all calls, best of the runs, beside mean and median; run it on a quiet core. The last line is the
cold start: CPU of a fresh process, without and with a cache, until the first reward is learned.

    OPENBLAS_NUM_THREADS=1 python benchmarks/pauses.py --requests 20000 --runs 3
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from banditroute import LinUCB
from banditroute.policies.linear import compile_rest

SHAPES = {
    (15, 32): 0.1,
    (15, 128): 0.5,
    (200, 64): 1.0,
    (1000, 128): 3.0,
    (12, 768): 3.0,
    (12, 1536): 8.0,
}  # ms
START = """
import time
import banditroute as b
r = b.Router(b.LinUCB(2, 2, rng=0))
r.update(r.select([1.0, 0.0]).id, 1.0)
print(time.process_time())
"""


def run(arms: int, dim: int, requests: int) -> list[np.ndarray]:
    """Milliseconds of every select, update, add_arm."""
    rng, clock = np.random.default_rng(0), time.thread_time_ns
    contexts = rng.standard_normal((2048, dim))
    contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
    theta, policy = 0.3 * rng.standard_normal((arms, dim)), LinUCB(arms, dim, rng=0)
    took: list[list[int]] = [[], [], []]
    for t in range(requests):
        x, start = contexts[t % 2048], clock()
        arm = policy.select(x).arm
        took[0].append(clock() - start)
        reward = float(0.5 + theta[arm] @ x + 0.1 * rng.standard_normal())
        start = clock()
        policy.update(arm, x, reward)
        took[1].append(clock() - start)
    for i in range(4):
        start = clock()
        policy.add_arm(f"new-{i}")
        took[2].append(clock() - start)
    return [np.sort(values) / 1e6 for values in took]


def cold_start() -> tuple[float, float]:
    """CPU seconds of a fresh process without a cache, and with one."""
    with tempfile.TemporaryDirectory() as folder:
        # Bytecode is kept too, as it is where a package is installed.
        env = {**os.environ, "NUMBA_CACHE_DIR": folder, "PYTHONPYCACHEPREFIX": folder}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        first, second = (
            float(
                subprocess.run(
                    [sys.executable, "-c", START], env=env, capture_output=True, text=True, check=True
                ).stdout
            )
            for _ in range(2)
        )
    return first, second


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shapes", default="", help="such as 15x32,12x768; all when left out")
    options = parser.parse_args()
    compile_rest()
    gc.disable()
    wanted = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",") if shape] or list(
        SHAPES
    )
    print(
        "| arms x dim | bar, ms | select: median, mean, worst | update: median, mean, worst | add_arm, worst |"
    )
    print("|---|---|---|---|---|")
    for arms, dim in wanted:
        runs = [run(arms, dim, options.requests) for _ in range(options.runs)]
        cells = []
        for i in range(3):
            best = min((values[i] for values in runs), key=lambda v: v[-2])
            cells.append(f"{1e3 * np.median(best):.1f} us, {1e3 * best.mean():.1f} us, {best[-2]:.3f} ms")
        print(
            f"| {arms} x {dim} | {SHAPES.get((arms, dim), float('nan'))} | {' | '.join(cells)} |", flush=True
        )
    print("cold start, CPU s without and with a cache: {:.1f}, {:.2f}".format(*cold_start()))


if __name__ == "__main__":
    main()

"""The longest select, update and add_arm of `LinUCB` with its defaults, CPU time of the calling thread.

The second longest of all calls, best of the runs, beside median, mean and p99.9; run it on a quiet core. The last line
is the cold start: CPU of a fresh process, without and with a cache, until the first reward is learned.

    OPENBLAS_NUM_THREADS=1 python benchmarks/pauses.py --requests 20000 --runs 3 [--json FILE] [--picture out/tails.png]
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
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
CALLS = ("select", "update", "add_arm")
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
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--picture", type=Path, help="draw worst and p99.9 against the shape here")
    options = parser.parse_args()
    compile_rest()
    gc.disable()
    wanted = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",") if shape] or list(
        SHAPES
    )
    print(f"| arms x dim | bar, ms | {' | '.join(f'{call}: median, mean, p99.9, worst' for call in CALLS)} |")
    print("|---|---|---|---|---|")
    found: dict[str, dict[str, list[float]]] = {}
    for arms, dim in wanted:
        runs = [run(arms, dim, options.requests) for _ in range(options.runs)]
        rows = found[f"{arms} x {dim}"] = {}
        for i, call in enumerate(CALLS):
            best = min((values[i] for values in runs), key=lambda v: v[-2])
            rows[call] = [
                float(v) for v in (np.median(best), best.mean(), np.percentile(best, 99.9), best[-2])
            ]
        cells = [
            f"{1e3 * m:.1f} us, {1e3 * a:.1f} us, {p:.3f} ms, {w:.3f} ms" for m, a, p, w in rows.values()
        ]
        bar = SHAPES.get((arms, dim), float("nan"))
        print(f"| {arms} x {dim} | {bar} | {' | '.join(cells)} |", flush=True)
    if options.json is not None:
        told = {
            "requests": options.requests,
            "runs": options.runs,
            "ms: median, mean, p99.9, second worst": found,
        }
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if options.picture is not None:
        draw(found, options.picture)
    print("cold start, CPU s without and with a cache: {:.1f}, {:.2f}".format(*cold_start()))


def draw(found: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draw worst and p99.9 of `select` and `update` against the shape, smallest table first."""
    shapes = sorted(found, key=lambda name: int(name.split(" x ")[0]) * int(name.split(" x ")[1]) ** 2)
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), sharey=True, layout="constrained")
    for axis, call in zip(axes, CALLS, strict=False):
        for at, name in ((3, "second worst"), (2, "p99.9"), (0, "median")):
            axis.plot(shapes, [found[shape][call][at] for shape in shapes], marker="o", label=name)
        bars = [SHAPES.get(tuple(map(int, shape.split(" x "))), np.nan) for shape in shapes]
        axis.plot(shapes, bars, color="0.6", linestyle="--", label="bar")
        axis.set(title=call, yscale="log", xlabel="arms x dimension")
        axis.tick_params(axis="x", labelrotation=30)
    axes[0].set_ylabel("ms of CPU")
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()

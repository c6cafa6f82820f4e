"""Time this checkout against another commit, process pair by process pair, with an A/A control beside.

    python benchmarks/compare.py BASE [--pairs 30] [--only NAME ...]

Both run in fresh processes in alternating order on the same machine; figures are CPU time of the calling thread per
call, the median of a run's rounds. A ratio is formed within each pair; its interval is that of the median by order
statistics (binomial, 95 %). The control runs the same code on both sides: what it spreads is noise.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import binom

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("policy pair", "router pair", "router pair with Polar")

CHILD = """
import json, sys, time
import numpy as np
from banditroute import LinUCB, Polar, Router

name = sys.argv[1]
rng = np.random.default_rng(0)
contexts = rng.normal(size=(512, 32))
contexts /= np.linalg.norm(contexts, axis=1)[:, None]
policy = LinUCB(15, 32, alpha=0.3, ridge=1.0, prior=None, rng=0)
router = None
if name == "router pair":
    router = Router(policy)
elif name == "router pair with Polar":
    router = Router(policy, Polar(4, epoch=2000, rng=0), 0.1)

def run(n):
    if router is None:
        for i in range(n):
            x = contexts[i & 511]
            policy.update(policy.select(x).arm, x, 0.5)
    else:
        for i in range(n):
            router.update(router.select(contexts[i & 511]).id, 0.5)

run(4000)
took = []
for _ in range(15):
    start = time.thread_time()
    run(2000)
    took.append((time.thread_time() - start) / 2000 * 1e6)
print(json.dumps(float(np.median(took))))
"""


def measured(source: Path, name: str) -> float:
    """Return microseconds per pair of calls, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, name], env=environment, capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout))


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Return the median and the ends of its 95 % interval."""
    ordered = np.sort(ratios)
    low = int(binom.ppf(0.025, len(ordered), 0.5))
    return (
        float(np.median(ordered)),
        float(ordered[max(low - 1, 0)]),
        float(ordered[min(len(ordered) - low, len(ordered) - 1)]),
    )


def compared(one: Path, other: Path, name: str, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what both took, pair by pair, the order alternating."""
    took = np.empty((pairs, 2))
    for i in range(pairs):
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            took[i, side] = measured((one, other)[side], name)
    return took[:, 0], took[:, 1]


def main() -> None:
    """Print a row per name: medians, ratio, and the control."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", help="a commit, or a folder that holds src/")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=list(NAMES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(options.base)
        if not (base / "src").is_dir():
            base = Path(folder) / "base"
            subprocess.run(
                ["git", "worktree", "add", "-q", "--detach", str(base), options.base], cwd=ROOT, check=True
            )
        try:
            print(
                f"{options.pairs} pairs of processes; us of CPU per call pair at (15, 32), median; ratio head / base"
            )
            for name in options.only:
                for source in (base, ROOT):
                    measured(source, name)  # compiles
                head, old = compared(ROOT, base, name, options.pairs)
                again, control = compared(ROOT, ROOT, name, options.pairs)
                ratio, low, high = interval(head / old)
                same, same_low, same_high = interval(again / control)
                print(
                    f"{name:24s} head {np.median(head):6.2f}  base {np.median(old):6.2f}  ratio {ratio:.3f} "
                    f"[{low:.3f}, {high:.3f}]  control {same:.3f} [{same_low:.3f}, {same_high:.3f}]",
                    flush=True,
                )
        finally:
            if base.parent == Path(folder):
                subprocess.run(["git", "worktree", "remove", "--force", str(base)], cwd=ROOT, check=False)


if __name__ == "__main__":
    main()

"""Millions of requests with a client that never answers a tenth of them: memory and the tail of select over time.

``python benchmarks/soak.py --requests 10000000``
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from banditroute import LinUCB, Polar, Router


def memory_bytes():
    """Resident memory now; the peak where that is not told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--journal", action="store_true", help="keep a journal and checkpoints too")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4096, 32))
    router = Router(
        LinUCB(15, 32, rng=0), Polar(4, epoch=5000), 0.1, maintenance="background", pending_limit=50_000
    )
    with tempfile.TemporaryDirectory() as home:
        if options.journal:
            router.recover(home, checkpoint_s=10.0)
        block = max(1, options.requests // 10)
        tails, sizes = [], []
        print("requests      rss MB   p50 us   p99 us  p99.9 us  pending")
        for part in range(10):
            times = np.empty(block)
            for i in range(block):
                started = time.perf_counter()
                decision = router.select(rows[i & 4095])
                times[i] = time.perf_counter() - started
                if i % 10:
                    router.update(decision.id, 0.5)
            p50, p99, p999 = np.quantile(times, [0.5, 0.99, 0.999]) * 1e6
            del times
            tails.append(p99)
            sizes.append(memory_bytes())
            pending = router.stats()["pending"]
            print(
                f"{(part + 1) * block:>11,} {sizes[-1] / 1e6:>9.1f} {p50:>8.2f} {p99:>8.2f} {p999:>9.2f} {pending:>8,}",
                flush=True,
            )
        router.close()
    growth = (max(sizes[5:]) - max(sizes[1:5])) / 1e6
    print(f"memory, last half over first half after warm-up: {growth:+.1f} MB")
    print(
        f"p99 of select, median of last half over first half: {np.median(tails[5:]) / np.median(tails[:5]):.2f}"
    )


if __name__ == "__main__":
    main()

"""A pool of threads that shares one Router, and a SIGTERM that loses nothing.

Run ``python examples/thread_pool.py STATE_DIRECTORY [SECONDS]``; stop it with Ctrl-C or ``kill``, run it again, and it
goes on where it stopped.
"""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from banditroute import LinUCB, Polar, Router

ARMS = ["small", "medium", "large"]
QUALITY = {"small": [0.2, 0.1], "medium": [0.4, 0.3], "large": [0.5, 0.8]}


def serve(router: Router, stopped: threading.Event, seed: int) -> int:
    """Answer requests until told to stop; returns how many."""
    rng = np.random.default_rng(seed)
    served = 0
    while not stopped.is_set():
        context = rng.random(2)
        decision = router.select(context)
        reward = float(context @ QUALITY[decision.arm] + 0.1 * rng.normal())
        router.update(decision.id, reward)
        served += 1
    return served


def main(directory: str, seconds: float | None = None) -> None:
    """Serve from eight threads until a signal or a time."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with Router(LinUCB(ARMS, dim=2, rng=0), Polar(1), paging=0.05, maintenance="background") as router:
        report = router.recover(directory)
        print(
            f"continued from generation {report['generation']}: {router.stats()['learned']} learned",
            flush=True,
        )
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(serve, router, stopped, seed) for seed in range(8)]
            stopped.wait(seconds)
            stopped.set()
        print(f"served {sum(job.result() for job in jobs)}", flush=True)
    # Leaving the block stopped the threads, published and wrote a last checkpoint.
    print(f"learned {router.stats()['learned']}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else None)

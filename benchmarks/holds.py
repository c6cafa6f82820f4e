"""The longest hold of a Router's lock by what is not a request, and what pending decisions cost the collector.

python benchmarks/holds.py

Each number is the worst of all holds of one kind, in milliseconds of processor time of the thread that held the lock:
on a machine with other work the wall clock would tell of that. A checkpoint, a save, a round with the store and
`stats` are what a Router does by itself; the expiry is that of as many decisions as a call may expire.
"""

import gc
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from banditroute import FileStore, LinUCB, Router

SHAPES = ((4, 256, 100_000), (1000, 256, 300))  # arms, dimension, pending decisions


class Watch:
    """A lock that is re-entrant and tells how long it was held, by what was going on."""

    def __init__(self, lock):
        self.lock, self.depth, self.kind, self.worst = lock, 0, "", defaultdict(float)

    def acquire(self, blocking=True, timeout=-1):
        got = self.lock.acquire(blocking, timeout)
        if got:
            self.depth += 1
            if self.depth == 1:
                self.start = time.thread_time()
        return got

    def release(self):
        self.depth -= 1
        if not self.depth:
            took = 1e3 * (time.thread_time() - self.start)
            self.worst[self.kind] = max(self.worst[self.kind], took)
        self.lock.release()

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *_):
        self.release()


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def made(arms, dim, clock, seed=0):
    """A Router whose lock is watched in all of its parts."""
    router = Router(
        LinUCB(arms, dim, alpha=0.3, ridge=1.0, prior=None, rng=seed), pending_limit=200_000,
        feedback_limit_s=1000.0, clock=clock,
    )  # fmt: skip
    watch = Watch(router._lock)
    router._lock = router.parts.lock = watch
    return router, watch


def learn(router, contexts, arms):
    """Teach every arm something."""
    for a in range(arms):
        router.policy.update(a, contexts[a & 255], 0.5)


def collected():
    """Milliseconds of a full collection."""
    gc.collect()
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        gc.collect()
        best = min(best, 1e3 * (time.thread_time() - start))
    return best


def measured(arms, dim, pending, home):
    """Return the worst hold of each kind."""
    clock = Clock()
    router, watch = made(arms, dim, clock)
    contexts = np.random.default_rng(0).normal(size=(256, dim)) / np.sqrt(dim)
    router.recover(home / "journal", checkpoint_s=1e6)
    learn(router, contexts, arms)
    router.cancel(router.select(contexts[0]).id)
    gc.collect()
    gc.freeze()  # what was there before is not looked at: the difference is told more sharply
    before = collected()
    for i in range(pending):
        clock.now += 1e-4
        router.select(contexts[i & 255])
    garbage = collected() - before
    gc.unfreeze()
    gc.disable()  # told above
    watch.worst.clear()
    for kind, call in (
        ("checkpoint", router.checkpoint),
        ("save", lambda: router.save(home / "state")),
        ("stats", router.stats),
    ):
        watch.kind = kind
        call()
    other, theirs = made(arms, dim, clock, 1)
    peer = other.join(FileStore(home / "store"), background=False)
    watch.kind = theirs.kind = "join"
    replica = router.join(FileStore(home / "store"), background=False)
    for start in range(2):
        watch.kind = "rewards"
        for a in range(start, arms, 2):
            router.update(router.select(contexts[a & 255]).id, 1.0)
            other.update(other.select(contexts[a & 255]).id, 0.5)
        watch.kind, theirs.kind = "publish and merge", "peer"
        peer.sync()
        replica.sync()
    watch.kind = "expiry in stats"
    clock.now += 1e6
    router.stats()
    watch.kind = "expiry in select"
    for i in range(256):
        router.select(contexts[i & 255])
    gc.enable()
    del watch.worst["rewards"]
    return dict(watch.worst), garbage


def main():
    for arms, dim, pending in SHAPES:
        with tempfile.TemporaryDirectory() as home:
            worst, garbage = measured(arms, dim, pending, Path(home))
        print(f"{arms:,} arms x {dim}, {pending:,} pending", flush=True)
        for kind, took in worst.items():
            print(f"  {kind:20} {took:8.2f} ms", flush=True)
        print(f"  {'a full collection':20} {garbage:8.2f} ms more for what is pending", flush=True)


if __name__ == "__main__":
    main()

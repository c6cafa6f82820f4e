"""Tail of `Router.select` with a server of adapters that misbehaves, against the same Router without a server.

    python benchmarks/tail_backend.py [--requests 400000] [--rate 0] [--cpu]

Routers with the same controller, planning in the background, serve the same contexts: without a server; with one that
loads in 5 ms, loses adapters, refuses, raises and stalls at random; with that and residency shared with a second
worker over files; and with a server that displaces by requests, so that every request is told to its model. Blocks
alternate, so that all meet the same machine, and each call is timed by `perf_counter_ns` with the garbage collector
off; with ``--cpu`` by the time that the thread had the processor, which on a shared machine leaves others out. Sharing
is measured against a Router that has joined a store and has no server: what a store costs is another matter. With a
`rate` the loop asks so many times a second, not as fast as it can. The figure is the lower quartile over blocks of
their p99: on a shared machine the rest tells of other processes. The exit is 1 where that of a server, shared or not,
is more than 1.2 times that without one. The server that displaces has no such bound: half of these
requests make it load, and each of those changes the picture and the prices before it is answered.
"""

import argparse
import gc
import json
import logging
import sys
import tempfile
import threading
import time
from time import perf_counter_ns, thread_time_ns

import numpy as np

from banditroute import FileStore, LinUCB, Polar, Router
from banditroute.records import Capabilities

ARMS, DIM, SLOTS, BLOCK, EPOCH, BOUND = 15, 32, 4, 4_000, 20_000, 1.2
POINTS = (50.0, 99.0, 99.9)
BASES = {"none": "none", "server": "none", "displaces": "none", "joined": "joined", "shared": "joined"}


class Troubled:
    """Adapters in a process of its own trouble: nothing that it does may be felt by a request."""

    def __init__(self, seed, displaces=False):
        self.rng, self.lock = np.random.default_rng(seed), threading.Lock()
        self.loaded = {}
        self.capabilities = Capabilities(
            pin=False, displaces=displaces, unload=not displaces, observe=not displaces
        )

    def trouble(self):
        """Wait, and fail now and then."""
        time.sleep(0.005)
        with self.lock:
            what = self.rng.random()
            if what < 0.02:
                self.loaded.clear()
        if what < 0.1:
            raise ConnectionError("connection reset")
        if what < 0.12:
            time.sleep(0.2)
        return what < 0.2

    def ensure(self, name):
        """Load; perhaps."""
        if self.trouble():
            return False
        self.served(name)
        return True

    def evict(self, name):
        """Evict; perhaps."""
        if self.trouble():
            return False
        with self.lock:
            return self.loaded.pop(name, self) is None

    def touch(self, name):
        """Nothing is gained by it here."""
        return name in self.loaded

    def observe(self):
        """Return what is there; perhaps."""
        self.trouble()
        with self.lock:
            return dict.fromkeys(self.loaded, "gpu")

    def served(self, name):
        """Displace the oldest; returns what changed."""
        with self.lock:
            if name in self.loaded:
                self.loaded[name] = self.loaded.pop(name)
                return ()
            gone = []
            while len(self.loaded) >= SLOTS + (1 if self.capabilities.displaces else 0):
                oldest = next(iter(self.loaded))
                del self.loaded[oldest]
                gone.append((oldest, False))
            self.loaded[name] = None
            return (*gone, (name, True))


def made(kind, store):
    """Return a Router, and another worker where it shares its residency with one."""
    backend = None if kind in ("none", "joined") else Troubled(1, displaces=kind == "displaces")

    def router(seed):
        policy, controller = LinUCB(ARMS, DIM, rng=seed), Polar(SLOTS, epoch=EPOCH, rng=seed)
        return Router(policy, controller, paging=0.1, maintenance="background", backend=backend)

    routers = [router(0)]
    if kind == "shared":
        routers.append(router(1))
        for one in reversed(routers):  # the one that is timed follows
            one.join(FileStore(store))
    if kind == "joined":
        routers[0].join(FileStore(store + "/joined"), share_residency=False)
    return routers


def serve(router, contexts, rewards, out, pause_s, clock_ns=perf_counter_ns):
    """Time `select` of every context; learn in between."""
    select, update = router.select, router.update
    for i, x in enumerate(contexts):
        if pause_s:
            time.sleep(pause_s)
        before = clock_ns()
        decision = select(x)
        out[i] = clock_ns() - before
        update(decision.id, rewards[i])


def main(argv=None):
    """Print the percentiles of each and the ratios at p99; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=400_000, help="for each router")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0 for as many as can be")
    parser.add_argument("--cpu", action="store_true", help="time of the thread on a processor alone")
    args = parser.parse_args(argv)
    clock_ns = thread_time_ns if args.cpu else perf_counter_ns
    logging.getLogger("banditroute").setLevel(logging.CRITICAL)
    rng = np.random.default_rng(0)
    block = min(BLOCK, max(100, int(10 * args.rate))) if args.rate else BLOCK
    contexts, rewards = rng.standard_normal((block, DIM)), rng.random(block)
    pause_s = 1.0 / args.rate if args.rate else 0.0
    with tempfile.TemporaryDirectory() as store:
        groups = {kind: made(kind, store) for kind in BASES}
        times = {kind: [] for kind in groups}
        for group in groups.values():
            serve(group[0], contexts[:2000], rewards, np.zeros(2000), 0.0)  # warm
        gc.disable()
        for _ in range(max(2, args.requests // block)):
            for kind, group in groups.items():
                out = np.zeros(block)
                serve(group[0], contexts, rewards, out, pause_s, clock_ns)
                times[kind].append(out / 1000.0)
        gc.enable()
        stats = {kind: group[0].stats() for kind, group in groups.items()}
        for group in groups.values():
            for router in group:
                router.close()
    calm = {
        kind: float(np.percentile([np.percentile(b, 99.0) for b in own], 25.0)) for kind, own in times.items()
    }
    rows = {}
    for kind, own in times.items():
        together = np.concatenate(own)
        rows[kind] = {
            **{f"p{point:g}_us": float(np.percentile(together, point)) for point in POINTS},
            "calm_p99_us": calm[kind], "ratio": calm[kind] / calm[BASES[kind]],
            "loads": int(stats[kind].get("loads", 0)), "failures": int(stats[kind]["load_failures"]),
        }  # fmt: skip
        print(
            f"{kind:10s} p50 {rows[kind]['p50_us']:7.1f}  p99 {rows[kind]['p99_us']:7.1f}  p99.9 "
            f"{rows[kind]['p99.9_us']:8.1f} us; calm p99 {calm[kind]:7.1f}, ratio {rows[kind]['ratio']:.2f}; loads "
            f"{rows[kind]['loads']}, failures {rows[kind]['failures']}"
        )
    print(json.dumps(rows))
    return int(max(rows["server"]["ratio"], rows["shared"]["ratio"]) > BOUND)


if __name__ == "__main__":
    sys.exit(main())

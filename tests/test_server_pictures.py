"""What a Router believes of its server is true: every controller, through every fault, on random schedules."""

import logging
import os
import threading
import time

import numpy as np
import pytest

from adapter_servers import Clock, Server
from banditroute import LFU, LRU, LinUCB, Polar, Polaris, PolarPlus, Router, Static
from banditroute.records import Capabilities
from banditroute.residency import FIFO, FTPL, GDSF, SIEVE, DecayedLFU, Popularity, RandomSet, ResidentOnly

ARMS = tuple("abcdef")
WORTH = dict(zip(ARMS, (0.1, 0.3, 0.5, 0.6, 0.7, 0.8), strict=True))
CONTROLLERS = {
    "Polaris": lambda rng: Polaris(3, epoch=32),
    "Polar": lambda rng: Polar(3, epoch=20),
    "Polar, pins": lambda rng: Polar(3, epoch=20, pinned=["b"]),
    "PolarPlus": lambda rng: PolarPlus(3, first=16, rng=rng),
    "ResidentOnly": lambda rng: ResidentOnly(Polar(3, epoch=20)),
    "LRU": lambda rng: LRU(3),
    "LRU, pins": lambda rng: LRU(3, pinned=["c"]),
    "FIFO": lambda rng: FIFO(3),
    "SIEVE": lambda rng: SIEVE(3),
    "LFU": lambda rng: LFU(3),
    "DecayedLFU": lambda rng: DecayedLFU(3, 50.0),
    "GDSF": lambda rng: GDSF(3),
    "FTPL": lambda rng: FTPL(3, rng=rng),
    "Static": lambda rng: Static(["a", "e", "f"]),
    "RandomSet": lambda rng: RandomSet(3, rng=rng),
    "Popularity": lambda rng: Popularity(3, prefix=40),
}


class Serving(Server):
    """As a server that serves requests too: what is not there passes through, or with ``displaces`` takes a place."""

    def serve(self, name):
        if not self.displaces:
            return
        with self.lock:
            if name in self.loaded:
                self.loaded.remove(name)
            elif len(self.loaded) >= self.slots and not self.displace():
                return
            self.loaded.append(name)
            self.memory[name] = 1


class Followed(Serving):
    """Tells what requests change, from a model that is right as long as nothing else happens."""

    def served(self, name):
        before = set(self.loaded)
        self.serve(name)
        after = set(self.loaded)
        return [*((n, False) for n in before - after), *((n, True) for n in after - before)]


def drive(router, server, rng, requests, follows):
    """Serve requests; returns the decisions that claim a hit on what is not there."""
    false = 0
    for _ in range(requests):
        eligible = None if rng.random() < 0.7 else rng.random(len(router.policy.arms)) < 0.6
        decision = router.select(
            [1.0], eligible=eligible if eligible is not None and eligible.any() else None
        )
        false += decision.hit and decision.arm not in server.loaded
        if not follows:
            server.serve(decision.arm)
        router.update(decision.id, WORTH[decision.arm] + 0.1 * rng.standard_normal())
    return false


# Each seed is a schedule of faults for one controller, and in the long form (BANDITROUTE_SCHEDULES=200) for all of them.
LONG = int(os.environ.get("BANDITROUTE_SCHEDULES", "0"))
SCHEDULES = [(seed, name) for seed in range(LONG) for name in CONTROLLERS]
SCHEDULES = SCHEDULES or [(seed, list(CONTROLLERS)[seed % len(CONTROLLERS)]) for seed in range(64)]


@pytest.mark.parametrize(("seed", "name"), SCHEDULES)
def test_after_the_last_fault_the_router_knows_what_the_server_holds(seed, name):
    rng = np.random.default_rng(seed)
    follows = bool(rng.random() < 0.3)
    able = Capabilities(displaces=follows, unload=bool(not follows or rng.random() < 0.5))
    server = (Followed if follows else Serving)(3, displaces=follows, capabilities=able)
    clock = Clock(tick=0.01)
    logging.getLogger("banditroute").setLevel(logging.CRITICAL)
    router = Router(LinUCB(ARMS, 1, rng=seed), CONTROLLERS[name](seed), 0.1, backend=server, clock=clock)
    reconciler = router._planner.reconciler
    reconciler.call_timeout_s = 0.01
    try:
        for _ in range(25):
            what = rng.integers(9)
            if what == 0:
                server.restart()
            elif what == 1:
                server.lose(str(rng.choice(ARMS)))
            elif what in (2, 3):
                server.faults = {str(rng.choice(["away", "nonsense", "exit", "mute", "hang"]))}
            elif what == 4:
                server.refuses = set(rng.choice(ARMS, 2, replace=False).tolist())
            elif what == 5:
                server.busy = dict.fromkeys(rng.choice(ARMS, 2).tolist(), 2)
            else:
                server.faults, server.refuses = set(), set()
                server.awake.set()
                server.awake = threading.Event()
            drive(router, server, rng, 12, follows)
            clock.now += float(rng.random())
        server.faults, server.refuses, server.busy = set(), set(), {}
        server.awake.set()
        reconciler.call_timeout_s = 5.0
        deadline = time.monotonic() + 5.0
        while router.stats()["hanging_calls"] and time.monotonic() < deadline:
            time.sleep(0.002)
        for _ in range(12):  # one period
            drive(router, server, rng, 10, follows)
            clock.now += 1.0
        assert drive(router, server, rng, 150, follows) == 0, name
        router.maintain()
        assert set(router.resident) == set(server.loaded), name
        clock.now += 300.0  # the longest pause
        drive(router, server, rng, 200, follows)
        assert drive(router, server, rng, 100, follows) == 0, name
        assert set(router.resident) == set(server.loaded), name
        assert set(router.residency.pinned) <= set(router.resident), name
    finally:
        router.close()
        logging.getLogger("banditroute").setLevel(logging.NOTSET)


@pytest.mark.parametrize("name", [n for n in CONTROLLERS if n not in ("Static", "RandomSet", "Popularity")])
def test_a_server_that_works_is_filled_and_used(name):
    rng = np.random.default_rng(3)
    server = Serving(3)
    router = Router(LinUCB(ARMS, 1, rng=0), CONTROLLERS[name](0), 0.1, backend=server, clock=Clock(tick=0.01))
    assert drive(router, server, rng, 600, False) == 0
    router.maintain()
    assert set(router.resident) == set(server.loaded) and len(server.loaded) == 3
    stats = router.stats()
    assert stats["load_failures"] == 0 and stats["loads"] == server.loads and stats["hit_rate"] > 0.5
    router.close()

"""A Router in a storm of everything that may happen to it, while its state is copied slice by slice."""

import json
from collections import Counter

import numpy as np

from banditroute import FileStore, Router
from banditroute.terms import ArmHealth, BudgetPacer, QualityFloor, Queues, Sessions

COSTS = [0.5, 1.0, 4.0, 2.0]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def terms():
    return [
        ArmHealth(limits=(1, 2), cooldown_s=20.0),
        BudgetPacer(1.0, COSTS),
        QualityFloor(0.6, COSTS),
        Queues(COSTS, per_second=0.01),
        Sessions([0.1, 0.2, 0.3, 0.4]),
    ]


def same(one, other):
    """Whether two captured states are equal bit for bit."""
    if json.dumps(one[0], sort_keys=True) != json.dumps(other[0], sort_keys=True):
        return False
    if list(one[1]) != list(other[1]):
        return False
    pairs = [(one[1][name], other[1][name]) for name in one[1]]
    return all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in pairs)


def frozen(state):
    """A copy that shares nothing with the router."""
    return json.loads(json.dumps(state[0])), {name: np.array(array) for name, array in state[1].items()}


class Storm:
    """What happens next is drawn; `kinds` counts what did."""

    def __init__(self, policy, seed, home=None, residency=None, **options):
        self.rng, self.clock, self.waiting, self.kinds = np.random.default_rng(seed), Clock(), [], Counter()
        fault = None if residency is None else 0.2
        self.router = Router(
            policy, residency, fault, clock=self.clock, feedback_limit_s=40.0, pending_limit=60, **options
        )
        self.health = next((t for t in self.router.terms if t.name == "health"), None)
        self.peer = None
        if home is not None:
            self.replica = self.router.join(FileStore(home), background=False)
            self.peer = Router(policy.copy(), clock=self.clock)
            self.other = self.peer.join(FileStore(home), background=False)
        self.host = self.router._lasting._host
        self.names = 0

    def step(self):
        router, rng = self.router, self.rng
        self.clock.now += float(rng.exponential(0.5))
        kinds = ["select"] * 8 + ["update"] * 6 + ["cancel", "expire", "forget", "again", "named", "mute"]
        kinds += ["add", "remove", "mark", "sync", "batch"]
        kind = str(rng.choice(kinds))
        x = np.abs(rng.standard_normal(3))
        try:
            getattr(self, kind)(router, rng, x)
        except ValueError:  # an arm that must stay, no arm left for a request
            kind = f"{kind} refused"
        self.kinds[kind] += 1

    def select(self, router, rng, x):
        session = f"s{rng.integers(3)}" if self.health is not None else None
        self.waiting.append(router.select(x, session=session).id)

    def named(self, router, rng, x):  # an id that may come back when it is forgotten
        self.waiting.append(router.select(x, id=f"own {rng.integers(4)}").id)

    def update(self, router, rng, x):
        if self.waiting:
            key = self.waiting.pop(int(rng.integers(len(self.waiting))))
            if key in router.parts.ledger.pending or key in router.parts.ledger.closed:
                router.update(key, float(rng.random() < 0.5), cost=float(rng.random()), seconds=1.0)

    def batch(self, router, rng, x):
        for _ in range(5):
            self.select(router, rng, x)
            self.update(router, rng, x)

    def cancel(self, router, rng, x):
        if self.waiting and self.waiting[0] in router.parts.ledger.pending:
            router.cancel(self.waiting.pop(0))

    def expire(self, router, rng, x):
        self.clock.now += float(rng.choice([5.0, 30.0, -20.0]))
        router.stats()

    def forget(self, router, rng, x):
        router.forget_arm(str(rng.choice(router.arms)))

    def add(self, router, rng, x):
        if len(router.arms) < 7 and self.health is None:
            self.names += 1
            router.add_arm(f"new {self.names}")

    def remove(self, router, rng, x):
        if len(router.arms) > 2:
            router.remove_arm(str(rng.choice(router.arms)))

    def mute(self, router, rng, x):
        arm = str(rng.choice(router.arms))
        (router.quarantine if rng.random() < 0.5 else router.release)(arm)

    def mark(self, router, rng, x):
        if self.health is not None:
            arm = str(rng.choice(router.arms))
            self.health.mark(arm, str(rng.choice(["up", "down"])), fresh=bool(rng.random() < 0.3))

    def sync(self, router, rng, x):
        if self.peer is not None:
            self.peer.update(self.peer.select(x).id, float(rng.random() < 0.5))
            self.other.sync()
            self.replica.sync()

    def again(self, router, rng, x):
        """Another copy of the whole, in one hold, while the first is under way."""
        self.host.capture()

    def copied(self, between):
        """Copy slice by slice with so many steps in between; returns what it should be, what it is, and the slices."""
        with self.host.locked():
            slices = self.host.capture_slices()
            found = next(slices)
            want = frozen(self.host.capture())
        count = 1
        while found is None:
            for _ in range(int(self.rng.integers(between + 1))):
                self.step()
            with self.host.held():
                found = next(slices)
            count += 1
        slices.close()
        return want, found, count

"""Random fault schedules on replicas of one bandit, and what they must come to.

Contexts and rewards are small whole numbers, so that sums are exact in any order: the oracle compares bits.
"""

import shutil
from pathlib import Path

import numpy as np

from banditroute import FileStore, LinUCB, Router
from banditroute.durability.rows import opened
from banditroute.durability.stores import BASE

ARMS, DIM = 3, 2


class Faulty:
    """A store with a network in front: calls fail before or after they took effect, come twice, or late."""

    def __init__(self, store, rng):
        self.store, self.rng, self.rate, self.late, self.caller = store, rng, 0.0, [], None

    def _strike(self):
        if self.rng.random() < self.rate:
            raise OSError("the network is down")

    def index(self):
        self._strike()
        return self.store.index()

    def put(self, replica, row, parts):
        if self.caller is not None and replica == self.caller.replica.id:
            self.caller.prefix.setdefault((replica, row["seq"]), len(self.caller.log))
        self._strike()
        row, parts = {**row, "parts": dict(row["parts"])}, dict(parts)
        missing = self.store.put(replica, row, parts)
        if self.rng.random() < self.rate:
            self.late.append((replica, row, parts))
        if self.rng.random() < self.rate:
            self.store.put(replica, row, parts)
        self._strike()  # it was done, but nobody was told
        return missing

    def straggle(self):
        if self.late:
            self.store.put(*self.late.pop(int(self.rng.integers(len(self.late)))))

    def fetch(self, replica, names):
        self._strike()
        return self.store.fetch(replica, names)

    def compact(self, *args):
        self._strike()
        done = self.store.compact(*args)
        self._strike()
        return done

    def keep(self, decisions, ttl_s):
        self._strike()
        self.store.keep(decisions, ttl_s)

    def look(self, keys):
        self._strike()
        return self.store.look(keys)

    def take(self, keys, token):
        self._strike()
        taken = self.store.take(keys, token)
        self._strike()
        return taken


class Member:
    """A router, what it learned in order, and how much of that each of its published states holds."""

    def __init__(self, store, rng, discount):
        drift, start = rng.uniform(0.5, 2.0), rng.uniform(0.0, 1e6)  # clocks that agree on nothing
        self.steps = 0
        self.router = Router(
            LinUCB(ARMS, DIM, mix=0.5, discount=discount, rng=rng),
            clock=lambda: start + drift * self.steps,
            feedback_limit_s=1e9,
        )
        self.log, self.prefix, self.kept, self.lost = [], {}, 0, 0
        store.caller = None  # it has learned nothing yet
        self.replica = self.router.join(store, background=False)
        self.net = store

    def learn(self, rng):
        self.steps += 1
        x, reward = rng.integers(-3, 4, size=DIM).astype(float), float(rng.integers(-3, 4))
        decision = self.router.select(x)
        at = self.router.parts.ledger.pending[decision.id][4]
        assert self.router.update(decision.id, reward)
        assert self.router.update(decision.id, reward) is False
        self.log.append((int(decision.arm), x, reward, at))

    def sync(self):
        self.net.caller = self
        self.replica.sync()
        if (
            self.replica.sharing.lost > self.lost
        ):  # folded in a state that it no longer remembers: what came after is lost
            self.lost = self.replica.sharing.lost
            self.log[self.folded() :] = []

    def folded(self):
        base = self.replica.sharing.peers.folded
        return max((n for (name, seq), n in self.prefix.items() if base.get(name) == seq), default=0)

    def surviving(self, rows):
        """What of the log is in the store after this member has died: of each arm up to the version there."""
        kept = []
        for arm in range(ARMS):
            seqs = {
                name: opened(row).parts.get(f"arm:{arm}", 0) for name, row in rows.items() if name != BASE
            }
            seqs |= opened(rows[BASE]).about.folded if BASE in rows else {}
            upto = max((n for (name, seq), n in self.prefix.items() if seqs.get(name) == seq), default=0)
            kept += [entry for entry in self.log[:upto] if entry[0] == arm]
        return kept


def summed(logs, now, discount):
    gram, moment = np.zeros((ARMS, DIM, DIM)), np.zeros((ARMS, DIM))
    count = np.zeros(ARMS)
    for log in logs:
        for arm, x, reward, at in log:
            weight = discount ** (now - at)
            gram[arm] += weight * np.outer(x, x)
            moment[arm] += weight * reward * x
            count[arm] += 1
    return gram, moment, count


def flush(store):
    if isinstance(store, FileStore):
        for place in ("replicas", "decisions", "answered"):
            shutil.rmtree(Path(store._home) / place)
            (Path(store._home) / place).mkdir()
    else:
        store._client.flushdb()


def run_schedule(store, seed, *, events=60, discount=1.0, flushes=True):
    """Run one schedule and compare every replica with the oracle; returns what happened, counted."""
    rng = np.random.default_rng(seed)
    flush(store)
    net = Faulty(store, rng)
    live = [Member(net, rng, discount) for _ in range(5)]
    paused, dead, happened = set(), [], {}
    net.rate = float(rng.choice([0.0, 0.05, 0.2]))
    kinds = ["learn"] * 8 + ["sync"] * 8 + ["straggle", "crash", "pause", "resume", "compact", "restart"]
    kinds += ["flush"] if flushes else []
    for _ in range(events):
        kind = str(rng.choice(kinds))
        happened[kind] = happened.get(kind, 0) + 1
        member = live[int(rng.integers(len(live)))]
        if kind == "learn":
            member.learn(rng)
        elif kind == "sync" and member not in paused:
            member.sync()
        elif kind == "straggle":
            net.straggle()
        elif kind == "crash" and len(live) > 2:
            live.remove(member)
            paused.discard(member)
            dead.append(member)
        elif kind == "pause":
            paused.add(member)
        elif kind == "resume":
            paused.discard(member)
        elif kind == "compact" and member not in paused:
            net.caller = member
            gone = [m.replica.id for m in [*dead, *paused] if m.replica.id in member.replica.peers]
            try:
                if gone:
                    member.replica.compact(gone[: 1 + int(rng.integers(len(gone)))])
            except OSError:
                pass
        elif kind == "restart":
            live.append(Member(net, rng, discount))
        elif kind == "flush":
            flush(store)
            net.late.clear()
    net.rate = 0.0
    while net.late:
        net.straggle()
    for _ in range(4):
        for member in live:
            member.sync()
    rows = store.index()
    logs = [m.log for m in live] + [m.surviving(rows) for m in dead]
    for member in live:
        policy = member.router.policy
        state = policy.state
        now = int(policy.buffer[22]) if discount < 1.0 else 0
        gram, moment, count = summed(logs, now, discount)
        same = np.array_equal if discount == 1.0 else lambda a, b: np.allclose(a, b, rtol=1e-12, atol=1e-12)
        assert np.array_equal(policy.counts, count), (seed, policy.counts, count)
        assert same(np.array([state.full(g) for g in state.gram]), gram), seed
        assert same(state.moment[:, :DIM], moment), seed
        assert member.replica.sharing.peers.refusals == 0
    for member in [*live, *dead]:
        happened["fenced"] = happened.get("fenced", 0) + member.replica.sharing.fenced
        happened["lost"] = happened.get("lost", 0) + member.replica.sharing.lost
        happened["ambiguous"] = happened.get("ambiguous", 0) + member.replica.sharing.peers.ambiguous
    return happened

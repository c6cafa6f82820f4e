"""The least that a journal can be about: sums by name of arm, in memory, moved by steps that depend on nothing else."""

import hashlib
import threading
from random import Random

import numpy as np

from banditroute import SnapshotError
from banditroute.records import (
    Answered,
    ArmChange,
    Decided,
    Decision,
    Dropped,
    Feedback,
    Marked,
    Pending,
    Request,
)

DIM = 3


class MemoryHost:
    """Arms, sums and pending decisions; every step tells its listener of exactly one event."""

    def __init__(self, arms=("a", "b", "c"), seed=0):
        self.seed, self.lock, self.listener = seed, threading.RLock(), None
        self.count = 0  # events so far
        self.sums = {arm: np.zeros(DIM + 1) for arm in arms}
        self.pending, self.marks, self.muted = {}, {}, []

    @property
    def arms(self):
        return tuple(self.sums)

    def locked(self):
        return self.lock

    # Steps.

    def step(self):
        """Make what comes next: the same after the same number of events, whoever was killed in between."""
        draw = Random(self.seed * 1_000_003 + self.count)
        with self.lock:
            kind = draw.random()
            if kind < 0.5 or not self.pending:
                self._decide(draw)
            elif kind < 0.9:
                key = draw.choice(list(self.pending))
                reward, cost = draw.random(), draw.choice([None, draw.random()])
                self._tell("learned", Answered(key, reward, cost, None, draw.random() < 0.1))
            elif kind < 0.94 or len(self.pending) > 40:
                key = next(iter(self.pending))
                self._tell("dropped", Dropped(key, draw.choice(["expired", "cancelled"])))
            elif kind < 0.96:
                name = f"n{self.count}"
                self._tell("arms_changed", ArmChange("added", name, (*self.arms, name), draw.random(), 0.5))
            elif kind < 0.98 and len(self.sums) > 2:
                gone = draw.choice(self.arms)
                left = tuple(arm for arm in self.arms if arm != gone)
                self._tell("arms_changed", ArmChange("removed", gone, left))
            else:
                self._tell(
                    "marked", Marked("health", {"arm": draw.choice(self.arms), "state": draw.random()})
                )

    def _decide(self, draw):
        x = np.array([draw.random() for _ in range(DIM)])
        session = draw.choice([None, "user"])
        weights = draw.choice([None, None, {"cost": draw.random()}])
        pending = Pending(
            draw.choice(self.arms), x, draw.random(), float(self.count), self.count, None, weights, session
        )
        self._tell(
            "decided", Decided(draw.getrandbits(63), pending, draw.random() < 0.5, draw.random() < 0.2)
        )

    def _tell(self, call, event):
        made = self.pending.get(getattr(event, "id", None))
        assert self.replay(event)
        if self.listener is None:
            return
        if isinstance(event, Decided):
            p = event.pending
            decision = Decision(event.id, p.arm, p.propensity, event.hit, 0, p.time)
            self.listener.decided(decision, Request(p.context, p.at), p, event.forced, None)
        elif isinstance(event, Answered):
            request = Request(made.context, made.at)
            self.listener.learned(
                Feedback(event.id, made.arm, request, event.reward, event.cost, event.seconds, event.failed)
            )
        elif isinstance(event, Dropped):
            self.listener.dropped(event.id, event.why)
        else:
            getattr(self.listener, call)(event)

    # What a journal asks of it.

    def replay(self, event):
        if isinstance(event, Decided):
            if event.pending.arm not in self.sums or event.id in self.pending:
                return False
            if event.pending.context.shape != (DIM,):
                raise ValueError("shape")
            self.pending[event.id] = event.pending
        elif isinstance(event, Answered):
            made = self.pending.pop(event.id, event.foreign)
            if made is None or made.arm not in self.sums or made.context.shape != (DIM,):
                return False
            self.sums[made.arm] += [1.0, *(event.reward * made.context)]
        elif isinstance(event, Dropped):
            if self.pending.pop(event.id, None) is None:
                return False
        elif isinstance(event, ArmChange):
            if event.what == "added":
                self.sums[event.arm] = np.zeros(DIM + 1)
            elif event.what == "removed":
                del self.sums[event.arm]
                self.pending = {k: p for k, p in self.pending.items() if p.arm != event.arm}
            else:
                self.muted.append((event.what, event.arm))
            assert self.arms == event.arms
        else:
            self.marks[event.details["arm"]] = event.details["state"]
        self.count += 1
        return True

    def capture(self):
        header = {
            "arms": list(self.arms),
            "count": self.count,
            "marks": dict(self.marks),
            "muted": list(self.muted),
            "pending": [
                [k, p.arm, p.propensity, p.time, p.at, p.weights, p.session] for k, p in self.pending.items()
            ],
        }
        contexts = np.array([p.context for p in self.pending.values()]).reshape(-1, DIM)
        return header, {"sums": np.array(list(self.sums.values())), "contexts": contexts}

    def restore(self, header, arrays, *, arms="file"):
        try:
            names, own = [str(a) for a in header["arms"]], self.arms
            sums, contexts = arrays["sums"], arrays["contexts"]
            if sums.shape != (len(names), DIM + 1) or contexts.shape != (len(header["pending"]), DIM):
                raise ValueError("shapes")
            if not (np.isfinite(sums).all() and type(header["count"]) is int):
                raise ValueError("numbers")
            found = dict(zip(names, sums.astype(float), strict=True))
            pending = {
                k: Pending(arm, x.copy(), p, t, at, None, w, s)
                for (k, arm, p, t, at, w, s), x in zip(header["pending"], contexts, strict=True)
            }
            marks, muted = dict(header["marks"]), [tuple(m) for m in header["muted"]]
        except (ValueError, TypeError, LookupError) as error:
            raise SnapshotError(f"does not fit: {error}") from None
        added, gone = [], []
        if arms == "code":
            added, gone = [a for a in own if a not in found], [a for a in found if a not in own]
            found = {a: found.get(a, np.zeros(DIM + 1)) for a in own}
            pending = {k: p for k, p in pending.items() if p.arm in found}
        self.sums, self.pending, self.marks, self.muted = found, pending, marks, muted
        self.count = header["count"]
        return {"added": added, "removed": gone}

    def restore_statistics(self, header, arrays):
        other = MemoryHost()
        other.restore(header, arrays)
        self.sums = other.sums

    def digest(self):
        """A number for the whole state."""
        header, arrays = self.capture()
        text = repr(header).encode() + b"".join(a.tobytes() for a in arrays.values())
        return hashlib.sha256(text).digest()


class SlicedMemoryHost(MemoryHost):
    """The same, copied arm by arm: what changes before it was copied is copied first."""

    slices = 0
    _left = None

    def replay(self, event):
        if self._left is not None:
            made = self.pending.get(getattr(event, "id", None))
            for arm in [getattr(event, "arm", None), *([] if made is None else [made.arm])]:
                if arm in self._left:
                    self._copied[arm] = self._left.pop(arm).copy()
        return super().replay(event)

    def held(self):
        return self.lock

    def capture_slices(self):
        header, arrays = self.capture()
        self._left, self._copied = dict(self.sums), {}
        try:
            while self._left:
                type(self).slices += 1
                yield None
                if self._left:
                    arm = next(iter(self._left))
                    self._copied[arm] = self._left.pop(arm).copy()
            arrays["sums"] = np.array([self._copied[arm] for arm in header["arms"]])
            yield header, arrays
        finally:
            self._left = None

"""Controllers made for tests."""

import numpy as np

from banditroute import Controller


class Forcing(Controller):
    """Wants `quota` more decisions of every arm after each plan, and draws a random set for the next epoch."""

    def __init__(self, capacity, epoch=50, quota=4.0, rate=0.3, rng=None, pinned=()):
        super().__init__(capacity, pinned=pinned, rng=rng)
        self.epoch, self.quota, self.next_plan = epoch, quota, epoch
        self.rate = rate
        self.seen = []

    def begin(self, resident):
        super().begin(resident)
        self.needs[:] = self.quota

    def observe(self, arm, x, hit):
        self.seen.append((arm, float(x[0]), bool(hit)))

    def plan(self, view):
        self.next_plan = view.clock + self.epoch
        count = len(view.faults)
        self.needs = np.maximum(0.0, self.quota - view.pending) * (self._rng.random(count) < 0.7)
        order = self._rng.permutation(count)  # one stream for sets and forcing: any draw out of turn shows
        room, chosen = view.resident.capacity, set(view.resident.pinned)
        room -= sum(view.resident.sizes[a] for a in chosen)
        for a in order.tolist():
            if a not in chosen and view.resident.sizes[a] <= room:
                chosen.add(a)
                room -= view.resident.sizes[a]
        return chosen

    def resize(self, keep):
        self._resize_needs(keep)

"""Polaris: a few residency rules run in shadow, and the one that would have served best is in force."""

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

import numpy as np

from banditroute._core import validation as check
from banditroute._core.kernels.shadow import replay
from banditroute._core.typing import Floats, Ints, Mask, Rng
from banditroute.residency.controller import Controller, View, Window
from banditroute.residency.polar import looked, planned
from banditroute.residency.resident_set import ResidentSet
from banditroute.residency.set_search import SetSearch

__all__ = ["Polaris"]


class Rule(NamedTuple):
    """A residency rule: plan for the last `recent` of the window, let `following` of the capacity follow the faults."""

    recent: float
    following: float


# The first is in force until another has proved better. Measured at T = 16,384: without the second, regret under
# abrupt drift is 25 instead of -150; without the others, 175 instead of -450 in bursts.
RULES = (Rule(1.0, 0.0), Rule(0.125, 0.0), Rule(1.0, 0.25), Rule(1.0, 0.5), Rule(1.0, 1.0))
FIRST, GROWTH = 32, 0.3  # end of the first epoch; epochs grow by this share of the time up to their cap
SURE = 1.0  # standard errors of their difference by which a rule must lead the one in force
SPARE = 2.0  # a member saving less than half its load price in an epoch gives its slot to the arms that fault


class Polaris(Controller):
    """The recommended controller: short optimistic epochs, with as many slots following the faults as pays.

    Every plan finds, for each of five rules, the set that serves a sample of contexts best by the router's own index
    ``u_a(x) = mean_a(x) + bonus_a(x)`` (as `Polar` does, load prices spread over the epoch, the old set kept
    unless the gain clears `hysteresis`). The rules differ in how far back they look and in how much of the capacity
    they leave to arms that fault, the least recently used leaving first: none, a quarter, a half, or all of it (LRU).
    A member whose place is hardly worth its load price is not held either.

    Which rule is in force is decided by replay: the requests of the last epoch are served again, in order, under the
    residents that each rule would have had. With ``D_k`` the discounted sum over epochs of what rule k earned more
    than the first rule, load prices included, ``V_k`` that of the squares, and ``L_k`` what loading its set would cost
    now, the rule with the largest ``D_k - sqrt(V_k) - L_k`` is in force.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    epoch : int
        Decisions between plans, at most; the first epoch has 32.
    window : int
        Recent contexts kept; one rule looks at the last eighth only, for traffic that moves.
    sample : int
        Contexts used per plan and rule, evenly spaced.
    memory : float
        Requests over which the rules' earnings are discounted.
    hysteresis : float
        As in `Polar`.
    pinned : iterable of str or int
        Arms that never leave.
    rng : int, SeedSequence, Generator or None
        Not used; Polaris draws nothing.

    Notes
    -----
    Ours, not the paper's (arXiv 2604.16583); no theory covers it. No constant is in reward units: the noise enters
    through the policy's bonus and through the scatter of the shadows' earnings. Forced requests, which POLAR+ needs
    because it plans on means, did not pay here: the optimistic plan loads what is uncertain, and what is resident is
    tried. Utilities that change are the policy's part (`discount`). A plan costs O((2 sample + epoch) N dim^2).

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(arms=4, dim=2, rng=0), residency=Polaris(2), paging=0.1)
    >>> for _ in range(100):
    ...     decision = router.select([1.0, 0.5])
    ...     _ = router.update(decision.id, 0.9 if decision.arm == "3" else 0.1)
    >>> "3" in router.resident
    True
    """

    needs_utilities = True

    def __init__(
        self,
        capacity: float,
        epoch: int = 128,
        *,
        window: int = 4000,
        sample: int = 512,
        memory: float = 2000.0,
        hysteresis: float = 1.0,
        pinned: Iterable[str | int] = (),
        rng: Rng = None,
    ) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self.epoch = check.integer("epoch", epoch, low=1)
        self.sample = check.integer("sample", sample, low=1)
        self.memory = check.finite("memory", memory, low=1.0)
        self.hysteresis = check.finite("hysteresis", hysteresis, low=0.0)
        self.window = Window(window)
        self.rule = 0  # index in RULES of the one in force
        self.next_plan = min(FIRST, self.epoch)
        self._replayed = 0  # contexts seen at the last plan
        self._missed = False  # whether a request since then was served by an arm not resident
        # Per rule: earned more than the first, discounted; loads of the last plan. Per two rules: the squares of their
        # differences, epoch by epoch, discounted.
        self._lead, self._paid = np.zeros((2, len(RULES)))
        self._scatter: Floats = np.zeros((len(RULES), len(RULES)))
        # Per rule and arm: held by the plan, resident as a guest, last used in the shadow; per arm: last used indeed.
        self._held: Mask = np.zeros((len(RULES), 0), dtype=np.bool_)
        self._guests: Mask = np.zeros((len(RULES), 0), dtype=np.bool_)
        self._stamps: Floats = np.zeros((len(RULES), 0))
        self._used: Floats = np.zeros(0)
        self._kept: Mask = np.zeros(0, dtype=np.bool_)  # what the rule in force holds

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit; they are guests where the rule leaves room for some."""
        super().begin(resident)
        self._used = np.full(len(resident.mask), -1.0)
        self.adopt(resident)

    def adopt(self, resident: ResidentSet) -> None:
        """Have every rule start from this set."""
        shape = (len(RULES), len(resident.mask))
        self._held, self._guests = np.zeros((2, *shape), dtype=np.bool_)
        self._stamps = np.full(shape, -1.0)
        for k, rule in enumerate(RULES):
            self._held[k] = resident.mask
            if rule.following > 0.0:
                self._held[k] = _mask(resident.pinned, shape[1])
            self._guests[k] = resident.mask & ~self._held[k]
        self._kept = self._held[self.rule].copy()

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Keep the context and remember when the arm was used."""
        self.window.append(x)
        self._used[arm] = self.window.seen
        self._missed |= not hit

    def observe_many(self, arms: Ints, contexts: Floats, hits: Mask) -> None:
        """As `observe` of each."""
        before = self.window.seen
        self.window.extend(contexts)
        self._used[arms] = np.arange(before + 1, before + 1 + len(arms))  # the last one of an arm stays
        self._missed |= not bool(hits.all())

    def plan(self, view: View) -> set[int]:
        """Return the set of the rule in force for the next epoch, and which arms may follow the faults in it."""
        length = min(ceil(GROWTH * max(view.clock, 1)), self.epoch)
        self.next_plan = view.clock + length
        if view.moot or self.window.seen == 0:
            self.inserts = False
            return view.kept()
        looks = {recent: self._look(view, recent) for recent in {rule.recent for rule in RULES}}
        earned = self._earned(view, looks[min(looks)])
        for k, rule in enumerate(RULES):
            self._replan(k, looks[rule.recent], view, length)
        before = self.rule
        self._judge(earned, view)
        resident, held = view.resident, self._held[self.rule].copy()
        room = resident.capacity - resident.sizes[held].sum()
        self.inserts = bool(room >= resident.sizes.min())
        self._kept = held  # at the end: faults may come in while a plan is made in the background
        guests = _newest(resident.mask & ~held, self._used, resident.sizes, room)
        if self.rule != before or not self._missed:
            # A shadow could hold an arm that the router, which has another one at hand, never pays a fault for, and so
            # hide what the plan would gain.
            self._guests[self.rule], self._stamps[self.rule] = guests, self._used
        self._missed = False
        return set(np.flatnonzero(held | guests).tolist())

    def _look(self, view: View, recent: float) -> SetSearch:
        return _looked(view, self.window.sample(self.sample, last=ceil(recent * self.window.size)))

    def _earned(self, view: View, latest: SetSearch) -> Floats:
        """Return what each rule would have earned on the requests since the last plan."""
        fresh = min(self.window.seen - self._replayed, self.window.size)
        self._replayed = self.window.seen
        earned = -self._paid
        if fresh == 0:
            return earned
        span = min(ceil(min(rule.recent for rule in RULES) * self.window.size), self.window.seen)
        # Where the sample holds the last requests one by one it will do.
        exact = fresh <= len(latest.utilities) == span
        look = latest if exact else _looked(view, self.window.tail(fresh))
        values, sizes, faults = look.utilities[-fresh:], view.resident.sizes, look.faults
        for k in range(len(RULES)):
            room = view.resident.capacity - float(sizes[self._held[k]].sum())
            earned[k] += replay(
                values,
                faults,
                sizes,
                self._held[k],
                self._guests[k],
                self._stamps[k],
                room,
                float(view.clock - fresh),
            )
        keep = (1.0 - 1.0 / self.memory) ** fresh
        self._lead *= keep
        self._scatter *= keep
        return earned

    def _replan(self, k: int, look: SetSearch, view: View, length: int) -> None:
        resident = view.resident
        before = self._held[k] | self._guests[k]
        room = resident.capacity - _left_free(RULES[k].following, resident)
        held = _mask(resident.pinned, len(before))
        if room > resident.sizes[held].sum():
            wanted = planned(
                look, view, length, self.hysteresis, capacity=room, previous=before, incumbent=self._held[k]
            )
            held |= _worth_holding(look, view, np.flatnonzero(wanted), length)
        self._paid[k] = view.loads[held & ~before].sum()
        self._held[k] = held
        free = resident.capacity - resident.sizes[held].sum()
        self._guests[k] = _newest(before & ~held, self._stamps[k], resident.sizes, free)

    def _judge(self, earned: Floats, view: View) -> None:
        now = self.rule
        self._lead += earned - earned[0]
        self._scatter += (earned[:, None] - earned) ** 2
        cost = np.array([view.loads[held & ~view.resident.mask].sum() for held in self._held])
        doubt = SURE * np.sqrt(self._scatter[now])
        doubt[0] = 0.0
        ahead = (self._lead - self._lead[now]) - (cost - cost[now]) - doubt
        best = int(np.argmax(ahead))
        if ahead[best] > 0.0:
            self.rule = best

    def confirmed(self, arm: int, resident: bool) -> None:
        """Have the shadow of the rule in force follow what is resident beside what the plan holds."""
        self._guests[self.rule][arm] = resident and not self._held[self.rule][arm]

    def make_room(self, arm: int, resident: ResidentSet) -> list[int] | None:
        """Return the guests used longest ago that make room for `arm`; None when held arms leave it no room."""
        sizes, held = resident.sizes, self._kept
        if sizes[arm] > resident.capacity - sizes[held].sum() + 1e-9:
            return None
        missing = sizes[arm] - (resident.capacity - resident.used)
        victims: list[int] = []
        for guest in sorted((a for a in resident if not held[a]), key=lambda a: self._used[a]):
            if missing <= 1e-9:
                break
            victims.append(guest)
            missing -= sizes[guest]
        return victims if missing <= 1e-9 else None

    def resize(self, keep: list[int | None]) -> None:
        """Carry everything kept per arm over to the new indices."""
        self._resize_needs(keep)
        index = [0 if a is None else a for a in keep]
        new = np.array([a is None for a in keep])
        self._held, self._guests = self._held[:, index] & ~new, self._guests[:, index] & ~new
        self._stamps = np.where(new, -1.0, self._stamps[:, index])
        self._used = np.where(new, -1.0, self._used[index])
        self._kept = self._kept[index] & ~new


def _looked(view: View, contexts: Floats) -> SetSearch:
    mean, bonus = view.utilities(contexts)
    return looked(mean + bonus, view)


def _mask(arms: Iterable[int], count: int) -> Mask:
    mask = np.zeros(count, dtype=np.bool_)
    mask[list(arms)] = True
    return mask


def _left_free(share: float, resident: ResidentSet) -> float:
    """Return the capacity that a rule leaves to guests: whole slots where arms are of one size, never that of pins."""
    room = share * resident.capacity
    if (resident.sizes == resident.sizes[0]).all():
        room = ceil(room / resident.sizes[0]) * float(resident.sizes[0])
    return min(room, resident.capacity - float(resident.sizes[sorted(resident.pinned)].sum()))


def _newest(arms: Mask, stamps: Floats, sizes: Floats, room: float) -> Mask:
    """Return those of `arms`, the last used first, that fit `room` together."""
    kept = np.zeros_like(arms)
    for a in sorted(np.flatnonzero(arms).tolist(), key=lambda a: -stamps[a]):
        if sizes[a] <= room + 1e-9:
            kept[a] = True
            room -= sizes[a]
    return kept


def _worth_holding(look: SetSearch, view: View, wanted: Ints, length: int) -> Mask:
    """Return the members of `wanted` that lose more, were they left out for SPARE epochs, than their load price."""
    worth = look.losses(wanted.tolist()) > view.loads[wanted] / (SPARE * length)
    return _mask(wanted[worth].tolist(), len(view.loads))

"""POLAR+-style control: doubling epochs, forced exploration, the mean index on all contexts."""

from collections.abc import Iterable
from math import ceil, log
from typing import Literal

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints, Mask, Rng
from banditroute.residency.controller import Controller, View
from banditroute.residency.objectives import gains
from banditroute.residency.polar import looked, planned
from banditroute.residency.reservoir import Reservoir
from banditroute.residency.resident_set import ResidentSet

__all__ = ["PolarPlus"]


class PolarPlus(Controller):
    """Plan at doubling times on all contexts seen, and see to it that every arm is known well enough by then.

    Epochs end at ``first, 2 first, 4 first, ...``. At each end t every arm is owed ``m(t) - n_a - pending_a`` forced
    requests, with the quota ``m(t) = ceil(quota d ln(N t))``, and the set with the best mean estimate over a sample
    of all contexts is loaded; load prices are spread over the t requests of the next epoch.

    Parameters
    ----------
    capacity : float
        Slots; or the unit of the sizes that the Router knows.
    first : int
        End of the first epoch.
    quota : float
        c_f above, >= 0. Regret grows with it: every forced request costs what a wrong arm costs.
    growth : "log" or "power"
        "power" takes ``m(t) = ceil(quota (d t / N)^(2/3))``, the rate for utilities without a gap.
    quota_counts : "all" or "forced"
        Which requests count as n_a: all of an arm, so that the quota limits itself, or forced ones only. Theory asks
        for "forced": contexts that the router sent to an arm are not a random sample.
    rate : float
        Probability of forcing a request while anything is owed, in (0, 1]; small spreads the cost, 1 makes a block.
    eliminate : bool
        Force no arm whose optimistic gain over the planned set is below the smallest gain of a member.
    memory : int
        Contexts kept, a uniform sample of all.
    sample : int
        Contexts used per plan.
    hysteresis : float
        As in `Polar`.
    pinned : iterable of str or int
        Arms that never leave.
    rng : int, SeedSequence, Generator or None
        The controller's own stream.

    Notes
    -----
    POLAR+-style, reconstructed from the abstract of Li and Li, "POLAR" (arXiv 2604.16583, 2026); the paper's own
    algorithm may differ. For this reconstruction, with independent contexts, ``quota_counts="forced"``, a fixed ridge
    and a cache gap, regret is O~(d sqrt(N T) + sqrt(K T)); neither the pooled prior of the default policy nor "all"
    nor elimination is covered. At most ``K (1 + log2 T)`` arms are loaded by T. Targets do not depend on the context;
    protected requests are not forced (Router); nothing is forced when all arms fit or no fault costs anything. Doubling
    epochs adapt slowly when popularity moves: see `Polaris`.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(arms=4, dim=2), residency=PolarPlus(2, rng=0), paging=0.1)
    >>> router.resident
    ('0', '1')
    """

    needs_utilities = True

    def __init__(
        self,
        capacity: float,
        *,
        first: int = 64,
        quota: float = 0.06,
        growth: Literal["log", "power"] = "log",
        quota_counts: Literal["all", "forced"] = "all",
        rate: float = 0.1,
        eliminate: bool = False,
        memory: int = 4096,
        sample: int = 2048,
        hysteresis: float = 0.0,
        pinned: Iterable[str | int] = (),
        rng: Rng = None,
    ) -> None:
        super().__init__(capacity, pinned=pinned, rng=rng)
        self.first = check.integer("first", first, low=1)
        self.quota = check.finite("quota", quota, low=0.0)
        if growth not in ("log", "power"):
            raise ValueError(f"growth must be 'log' or 'power', got {growth!r}")
        if quota_counts not in ("all", "forced"):
            raise ValueError(f"quota_counts must be 'all' or 'forced', got {quota_counts!r}")
        self.growth, self.quota_counts = growth, quota_counts
        self.probability = check.finite("rate", rate, low=0.0, high=1.0, open_low=True)
        self.eliminate = bool(eliminate)
        self.sample = check.integer("sample", sample, low=1)
        self.hysteresis = check.finite("hysteresis", hysteresis, low=0.0)
        # Its own stream: how many numbers forcing has drawn must not decide which contexts are kept.
        self.contexts = Reservoir(memory, np.random.default_rng(self._rng.integers(2**63)))
        self.next_plan = self.first
        self._asked = self._forced = np.zeros(
            0
        )  # forced requests asked for at the last plan, and served before it

    def begin(self, resident: ResidentSet) -> None:
        """Start from the first arms that fit."""
        super().begin(resident)
        self._asked, self._forced = np.zeros_like(self.needs), np.zeros_like(self.needs)

    def observe(self, arm: int, x: Floats, hit: bool) -> None:
        """Keep the context, perhaps."""
        self.contexts.append(x)

    def observe_many(self, arms: Ints, contexts: Floats, hits: Mask) -> None:
        """Keep some of the contexts."""
        self.contexts.extend(contexts)

    def plan(self, view: View) -> set[int]:
        """Return the best set for the next epoch, as long as all before it, and set the forced requests due in it."""
        self.next_plan = 2 * max(view.clock, self.first // 2 + 1)
        self._forced += self._asked - self.needs
        self.rate, self.needs, self._asked = 0.0, np.zeros_like(self.needs), np.zeros_like(self.needs)
        contexts = self.contexts.sample(self.sample)
        if not len(contexts) or view.moot:
            return view.kept()
        mean, bonus = view.utilities(contexts)
        look = looked(np.array(mean), view)
        best = planned(look, view, max(view.clock, 1), self.hysteresis)
        chosen = set(np.flatnonzero(best).tolist())
        self._force(view, look.utilities, bonus, chosen, contexts.shape[1])
        return chosen

    def _force(self, view: View, mean: Floats, bonus: Floats, chosen: set[int], dim: int) -> None:
        count = len(self.needs)
        if self.growth == "log":
            target = ceil(self.quota * dim * log(max(count * view.clock, 2)))
        else:
            target = ceil(self.quota * (dim * view.clock / count) ** (2.0 / 3.0))
        if self.quota_counts == "all" and view.counts is not None:
            have = (
                view.counts + view.pending
            )  # without the pending ones late feedback would be asked for twice
        else:
            have = self._forced
        needs = np.maximum(target - have, 0.0)
        if view.barred is not None:
            needs[view.barred] = 0.0
        if self.eliminate:
            needs[_hopeless(view, mean, bonus, chosen)] = 0.0
        self.needs, self._asked = needs, needs.copy()
        self.rate = self.probability if needs.any() else 0.0

    def resize(self, keep: list[int | None]) -> None:
        """Carry what is owed and what was forced over to the new indices."""
        self._resize_needs(keep)
        self._asked = np.array([0.0 if a is None else self._asked[a] for a in keep])
        self._forced = np.array([0.0 if a is None else self._forced[a] for a in keep])


def _hopeless(view: View, mean: Floats, bonus: Floats, chosen: set[int]) -> Ints:
    """Return the arms outside `chosen` that, however good they may be, gain less there than its least member."""
    members = sorted(chosen)
    outside = np.setdiff1d(np.arange(mean.shape[1]), members)
    total = gains(mean, view.faults, members)
    least = min(
        (float((total - gains(mean, view.faults, sorted(chosen - {a}))).mean()) for a in members), default=0.0
    )
    value = (total + (mean - view.faults).max(axis=1))[:, None]
    most = np.maximum(mean[:, outside] + bonus[:, outside] - value, 0.0).mean(axis=0)
    hopeless: Ints = outside[most < least]
    return hopeless

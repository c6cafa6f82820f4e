"""SquareCB: probabilities that fall with the inverse of the estimated gap."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.base import Choice, Policy, Utilities
from banditroute.policies.evidence import ArmEvidence
from banditroute.policies.wrapper import Wrapper

__all__ = ["SquareCB"]


class SquareCB(Wrapper):
    """Draws arm a with ``1 / (k + g (best - value_a))`` and the best estimate with what is left.

    Parameters
    ----------
    base : Policy
        A new policy whose `scores` are the regression: `LinUCB`, `HybridLinUCB` or any other; how it would choose is
        not asked.
    scale : float
        c in the learning rate ``g = c sqrt(k n)``, n the weight of the feedback so far; the larger, the greedier.

    Notes
    -----
    Source: Foster and Rakhlin, "Beyond UCB: optimal and efficient contextual bandits with regression oracles" (ICML
    2020; equation numbers not checked against the text); inverse gap weighting is due to Abe and Long (ICML 1999).
    Values are means less prices, k counts eligible arms. Every eligible arm keeps a positive probability, so logs can
    be evaluated off-policy. The paper fixes g from the horizon and the regret of the oracle; a growing g, rewards
    outside [0, 1], late feedback and the estimated scales of `LinUCB` are outside its theorem.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = SquareCB(LinUCB(2, 1, rng=0))
    >>> policy.propensities([1.0])
    array([0.5, 0.5])
    """

    refuses_candidates = "its chances are of gaps between arms"
    _kept = ("learned",)
    _settings = ("scale",)

    def __init__(self, base: Policy, scale: float = 2.0) -> None:
        super().__init__(base)
        self.scale = check.finite("scale", scale, low=0.0, high=1e30)
        self.span = base.span
        self.learned = np.array(0.0)

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        super()._learn(a, x, reward, weight, at)
        self.learned = self.learned + weight

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, shape (k,); ties of the best share what is left."""
        mean, offers = self.base.scores(x).mean, self.effective_prices(prices, eligible)
        gaps = mean - (offers - offers.min())
        gaps = gaps.max() - gaps
        allowed, best = np.isfinite(gaps), gaps == 0.0
        count = int(allowed.sum())
        rate = self.scale * np.sqrt(count * float(self.learned))
        share = np.where(allowed & ~best, 1.0 / (count + rate * np.where(allowed, gaps, 0.0)), 0.0)
        return np.asarray(np.where(best, (1.0 - share.sum()) / best.sum(), share))

    @property
    def rule(self) -> str:
        """How a choice follows from the index."""
        return "draws every open arm with a chance that falls with its gap to the largest mean less price"

    def select(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Choice:
        """Draw an arm; see `Policy.select`."""
        return Policy.select(self, x, prices=prices, eligible=eligible)

    def select_priced(self, x: ArrayLike, effective: Floats) -> Choice:
        """As `select`, for a caller that has folded prices and mask already."""
        return Policy.select_priced(self, x, effective)

    def utilities(self, contexts: ArrayLike) -> Utilities:
        """Return the means of the base, of which the largest less price is the likeliest choice, and no bonus."""
        mean = self.base.scores_batch(contexts).mean
        return Utilities(mean, np.zeros_like(mean))

    def freeze(self) -> Iterator[Callable[[ArrayLike], Utilities] | None]:
        """Copy the base as for its own utilities; the bonus is left out."""
        if type(self.base).utilities is Policy.utilities:  # its means are enough here
            yield from Policy.freeze(self)
            return
        for found in self.base.freeze():
            yield None if found is None else partial(_means, found)

    @property
    def can_widen(self) -> bool:
        """False: widths are not asked for."""
        return False

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put sums in the place of those of one arm; the learning rate follows the number of rewards."""
        before = np.sum(self.base_counts())
        super().set_evidence(arm, total)
        self.learned = np.maximum(self.learned + (np.sum(self.base_counts()) - before), 0.0)

    def base_counts(self) -> Floats:
        """Return rewards learned by the base per arm, (k,)."""
        counts = self.counts
        return np.zeros(len(self.arms)) if counts is None else counts.astype(np.float64)

    def _shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        return {"learned": ()}

    def _sound(self, own: Mapping[str, Floats], count: int) -> None:
        if own["learned"] < 0.0:
            raise ValueError(f"learned must be >= 0, got {own['learned']:g}")


def _means(utilities: Callable[[ArrayLike], Utilities], contexts: ArrayLike) -> Utilities:
    mean, bonus = utilities(contexts)
    return Utilities(mean, np.zeros_like(bonus))

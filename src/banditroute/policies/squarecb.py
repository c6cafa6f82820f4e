"""SquareCB: probabilities that fall with the inverse of the estimated gap."""

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.base import Choice, Policy
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

    _kept = ("learned",)

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

    def select(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Choice:
        """Draw an arm; see `Policy.select`."""
        return Policy.select(self, x, prices=prices, eligible=eligible)

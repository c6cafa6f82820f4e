"""Quality floors: on the mean at the least cost, by a dual price; on each request, by a threshold."""

from collections.abc import Mapping
from math import exp
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header, Mask
from banditroute.policies import Scores
from banditroute.policies.base import LARGEST
from banditroute.records import Feedback
from banditroute.terms.base import Asked, BaseTerm, kept

__all__ = ["QualityFloor", "cheapest_above"]


RANGE = (1e-4, 1.0)  # price of the median arm, reward units: at 1 cost is all that counts


class QualityFloor(BaseTerm):
    """Hold the mean reward at a floor at the least cost, by a price on cost that falls while quality is missing.

    Arm a is priced at ``price * cost_a / median cost``. Each reward moves it: ``price <- price * exp(rate * (reward -
    target))``, clipped. It is the mirror of `BudgetPacer`: there money is the constraint, here quality is.

    Parameters
    ----------
    target : float
        Floor of the mean reward. Above what the arms can reach the price ends at its lower clip: quality only.
    costs : (k,) array
        Positive cost of each arm in any unit; a rank will do.
    rate : float
        Step; the mean of the last few ``1 / rate`` rewards is held.
    price : float
        Price at the start, in [1e-4, 1]; a low one serves quality first and saves later.

    Notes
    -----
    As long as the price is not clipped, the rewards reported miss the target by ``log(price / start) / (rate * n)`` in
    the mean over n requests: by construction, whatever the policy has learned. With rewards in other units than
    [0, 1], scale them. Rewards must be reported for all requests or for a random sample of them: feedback that
    comes for bad answers only moves the price as if all were bad.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy, floor = LinUCB(2, 1, rng=0), QualityFloor(target=0.6, costs=[1.0, 20.0])
    >>> rewards, rng = [], np.random.default_rng(0)
    >>> for _ in range(3000):
    ...     arm = policy.select([1.0], prices=floor.prices()).arm
    ...     rewards.append(float(rng.random() < [0.5, 0.9][arm]))
    ...     policy.update(arm, [1.0], rewards[-1])
    ...     floor.report(rewards[-1])
    >>> bool(abs(np.mean(rewards[1000:]) - 0.6) < 0.03)
    True
    """

    name = "floor"

    def __init__(self, target: float, costs: ArrayLike, *, rate: float = 0.05, price: float = 0.01) -> None:
        self.target = check.finite("target", target, low=-LARGEST, high=LARGEST)
        self.costs = check.non_negative("costs", costs, limit=LARGEST, open_low=True).copy()
        super().__init__(len(self.costs))
        self.rate = check.unit("rate", rate)
        self.price = check.finite("price", price, low=RANGE[0], high=RANGE[1])

    def shown(self) -> str:
        """Return what `repr` tells of the state."""
        return f"target={self.target:g}, price={self.price:.3g}, arms={len(self.costs)}"

    def prices(self, request: Asked = None, *, weights: Mapping[str, float] | None = None) -> Floats:
        """Return the price of each arm, (k,), in reward units; the context is not used."""
        return np.minimum(self.price / np.median(self.costs) * self.costs, LARGEST)

    def report(self, reward: float) -> None:
        """Move the price by one measured reward that did not come through a Router's `update`."""
        self.tell({"reward": check.finite("reward", reward, low=-LARGEST, high=LARGEST)})

    def replay_mark(self, details: Mapping[str, Any]) -> None:
        """Let a reward that was reported or a cost that was set take effect."""
        if "reward" in details:
            self._move(check.finite("reward", details["reward"], low=-LARGEST, high=LARGEST))
        elif (at := self.position(str(details["arm"]))) is not None:
            self.costs[at] = check.finite("cost", details["cost"], low=0.0, high=LARGEST, open_low=True)
            self.ring()

    def settle(self, arm: int | str, held: Any, feedback: Feedback, /) -> None:
        """Move the price by the reward that was learned."""
        self._move(feedback.reward)

    def _move(self, reward: float) -> None:
        step = min(max(self.rate * (reward - self.target), -1.0), 1.0)
        self.price = min(max(self.price * exp(step), RANGE[0]), RANGE[1])
        self.ring()

    def add_arm(self, name: str, cost: float | None = None) -> None:
        """Follow an arm that was added, at this cost, or at the median where it is left out."""
        value = None if cost is None else check.finite("cost", cost, low=0.0, high=LARGEST, open_low=True)
        super().add_arm(name)
        if value is not None:
            self.costs[-1] = value

    def set_cost(self, arm: int | str, cost: float) -> None:
        """Say what an arm costs from now on."""
        name = self.arms[self.index(arm)]
        self.tell({"arm": name, "cost": check.finite("cost", cost, low=0.0, high=LARGEST, open_low=True)})

    def resize(self, keep: list[int | None]) -> None:
        """Keep the costs of arms that stay; a new one is put at the median."""
        self.costs = kept(self.costs, keep, float(np.median(self.costs)))

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue; target and rate are settings, not state."""
        header, arrays = super().to_state()
        return header | {"price": self.price}, arrays | {"costs": self.costs.copy()}

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Continue from `to_state`, with the target of this object."""
        count = len(self.kept_arms(header))
        costs = check.entry("arrays", arrays, "costs")
        costs = check.non_negative("costs", costs, count, limit=LARGEST, open_low=True)
        price = check.finite("price", check.entry("header", header, "price"), low=RANGE[0], high=RANGE[1])
        super().load_state(header, arrays)
        self.costs, self.price = costs.copy(), price


def cheapest_above(scores: Scores, target: float, costs: ArrayLike, *, width: float = 0.0) -> Mask:
    """Return the mask of the cheapest arm whose bound reaches `target`, else of the one with the largest bound.

    The bound is ``mean + width * std``. A negative width is the safe rule for production, where the arm must be known
    to be good; a positive one is for learning, for a safe rule never tries what it knows nothing about. Equal costs
    stay together and the policy decides between them.

    Parameters
    ----------
    scores : Scores
        ``policy.scores(x)``: (k,) means and widths.
    target : float
        Floor for this request; the mean over requests comes out higher where easy requests beat it, lower where no
        arm reaches it. `QualityFloor` holds the mean.
    costs : (k,) array
        Cost of each arm in any unit.
    width : float
        Widths added to the mean, ``policy.alpha`` for the learner's own, ``-policy.alpha`` for the lower bound.

    Returns
    -------
    (k,) bool array
        An ``eligible`` mask.

    Notes
    -----
    Source: the AVR threshold policy (arXiv 2603.12823; equation numbers not checked against the text) with predictions
    replaced by confidence bounds. The paper projects its savings analytically; bounds that are learned from the choices
    they steer have no guarantee here.

    Examples
    --------
    >>> scores = Scores(np.array([0.6, 0.8, 0.9]), np.array([0.5, 0.1, 0.1]))
    >>> cheapest_above(scores, 0.75, [1, 5, 20])
    array([False,  True, False])
    >>> cheapest_above(scores, 0.75, [1, 5, 20], width=1.0)  # the cheap arm is uncertain: try it
    array([ True, False, False])
    >>> cheapest_above(scores, 0.75, [1, 5, 20], width=-1.0)
    array([False, False,  True])
    """
    target = check.finite("target", target, low=-LARGEST, high=LARGEST)
    bounds = scores.mean + check.finite("width", width, low=-LARGEST, high=LARGEST) * scores.width
    prices = check.vector("costs", costs, len(bounds), limit=LARGEST)
    good = bounds >= target
    if not good.any():
        return np.asarray(bounds == bounds.max())
    return np.asarray(good & (prices == prices[good].min()))

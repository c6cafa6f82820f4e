"""Policies that ignore the context, and the three yardsticks that ignore rewards too."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.arrays import ArrayPolicy
from banditroute.policies.base import LARGEST, Policy, Scores, mixed
from banditroute.policies.evidence import Sums

__all__ = ["EMA", "UCB1", "BetaThompson", "Fixed", "GaussianThompson", "RoundRobin", "Uniform"]

Curve = Callable[[Floats], Floats]

UNTRIED = 1e6  # index of an arm that must be tried first
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_LEVELS = np.array([1e-12, 1e-8, 1e-5, 1e-3, 0.02, 0.15, 0.5])
_LEVELS = np.append(_LEVELS, 1.0 - _LEVELS[-2::-1])


class _Tally(ArrayPolicy):
    """Weight, sum and sum of squares of the rewards of each arm; `scores` are running means."""

    _sums = ("weight", "total", "square")
    _blind = True

    def _cold(self) -> dict[str, Floats]:
        return {"weight": np.array(0.0), "total": np.array(0.0), "square": np.array(0.0)}

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        self._add({name: array[a, ...] for name, array in self._own.items()}, x, reward, weight)

    def _add(self, sums: Sums, x: Floats, reward: float, weight: float) -> None:
        sums["weight"] += weight
        sums["total"] += weight * reward
        sums["square"] += weight * reward * reward

    @property
    def counts(self) -> NDArray[np.int64]:
        """Weight of the rewards learned per arm, rounded down, shape (k,)."""
        return self._own["weight"].astype(np.int64)

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean reward (0 before the first) and ``1 / sqrt(1 + weight)`` of every arm, both (k,)."""
        self.check_context(x)
        weight = self._own["weight"]
        return Scores(self._own["total"] / np.maximum(weight, 1e-300), 1.0 / np.sqrt(1.0 + weight))


class Uniform(_Tally):
    """Plays every eligible arm with the same probability: the control, and the best logging policy.

    Parameters
    ----------
    arms, dim, max_norm, rng
        As in `LinUCB`; contexts are checked and otherwise ignored.

    Notes
    -----
    Regret grows linearly. Prices are ignored. Its logs can evaluate any other policy.

    Examples
    --------
    >>> Uniform(4, 2).propensities([1.0, 0.0])
    array([0.25, 0.25, 0.25, 0.25])
    """

    utilities = Policy.utilities  # it maximises nothing
    _rule = "draws every open arm with the same probability, whatever the index"

    def _best(self, index: Floats, offers: Floats) -> Floats:
        allowed = np.isfinite(offers)
        return np.asarray(allowed / allowed.sum())


class Fixed(_Tally):
    """Plays one named arm; a uniform eligible one where it is not eligible.

    Parameters
    ----------
    arms, dim, max_norm, rng
        As in `LinUCB`.
    arm : int or str
        The arm to play. Should it be removed, the policy is uniform.

    Notes
    -----
    "The best single model" is the yardstick that many learned routers do not beat. Prices are ignored.

    Examples
    --------
    >>> Fixed(["small", "large"], 2, arm="large").propensities([1.0, 0.0])
    array([0., 1.])
    """

    _rule = "plays one arm wherever that is open, whatever the prices, and otherwise a uniform one"

    def __init__(self, arms: int | Iterable[str], dim: int, *, arm: int | str = 0, **options: Any) -> None:
        super().__init__(arms, dim, **options)
        self.arm = self.arms[self.index(arm)]

    def scores(self, x: ArrayLike) -> Scores:
        """Return 1 for the arm it plays and 0 for the others, without width: what a residency plan should see."""
        self.check_context(x)
        mine = np.array([float(name == self.arm) for name in self.arms])
        return Scores(mine, np.zeros(len(mine)))

    def _best(self, index: Floats, offers: Floats) -> Floats:
        allowed = np.isfinite(offers)
        mine = index > 0.0
        pure = mine & allowed if (mine & allowed).any() else allowed
        return np.asarray((1.0 - self.mix) * pure / pure.sum() + self.mix * allowed / allowed.sum())


class RoundRobin(_Tally):
    """Plays the eligible arm with the least feedback; ties are split evenly.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`.

    Notes
    -----
    With immediate feedback every arm is played once in each k decisions. The turn passes when feedback arrives and not
    when a decision is made, because deciding changes nothing that is learned: with late feedback several requests in a
    row fall on one arm, and the shares even out later. Prices are ignored; regret grows linearly.

    Examples
    --------
    >>> policy = RoundRobin(2, 1)
    >>> policy.update(0, [1.0], 0.5)
    >>> policy.select([1.0]).arm
    1
    """

    utilities = Policy.utilities  # nothing in reward units
    _rule = "plays the open arm with the least feedback, whatever the index"

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, shape (k,)."""
        self.check_context(x)
        offers = self.effective_prices(prices, eligible)
        return self._best(-self._own["weight"], np.where(np.isfinite(offers), 0.0, np.inf))


class UCB1(_Tally):
    """Upper confidence bounds without context: plays the largest ``mean + alpha sqrt(2 ln t / n) - price``.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`.
    alpha : float
        1 is the paper's width, for rewards in [0, 1]; scale it with the range of the rewards.

    Notes
    -----
    Source: Auer, Cesa-Bianchi and Fischer, "Finite-time analysis of the multiarmed bandit problem" (Machine Learning
    47, 2002), Figure 1. t is the weight of all feedback, n that of the arm; arms without any come first.
    The bound holds for rewards in [0, 1], independent of the context and of time, with immediate feedback and no
    prices; against a policy that uses the context regret is linear.

    Examples
    --------
    >>> policy = UCB1(2, 1, rng=0)
    >>> for _ in range(50):
    ...     policy.update(0, [1.0], 1.0)
    ...     policy.update(1, [1.0], 0.0)
    >>> policy.select([1.0]).arm
    0
    """

    def __init__(self, arms: int | Iterable[str], dim: int, *, alpha: float = 1.0, **options: Any) -> None:
        super().__init__(arms, dim, **options)
        self.alpha = check.finite("alpha", alpha, low=0.0, high=LARGEST)

    def _utility(self, x: Floats) -> tuple[Floats, Floats]:
        weight = self._own["weight"]
        t = max(float(weight.sum()), 1.0)
        bonus = self.alpha * np.sqrt(2.0 * np.log(t) / np.maximum(weight, 1e-12))
        return self.scores(x).mean, np.where(weight > 0.0, bonus, UNTRIED)  # the mean of an untried arm is 0


def _chances(edges: Floats, density: Curve, below: Curve) -> Floats:
    """Probability that each of m independent draws is the largest, (m,): Gauss-Legendre between the `edges`.

    `density` and `below` map points (n,) to densities and distribution functions (n, m).
    """
    cuts = np.unique(edges)
    half = np.diff(cuts) / 2.0
    at = (cuts[:-1, None] + half[:, None] * (1.0 + _NODES)).ravel()
    weight = (half[:, None] * _WEIGHTS).ravel()
    under = np.maximum(below(at), 1e-300)
    chance = weight @ (density(at) * (under.prod(axis=1)[:, None] / under))
    return np.asarray(chance / chance.sum())


class _Thompson(_Tally):
    """Thompson sampling whose propensities are integrated: a decision draws from them."""

    _law = "posterior"

    @property
    def rule(self) -> str:
        """How a choice follows: the bonus is one standard deviation of the posterior."""
        drawn = (
            f"draws a mean for every arm from its {self._law} distribution, of this mean with the bonus as standard "
            "deviation, and plays the largest less price"
        )
        return mixed(drawn, self.mix)

    def _drawn(self, which: NDArray[np.int64], prices: Floats) -> Floats:
        raise NotImplementedError

    def _utility(self, x: Floats) -> tuple[Floats, Floats]:
        return self.scores(x)

    def _best(self, index: Floats, offers: Floats) -> Floats:
        allowed = np.isfinite(offers)
        pure = np.zeros(len(offers))
        which = np.flatnonzero(allowed)
        pure[which] = self._drawn(which, offers[which] - offers.min())
        return np.asarray((1.0 - self.mix) * pure + self.mix * allowed / allowed.sum())


class BetaThompson(_Thompson):
    """Thompson sampling for rewards in [0, 1] without context: Beta(1 + sum r, 1 + sum (1 - r)) per arm.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`.

    Notes
    -----
    Source: Thompson (Biometrika 25, 1933); Agrawal and Goyal, "Analysis of Thompson sampling for the multi-armed bandit
    problem" (COLT 2012), Algorithm 1. A reward between 0 and 1 counts as that share of a success, where Algorithm 2
    tosses a coin: the same mean, less noise, but not covered by its proof; nor are prices. A decision draws from
    the exact chances of being largest, found by quadrature in about half a millisecond.

    Examples
    --------
    >>> policy = BetaThompson(2, 1)
    >>> policy.update(0, [1.0], 1.0)
    >>> policy.propensities([1.0]).round(6)  # P(Beta(2, 1) > U) = 2/3
    array([0.666667, 0.333333])
    """

    _law = "Beta"

    def check_reward(self, reward: Any, weight: Any) -> tuple[float, float]:
        """Return reward and weight as floats, or refuse them: rewards are in [0, 1]."""
        return check.unit("reward", reward), super().check_reward(0.0, weight)[1]

    def fingerprint(self) -> dict[str, Any]:
        """Return what must agree before evidence may be joined: rewards of any other size are no successes."""
        return super().fingerprint() | {"rewards": "in [0, 1]"}

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and standard deviation of the posterior of every arm, both (k,)."""
        self.check_context(x)
        won = 1.0 + self._own["total"]
        all_ = 2.0 + self._own["weight"]
        return Scores(won / all_, np.sqrt(won * (all_ - won) / (all_ * all_ * (all_ + 1.0))))

    def _drawn(self, which: NDArray[np.int64], prices: Floats) -> Floats:
        from scipy.special import betainc, betaincinv, betaln, xlog1py, xlogy

        a = 1.0 + self._own["total"][which]
        b = 1.0 + np.maximum(self._own["weight"][which] - self._own["total"][which], 0.0)
        points = betaincinv(a[:, None], b[:, None], _LEVELS)
        edges = np.column_stack([np.zeros(a.size), points, np.ones(a.size)]) - prices[:, None]
        low = edges[:, 0].max()  # below it the arm of that edge is larger for certain
        edges = np.append(edges[edges >= low], low)

        def density(at: Floats) -> Floats:
            u = np.clip(at[:, None] + prices, 0.0, 1.0)
            inside = (at[:, None] + prices > 0.0) & (at[:, None] + prices < 1.0)
            return np.asarray(inside * np.exp(xlogy(a - 1.0, u) + xlog1py(b - 1.0, -u) - betaln(a, b)))

        return _chances(edges, density, lambda at: betainc(a, b, np.clip(at[:, None] + prices, 0.0, 1.0)))


class GaussianThompson(_Thompson):
    """Thompson sampling for any rewards without context: N(total / (n + 1), sigma^2 / (n + 1)) per arm.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`.
    sigma : float
        Noise of the rewards, and width of the prior around `prior`.
    prior : float
        Mean of an arm of which nothing is known; counts as one observation.

    Notes
    -----
    Source: Agrawal and Goyal, "Further optimal regret bounds for Thompson sampling" (AISTATS 2013; equation numbers not
    checked against the text), where sigma is 1 and the prior 0. The bound holds for rewards in [0, 1] with sigma 1; a
    sigma of the size of the noise explores less than it asks for, and prices are not covered. Propensities are
    integrated.

    Examples
    --------
    >>> GaussianThompson(2, 1).propensities([1.0]).round(9)
    array([0.5, 0.5])
    """

    _law = "normal"

    def __init__(
        self, arms: int | Iterable[str], dim: int, *, sigma: float = 0.3, prior: float = 0.5, **options: Any
    ) -> None:
        super().__init__(arms, dim, **options)
        self.sigma = check.finite("sigma", sigma, low=0.0, high=LARGEST, open_low=True)
        self.prior = check.finite("prior", prior, low=-LARGEST, high=LARGEST)

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and standard deviation of the posterior of every arm, both (k,)."""
        self.check_context(x)
        weight = 1.0 + self._own["weight"]
        return Scores((self._own["total"] + self.prior) / weight, self.sigma / np.sqrt(weight))

    def _drawn(self, which: NDArray[np.int64], prices: Floats) -> Floats:
        from scipy.special import ndtr, ndtri

        weight = 1.0 + self._own["weight"][which]
        mean = (self._own["total"][which] + self.prior) / weight - prices
        std = self.sigma / np.sqrt(weight)
        z = np.concatenate([[-9.0], ndtri(_LEVELS), [9.0]])
        edges = mean[:, None] + std[:, None] * z
        low = edges[:, 0].max()
        edges = np.append(edges[edges >= low], low)

        def density(at: Floats) -> Floats:
            u = (at[:, None] - mean) / std
            return np.asarray(np.exp(-0.5 * u * u) / std)

        return _chances(edges, density, lambda at: np.asarray(ndtr((at[:, None] - mean) / std)))


class EMA(ArrayPolicy):
    """Exponential moving average of the reward per arm, and the best of them: ``m <- (1 - rate) m + rate r``.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`; `mix` is the share of uniform decisions (0.05).
    rate : float
        In (0, 1]: weight of the newest reward.
    prior : float
        Average of an arm of which nothing is known.

    Notes
    -----
    Source: ORCH (arXiv 2602.01797), reconstructed from its abstract (equation numbers not checked against the text);
    cost and latency enter as prices. Evidence ages by the clock of decisions, so that late feedback lands where it
    belongs in any order: the recursion above holds exactly while an arm is played at every decision, and an arm that
    rested forgets faster than the recursion would. There is no regret guarantee; without `mix` it can stay on one arm
    for ever.

    Examples
    --------
    >>> policy = EMA(2, 1, rate=0.5, prior=0.0)
    >>> policy.update(0, [1.0], 1.0)
    >>> policy.update(0, [1.0], 1.0)
    >>> policy.scores([1.0]).mean
    array([0.75, 0.  ])
    """

    def __init__(
        self,
        arms: int | Iterable[str],
        dim: int,
        *,
        rate: float = 0.05,
        prior: float = 0.5,
        mix: float = 0.05,
        **options: Any,
    ) -> None:
        self.rate = check.finite("rate", rate, low=0.0, high=1.0, open_low=True)
        self.prior = check.finite("prior", prior, low=-LARGEST, high=LARGEST)
        super().__init__(arms, dim, mix=mix, **options)

    _blind = True
    _unshared = "what an arm starts from fades with its clock, and would count once for each replica"

    def _cold(self) -> dict[str, Floats]:
        # A steadily played arm has weight 1 / rate: that of the prior makes the recursion exact from the first reward.
        last = float(self._clock - 1)
        return {
            "weight": np.array(1.0 / self.rate),
            "total": np.array(self.prior / self.rate),
            "last": np.array(last),
        }

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        own, keep = self._own, 1.0 - self.rate
        age = at - own["last"][a]
        if age > 0.0:
            own["weight"][a] *= keep**age
            own["total"][a] *= keep**age
            own["last"][a] = at
        share = weight * keep ** max(-age, 0.0)
        own["weight"][a] += share
        own["total"][a] += share * reward

    def rewind(self) -> None:
        """Start a new clock at index 0: what was learned so far counts as learned just now."""
        self._own["last"][:] -= self._clock
        super().rewind()

    def scores(self, x: ArrayLike) -> Scores:
        """Return the moving average and ``1 / sqrt(weight)`` of every arm, both (k,)."""
        self.check_context(x)
        weight = np.maximum(self._own["weight"], 1e-300)
        return Scores(self._own["total"] / weight, 1.0 / np.sqrt(np.maximum(weight, 1e-12)))

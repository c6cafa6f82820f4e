"""Hybrid LinUCB: a part shared by all arms and a part of each arm's own."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.arrays import ArrayPolicy
from banditroute.policies.base import LARGEST, Scores
from banditroute.policies.shared import Features, featured

__all__ = ["HybridLinUCB"]


def _context_itself(name: str, x: Floats) -> Floats:
    return x


class HybridLinUCB(ArrayPolicy):
    """LinUCB on ``E r = z'beta + x'theta_a``: what is common is learned from all arms, the rest from each alone.

    With ``A_a = ridge I + sum x x'``, ``B_a = sum x z'`` and ``b_a = sum r x`` of arm a, and ``A_0, b_0`` what is left
    for the shared part, ``beta = A_0^-1 b_0`` and ``theta_a = A_a^-1 (b_a - B_a beta)``. Plays the largest
    ``z'beta + x'theta_a + alpha s - price`` with ``s^2 = x' A_a^-1 x + u' A_0^-1 u``, ``u = z - B_a' A_a^-1 x``.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`.
    features : callable, optional
        ``features(name, x) -> (m,)``, the z of an arm and a request. By default z is x, the same for all arms: arms are
        then expected to be like each other, and differences are learned as such. An empty z gives disjoint LinUCB.
    alpha : float
        Width of exploration, reward units.
    ridge : float
        Prior precision of each arm's own part.
    shared_ridge : float
        Prior precision of the shared part.

    Notes
    -----
    Source: Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article
    recommendation" (WWW 2010), Eq. 6 and Algorithm 2: coefficients as its lines 5 and 12, width as line 13, updates
    as lines 17 to 23, with a ridge that need not be 1. A new arm starts from the shared part; until its first reward
    it is taken, for the choice alone, to be no worse than the best arm known, so that it is tried where rewards carry
    no noise (ours). The paper gives no regret bound for the hybrid rule; that of its Algorithm 1 is for another
    policy (SupLinUCB) and independent rewards. Removing an arm keeps what it taught the shared part.

    `select` costs O(k (d m + m^2 + d^2)), `update` O(d^3 + m^3 + d^2 m).

    Examples
    --------
    >>> policy = HybridLinUCB(["a", "b"], 1, rng=0)
    >>> for _ in range(50):
    ...     policy.update("a", [1.0], 0.8)
    >>> policy.add_arm("new")
    2
    >>> float(policy.scores([1.0]).mean[2].round(1))  # like the arm that is known, not zero
    0.4
    """

    def __init__(
        self,
        arms: int | Iterable[str],
        dim: int,
        *,
        features: Features = _context_itself,
        alpha: float = 0.25,
        ridge: float = 1.0,
        shared_ridge: float = 1.0,
        **options: Any,
    ) -> None:
        self.features = features
        self.alpha = check.finite("alpha", alpha, low=0.0, high=LARGEST)
        self.ridge = check.finite("ridge", ridge, low=1.0 / LARGEST, high=LARGEST)
        self.shared_ridge = check.finite("shared_ridge", shared_ridge, low=1.0 / LARGEST, high=LARGEST)
        dim = check.integer("dim", dim, low=1)
        first = check.names("arms", arms)
        self._size = featured(features, first[:1], np.zeros(dim)).shape[1]
        super().__init__(first, dim, **options)
        self._common = {"gram0": np.zeros((self._size, self._size)), "moment0": np.zeros(self._size)}
        self._solve()

    def _cold(self) -> dict[str, Floats]:
        d, m = self.dim, self._size
        return {
            "count": np.array(0.0),
            "gram": np.zeros((d, d)),
            "cross": np.zeros((d, m)),
            "moment": np.zeros(d),
            "cov": np.eye(d) / self.ridge,
            "link": np.zeros((d, m)),
            "alone": np.zeros(d),
        }

    def _solve(self) -> None:
        gram0 = self._common["gram0"]
        self._cov0 = np.linalg.inv(self.shared_ridge * np.eye(self._size) + (gram0 + gram0.T) / 2.0)
        self._beta = self._cov0 @ self._common["moment0"]

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        z = featured(self.features, [self.arms[a]], x, self._size)[0]
        own, common = self._own, self._common
        common["gram0"] += own["cross"][a].T @ own["link"][a] + weight * np.outer(z, z)
        common["moment0"] += own["cross"][a].T @ own["alone"][a] + weight * reward * z
        own["gram"][a] += weight * np.outer(x, x)
        own["cross"][a] += weight * np.outer(x, z)
        own["moment"][a] += weight * reward * x
        own["count"][a] += 1.0
        cov = np.linalg.inv(self.ridge * np.eye(self.dim) + own["gram"][a])
        own["cov"][a] = cov
        own["link"][a] = cov @ own["cross"][a]  # A^-1 B
        own["alone"][a] = cov @ own["moment"][a]  # A^-1 b
        common["gram0"] -= own["cross"][a].T @ own["link"][a]
        common["moment0"] -= own["cross"][a].T @ own["alone"][a]
        self._solve()

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and width of every arm for one context, both (k,)."""
        row = self.check_context(x)
        z = featured(self.features, self.arms, row, self._size)
        u = z - np.einsum("i,aij->aj", row, self._own["link"])
        mean = np.einsum("aj,j->a", u, self._beta) + np.einsum("ai,i->a", self._own["alone"], row)
        width = np.einsum("i,aij,j->a", row, self._own["cov"], row) + np.einsum(
            "ai,ij,aj->a", u, self._cov0, u
        )
        return Scores(mean, np.sqrt(np.maximum(width, 0.0)))

    def _indices(self, x: Floats) -> Floats:
        mean, std = self.scores(x)
        new = self._own["count"] == 0.0
        if self._size and new.any() and not new.all():
            # The shared part knows nothing of them apart from the others: taken to be as good as the best, at least.
            mean = np.where(new, np.maximum(mean, mean[~new].max()), mean)
        return np.asarray(mean + self.alpha * std)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rewards learned per arm, shape (k,)."""
        return self._own["count"].astype(np.int64)

    @property
    def beta(self) -> Floats:
        """Coefficients of the shared part, an (m,) copy."""
        return self._beta.copy()

    @property
    def theta(self) -> Floats:
        """Coefficients of each arm's own part, (k, dim)."""
        return np.asarray(self._own["alone"] - np.einsum("aij,j->ai", self._own["link"], self._beta))

    def load_state(self, header: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        """Continue from `to_state`; errors leave this policy unchanged."""
        super().load_state(header, arrays)
        self._solve()

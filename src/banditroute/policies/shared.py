"""LinUCB with one set of coefficients for all arms, over features of arm and request."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.arrays import ArrayPolicy
from banditroute.policies.base import LARGEST, Scores

__all__ = ["Features", "SharedLinUCB"]

Features = Callable[[str, Floats], ArrayLike]


def featured(features: Features, arms: Iterable[str], x: Floats, size: int | None = None) -> Floats:
    """Stack ``features(arm, x)`` of every arm: (k, m), checked."""
    rows = [np.asarray(features(name, x)) for name in arms]
    return check.matrix("features", np.array(rows), columns=size)


class SharedLinUCB(ArrayPolicy):
    """LinUCB whose arms differ by their features only: plays the largest ``z'beta + alpha sqrt(z' A^-1 z) - price``.

    Here ``z = features(arm, x)``, ``A = ridge I + sum z z'`` and ``beta = A^-1 sum r z`` over the feedback of all arms.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`.
    features : callable
        ``features(name, x) -> (m,)``: what is known of an arm and a request together, such as match, load, latency and
        reputation, with a constant. Two arms with the same features score the same.
    alpha : float
        Width of exploration, reward units.
    ridge : float
        Prior precision.

    Notes
    -----
    Source: Li, Chu, Langford and Schapire (WWW 2010), whose hybrid model (Eq. 6) without its own part this is;
    Symphony-Coord (arXiv 2602.00966; equation numbers not checked against the text) uses it with six features of an
    agent. Regret does not grow with the number of arms, O(m sqrt(T)) up to logarithms, and a new arm starts with
    everything known of arms like it. The bound assumes that the reward is linear in the features: what distinguishes
    two arms beyond them is never learned and costs regret for ever. It holds for immediate feedback and a width of its
    own, neither of which applies here.

    `select` costs O(k m^2), `update` O(m^3).

    Examples
    --------
    >>> load = {"near": 0.9, "far": 0.1}
    >>> policy = SharedLinUCB(["near", "far"], 1, features=lambda arm, x: [1.0, load[arm]], rng=0)
    >>> for arm in ["near", "far"] * 20:
    ...     policy.update(arm, [1.0], 1.0 - load[arm])
    >>> policy.arms[policy.select([1.0]).arm]
    'far'
    """

    def __init__(
        self,
        arms: int | Iterable[str],
        dim: int,
        *,
        features: Features,
        alpha: float = 0.25,
        ridge: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(arms, dim, **options)
        self.features = features
        self.alpha = check.finite("alpha", alpha, low=0.0, high=LARGEST)
        self.ridge = check.finite("ridge", ridge, low=1.0 / LARGEST, high=LARGEST)
        size = featured(features, self.arms[:1], np.zeros(self.dim)).shape[1]
        self._common = {"gram": np.zeros((size, size)), "moment": np.zeros(size)}
        self._solve()

    def _cold(self) -> dict[str, Floats]:
        return {"count": np.array(0.0)}

    def _solve(self) -> None:
        gram = self._common["gram"]
        self._cov = np.linalg.inv(self.ridge * np.eye(len(gram)) + gram)
        self._beta = self._cov @ self._common["moment"]

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        z = featured(self.features, [self.arms[a]], x, len(self._beta))[0]
        self._common["gram"] += weight * np.outer(z, z)
        self._common["moment"] += weight * reward * z
        self._own["count"][a] += 1.0
        self._solve()

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and width of every arm for one context, both (k,)."""
        z = featured(self.features, self.arms, self.check_context(x), len(self._beta))
        # One arm at a time by the same sums, so that arms with equal features score equal to the last bit.
        width = np.einsum("ai,ij,aj->a", z, self._cov, z)
        return Scores(np.einsum("ai,i->a", z, self._beta), np.sqrt(np.maximum(width, 0.0)))

    def _indices(self, x: Floats) -> Floats:
        mean, std = self.scores(x)
        return np.asarray(mean + self.alpha * std)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rewards learned per arm, shape (k,)."""
        return self._own["count"].astype(np.int64)

    @property
    def beta(self) -> Floats:
        """Coefficients, an (m,) copy."""
        return self._beta.copy()

    def load_state(self, header: Any, arrays: Any) -> None:
        """Continue from `to_state`; errors leave this policy unchanged."""
        super().load_state(header, arrays)
        self._solve()

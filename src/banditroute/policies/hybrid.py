"""Hybrid LinUCB: a part shared by all arms and a part of each arm's own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.kernels import candidates as k
from banditroute._core.typing import Floats, Ints
from banditroute.policies.base import LARGEST, Scores
from banditroute.policies.evidence import Sums
from banditroute.policies.featured import FeaturedPolicy, Features

__all__ = ["HybridLinUCB"]


def _context_itself(name: str, x: Floats) -> Floats:
    return x


class HybridLinUCB(FeaturedPolicy):
    """LinUCB on ``E r = z'beta + x'theta_a``: what is common is learned from all arms, the rest from each alone.

    With ``A_a = ridge I + sum x x'``, ``B_a = sum x z'`` and ``b_a = sum r x`` of arm a, and ``A_0, b_0`` what is left
    for the shared part, ``beta = A_0^-1 b_0`` and ``theta_a = A_a^-1 (b_a - B_a beta)``. Plays the largest
    ``z'beta + x'theta_a + alpha s - price`` with ``s^2 = x' A_a^-1 x + u' A_0^-1 u``, ``u = z - B_a' A_a^-1 x``.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`: those that have a part of their own. There may be none, ``[]``, where `features` is a number.
    features : callable or int, optional
        ``features(name, x) -> (m,)``, the z of an arm and a request. By default z is x, the same for all arms: arms are
        then expected to be like each other, and differences are learned as such. An empty z gives disjoint LinUCB.
        A number m: each request brings its candidates with m features each, ``router.select(x, candidates=...)``; with
        a function it may do so too.
    interactions : bool
        z is then the products of each feature with each component of the context. The shared part becomes a map from
        features to coefficients: arms are disjoint, and the features of an arm say where its coefficients start.
    alpha : float
        Width of exploration, reward units.
    ridge : float
        Prior precision of each arm's own part.
    shared_ridge : float
        Prior precision of the shared part.

    Notes
    -----
    Source: Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article recommendation"
    (WWW 2010), Eq. 6 and Algorithm 2: coefficients as its lines 5 and 12, width as line 13, updates as lines 17 to 23,
    with a ridge that need not be 1. A new arm starts from the shared part; until its first reward it is taken, for the
    choice alone, to be no worse than the best arm known, so that it is tried where rewards carry no noise (ours). The
    paper gives no regret bound for the hybrid rule; that of its Algorithm 1 is for another policy (SupLinUCB) and
    independent rewards. A reward is learned with the features that the arm had when it was chosen. Removing an arm
    keeps what it taught the shared part; `forget` does not.

    A candidate that is no arm has a part of its own too, of which nothing is known and nothing kept: its reward teaches
    the shared part with the weight ``1 / (1 + x'x / ridge)``, as that of an arm would which is played once.

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

    _sums = ("count", "gram", "cross", "moment", "shared_gram", "shared_moment")

    def __init__(
        self,
        arms: int | Iterable[str],
        dim: int,
        *,
        features: Features | int = _context_itself,
        alpha: float = 0.25,
        ridge: float = 1.0,
        shared_ridge: float = 1.0,
        **options: Any,
    ) -> None:
        self.alpha = check.finite("alpha", alpha, low=0.0, high=LARGEST)
        self.ridge = check.finite("ridge", ridge, low=1.0 / LARGEST, high=LARGEST)
        self.shared_ridge = check.finite("shared_ridge", shared_ridge, low=1.0 / LARGEST, high=LARGEST)
        super().__init__(arms, dim, features=features, **options)
        self._common["ridge"] = np.array(self.ridge)  # the total depends on it

    def _cold(self) -> dict[str, Floats]:
        d, m = self.dim, self._width
        return {
            "count": np.array(0.0),
            "gram": np.zeros((d, d)),
            "cross": np.zeros((d, m)),
            "moment": np.zeros(d),
            "shared_gram": np.zeros((m, m)),
            "shared_moment": np.zeros(m),
        }

    def _add(self, sums: Sums, x: Floats, reward: float, weight: float) -> None:
        row, z = self._split(x)
        sums["gram"] += weight * np.outer(row, row)
        sums["cross"] += weight * np.outer(row, z)
        sums["moment"] += weight * reward * row
        sums["shared_gram"] += weight * np.outer(z, z)
        sums["shared_moment"] += weight * reward * z
        sums["count"] += 1.0

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        _, z = self._split(x)
        own, common = self._own, self._common
        common["total_gram"] += own["cross"][a].T @ self._link[a] + weight * np.outer(z, z)
        common["total_moment"] += own["cross"][a].T @ self._alone[a] + weight * reward * z
        self._add({name: own[name][a, ...] for name in self._sums}, x, reward, weight)
        self._fit(a)
        common["total_gram"] -= own["cross"][a].T @ self._link[a]
        common["total_moment"] -= own["cross"][a].T @ self._alone[a]
        self._solve()

    def _fit(self, a: int) -> None:
        own = self._own
        cov = np.linalg.inv(self.ridge * np.eye(self.dim) + own["gram"][a])
        self._cov[a] = cov
        self._link[a] = cov @ own["cross"][a]  # A^-1 B
        self._alone[a] = cov @ own["moment"][a]  # A^-1 b

    def _told(self, arms: Sequence[int]) -> tuple[Floats, Floats]:
        own, count = self._own, len(self._own["count"])
        if len(arms) == count:
            self._cov, self._link = np.zeros_like(own["gram"]), np.zeros_like(own["cross"])
            self._alone = np.zeros_like(own["moment"])
        for a in arms:
            self._fit(a)
        grams = own["shared_gram"] - np.einsum("adi,adj->aij", own["cross"], self._link)
        return grams, own["shared_moment"] - np.einsum("adi,ad->ai", own["cross"], self._alone)

    def _solve(self) -> None:
        gram = self._common["total_gram"]
        precision = self.shared_ridge * np.eye(self._width) + (gram + gram.T) / 2.0
        self._cov0: Floats = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        self._beta: Floats = np.asarray(self._cov0 @ self._common["total_moment"])

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and width of every arm for one context, both (k,)."""
        row = self.check_context(x)
        return self._scored(row, self._features(row), np.arange(len(self.arms)))

    def _scored(self, x: Floats, z: Floats, places: Ints) -> Scores:
        joint = self._joint(x, z)
        rest, mean, variance = np.empty_like(joint), np.empty(len(z)), np.empty(len(z))
        k.apart(
            x,
            places,
            joint,
            self._cov,
            self._link,
            self._alone,
            float(x @ x) / self.ridge,
            rest,
            mean,
            variance,
        )
        shared, width = self._shared(rest, self._beta, self._cov0)
        return Scores(mean + shared, np.sqrt(np.maximum(variance, 0.0) + width * width))

    def _guest_weight(self, x: Floats, weight: float) -> float:
        return weight / (1.0 + weight * float(x @ x) / self.ridge)

    def fingerprint(self) -> dict[str, Any]:
        """Return what must agree before evidence may be joined: what guests taught was weighed with the ridge."""
        own = super().fingerprint()
        return own if self.features is not None else {**own, "ridge": self.ridge}

    def _utility(self, x: Floats) -> tuple[Floats, Floats]:
        mean, width = self.scores(x)
        return self._hoped(mean) if self._size else mean, self.alpha * width

    @property
    def beta(self) -> Floats:
        """Coefficients of the shared part, an (m,) copy."""
        return self._beta.copy()

    @property
    def theta(self) -> Floats:
        """Coefficients of each arm's own part, (k, dim)."""
        return np.asarray(self._alone - np.einsum("aij,j->ai", self._link, self._beta))

    def _read(self, arrays: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """The shared part once was kept for all arms together, less what their own parts explain."""
        arrays = super()._read(arrays)
        old = ("count", "cross", "link", "alone", "gram0", "moment0")
        if "left_gram" in arrays or not set(old) <= set(arrays):
            return arrays
        cross, link, alone, gram, moment = (
            np.asarray(arrays[name], dtype=np.float64)
            for name in ("cross", "link", "alone", "gram0", "moment0")
        )
        count, d, m = np.size(arrays["count"]), self.dim, self._width
        shapes = [array.shape for array in (cross, link, alone, gram, moment)]
        if shapes != [(count, d, m), (count, d, m), (count, d), (m, m), (m,)]:
            raise ValueError(f"cross, link, alone, gram0, moment0 must fit {count} arms, got shapes {shapes}")
        # What is left when no arm explains anything is what the arms themselves told, whoever they were.
        return {
            **{
                name: array
                for name, array in arrays.items()
                if name in ("count", "cross", "moment") or "guest" in name
            },
            "gram": arrays.get("gram", gram),
            "shared_gram": np.zeros((count, m, m)),
            "shared_moment": np.zeros((count, m)),
            "left_gram": gram + np.einsum("adi,adj->ij", cross, link),
            "left_moment": moment + np.einsum("adi,ad->i", cross, alone),
            "total_gram": gram,
            "total_moment": moment,
            "ridge": np.array(self.ridge),
        }

    def _loaded(self) -> None:
        self._told(range(len(self.arms)))
        if self._common["ridge"] != self.ridge:
            self._common["ridge"] = np.array(self.ridge)
            self._derive(())
        self._solve()

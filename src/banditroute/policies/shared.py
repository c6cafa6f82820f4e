"""LinUCB with one set of coefficients for all arms, over features of arm and request."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints
from banditroute.policies.base import LARGEST, Scores
from banditroute.policies.evidence import Sums
from banditroute.policies.featured import FeaturedPolicy, Features

__all__ = ["SharedLinUCB"]


class SharedLinUCB(FeaturedPolicy):
    """LinUCB whose arms differ by their features only: plays the largest ``z'beta + alpha sqrt(z' A^-1 z) - price``.

    Here ``z = features(arm, x)``, ``A = ridge I + sum z z'`` and ``beta = A^-1 sum r z`` over the feedback of all arms.

    Parameters
    ----------
    arms, dim, mix, max_norm, rng
        As in `LinUCB`. There may be no arms, ``[]``, where `features` is a number.
    features : callable or int
        ``features(name, x) -> (m,)``: what is known of an arm and a request together, such as match, load, latency and
        reputation, with a constant. Two arms with the same features score the same. A number m: each request brings
        its candidates with m features each, ``router.select(x, candidates=...)``; with a function it may do so too.
    interactions : bool
        Learn products of each feature with each component of the context instead of the features alone; put a
        constant among both. Matrices then have m dim rows.
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

    Until its first reward an arm is taken, for the choice alone, to be no worse than the best that has some, so that it
    is tried where rewards carry no noise (ours); a candidate that is no arm is not.

    A reward is learned with the features that the arm had when it was chosen. Removing an arm keeps what it taught,
    which is about features; `forget` does not.

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

    _sums = ("count", "arm_gram", "arm_moment")

    def __init__(
        self,
        arms: int | Iterable[str],
        dim: int,
        *,
        features: Features | int,
        alpha: float = 0.25,
        ridge: float = 1.0,
        **options: Any,
    ) -> None:
        self.alpha = check.finite("alpha", alpha, low=0.0, high=LARGEST)
        self.ridge = check.finite("ridge", ridge, low=1.0 / LARGEST, high=LARGEST)
        super().__init__(arms, dim, features=features, **options)

    def _cold(self) -> dict[str, Floats]:
        m = self._width
        return {"count": np.array(0.0), "arm_gram": np.zeros((m, m)), "arm_moment": np.zeros(m)}

    def _add(self, sums: Sums, x: Floats, reward: float, weight: float) -> None:
        _, z = self._split(x)
        sums["arm_gram"] += weight * np.outer(z, z)
        sums["arm_moment"] += weight * reward * z
        sums["count"] += 1.0

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        self._add({name: self._own[name][a, ...] for name in self._sums}, x, reward, weight)
        _, z = self._split(x)
        self._common["total_gram"] += weight * np.outer(z, z)
        self._common["total_moment"] += weight * reward * z
        self._solve()

    def _told(self, arms: Sequence[int]) -> tuple[Floats, Floats]:
        return self._own["arm_gram"], self._own["arm_moment"]

    def _solve(self) -> None:
        precision = self.ridge * np.eye(self._width) + self._common["total_gram"]
        self._cov: Floats = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        self._beta: Floats = np.asarray(self._cov @ self._common["total_moment"])

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and width of every arm for one context, both (k,)."""
        row = self.check_context(x)
        return Scores(*self._shared(self._joint(row, self._features(row)), self._beta, self._cov))

    def _scored(self, x: Floats, z: Floats, places: Ints) -> Scores:
        return Scores(*self._shared(self._joint(x, z), self._beta, self._cov))

    def _utility(self, x: Floats) -> tuple[Floats, Floats]:
        mean, width = self.scores(x)
        return self._hoped(mean), self.alpha * width

    @property
    def beta(self) -> Floats:
        """Coefficients, an (m,) copy."""
        return self._beta.copy()

    def _read(self, arrays: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """Sums once were kept of all arms together: they count as those of arms that left."""
        arrays = super()._read(arrays)
        if "left_gram" in arrays or not {"count", "gram", "moment"} <= set(arrays):
            return arrays
        cold, count = self._cold(), np.size(arrays["count"])
        blank = {name: np.zeros((count, *cold[name].shape)) for name in ("arm_gram", "arm_moment")}
        sums = {f"{kind}_{end}": arrays[end] for kind in ("left", "total") for end in ("gram", "moment")}
        return {**arrays, **blank, **sums}

    def _loaded(self) -> None:
        self._solve()

"""LinUCB with one set of coefficients for all arms, over features of arm and request."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.arrays import ArrayPolicy
from banditroute.policies.base import LARGEST, Scores
from banditroute.policies.evidence import Sums

__all__ = ["Features", "SharedLinUCB"]

Features = Callable[[str, Floats], ArrayLike]


def featured(features: Features, arms: Iterable[str], x: Floats, size: int | None = None) -> Floats:
    """Stack ``features(arm, x)`` of every arm: (k, m), checked."""
    rows = [np.asarray(features(name, x)) for name in arms]
    return check.matrix("features", np.array(rows), columns=size)


class FeaturedPolicy(ArrayPolicy):
    """What the policies with features of arm and request share: features are those that the arm had when it was chosen.

    A decision keeps the context followed by the features of its arm (`kept`), and `update` takes that row. Given a
    context alone it asks for the features as they are then. Sums are kept per arm, and their total; ``left_gram`` and
    ``left_moment`` are what arms that were removed have told the others, and are part of the total.
    """

    _size: int  # of the features

    def __init__(
        self, arms: int | Iterable[str], dim: int, *, features: Features, size: int, **options: Any
    ) -> None:
        self.features, self._size = features, size
        self._seen: tuple[Floats, Floats] | None = None  # the last context scored, and the features then
        super().__init__(arms, dim, **options)
        self._common = {
            name: np.zeros(shape)
            for end, shape in (("gram", (size, size)), ("moment", (size,)))
            for name in (f"total_{end}", f"left_{end}")
        }
        self._derive(range(len(self.arms)))

    def _features(self, x: Floats) -> Floats:
        """Return the features of all arms, (k, m)."""
        z = featured(self.features, self.arms, x, self._size)
        self._seen = x.copy(), z
        return z

    def kept(self, x: Floats, arm: int) -> Floats:
        """Return the context followed by the features of the arm, as they were when the choice was made."""
        seen, self._seen = self._seen, None
        if seen is not None and len(seen[1]) == len(self.arms) and np.array_equal(seen[0], x):
            return np.concatenate([x, seen[1][arm]])
        return np.concatenate([x, featured(self.features, [self.arms[arm]], x, self._size)[0]])

    def check_kept(self, x: ArrayLike, arm: int) -> Floats:
        """Return context and features, those of now where a context came alone."""
        if self._size and np.shape(x) == (self.dim + self._size,):
            row = check.vector("x", x, self.dim + self._size)
            self.check_context(row[: self.dim])
            return row
        row = self.check_context(x)
        return np.concatenate([row, featured(self.features, [self.arms[arm]], row, self._size)[0]])

    def _split(self, x: Floats) -> tuple[Floats, Floats]:
        """Return context and features of a row that a decision kept."""
        if len(x) != self.dim + self._size:
            raise ValueError(
                f"x must be what kept() returned, {self.dim} + {self._size} numbers, got {len(x)}"
            )
        return x[: self.dim], x[self.dim :]

    def _derive(self, arms: Sequence[int]) -> None:
        """Derive what follows from the sums of these arms, and form the total anew: left, then arm by arm."""
        grams, moments = self._told(arms)
        self._common["total_gram"] = self._common["left_gram"] + grams.sum(axis=0)
        self._common["total_moment"] = self._common["left_moment"] + moments.sum(axis=0)
        self._solve()

    @abstractmethod
    def _told(self, arms: Sequence[int]) -> tuple[Floats, Floats]:
        """Return gram and moment of the features that each arm adds to the total; sums of these arms have changed."""

    @abstractmethod
    def _solve(self) -> None:
        """Derive coefficients from the total."""

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None.

        What a removed arm told of the features stays; what an arm told that starts cold in its place (`forget`) goes.
        """
        grams, moments = self._told(())
        total = {name: self._common[name] for name in ("total_gram", "total_moment")}
        gone = sorted(set(range(len(self.arms))) - set(keep))
        forgotten = [a for a in gone if a < len(keep) and keep[a] is None]
        for a in set(gone) - set(forgotten):
            self._common["left_gram"] = self._common["left_gram"] + grams[a]
            self._common["left_moment"] = self._common["left_moment"] + moments[a]
        self._seen = None
        super().resize(keep)
        if not forgotten:  # to the last bit: the others notice nothing
            self._common |= total
            self._solve()

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rewards learned per arm, shape (k,)."""
        return self._own["count"].astype(np.int64)


class SharedLinUCB(FeaturedPolicy):
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
        features: Features,
        alpha: float = 0.25,
        ridge: float = 1.0,
        **options: Any,
    ) -> None:
        self.alpha = check.finite("alpha", alpha, low=0.0, high=LARGEST)
        self.ridge = check.finite("ridge", ridge, low=1.0 / LARGEST, high=LARGEST)
        names, dim = check.names("arms", arms), check.integer("dim", dim, low=1)
        size = featured(features, names[:1], np.zeros(dim)).shape[1]
        super().__init__(names, dim, features=features, size=size, **options)

    def _cold(self) -> dict[str, Floats]:
        m = self._size
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
        self._cov = np.linalg.inv(self.ridge * np.eye(self._size) + self._common["total_gram"])
        self._beta = self._cov @ self._common["total_moment"]

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and width of every arm for one context, both (k,)."""
        z = self._features(self.check_context(x))
        # One arm at a time by the same sums, so that arms with equal features score equal to the last bit.
        width = np.einsum("ai,ij,aj->a", z, self._cov, z)
        return Scores(np.einsum("ai,i->a", z, self._beta), np.sqrt(np.maximum(width, 0.0)))

    def _utility(self, x: Floats) -> tuple[Floats, Floats]:
        mean, width = self.scores(x)
        return mean, self.alpha * width

    @property
    def beta(self) -> Floats:
        """Coefficients, an (m,) copy."""
        return self._beta.copy()

    def _read(self, arrays: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """Sums once were kept of all arms together: they count as those of arms that left."""
        if "left_gram" in arrays or not {"count", "gram", "moment"} <= set(arrays):
            return arrays
        cold, count = self._cold(), np.size(arrays["count"])
        blank = {name: np.zeros((count, *cold[name].shape)) for name in ("arm_gram", "arm_moment")}
        sums = {f"{kind}_{end}": arrays[end] for kind in ("left", "total") for end in ("gram", "moment")}
        return {"count": arrays["count"], **blank, **sums}

    def _loaded(self) -> None:
        self._solve()

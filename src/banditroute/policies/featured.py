"""Policies with features of arm and request: from a function, or brought by the candidates of each request."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.kernels import candidates as k
from banditroute._core.kernels import prepare
from banditroute._core.typing import Floats, Ints
from banditroute.policies.arrays import ArrayPolicy
from banditroute.policies.base import LARGEST, Choice, Scores, Utilities
from banditroute.policies.candidates import Candidates
from banditroute.policies.evidence import ArmEvidence, flat

__all__ = ["GUESTS", "FeaturedPolicy", "Features", "featured"]

Features = Callable[[str, Floats], ArrayLike]
LONGEST = 65_535  # bytes of a name, as for arms
GUESTS = ""  # the name under which replicas share what candidates that are no arms have taught


def compile_kernels() -> None:
    """Compile what scores candidates; a policy with features does so when it is made."""
    row, square, places = np.zeros(1), np.zeros((1, 1)), np.zeros(1, dtype=np.int64)
    cube = np.zeros((1, 1, 1))
    prepare(k.within, square, 1.0)
    prepare(k.score, square, row, square, row, row, np.zeros((2, 8)))
    prepare(k.apart, row, places, square, cube, cube, square, 1.0, square, row, row)
    prepare(k.draw, row, row, 0.0, 0.0, row)


def featured(features: Features, arms: Iterable[str], x: Floats, size: int | None = None) -> Floats:
    """Stack ``features(arm, x)`` of every arm: (k, m), checked."""
    rows = [np.asarray(features(name, x)) for name in arms]
    return check.matrix("features", np.array(rows), columns=size)


class FeaturedPolicy(ArrayPolicy):
    """What the policies with features of arm and request share: features are those that the arm had when it was chosen.

    A decision keeps the context followed by the features of its arm (`kept`), and `update` takes that row. Given a
    context alone it asks for the features as they are then.

    Each request may bring its own candidates, a set of names with features that differs every time. Names that are
    arms have statistics of their own where the policy keeps such; all others are guests: they are scored by their
    features alone and teach what is shared.

    Sums are kept per arm, and their total; ``left_gram`` and ``left_moment`` are what arms that were removed have told
    the others, ``guest_gram`` and ``guest_moment`` what guests have. Both are part of the total.
    """

    _size: int  # of the features that an arm or a candidate brings
    _width: int  # of the features that the shared part sees
    alpha: float

    def __init__(
        self,
        arms: int | Iterable[str],
        dim: int,
        *,
        features: Features | int,
        interactions: bool = False,
        **options: Any,
    ) -> None:
        compile_kernels()
        dim = check.integer("dim", dim, low=1)
        if callable(features):
            names = check.names("arms", arms)
            self.features: Features | None = features
            self._size = featured(features, names[:1], np.zeros(dim)).shape[1]
        else:
            self.features, self._size = None, check.integer("features", features, low=1)
        self.interactions = bool(interactions)
        self._width = self._size * dim if self.interactions else self._size
        self._seen: tuple[Floats, Floats] | None = None  # the last context scored, and the features then
        self._checked: tuple[tuple[str, ...], Ints] = ((), np.zeros(0, dtype=np.int64))
        super().__init__(arms, dim, **options)
        w = self._width
        self._common = {
            f"{whose}_{end}": np.zeros(shape)
            for end, shape in (("gram", (w, w)), ("moment", (w,)))
            for whose in ("total", "left", "guest")
        } | {"guest_count": np.array(0.0)}
        self._derive(range(len(self.arms)))

    # Features of arms.

    def _features(self, x: Floats) -> Floats:
        """Return the features of all arms, (k, size)."""
        if self.features is None:
            raise ValueError(
                f"x must come with candidates of {self._size} features each: this policy was given no function of them"
            )
        z = featured(self.features, self.arms, x, self._size)
        self._seen = x.copy(), z
        return z

    def _joint(self, x: Floats, z: Floats) -> Floats:
        """Return what the shared part sees of features (m, size) and a context: (m, width)."""
        if not self.interactions:
            return z
        return np.ascontiguousarray((z[:, :, np.newaxis] * x).reshape(len(z), self._width))

    def kept(self, x: Floats, arm: int) -> Floats:
        """Return the context followed by the features of the arm, as they were when the choice was made."""
        seen, self._seen = self._seen, None
        if seen is not None and len(seen[1]) == len(self.arms) and np.array_equal(seen[0], x):
            return np.concatenate([x, seen[1][arm]])
        if self.features is None:
            return np.concatenate([x, np.zeros(self._size)])
        return np.concatenate([x, featured(self.features, [self.arms[arm]], x, self._size)[0]])

    def keeps(self, row: Floats) -> bool:
        """Whether this has the length of context and features."""
        return row.size == self.dim + self._size

    def check_kept(self, x: ArrayLike, arm: int) -> Floats:
        """Return context and features, those of now where a context came alone."""
        if np.shape(x) == (self.dim + self._size,) and self._size:
            return self.check_guest(x)
        row = self.check_context(x)
        if self.features is None:
            raise ValueError(f"x must be what kept_candidate() returned, {self.dim} + {self._size} numbers")
        return np.concatenate([row, featured(self.features, [self.arms[arm]], row, self._size)[0]])

    def check_guest(self, x: ArrayLike) -> Floats:
        """Return a row of context and features, or refuse it."""
        row = check.vector("x", x, self.dim + self._size)
        self.check_context(row[: self.dim])
        if not np.abs(row[self.dim :]).max(initial=0.0) <= LARGEST:
            raise ValueError(f"x must hold features in [-{LARGEST:g}, {LARGEST:g}], got {row[self.dim :]}")
        return row

    def _split(self, x: Floats) -> tuple[Floats, Floats]:
        """Return context and what the shared part sees of a row that a decision kept."""
        if len(x) != self.dim + self._size:
            raise ValueError(
                f"x must be what kept() returned, {self.dim} + {self._size} numbers, got {len(x)}"
            )
        row = x[: self.dim]
        return row, self._joint(row, x[np.newaxis, self.dim :])[0]

    # Candidates.

    @property
    def candidate_size(self) -> int:
        """How many features each candidate of a request brings."""
        return self._size

    def check_candidates(self, candidates: Candidates) -> tuple[tuple[str, ...], Floats]:
        """Return names and features, (m,) and (m, candidate_size), of a mapping or a pair of these.

        A pair of a tuple of names and a float64 matrix is taken as it is; a mapping is packed into one.

        Raises
        ------
        ValueError, TypeError
            No candidates, names that repeat, a wrong shape, or numbers that are not finite.
        """
        if isinstance(candidates, Mapping):
            names = tuple(candidates)
            given: Any = list(candidates.values())
        elif (
            isinstance(candidates, tuple | list)
            and len(candidates) == 2
            and not isinstance(candidates[0], str)
        ):
            names, given = tuple(candidates[0]), candidates[1]
        else:
            raise TypeError(
                f"candidates must map names to features, or be (names, matrix), got {check.shown(candidates)}"
            )
        if names != self._checked[0]:
            if not (
                names and set(map(type, names)) == {str} and len(set(names)) == len(names) and "" not in names
            ):
                check.names("candidates", names)
            try:
                longest = max(len(name.encode()) for name in names)
            except UnicodeEncodeError:
                raise ValueError(
                    f"candidates must have names that are valid Unicode, got {names[:8]!a}"
                ) from None
            if longest > LONGEST:
                raise ValueError(
                    f"candidates must have names of at most {LONGEST} bytes in UTF-8, got {longest}"
                )
            places = self.positions
            self._checked = names, np.array([places.get(name, -1) for name in names], dtype=np.int64)
        if type(given) is list and all(type(row) is np.ndarray for row in given):  # half the time of np.array
            given = (
                np.concatenate(given).reshape(len(given), -1)
                if len({row.shape for row in given}) == 1
                else given
            )
        z = given
        if type(z) is not np.ndarray or z.dtype != np.float64 or not z.flags.carray:
            z = check.matrix("candidates", z, columns=self._size, rows=len(names))
            z = z if z.flags.carray else z.copy()
        if z.shape != (len(names), self._size):
            raise ValueError(f"candidates must have shape ({len(names)}, {self._size}), got {z.shape}")
        if not k.within(z, LARGEST):
            check.matrix("candidates", z)
            raise ValueError(
                f"candidates must have features in [-{LARGEST:g}, {LARGEST:g}], got {np.abs(z).max():g}"
            )
        return names, z

    def places(self, names: tuple[str, ...]) -> Ints:
        """Return the position of each candidate among the arms, (m,), -1 for a guest."""
        if names != self._checked[0]:
            places = self.positions
            self._checked = names, np.array([places.get(name, -1) for name in names], dtype=np.int64)
        return self._checked[1]

    def candidate_scores(self, x: ArrayLike, candidates: Candidates) -> Scores:
        """Return mean and width of every candidate, both (m,); reads only."""
        names, z = self.check_candidates(candidates)
        return self._scored(self.check_context(x), z, self.places(names))

    def candidate_utilities(self, x: ArrayLike, candidates: Candidates) -> Utilities:
        """Return what is maximised, before prices: mean and bonus of every candidate, both (m,); reads only."""
        mean, width = self.candidate_scores(x, candidates)
        return Utilities(mean, self.alpha * width)

    def candidate_propensities(
        self, x: ArrayLike, candidates: Candidates, prices: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every candidate, (m,), 0 where its price is infinite; reads only."""
        names, z, row, offers = self._ready(x, candidates, prices)
        mean, width = self._scored(row, z, self.places(names))
        chance = np.empty(len(names))
        k.draw(mean + self.alpha * width, offers, self.mix, 0.0, chance)
        return chance

    def select_candidate(
        self, x: ArrayLike, candidates: Candidates, prices: ArrayLike | None = None
    ) -> Choice:
        """Choose among candidates; reads statistics only and uses one random number.

        Parameters
        ----------
        x : (dim,) array
        candidates : mapping of str to (f,) array, or (names, (m, f) array)
        prices : (m,) array, optional
            Known extra cost of each, reward units, infinite where it is closed.

        Returns
        -------
        Choice
            Its place among the candidates, and its propensity.

        Raises
        ------
        ValueError, TypeError
            Nothing changed.
        """
        names, z, row, offers = self._ready(x, candidates, prices)
        return self.choose_candidate(row, names, z, offers)

    def choose_candidate(self, x: Floats, names: tuple[str, ...], features: Floats, prices: Floats) -> Choice:
        """As `select_candidate`, for a caller that has had everything checked and leaves one open."""
        mean, width = self._scored(x, features, self.places(names))
        chance = np.empty(len(names))
        arm = int(k.draw(mean + self.alpha * width, prices, self.mix, self._rng.random(), chance))
        return Choice(arm, chance.item(arm))

    def _ready(
        self, x: ArrayLike, candidates: Candidates, prices: ArrayLike | None
    ) -> tuple[tuple[str, ...], Floats, Floats, Floats]:
        """Return names, features, context and prices, or refuse the request."""
        names, z = self.check_candidates(candidates)
        row = self.check_context(x)
        offers = np.zeros(len(names))
        if prices is not None:
            offers = np.array(prices, dtype=np.float64)
            if offers.shape != (len(names),) or not (offers >= -LARGEST).all():
                raise ValueError(f"prices must be ({len(names)},) numbers or inf, got {check.shown(prices)}")
            if offers.min() == np.inf:
                raise ValueError("prices must leave a candidate open, got none")
        return names, z, row, offers

    @abstractmethod
    def _scored(self, x: Floats, z: Floats, places: Ints) -> Scores:
        """Return mean and width of features (m, size) at these places among the arms."""

    def _shared(self, z: Floats, beta: Floats, cov: Floats) -> tuple[Floats, Floats]:
        """Return ``z'beta`` and ``sqrt(z' cov z)`` of each row of (m, width) features."""
        m = len(z)
        mean, width = np.empty(m), np.empty(m)
        if m:
            k.score(z, beta, cov, mean, width, np.empty((self._width + 1, -(-m // 8) * 8)))
        return mean, width

    def _hoped(self, mean: Floats) -> Floats:
        """Return means for a choice among arms: one without a reward is as good as the best that has some, at least.

        What is shared knows nothing of it apart from the others; without noise no width would ever have it tried.
        """
        new = self._own["count"] == 0.0
        if new.all() or not new.any():
            return mean
        return np.where(new, np.maximum(mean, mean[~new].max()), mean)

    def kept_candidate(self, x: Floats, features: Floats) -> Floats:
        """Return what a decision keeps of the candidate that was chosen: context and features, a new array."""
        return np.concatenate([x, features])

    def knows(self, name: str) -> bool:
        """Whether this is an arm, and there is a function of features."""
        return self.features is not None and name in self.positions

    @property
    def scales(self) -> bool:
        """Whether means are linear in context and features together: not in their products."""
        return not self.interactions

    def learns_of(self, name: str) -> bool:
        """Whether `update` takes a reward of this name: of any, for guests teach what is shared."""
        return bool(name)

    def redraw(self, kept: Floats) -> None:
        """Use up the random number of a decision that is replayed."""
        self._rng.random()

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward; of a name that is no arm what `kept_candidate` returned is needed.

        See `Policy.update`.
        """
        if (
            isinstance(arm, str)
            and arm
            and arm not in self.positions
            and np.shape(x) == (self.dim + self._size,)
        ):
            row = self.check_guest(x)
            value, mass = self.check_reward(reward, weight)
            when = self._clock if at is None else check.integer("at", at, high=1 << 52)
            self._learn_guest(row, value, mass)
            self._clock = max(self._clock, when + 1)
            return
        super().update(arm, x, reward, weight=weight, at=at)

    def rename(self, arms: tuple[str, ...]) -> None:
        """Take up the names of the arms, after `resize`."""
        super().rename(arms)
        self._checked = ((), np.zeros(0, dtype=np.int64))

    def check_arms(self, arms: int | Iterable[str]) -> tuple[str, ...]:
        """Return names of arms; there may be none where all candidates come with their requests."""
        if self.features is None and not isinstance(arms, int | np.integer | str):
            arms = tuple(arms)
            if not arms:
                return ()
        return super().check_arms(arms)

    # What is shared.

    def _derive(self, arms: Sequence[int]) -> None:
        """Derive what follows from the sums of these arms, and form the total anew: left, guests, then arm by arm."""
        grams, moments = self._told(arms)
        common = self._common
        common["total_gram"] = common["left_gram"] + common["guest_gram"] + grams.sum(axis=0)
        common["total_moment"] = common["left_moment"] + common["guest_moment"] + moments.sum(axis=0)
        self._solve()

    @abstractmethod
    def _told(self, arms: Sequence[int]) -> tuple[Floats, Floats]:
        """Return gram and moment of the features that each arm adds to the total; sums of these arms have changed."""

    @abstractmethod
    def _solve(self) -> None:
        """Derive coefficients from the total."""

    def _guest_weight(self, x: Floats, weight: float) -> float:
        """Return what a reward of a guest weighs in what is shared."""
        return weight

    def _add_guest(self, sums: Mapping[str, NDArray[Any]], x: Floats, reward: float, weight: float) -> None:
        """Add a reward of a guest to sums called as those of `evidence` are, in place."""
        row, z = self._split(x)
        weight = self._guest_weight(row, weight)
        sums["guest_gram"][...] += weight * np.outer(z, z)
        sums["guest_moment"][...] += weight * reward * z
        sums["guest_count"][...] += 1.0

    def _learn_guest(self, x: Floats, reward: float, weight: float) -> None:
        common = self._common
        self._add_guest(common, x, reward, weight)
        row, z = self._split(x)
        weight = self._guest_weight(row, weight)
        common["total_gram"] += weight * np.outer(z, z)
        common["total_moment"] += weight * reward * z
        self._solve()

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

    @property
    def guests(self) -> int:
        """Rewards learned of candidates that are no arms."""
        return int(self._common["guest_count"])

    # Evidence: see `EvidencePolicy`. What guests taught goes by the name of nobody.

    @property
    def shared_names(self) -> tuple[str, ...]:
        """What guests taught, which belongs to no arm."""
        return (GUESTS,)

    def evidence(self, arm: str) -> ArmEvidence:
        """Return a copy of the sums of one arm, or of all guests for the empty name."""
        if arm != GUESTS:
            return super().evidence(arm)
        sums = {name: self._common[name].copy() for name in ("guest_gram", "guest_moment", "guest_count")}
        return ArmEvidence(self.generation(arm), -1, {0: sums})

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put sums in the place of those of one arm, or of all guests for the empty name."""
        if arm != GUESTS:
            super().set_evidence(arm, total)
            return
        wanted = {name: np.zeros_like(array) for name, array in self.evidence(arm).buckets[0].items()}
        if any(array.any() for sums in total.buckets.values() for array in sums.values()):
            wanted = flat(total, ArmEvidence(0, -1, {0: wanted}), 0)
        self._common |= {name: np.array(array) for name, array in wanted.items()}
        self.set_generation(arm, total.generation)
        self._derive(())

    def credit(
        self, evidence: ArmEvidence, x: Floats, reward: float, weight: float = 1.0, at: int = 0
    ) -> ArmEvidence:
        """Return evidence with one more reward in it; works in place. That of guests is told by its names."""
        if "guest_gram" not in evidence.buckets.get(0, ()):
            return super().credit(evidence, x, reward, weight, at)
        self._add_guest(evidence.buckets[0], x, float(reward), float(weight))
        return evidence

    def _read(self, arrays: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """There were no guests once."""
        if "guest_gram" in arrays:
            return arrays
        w = self._width
        nobody = {"guest_gram": np.zeros((w, w)), "guest_moment": np.zeros(w), "guest_count": np.array(0.0)}
        return {**arrays, **nobody}

"""What the policies on plain numpy arrays share: checks, saving, arms that come and go, ties, the uniform share."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Rng
from banditroute.policies.base import Policy, Settings, Utilities, check_generations, check_settings, mixed
from banditroute.policies.evidence import ArmEvidence, Sums, copied, flat

__all__ = ["ArrayPolicy"]

LATEST = 1 << 52  # clock indices up to here are exact as floats


class ArrayPolicy(Policy):
    """A policy whose statistics are named arrays: `_own` with a row per arm, `_common` without.

    A subclass writes `scores`, `_learn` and, unless its index is the mean, `_utility`. Cold rows come from `_cold`.
    Where rows named in ``_sums`` are all that is learned of an arm and add up, it writes `_add` too and can share them.
    """

    _sums: tuple[str, ...] = ()
    _unshared = "what it learns does not add up"  # why there is no evidence, where `_sums` is empty
    _rule = "plays the largest index, ties split evenly"
    _blind = False  # whether contexts change nothing

    def __init__(
        self, arms: int | Iterable[str], dim: int, *, mix: float = 0.0, max_norm: float = 1e6, rng: Rng = None
    ) -> None:
        super().__init__(arms, dim, max_norm=max_norm, rng=rng)
        self.mix = check.unit("mix", mix)
        self._clock = 0
        self._common: dict[str, Floats] = {}
        self._own = self._rows([None] * len(self.arms))

    @abstractmethod
    def _cold(self) -> dict[str, Floats]:
        """Return the row of an arm of which nothing is known, for each array."""

    @abstractmethod
    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        """Learn one reward that passed the checks."""

    def _add(self, sums: Sums, x: Floats, reward: float, weight: float) -> None:
        """Add one reward to the named sums, in place."""
        raise TypeError(f"{type(self).__name__} cannot share: {self._unshared}")

    def _derive(self, arms: Sequence[int]) -> None:
        """Derive what follows from the sums of these arms, after they were set."""

    def _utility(self, x: Floats) -> tuple[Floats, Floats]:
        """Return mean and bonus of every arm, both (k,): their sum, less price, is what is compared between arms."""
        mean = self.scores(x).mean
        return mean, np.zeros(len(mean))

    def utilities(self, contexts: ArrayLike) -> Utilities:
        """Return mean and bonus for each row of ``contexts`` (n, dim): two (n, k) arrays."""
        rows = check.matrix("contexts", contexts, columns=self.dim)
        self.check_norms(rows)
        shape = (len(rows), len(self.arms))
        if self._blind:
            mean, bonus = self._utility(np.zeros(self.dim))
            return Utilities(np.broadcast_to(mean, shape).copy(), np.broadcast_to(bonus, shape).copy())
        each = [self._utility(x) for x in rows]
        mean, bonus = (np.array([u[i] for u in each]).reshape(shape) for i in range(2))
        return Utilities(mean, bonus)

    def _indices(self, x: Floats) -> Floats:
        mean, bonus = self._utility(x)
        return mean + bonus

    def _best(self, index: Floats, offers: Floats) -> Floats:
        """Return propensities: ties of index less price split evenly, and the uniform share."""
        value = index - (offers - offers.min())
        top = value == value.max()
        allowed = np.isfinite(offers)
        return np.asarray((1.0 - self.mix) * top / top.sum() + self.mix * allowed / allowed.sum())

    @property
    def rule(self) -> str:
        """How a choice follows from the index."""
        return mixed(self._rule, self.mix)

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, shape (k,); exactly 0 where not eligible; reads only."""
        row, offers = self.check_context(x), self.effective_prices(prices, eligible)
        return self._best(self._indices(row), offers)

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward; `at` is the clock index of its decision, the next one when left out."""
        a = self.index(arm)
        row = self.check_kept(x, a)
        value, mass = self.check_reward(reward, weight)
        when = self._clock if at is None else check.integer("at", at, high=LATEST)
        self._learn(a, row, value, mass, when)
        self._clock = max(self._clock, when + 1)

    def rewind(self) -> None:
        """Start a new clock at index 0."""
        self._clock = 0

    def to_state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Return a JSON-able header and copies of all arrays."""
        header = {
            "policy": type(self).__name__,
            "arms": list(self.arms),
            "dim": self.dim,
            "clock": self._clock,
            "generations": dict(self.generations),
        }
        arrays = {name: array.copy() for name, array in {**self._own, **self._common}.items()}
        return {**header, "rng": self._rng.bit_generator.state}, arrays

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Floats], *, settings: Settings = "strict"
    ) -> None:
        """Continue from `to_state`; raises ``ValueError`` and changes nothing when the two do not fit.

        The state holds statistics, the clock and the generator; settings stay those of this policy in either case.
        """
        check_settings(settings)
        kind, dim, clock = (check.entry("header", header, name) for name in ("policy", "dim", "clock"))
        if kind != type(self).__name__ or dim != self.dim:
            raise ValueError(f"state must be of {(type(self).__name__, self.dim)}, got {(kind, dim)}")
        names = self.check_arms(check.entry("header", header, "arms"))
        clock = check.integer("clock", clock, high=LATEST + 1)
        arrays = self._read(arrays)
        own, common = (
            {name: np.array(check.entry("arrays", arrays, name), dtype=np.float64) for name in mine}
            for mine in (self._own, self._common)
        )
        shapes = {name: (len(names), *array.shape[1:]) for name, array in self._own.items()}
        for name, array in {**own, **common}.items():
            shape = shapes.get(name, self._common[name].shape if name in self._common else ())
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
        self._sound(own)
        generations = check_generations(header)
        rng = check.generator("rng", self._rng, check.entry("header", header, "rng"))
        self._own, self._common, self._rng, self._clock = own, common, rng, clock
        self.generations = generations
        self.rename(names)
        self._loaded()

    def _loaded(self) -> None:
        """Derive what is not saved."""

    def _read(self, arrays: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """Return arrays as they are written today; an older policy may have written others."""
        return arrays

    def _sound(self, own: Mapping[str, Floats]) -> None:
        """Refuse finite arrays of the right shapes that no feedback can have led to."""

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self.raise_generations(keep)
        self._own = self._rows(keep)
        self._derive(range(len(keep)))

    def _rows(self, keep: list[int | None]) -> dict[str, Floats]:
        return {
            name: np.array([row if a is None else self._own[name][a] for a in keep]).reshape(
                len(keep), *row.shape
            )
            for name, row in self._cold().items()
        }

    # Evidence: see `EvidencePolicy`.

    def fingerprint(self) -> dict[str, Any]:
        """Return what must agree before evidence may be joined; ``TypeError`` says why there is none."""
        if not self._sums:
            raise TypeError(f"{type(self).__name__} cannot share: {self._unshared}")
        shapes = {name: list(array.shape) for name, array in self.empty_evidence().buckets[0].items()}
        return {"kind": "sums", "dim": self.dim, "sums": shapes}

    @property
    def shared_names(self) -> tuple[str, ...]:
        """Nothing: all sums are of one arm."""
        return ()

    @property
    def bucket(self) -> int:
        """Zero: nothing is forgotten by the clock."""
        return 0

    def empty_evidence(self) -> ArmEvidence:
        """Return evidence of nothing."""
        cold = self._cold()
        return ArmEvidence(0, -1, {0: {name: np.zeros(cold[name].shape) for name in self._sums}})

    def evidence(self, arm: str) -> ArmEvidence:
        """Return a copy of the sums of one arm."""
        a = self.index(arm)
        return ArmEvidence(
            self.generation(arm), -1, {0: {name: np.array(self._own[name][a]) for name in self._sums}}
        )

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put sums in the place of those of one arm."""
        a = self.index(arm)
        for name, array in flat(total, self.empty_evidence(), 0).items():
            self._own[name][a] = array
        self.set_generation(arm, total.generation)
        self._derive([a])

    def credit(
        self, evidence: ArmEvidence, x: Floats, reward: float, weight: float = 1.0, at: int = 0
    ) -> ArmEvidence:
        """Return evidence with one more reward in it; works in place."""
        if not evidence.buckets:
            evidence = evidence._replace(buckets=self.empty_evidence().buckets)
        self._add(evidence.buckets[0], x, float(reward), float(weight))
        return evidence

    def aged(self, evidence: ArmEvidence, bucket: int) -> ArmEvidence:
        """Return a copy: these sums do not age."""
        return copied(evidence)

"""A policy around another policy: everything is passed on, until a subclass says otherwise."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header
from banditroute.policies.base import Choice, Policy, Scores, Settings, Utilities, check_settings
from banditroute.policies.evidence import ArmEvidence, EvidencePolicy

__all__ = ["GUEST", "Wrapper"]

GUEST = -1  # in the place of an arm: a candidate that is none

LATEST = 1 << 52

FORMER = {
    "Stale": "StalenessInflation",
    "RarelySwitching": "BatchedUpdates",
}  # names in states of before 0.2.0


class Wrapper(Policy):
    """Passes everything on to ``base``, which belongs to the wrapper from then on.

    A subclass writes `_learn` and names in ``_kept`` its own arrays (attributes) that are saved beside those of the
    base, in ``_settings`` those that must agree with a state. What a linear base tells of its statistics (``_passed``)
    can be asked of the wrapper too. It shares evidence and has widths where the base does. The compiled loop of a
    simulation knows nothing of wrappers: they run request by request. ``refuses_candidates`` says why requests that
    bring their candidates are refused; where it is empty the base chooses among them, and `_learn` is told of those
    that are no arms as `GUEST`.
    """

    refuses_candidates: str = "what it keeps it keeps of arms"
    _kept: tuple[str, ...] = ()
    _settings: tuple[str, ...] = ()
    _passed: tuple[str, ...] = ("cov", "moment", "precision", "prior", "ridge", "theta")

    def __init__(self, base: Policy) -> None:
        if not isinstance(base, Policy):
            raise TypeError(f"base must be a Policy, got {type(base).__name__}")
        if not base.arms and self.refuses_candidates:
            raise ValueError(
                f"base must have arms: {type(self).__name__} takes no candidates, {self.refuses_candidates}; got "
                f"{type(base).__name__} without any"
            )
        self.base = base
        super().__init__(base.arms, base.dim, max_norm=base.max_norm, rng=base.generator)
        self.clock = 0
        self._width = len(base.kept(np.zeros(base.dim), 0))  # of what `update` learns from

    def __getattr__(self, name: str) -> Any:
        """Ask the base for what it tells of its statistics."""
        if name in type(self)._passed:
            return getattr(self.base, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        self.base.update(a, x, reward, weight=weight, at=at)

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward; `at` is the clock index of its decision, the next one when left out."""
        if isinstance(arm, str) and arm not in self.positions and self.learns_of(arm):
            a, row = GUEST, self.base.check_guest(x)
        else:
            a = self.index(arm)
            row = self.check_kept(x, a)
        value, mass = self.check_reward(reward, weight)
        when = self.clock if at is None else check.integer("at", at, high=LATEST)
        self._learn(a, row, value, mass, when)
        self.clock = max(self.clock, when + 1)

    def kept(self, x: Floats, arm: int) -> Floats:
        """Return what the base keeps of a decision."""
        return self.base.kept(x, arm)

    def context_of(self, kept: Floats) -> Floats:
        """Return the context of what the base kept."""
        return self.base.context_of(kept)

    def keeps(self, row: Floats) -> bool:
        """Whether the base may have kept this."""
        return self.base.keeps(row)

    @property
    def candidate_size(self) -> int | None:
        """How many features each candidate brings, where they are passed on."""
        return None if self.refuses_candidates else self.base.candidate_size

    def learns_of(self, name: str) -> bool:
        """Whether the base learns of candidates that are no arms, and they are passed on."""
        return not self.refuses_candidates and self.base.learns_of(name)

    def check_guest(self, x: ArrayLike) -> Floats:
        """Return what was kept of a candidate that is no arm, as the base would have it."""
        return self.base.check_guest(x)

    def check_arms(self, arms: int | Iterable[str]) -> tuple[str, ...]:
        """Return names of arms; none where the base needs none."""
        return self.base.check_arms(arms)

    def redraw(self, kept: Floats) -> None:
        """Use up the random numbers of a decision that is replayed."""
        self.base.redraw(kept)

    def check_kept(self, x: ArrayLike, arm: int) -> Floats:
        """Return what `update` was given as the base would have kept it."""
        return self.base.check_kept(x, arm)

    def check_reward(self, reward: Any, weight: Any) -> tuple[float, float]:
        """Return reward and weight as floats, or refuse what the base refuses."""
        return self.base.check_reward(reward, weight)

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and width of every arm for one context, both (k,)."""
        return self.base.scores(x)

    def utilities(self, contexts: ArrayLike) -> Utilities:
        """Return what the base maximises."""
        return self.base.utilities(contexts)

    def freeze(self) -> Iterator[Callable[[ArrayLike], Utilities] | None]:
        """Copy what `utilities` of the base reads, a slice for each ``next()``."""
        yield from self.base.freeze()

    @property
    def rule(self) -> str:
        """How a choice of the base follows."""
        return self.base.rule

    @property
    def scales(self) -> bool:
        """Whether the base does."""
        return self.base.scales

    def playable(self, x: ArrayLike) -> NDArray[np.bool_] | None:
        """Return which arms the base can play."""
        return self.base.playable(x)

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, shape (k,)."""
        return self.base.propensities(x, prices=prices, eligible=eligible)

    def select(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Choice:
        """Choose an arm; see `LinUCB.select`."""
        return self.base.select(x, prices=prices, eligible=eligible)

    def select_priced(self, x: ArrayLike, effective: Floats) -> Choice:
        """As `select`, for a caller that has folded prices and mask already."""
        return self.base.select_priced(x, effective)

    @property
    def alpha(self) -> float:
        """Exploration width of the base, 0 where it has none."""
        return float(getattr(self.base, "alpha", 0.0))

    @property
    def counts(self) -> NDArray[np.int64] | None:
        """Rewards learned per arm, where the base counts them."""
        return getattr(self.base, "counts", None)

    @property
    def can_widen(self) -> bool:
        """Whether the base has widths."""
        return self.base.can_widen

    def widen(self, arm: int, source: str, factor: float) -> None:
        """Widen the bonus of an arm of the base."""
        self.base.widen(arm, source, factor)

    def mass(self, arm: int) -> float:
        """Return the weight of what the base knows of an arm."""
        return self.base.mass(arm)

    def reseed(self) -> None:
        """Take new random numbers from the system."""
        self.base.reseed()
        self._rng = self.base.generator

    def continue_from(self, other: Self) -> None:
        """Go on with the random numbers and the generations of the base of another."""
        self.base.continue_from(other.base)

    def advance(self, at: int) -> None:
        """Tell the clock index of the decisions so far."""
        self.clock = max(self.clock, at)
        self.base.advance(at)

    def rewind(self) -> None:
        """Start a new clock at index 0."""
        self.clock = 0
        self.base.rewind()

    # Evidence: that of the base.

    def _evident(self) -> EvidencePolicy:
        if not isinstance(self.base, EvidencePolicy):
            raise TypeError(f"{type(self.base).__name__} cannot share: it has no evidence")
        return self.base

    def fingerprint(self) -> dict[str, Any]:
        """Return what must agree before evidence of the base may be joined; ``TypeError`` says why there is none."""
        return self._evident().fingerprint()

    @property
    def shared_names(self) -> tuple[str, ...]:
        """What the arms of the base share."""
        return self._evident().shared_names

    @property
    def bucket(self) -> int:
        """The current bucket of the base."""
        return self._evident().bucket

    def empty_evidence(self) -> ArmEvidence:
        """Return evidence of nothing."""
        return self._evident().empty_evidence()

    def evidence(self, arm: str) -> ArmEvidence:
        """Return a copy of the sums of one arm."""
        return self._evident().evidence(arm)

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put sums in the place of those of one arm."""
        self._evident().set_evidence(arm, total)

    def credit(
        self, evidence: ArmEvidence, x: Floats, reward: float, weight: float = 1.0, at: int = 0
    ) -> ArmEvidence:
        """Return evidence with one more reward in it; works in place."""
        return self._evident().credit(evidence, x, reward, weight, at)

    def aged(self, evidence: ArmEvidence, bucket: int) -> ArmEvidence:
        """Return evidence as it counts in a later bucket."""
        return self._evident().aged(evidence, bucket)

    def generation(self, arm: str) -> int:
        """Return the generation that the base counts."""
        return self.base.generation(arm)

    def set_generation(self, arm: str, generation: int) -> None:
        """Take up the generation that others have seen."""
        self.base.set_generation(arm, generation)

    # Copies, states, arms.

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy everything; the generator stays that of the base."""
        new = object.__new__(type(self))
        new.__dict__.update(
            {name: deepcopy(value, memo) for name, value in self.__dict__.items() if name != "_rng"}
        )
        new._rng = new.base.generator
        return new

    def to_state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Return a JSON-able header and copies of all arrays, those of the base under ``base.``."""
        return _around(self._own_state(), self.base.to_state())

    def _own_state(self) -> tuple[Header, Arrays]:
        """Return what `to_state` adds to that of the base."""
        own: Arrays = {name: np.array(getattr(self, name), dtype=np.float64) for name in self._kept}
        mine: Header = {
            "policy": type(self).__name__,
            "arms": list(self.arms),
            "clock": self.clock,
            "settings": {name: getattr(self, name) for name in self._settings},
        }
        return mine, own

    def capture_slices(self) -> Generator[tuple[Header, Arrays] | None, None, None]:
        """Copy what the wrapper itself keeps in one slice, and the state of the base as the base does."""
        if type(self).to_state is not Wrapper.to_state:  # of a subclass that keeps more
            yield from super().capture_slices()
            return
        own, base = self._own_state(), self.base.capture_slices()
        try:
            while (state := next(base)) is None:
                yield None
            yield _around(own, state)
        finally:
            base.close()

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Floats], *, settings: Settings = "strict"
    ) -> None:
        """Continue from `to_state`; raises ``ValueError`` and changes nothing when the two do not fit."""
        check_settings(settings)
        kind, base, clock = (check.entry("header", header, name) for name in ("policy", "base", "clock"))
        kind = FORMER.get(kind, kind)
        if kind != type(self).__name__:
            raise ValueError(f"state must be of {type(self).__name__}, got {kind}")
        names = self.check_arms(check.entry("header", header, "arms"))
        if not isinstance(base, Mapping) or list(names) != base.get("arms"):
            raise ValueError(f"arms must be those of the base, got {check.shown(list(names))}")
        clock = check.integer("clock", clock, high=LATEST + 1)
        given = header.get("settings", {})
        for name in self._settings:
            mine = getattr(self, name)
            if settings == "strict" and given.get(name, mine) != mine:
                raise ValueError(f"{name} must be {mine} in the state too, got {given[name]}")
        own = {}
        for name, shape in self._shapes(len(names)).items():
            own[name] = np.array(check.entry("arrays", arrays, name), dtype=np.float64)
            wild = tuple(-1 if want == -1 else got for want, got in zip(shape, own[name].shape, strict=False))
            if own[name].ndim != len(shape) or wild != shape:
                raise ValueError(f"{name} must have shape {shape}, got {own[name].shape}")
            if not np.isfinite(own[name]).all():
                raise ValueError(f"{name} must be finite")
        self._sound(own, len(names))
        inner = {name[5:]: array for name, array in arrays.items() if name.startswith("base.")}
        self.base.load_state(base, inner, settings=settings)
        self._rng, self.clock = self.base.generator, clock
        self.rename(self.base.arms)
        for name, array in own.items():
            setattr(self, name, array)

    def _shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of ``_kept`` for so many arms, -1 for any number of rows."""
        return {name: (count, *np.shape(getattr(self, name))[1:]) for name in self._kept}

    def _sound(self, own: Mapping[str, Floats], count: int) -> None:
        """Refuse finite arrays of the right shapes that no feedback can have led to."""

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self.base.resize(keep)

    def rename(self, arms: tuple[str, ...]) -> None:
        """Take up the names of the arms, after `resize`."""
        super().rename(arms)
        self.base.rename(arms)  # it binds what points into its arrays

    def _rows_kept(self, array: Floats, keep: list[int | None], cold: float = 0.0) -> Floats:
        """Return per-arm numbers (k, ...) after a change of arms."""
        blank = np.full(array.shape[1:], cold)
        return np.array([blank if a is None else array[a] for a in keep])


def _around(own: tuple[Header, Arrays], base: tuple[Header, Arrays]) -> tuple[Header, Arrays]:
    """Return the state of a wrapper from what is its own and that of its base."""
    arrays = {f"base.{name}": array for name, array in base[1].items()}
    return {**own[0], "base": base[0]}, {**arrays, **own[1]}


def moved(rows: Floats, keep: list[int | None], column: int = 0) -> Floats:
    """Return the rows whose arm (in `column`) stays, with its new index; those of guests stay."""
    place = {a: i for i, a in enumerate(keep) if a is not None} | {GUEST: GUEST}
    kept = rows[np.isin(rows[:, column], list(place))]
    kept[:, column] = [place[int(a)] for a in kept[:, column]]
    return kept


def whole(name: str, values: Floats, below: float) -> None:
    """Refuse numbers that are not whole, or not in [0, below)."""
    if not (np.all(values == np.floor(values)) and np.all((values >= 0.0) & (values < below))):
        raise ValueError(f"{name} must hold whole numbers in [0, {below:g})")

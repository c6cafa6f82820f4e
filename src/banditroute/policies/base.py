"""The abstract policy: contexts and rewards in, an arm and its propensity out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import attributes
from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header, Rng
from banditroute.policies.border import LARGEST, Border

__all__ = ["LARGEST", "Choice", "Compiled", "Policy", "Scores", "Settings", "Utilities"]

Settings = Literal["strict", "own"]


DERIVED = ("arms", "dim", "positions", "_free", "_everyone")  # of the attributes, what `rename` makes


def check_settings(settings: str) -> str:
    """Return which settings hold after a load, or refuse the word."""
    if settings not in ("strict", "own"):
        raise ValueError(f"settings must be 'strict' or 'own', got {settings!r}")
    return settings


def mixed(rule: str, mix: float) -> str:
    """Return a rule with its share of uniform choices.

    >>> mixed("plays the largest index", 0.1)
    'plays the largest index, and draws 10 % of its choices uniformly over the open arms'
    """
    return (
        rule
        if not mix
        else f"{rule}, and draws {100 * mix:.3g} % of its choices uniformly over the open arms"
    )


def check_generations(header: Mapping[str, Any]) -> dict[str, int]:
    """Return the generations of a state; there are none in an old one."""
    given = header.get("generations", {})
    if not isinstance(given, Mapping):
        raise ValueError(f"generations must map names to counts, got {check.shown(given)}")
    if not all(type(value) is int and value >= 0 for value in given.values()):
        raise ValueError(f"generations must be counts, got {check.shown(dict(given))}")
    return {str(name): value for name, value in given.items()}


class Choice(NamedTuple):
    """The arm chosen for one request and the probability with which it was chosen.

    Examples
    --------
    >>> Choice(2, 0.5).propensity
    0.5
    """

    arm: int
    propensity: float


class Scores(NamedTuple):
    """What a policy believes of every arm: the ``mean`` of its reward, and the ``width`` of what is not known of it.

    The width is one standard deviation of the estimated mean under the noise that the policy assumes of a reward: that
    of a success or failure for `BetaThompson` and `LogisticUCB`, sigma for `GaussianThompson`, 1 for all others, whose
    models are least squares and know of no scale (``sqrt(x' A^-1 x)``; times the noise scale it is in reward units).
    What a policy adds to the mean before it compares arms is the bonus of `Policy.utilities`.

    Examples
    --------
    >>> Scores(np.zeros(2), np.ones(2)).width.shape
    (2,)
    """

    mean: Floats
    width: Floats


class Utilities(NamedTuple):
    """What a policy maximises, less prices: ``mean`` and ``bonus``, both (n, k), a row per context, in reward units.

    Examples
    --------
    >>> mean, bonus = Utilities(np.zeros((1, 2)), np.ones((1, 2)))
    >>> (mean + bonus).shape
    (1, 2)
    """

    mean: Floats
    bonus: Floats


class Compiled(Protocol):
    """What the compiled loop of a simulation drives: the buffer of the kernels, and noise when it is used up.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> LinUCB(2, 1).compiled().buffer.dtype
    dtype('float64')
    """

    @property
    def buffer(self) -> Floats:
        """The buffer that the kernels read and write."""

    def draw_noise(self) -> None:
        """Fill the noise block again."""


class Policy(Border, ABC):
    """What every policy is: it knows contexts and rewards, never time, memory or ids.

    Parameters
    ----------
    arms : int or sequence of str
        Names of the arms, or a count k for "0" .. "k-1".
    dim : int
        Length of the context vectors.
    max_norm : float
        Contexts with a larger Euclidean norm are refused.
    rng : int, SeedSequence, Generator or None
        Source of randomness, through ``numpy.random.default_rng``.

    Notes
    -----
    A subclass writes `update` and one of `scores` and `propensities`; that is all a simulation needs. From `scores`
    alone it is greedy: `propensities` goes to the largest mean less price. What else it may write, once it is asked
    for: `resize` before arms come and go, `utilities` before a residency controller plans optimistically with it, and
    `to_state` with `load_state` where the default, all plain attributes, will not do. The hooks ``check_context``,
    ``check_reward``, ``effective_prices`` and ``index`` are for writing these. Not safe for use from several threads at
    once: that is the Router's lock.

    Examples
    --------
    >>> class LastReward(Policy):
    ...     def __init__(self, arms, dim, rng=None):
    ...         super().__init__(arms, dim, rng=rng)
    ...         self.last = np.ones(len(self.arms))
    ...     def scores(self, x):
    ...         self.check_context(x)
    ...         return Scores(self.last, np.zeros(len(self.arms)))
    ...     def update(self, arm, x, reward, *, weight=1.0, at=None):
    ...         self.last[self.index(arm)] = self.check_reward(reward, weight)[0]
    >>> policy = LastReward(2, 1, rng=0)
    >>> policy.update(0, [1.0], 0.5)
    >>> policy.select([1.0])
    Choice(arm=1, propensity=1.0)
    """

    span: int = 0  # decisions per discount bucket; 0 where the policy does not forget by the clock

    def __init__(
        self, arms: int | Iterable[str], dim: int, *, max_norm: float = 1e6, rng: Rng = None
    ) -> None:
        own = type(self)
        if own.scores is Policy.scores and own.propensities is Policy.propensities:
            raise TypeError(f"{own.__name__} must write scores or propensities")
        super().__init__(arms, dim, max_norm=max_norm)
        self.generations: dict[str, int] = {}  # how often an arm of this name was forgotten or removed
        self._rng = np.random.default_rng(rng)

    # What it believes and how it chooses.

    def __repr__(self) -> str:
        """Show arms, dimension and how many rewards were learned."""
        arms = list(self.arms) if len(self.arms) <= 6 else f"{len(self.arms)} arms"
        counts = getattr(self, "counts", None)
        learned = "" if counts is None else f", learned={int(np.sum(counts))}"
        return f"{type(self).__name__}(arms={arms}, dim={self.dim}{learned})"

    def scores(self, x: ArrayLike) -> Scores:
        """Return estimated mean and width of every arm for one context, both (k,); reads only.

        Raises ``TypeError`` where a policy has written `propensities` alone.
        """
        raise TypeError(f"{type(self).__name__} tells propensities only: it has no scores")

    def utilities(self, contexts: ArrayLike) -> Utilities:
        """Return what the policy maximises before prices, for each row of ``contexts`` (n, dim); reads only.

        Without uniform share the choice is an arm with the largest ``mean + bonus - price``. A policy that samples
        gives one standard deviation of its posterior as the bonus. Residency controllers plan with it.

        Raises
        ------
        TypeError
            The policy has not written this method.
        """
        raise TypeError(
            f"{type(self).__name__} does not say what it maximises: it has no utilities(contexts (n, dim))"
        )

    def freeze(self) -> Iterator[Callable[[ArrayLike], Utilities] | None]:
        """Copy what `utilities` reads, a slice for each ``next()``; the last item is `utilities` of the copy.

        For plans off the request path: call ``next()`` with the lock held, and release it in between. By default the
        whole policy is one slice.
        """
        yield self.copy().utilities

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, (k,): sums to 1, exactly 0 where not eligible; reads only.

        By default the largest mean less price gets it all; ties are split evenly.
        """
        offers = self.effective_prices(prices, eligible)
        value = self.scores(x).mean - (offers - offers.min())
        best = value == value.max()
        return np.asarray(best / best.sum())

    @property
    def rule(self) -> str:
        """How a choice follows from means, bonuses and prices, as words that complete "it ..."."""
        if type(self).propensities is Policy.propensities:
            return "plays the largest mean less price, ties split evenly"
        return "draws an arm by propensities of its own"

    def playable(self, x: ArrayLike) -> NDArray[np.bool_] | None:
        """Return which arms the policy itself can play for one context, (k,); None where it can play all."""
        return None

    @abstractmethod
    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward; the only writer of statistics.

        Parameters
        ----------
        arm : int or str
            The arm that served the request.
        x : array
            Its context, (dim,), or what `kept` returned for it.
        reward, weight : float
            The reward, and how many equal ones it stands for.
        at : int, optional
            Index of the decision on the clock, for policies that forget; the next one when left out.
        """

    def select(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Choice:
        """Choose an arm for one context; reads statistics only and uses one random number.

        Parameters
        ----------
        x : (dim,) array
            Context.
        prices : (k,) array, optional
            Known additive cost of each arm for this request, in reward units.
        eligible : (k,) bool array, optional
            Arms allowed for this request.

        Returns
        -------
        Choice
            Index of the arm and its propensity.

        Raises
        ------
        ValueError, TypeError
            Wrong shape, dtype or value; nothing changed.
        """
        given = self.propensities(x, prices=prices, eligible=eligible)
        total = np.cumsum(given)
        arm = int(np.searchsorted(total, self._rng.random() * total[-1], side="right"))
        return Choice(arm, float(given[arm]))

    def select_priced(self, x: ArrayLike, effective: Floats) -> Choice:
        """As `select`, with prices and mask folded into one (k,) array, infinite where closed: `effective_prices`."""
        allowed = np.isfinite(effective)
        return self.select(x, prices=np.where(allowed, effective, 0.0), eligible=allowed)

    def kept(self, x: Floats, arm: int) -> Floats:
        """Return what `update` shall learn from if this arm was the choice for ``x``; a Router keeps it instead of x.

        Ask right after the choice. The context itself by default; a policy whose features of an arm may have changed
        when the reward arrives returns a longer row that holds them.
        """
        return x

    def redraw(self, kept: Floats) -> None:
        """Use up the random numbers of the decision that kept this, as one that is replayed did."""
        self.select(self.check_context(self.context_of(kept)))

    @property
    def candidate_size(self) -> int | None:
        """How many features each candidate of a request brings; None where requests bring none (`CandidatePolicy`)."""
        return None

    @property
    def scales(self) -> bool:
        """Whether a reward seen with chance p is learned by what was kept times p: means are linear in that."""
        return False

    def learns_of(self, name: str) -> bool:
        """Whether `update` takes a reward of a name that is no arm, with what was kept of a candidate."""
        return False

    def check_guest(self, x: ArrayLike) -> Floats:
        """Return what was kept of a candidate that is no arm, or refuse it; for policies with `learns_of`."""
        raise TypeError(f"{type(self).__name__} learns of its arms only")

    def context_of(self, kept: Floats) -> Floats:
        """Return the context, (dim,), of what `kept` returned for it; by default it comes first there."""
        return kept if kept.size == self.dim else kept[: self.dim]

    def keeps(self, row: Floats) -> bool:
        """Whether this may be what `kept` returned: whether it has a length of such."""
        return row.size == self.kept(np.zeros(self.dim), 0).size

    def check_kept(self, x: ArrayLike, arm: int) -> Floats:
        """Return what `update` was given as `kept` would have returned it, or refuse it."""
        return self.kept(self.check_context(x), arm)

    def select_batch(
        self, contexts: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], Floats]:
        """Choose an arm for each row, as a loop over `select` would without feedback in between.

        Parameters
        ----------
        contexts : (n, dim) array
        prices, eligible : (k,) or (n, k) arrays, optional

        Returns
        -------
        arms : (n,) int64 array
        propensities : (n,) float array
        """
        rows = check.matrix("contexts", contexts, columns=self.dim)
        shape = (len(rows), len(self.arms))
        p = None if prices is None else np.broadcast_to(np.asarray(prices), shape)
        e = None if eligible is None else np.broadcast_to(np.asarray(eligible), shape)
        self.check_norms(rows)
        for i in range(len(rows)):  # all of it before any choice: a refused batch draws nothing
            self.effective_prices(None if p is None else p[i], None if e is None else e[i])
        chosen = [
            self.select(x, prices=None if p is None else p[i], eligible=None if e is None else e[i])
            for i, x in enumerate(rows)
        ]
        return np.array([c.arm for c in chosen], dtype=np.int64), np.array([c.propensity for c in chosen])

    def scores_batch(self, contexts: ArrayLike) -> Scores:
        """Estimated reward and width for each row of ``contexts`` (n, dim): two (n, k) arrays; reads only."""
        rows = check.matrix("contexts", contexts, columns=self.dim)
        each = [self.scores(x) for x in rows]
        shape = (len(rows), len(self.arms))
        return Scores(
            np.array([s.mean for s in each]).reshape(shape), np.array([s.width for s in each]).reshape(shape)
        )

    def update_batch(self, contexts: ArrayLike, arms: ArrayLike, rewards: ArrayLike) -> None:
        """Learn many rewards at once: ``contexts`` (n, dim), ``arms`` (n,) indices, ``rewards`` (n,).

        Everything is checked before anything is learned.
        """
        rows, chosen, given = self.check_batch(contexts, arms, rewards)
        for x, a, r in zip(rows, chosen, given, strict=True):
            self.update(int(a), x, float(r))

    # Arms that come and go.

    def add_arm(self, name: str) -> int:
        """Add an arm that starts cold; returns its index. The others keep theirs."""
        check.names("name", [name])
        if name in self.positions:
            raise ValueError(f"name must be new, got {name!r}")
        self.resize([*range(len(self.arms)), None])
        self.rename((*self.arms, name))
        return len(self.arms) - 1

    def remove_arm(self, name: str) -> None:
        """Remove an arm and its statistics; the indices behind it move down by one."""
        a = self.index(name)
        name = self.arms[a]
        if len(self.arms) == 1:
            raise ValueError(f"the last arm must stay, got {name!r}")
        keep = [i for i in range(len(self.arms)) if i != a]
        before = self.generation(name)
        self.resize(list(keep))
        self.rename(tuple(self.arms[i] for i in keep))
        self.set_generation(name, max(self.generation(name), before + 1))

    def forget(self, arm: int | str) -> None:
        """Make an arm start cold, as if it had never been tried, for every other arm too; raises its generation.

        What it told a prior that arms share is forgotten with it. Evidence of an earlier generation counts nowhere any
        more, on no replica (`EvidencePolicy`).
        """
        a = self.index(arm)
        before = self.generation(self.arms[a])
        self.resize([None if i == a else i for i in range(len(self.arms))])
        self.rename(self.arms)
        self.set_generation(self.arms[a], max(self.generation(self.arms[a]), before + 1))

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None: write it before arms come and go.

        `add_arm`, `remove_arm` and `forget` call it, and then `rename`. Where statistics are shared between replicas,
        call ``raise_generations(keep)`` first: a wrapper may ask for a change of its own.
        """
        raise TypeError(
            f"the arms of {type(self).__name__} cannot come and go: write resize(keep), where arm i continues keep[i]"
        )

    def raise_generations(self, keep: list[int | None]) -> None:
        """Count a generation for every arm that does not go on in ``keep``, which `resize` was given."""
        for name in {self.arms[a] for a in set(range(len(self.arms))) - set(keep)}:
            self.generations[name] = self.generations.get(name, 0) + 1

    def generation(self, arm: str) -> int:
        """Return how often an arm of this name was forgotten or removed, here or on a replica."""
        return self.generations.get(arm, 0)

    def set_generation(self, arm: str, generation: int) -> None:
        """Take up the generation that others have seen."""
        self.generations[arm] = check.integer("generation", generation)

    def advance(self, at: int) -> None:
        """Tell the clock index of the decisions so far; policies that forget age their statistics here."""

    def rewind(self) -> None:
        """Start a new clock at index 0: what was learned so far counts as learned just now.

        A Router and `simulate` do so when they take a policy over, for their decisions count from 0.
        """

    # What others may do with it.

    @property
    def can_widen(self) -> bool:
        """Whether `widen` changes how it chooses."""
        return False

    def widen(self, arm: int, source: str, factor: float) -> None:
        """Multiply the bonus of an arm by ``factor`` > 0; factors of different sources multiply, of one replace.

        Raises
        ------
        TypeError
            The policy has no widths to change.
        """
        raise TypeError(f"{type(self).__name__} has no widths that could be widened")

    def mass(self, arm: int) -> float:
        """Return the weight of what is known of an arm, prior included, in observations (where `can_widen`)."""
        raise TypeError(f"{type(self).__name__} has no widths, hence no mass")

    def compiled(self) -> Compiled | None:
        """Return the handle by which the compiled loop of a simulation runs the policy, or None where it cannot."""
        return None

    @property
    def generator(self) -> np.random.Generator:
        """The source of random numbers."""
        return self._rng

    def reseed(self) -> None:
        """Take new random numbers from the system: two processes with one policy then draw apart."""
        self._rng = np.random.Generator(type(self._rng.bit_generator)())

    def continue_from(self, other: Self) -> None:
        """Go on with the random numbers and the generations of a policy of the same kind, statistics apart."""
        self._rng.bit_generator.state = other.generator.bit_generator.state
        self.generations = dict(other.generations)

    def copy(self) -> Self:
        """Return an independent copy, generator included."""
        return deepcopy(self)

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue: a JSON-able header and named arrays.

        By default all attributes that are plain data, arrays and generators; functions are left out.
        """
        arrays: Arrays = {}
        members = {n: v for n, v in vars(self).items() if n not in DERIVED and not callable(v)}
        kept = {name: attributes.flatten(value, name, arrays) for name, value in members.items()}
        return {
            "policy": type(self).__name__,
            "arms": list(self.arms),
            "dim": self.dim,
            "members": kept,
        }, arrays

    def capture_slices(self) -> Generator[tuple[Header, Arrays] | None, None, None]:
        """Copy the state, a slice for each ``next()``: None, and at last what `to_state` gave at the first ``next()``.

        For snapshots off the request path: ``next()`` and ``close()`` come with the lock held, which is free in
        between. What changes before it was copied must be copied first. By default the whole state is one slice.
        """
        yield self.to_state()

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Floats], *, settings: Settings = "strict"
    ) -> None:
        """Continue from `to_state`; raises ``ValueError`` and changes nothing where the two do not fit.

        Parameters
        ----------
        header, arrays : mappings
            As `to_state` returned them.
        settings : "strict" or "own"
            "strict" wants the settings of the state to be those of this policy, where the state tells them. "own" takes
            the statistics and leaves the settings of this policy (width, ridge, prior, mix, discount) as they are. A
            policy that does not tell one from the other, as by default, refuses "own".
        """
        if check_settings(settings) == "own":
            raise ValueError(f"settings must be 'strict' for {type(self).__name__}: its state holds them")
        wanted = (type(self).__name__, self.dim)
        got = (check.entry("header", header, "policy"), check.entry("header", header, "dim"))
        if got != wanted:
            raise ValueError(f"state must be of {wanted}, got {got}")
        names = check.names("arms", check.entry("header", header, "arms"))
        spare = vars(self.copy())
        given = check.entry("header", header, "members")
        try:
            filled = {n: attributes.fill(spare.get(n), value, dict(arrays)) for n, value in given.items()}
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"members must be those of to_state, got {error!r}") from error
        vars(self).update(filled)
        self.rename(names)

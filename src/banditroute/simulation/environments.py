"""Environments: synthetic adapters and real full-feedback data, drawn as streams from a length and a seed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core.typing import Floats, Ints
from banditroute._core.validation import finite, integer, matrix, names
from banditroute.simulation.popularity import Seed, draw_groups, generator, zipf_shares
from banditroute.simulation.stream import Problem, Stream, best_static_set, value_with

__all__ = ["LinearEnvironment", "MatrixEnvironment", "Problem", "Stream", "best_static_set", "value_with"]

Order = Literal["shuffle", "replace", "blocks", "drift"]

# Random streams of a seed used here; workloads take theirs from 10 on.
_INSTANCE, _DIRECTION, _GROUPS, _CONTEXTS, _NOISE, _ROWS = range(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearEnvironment:
    """Adapters with home regions in context space and linear utilities: "homes" and its variants.

    Centres lie uniformly on the unit sphere and their popularity is Zipf. A context is a centre plus ``spread
    * N(0, I)``, normalised. Adapter i has a home centre ``h_i`` (the first ones a permutation of the centres,
    the rest random) and ``theta_i = strength * u_i * centre[h_i] + own * N(0, I) / sqrt(dim)`` with ``u_i ~
    U(utility)``. Nothing is drawn before `stream`: the instance, too, belongs to its seed.

    Parameters
    ----------
    n_arms, dim, centres, zipf, spread, noise, own, strength, utility
        As above; `noise` is the standard deviation of the rewards, shared by the arms of one request. With
        ``spread=inf`` contexts are isotropic and their group is the nearest centre.
    away
        Utility away from home relative to `strength`: ``theta_i = strength * ((u_i - away) * centre[h_i] +
        away * sum of centres) + ...``, exact on the centres when they are `orthogonal`.
    orthogonal
        Make the centres orthonormal; needs ``centres <= dim``.
    overlap
        Weight of a second, random home centre of each adapter, relative to the first.
    rank
        Project all theta on a random subspace of this dimension, keeping their total norm; 0 for none.
    common
        Length of a direction added to every context before it is normalised: contexts become nearly
        collinear. Centres and theta are orthogonal to it and theta grows by ``sqrt(1 + common**2)``, so that
        utilities stay what they were.
    memory
        Autocorrelation, in [0, 1), of the deviation from the centre between successive requests.
    scale
        Gap scale: multiplies the differences of theta between adapters.

    Examples
    --------
    >>> stream = LinearEnvironment(n_arms=4, dim=3).stream(100, seed=0)
    >>> stream.contexts.shape, stream.means.shape
    ((100, 3), (100, 4))
    """

    n_arms: int = 15
    dim: int = 10
    centres: int = 12
    zipf: float = 1.0
    spread: float = 0.15
    noise: float = 0.1
    own: float = 0.10
    strength: float = 0.55
    utility: tuple[float, float] = (0.7, 1.0)
    away: float = 0.0
    orthogonal: bool = False
    overlap: float = 0.0
    rank: int = 0
    common: float = 0.0
    memory: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("n_arms", "dim", "centres"):
            integer(name, getattr(self, name), low=1)
        integer("rank", self.rank, high=self.dim)
        for name in ("noise", "own", "strength", "overlap", "common", "scale"):
            finite(name, getattr(self, name), low=0.0)
        finite("memory", self.memory, low=0.0, high=1.0)
        if not self.spread >= 0.0:
            raise ValueError(f"spread must be >= 0, got {self.spread}")
        if self.orthogonal and self.centres > self.dim:
            raise ValueError(f"centres must be <= dim when orthogonal, got {self.centres} > {self.dim}")

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the adapters."""
        return names("arms", self.n_arms)

    @property
    def shares(self) -> Floats:
        """Popularity of the centres, shape (centres,)."""
        return zipf_shares(self.centres, self.zipf)

    def instance(self, seed: Seed) -> tuple[Floats, Floats, Ints]:
        """Return the centres (G, dim), theta (n_arms, dim) and home centres (n_arms,) of a seed.

        Examples
        --------
        >>> centres, theta, homes = LinearEnvironment().instance(0)
        >>> sorted(homes[:12].tolist()) == list(range(12))
        True
        """
        rng = generator(seed, _INSTANCE)
        centres = _on_sphere(rng.standard_normal((self.centres, self.dim)))
        spare = rng.integers(self.centres, size=self.n_arms)
        homes = np.append(rng.permutation(self.centres), spare)[: self.n_arms]
        useful = rng.uniform(*self.utility, self.n_arms)[:, None]
        own = rng.standard_normal((self.n_arms, self.dim)) * (self.own / np.sqrt(self.dim))
        if self.orthogonal:
            centres = np.linalg.qr(centres.T)[0].T
        if self.common:
            centres = _on_sphere(self._without_direction(centres, seed))
            own = self._without_direction(own, seed)
        toward = (useful - self.away) * centres[homes] + self.away * centres.sum(axis=0)
        if self.overlap:
            second = (homes + rng.integers(1, max(self.centres, 2), size=self.n_arms)) % self.centres
            toward += self.overlap * useful * centres[second]
        theta = self.strength * toward + own
        if self.rank:
            basis = np.linalg.qr(rng.standard_normal((self.dim, self.rank)))[0]
            flat = theta @ basis @ basis.T
            theta = flat * (np.linalg.norm(theta) / np.linalg.norm(flat))
        theta *= np.sqrt(1.0 + self.common**2)
        shared = theta.mean(axis=0)
        theta = shared + self.scale * (theta - shared)
        return centres, theta, homes

    def _direction(self, seed: Seed) -> Floats:
        direction: Floats = _on_sphere(generator(seed, _DIRECTION).standard_normal((1, self.dim)))[0]
        return direction

    def _without_direction(self, rows: Floats, seed: Seed) -> Floats:
        direction = self._direction(seed)
        return rows - np.outer(rows @ direction, direction)

    def stream(self, length: int, seed: Seed, *, groups: Ints | None = None) -> Stream:
        """Draw a stream; the same seed gives the same stream.

        Instance, groups, contexts and noise come from independent random streams of the seed, so environments
        that differ in one of them (the noise level, say) stay paired in the others.

        Parameters
        ----------
        length
            Number of requests T, >= 1.
        seed
            Integer or ``SeedSequence``.
        groups
            Centre of each request, shape (T,), instead of independent draws from the popularity.

        Returns
        -------
        Stream
            Cost O(T (dim + centres + n_arms dim)).

        Examples
        --------
        >>> LinearEnvironment().stream(5, 1, groups=np.array([0, 0, 1, 1, 2])).groups
        array([0, 0, 1, 1, 2])
        """
        integer("length", length, low=1)
        centres, theta, _ = self.instance(seed)
        if groups is None:
            groups = draw_groups(self.shares, length, generator(seed, _GROUPS))
        groups = _known(groups, length, self.centres)
        contexts = generator(seed, _CONTEXTS).standard_normal((length, self.dim))
        if self.memory:
            contexts = _autocorrelated(contexts, self.memory)
        if np.isfinite(self.spread):
            contexts *= self.spread
            contexts += centres[groups]
        if self.common:
            contexts += self.common * self._direction(seed)
        contexts = _on_sphere(contexts)
        if not np.isfinite(self.spread):
            groups = (contexts @ centres.T).argmax(axis=1)
        means = contexts @ theta.T
        noise = generator(seed, _NOISE).standard_normal((length, 1))
        return Stream(contexts, means, means + self.noise * noise if self.noise else means, self.arms, groups)


def _known(groups: Ints, length: int, count: int) -> Ints:
    codes = np.asarray(groups)
    if codes.shape != (length,) or codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= count:
        raise ValueError(f"groups must be {length} integers in [0, {count - 1}], got {codes}")
    return codes


def _on_sphere(rows: Floats) -> Floats:
    result: Floats = rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return result


def _autocorrelated(rows: Floats, memory: float) -> Floats:
    from scipy.signal import lfilter  # slow to import, rarely wanted

    # z_0 = e_0, z_t = memory z_{t-1} + sqrt(1 - memory^2) e_t is stationary with unit variance.
    driven = np.sqrt(1.0 - memory**2) * rows
    driven[0] = rows[0]
    result: Floats = lfilter([1.0], [1.0, -memory], driven, axis=0)
    return result


class MatrixEnvironment:
    """Real full-feedback data: the reward of every arm is known on every row, and requests are rows.

    Parameters
    ----------
    contexts
        Shape (n, d).
    rewards
        Shape (n, N). Given the row nothing is random, so these are the means of the stream as well.
    costs
        Money per row and arm, shape (n, N), or None.
    arms
        N names; "0" .. "N-1" when not given.
    groups
        Label of each row, integers or strings, shape (n,); one group when not given.
    order
        "shuffle": permutations of the rows, one after the other; "replace": rows with replacement; "blocks":
        one group after the other in random order, each as long as its share of the rows; "drift": Zipf
        popularity of the groups, permuted anew at each of the `shifts`. Within blocks and drift rows are
        drawn with replacement.
    zipf
        Exponent of the popularity under "drift".
    shifts
        Increasing fractions of the run.

    Examples
    --------
    >>> environment = MatrixEnvironment(np.eye(3), np.eye(3), groups=["x", "y", "y"], order="drift")
    >>> environment.labels, float(environment.stream(100, seed=0).rewards.sum())
    (('x', 'y'), 100.0)
    """

    def __init__(
        self,
        contexts: ArrayLike,
        rewards: ArrayLike,
        *,
        costs: ArrayLike | None = None,
        arms: Iterable[str] | None = None,
        groups: ArrayLike | None = None,
        order: Order = "shuffle",
        zipf: float = 1.0,
        shifts: Iterable[float] = (0.5,),
    ) -> None:
        self.contexts = matrix("contexts", contexts)
        rows = len(self.contexts)
        self.rewards = matrix("rewards", rewards, rows=rows)
        if not self.rewards.size:
            raise ValueError(f"rewards must hold a row and a column, got shape {self.rewards.shape}")
        width = self.rewards.shape[1]
        self.arms = names("arms", width if arms is None else arms)
        if len(self.arms) != width:
            raise ValueError(f"arms must name the {width} columns of rewards, got {len(self.arms)} names")
        self.costs = None if costs is None else matrix("costs", costs, width, rows)
        marks = np.zeros(rows, np.int64) if groups is None else np.asarray(groups)
        if marks.shape != (rows,):
            raise ValueError(f"groups must have shape ({rows},), got {marks.shape}")
        if order not in get_args(Order):
            raise ValueError(f"order must be one of {get_args(Order)}, got {order!r}")
        self.order, self.zipf = order, finite("zipf", zipf)
        self.shifts = tuple(finite("shifts", shift, low=0.0, high=1.0) for shift in shifts)
        values, codes, self._sizes = np.unique(marks, return_inverse=True, return_counts=True)
        self.labels: tuple[Any, ...] = tuple(values.tolist())
        self.groups = codes.astype(np.int64)
        # Rows sorted by group: row j of group g is _sorted[_starts[g] + j].
        self._sorted = np.argsort(self.groups, kind="stable")
        self._starts = np.cumsum(self._sizes) - self._sizes

    @property
    def dim(self) -> int:
        """Length of a context vector."""
        return int(self.contexts.shape[1])

    @classmethod
    def from_npz(
        cls,
        path: str | Path,
        contexts: str = "contexts",
        rewards: str = "rewards",
        costs: str | None = None,
        *,
        arms: str | None = None,
        groups: str | None = None,
        scale: float = 1.0,
        components: int | None = None,
        bias: bool = True,
        **options: Any,
    ) -> Self:
        """Read full-feedback data from the arrays of an ``.npz`` file (without pickle).

        Parameters
        ----------
        path
            The file.
        contexts, rewards, costs, arms, groups
            Keys of the arrays in the file.
        scale
            The stored number that stands for a reward of 1: rewards are divided by it (255 for bytes).
        components
            Leading context columns to keep; all when not given.
        bias
            Append a constant 1 to every context.
        **options
            `order`, `zipf` and `shifts`, as in the class.

        Raises
        ------
        FileNotFoundError, KeyError, ValueError
            Without the file; without a key (the ones there are listed); when arrays do not fit together.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(folder + "/m.npz", x=np.eye(3), scores=np.full((3, 2), 255, np.uint8))
        ...     MatrixEnvironment.from_npz(folder + "/m.npz", "x", "scores", scale=255, components=2).dim
        3
        """
        finite("scale", scale, low=0.0, open_low=True)
        with np.load(path, allow_pickle=False) as file:
            for key in (contexts, rewards, costs, arms, groups):
                if key is not None and key not in file.files:
                    raise KeyError(f"{path} has no array {key!r}; it holds {', '.join(file.files)}")
            columns = np.asarray(file[contexts], np.float64)[:, :components]
            return cls(
                np.column_stack([columns, np.ones(len(columns))]) if bias else columns,
                np.asarray(file[rewards], np.float64) / scale,
                costs=None if costs is None else file[costs],
                arms=None if arms is None else file[arms].tolist(),
                groups=None if groups is None else file[groups],
                **options,
            )

    def stream(self, length: int, seed: Seed, *, groups: Ints | None = None) -> Stream:
        """Draw a stream of rows; the same seed gives the same stream.

        Parameters
        ----------
        length
            Number of requests T, >= 1.
        seed
            Integer or ``SeedSequence``.
        groups
            Group of each request, shape (T,): rows are then drawn with replacement within it and `order` is
            not used.

        Returns
        -------
        Stream
            `rewards` is `means`. Cost O(T (d + N)).

        Examples
        --------
        >>> MatrixEnvironment(np.eye(2), np.eye(2)).stream(4, seed=0).contexts.sum(axis=0)
        array([2., 2.])
        """
        integer("length", length, low=1)
        rows = self._drawn(length, seed, groups)
        rewards = self.rewards[rows]
        costs = None if self.costs is None else self.costs[rows]
        return Stream(self.contexts[rows], rewards, rewards, self.arms, self.groups[rows], costs=costs)

    def _drawn(self, length: int, seed: Seed, groups: Ints | None) -> Ints:
        rng, total, count = generator(seed, _ROWS), len(self.contexts), len(self.labels)
        if groups is None and self.order == "replace":
            return rng.integers(total, size=length)
        if groups is None and self.order == "shuffle":
            rounds = [rng.permutation(total) for _ in range(-(-length // total))]
            return np.concatenate(rounds)[:length]
        if groups is None and self.order == "blocks":
            order = rng.permutation(count)
            ends = np.cumsum(self._sizes[order]) / total * length
            groups = order[np.searchsorted(ends, np.arange(length), side="right").clip(max=count - 1)]
        if groups is None:
            shares = zipf_shares(count, self.zipf)
            table = np.stack([rng.permutation(shares) for _ in range(len(self.shifts) + 1)])
            windows = np.searchsorted(np.asarray(self.shifts) * length, np.arange(length), side="right")
            groups = draw_groups(table, windows, rng)
        groups = _known(groups, length, count)
        places = (rng.random(length) * self._sizes[groups]).astype(np.int64)
        result: Ints = self._sorted[self._starts[groups] + places]
        return result

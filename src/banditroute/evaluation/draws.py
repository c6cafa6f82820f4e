"""Draws of data to tune on, and what a setting of a router earns on one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints
from banditroute.evaluation.replays import replay
from banditroute.logs import Trace
from banditroute.policies import LinUCB
from banditroute.residency import Polar, Polaris
from banditroute.simulation import MatrixEnvironment, Problem, Stream, simulate

__all__ = [
    "POLICY",
    "RESIDENCY",
    "Dealt",
    "Draws",
    "Part",
    "Scored",
    "Setting",
    "between",
    "paired_gain",
    "score",
    "scored",
]

Setting = Mapping[str, Any]

POLICY = ("alpha", "ridge", "discount", "mix", "prior")
RESIDENCY = ("capacity", "epoch", "price_weight", "controller")
CONTROLLERS = {"polaris": Polaris, "polar": Polar}


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Streams of `requests` rows of a matrix by seed; with `fault` and `capacity`, residency problems.

    Examples
    --------
    >>> draws = Draws(MatrixEnvironment(np.eye(3), np.eye(3)), 10)
    >>> len(draws(0))
    10
    """

    environment: MatrixEnvironment
    requests: int
    capacity: int | None = None
    fault: float = 0.0

    def __call__(self, seed: int) -> Stream | Problem:
        """Return the stream or problem of a seed."""
        stream = self.environment.stream(self.requests, seed)
        if self.capacity is None:
            return stream
        prices = np.full(len(stream.arms), self.fault)
        return Problem(stream, prices, prices, capacity=self.capacity)

    def rows(self, seed: int) -> Ints:
        """Return which row of the matrix each request of a seed is, (requests,)."""
        whole = self.environment
        count = len(whole.contexts)
        numbers = MatrixEnvironment(  # drawn as the rows are, and each is its own number
            np.arange(count, dtype=np.float64)[:, None],
            np.zeros((count, 1)),
            groups=whole.groups,
            order=whole.order,
            zipf=whole.zipf,
            shifts=whole.shifts,
        )
        return numbers.stream(self.requests, seed).contexts[:, 0].astype(np.int64)

    def dealt(self, seeds: Sequence[int]) -> "Dealt":
        """Return draws in which each of the seeds has rows of its own, and no more requests than rows."""
        count, rows = len(seeds), len(self.environment.contexts)
        if rows < 2 * count:
            raise ValueError(f"data must have two rows for each of the {count} seeds, got {rows}")
        order = np.random.default_rng(1).permutation(rows)
        parts = {
            seed: self._of(np.sort(order[i * rows // count : (i + 1) * rows // count]))
            for i, seed in enumerate(seeds)
        }
        most = min(self.requests, rows // count)
        return Dealt({seed: replace(part, requests=most) for seed, part in parts.items()})

    def halves(self) -> tuple["Draws", "Draws"]:
        """Return the same draws from two random halves of the rows that have none in common."""
        order = np.random.default_rng(0).permutation(len(self.environment.contexts))
        middle = len(order) // 2
        first, second = (self._of(np.sort(rows)) for rows in (order[:middle], order[middle:]))
        return first, second

    def _of(self, rows: NDArray[np.int64]) -> "Draws":
        whole = self.environment
        part = MatrixEnvironment(
            whole.contexts[rows],
            whole.rewards[rows],
            costs=None if whole.costs is None else whole.costs[rows],
            arms=whole.arms,
            groups=whole.groups[rows],
            order=whole.order,
            zipf=whole.zipf,
            shifts=whole.shifts,
        )
        return replace(self, environment=part)


@dataclass(frozen=True, slots=True, eq=False)
class Dealt:
    """Draws with rows of their own for each seed: what differs between seeds is independent.

    Examples
    --------
    >>> draws = Draws(MatrixEnvironment(np.eye(8), np.eye(8)), 10).dealt([3, 4])
    >>> len(draws(3)), draws.parts[3].environment.contexts.shape
    (4, (4, 8))
    """

    parts: dict[int, Draws]

    def __call__(self, seed: int) -> Stream | Problem:
        """Return the stream or problem of a seed, one of those that were dealt to."""
        return self.parts[seed](seed)


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a trace; a seed begins somewhere in its first third and leaves out a tenth of what follows.

    What a policy meets first moves it most. Seeds that all began with the same rows would err together, and no number
    of them would tell.

    Examples
    --------
    >>> Part(Trace(names=["a"], arms=[0] * 6, rewards=[1.0] * 6)).rows(0)
    array([3, 4, 5])
    """

    trace: Trace

    def rows(self, seed: int) -> Ints:
        """Return the rows of a seed, increasing."""
        rng, count = np.random.default_rng(seed), len(self.trace)
        first = int(rng.integers(count // 3 + 1))
        kept = rng.choice(count - first, size=max((count - first) * 9 // 10, 1), replace=False)
        return first + np.sort(kept).astype(np.int64)

    def __call__(self, seed: int) -> Trace:
        """Return the trace of a seed."""
        return self.trace[self.rows(seed)]


def score(setting: Setting, data: Stream | Problem | Trace, seed: int) -> float:
    """Return the mean reward per request, net of fault and load prices, of a setting on one draw of the data.

    Parameters
    ----------
    setting : mapping
        "alpha", "ridge", "discount", "mix" and "prior" go to `LinUCB`; "capacity" and "epoch" to the "controller",
        "polaris" (when left out) or "polar", which runs where the data are a `Problem`; "price_weight" scales the
        prices by which it decides, not those it is charged.
    data : Stream, Problem or Trace
        A trace is replayed, see `replay`.
    seed : int
        Of the policy.

    Examples
    --------
    >>> from banditroute.simulation import homes
    >>> score({"alpha": 0.3, "epoch": 200}, homes(500, 0), 0) > 0
    True
    """
    return scored(setting, data, seed).value


class Scored(NamedTuple):
    """What a setting earned on one draw: the mean, and per request what it earned and which request of the draw it was.

    Examples
    --------
    >>> Scored(0.5, np.array([0.0, 1.0]), np.arange(2)).value
    0.5
    """

    value: float
    earned: Floats
    requests: Ints


def scored(setting: Setting, data: Stream | Problem | Trace, seed: int) -> Scored:
    """Return what `score` is the mean of.

    Examples
    --------
    >>> from banditroute.simulation import homes
    >>> one = scored({}, homes(50, 0), 0)
    >>> bool(abs(one.earned.mean() - one.value) < 1e-12)
    True
    """
    unknown = set(setting) - {*POLICY, *RESIDENCY}
    if unknown:
        raise ValueError(f"settings must be of {(*POLICY, *RESIDENCY)}, got {min(unknown)!r}")
    options = {name: setting[name] for name in POLICY if name in setting}
    if isinstance(data, Trace):
        if data.contexts is None:
            raise ValueError("trace must hold contexts to tune on, got none")
        run = replay(data, LinUCB(data.names, data.contexts.shape[1], rng=seed, **options), rng=seed)
        return Scored(run.value, run.rewards, run.rows)
    stream = data if isinstance(data, Stream) else data.stream
    policy = LinUCB(stream.arms, stream.dim, rng=seed, **options)
    each = np.arange(len(stream))
    if isinstance(data, Stream):
        earned = stream.rewards[each, simulate(policy, stream).arms]
        return Scored(float(earned.mean()), earned, each)
    weight = check.finite("price_weight", setting.get("price_weight", 1.0), low=0.0, open_low=True)
    seen = replace(data, faults=weight * data.faults, loads=weight * data.loads)
    kind = setting.get("controller", "polaris")
    if kind not in CONTROLLERS:
        raise ValueError(f"controller must be one of {tuple(CONTROLLERS)}, got {kind!r}")
    epoch = {"epoch": setting["epoch"]} if "epoch" in setting else {}
    residency = CONTROLLERS[kind](setting.get("capacity", data.capacity), **epoch)
    done = simulate(policy, seen, residency)
    earned = stream.rewards[each, done.arms] - np.where(done.hits, 0.0, data.faults[done.arms])
    for at, price in done.loads:
        earned[at] -= price / weight
    return Scored(float(earned.mean()), earned, each)


def _gains(one: Sequence[Scored], two: Sequence[Scored]) -> Floats:
    return np.array([a.value - b.value for a, b in zip(one, two, strict=True)])


def between(one: Sequence[Scored], two: Sequence[Scored]) -> float:
    """Return the variance between seeds of the gain of one setting over another.

    Examples
    --------
    >>> none, some = Scored(0.0, np.zeros(2), np.arange(2)), Scored(1.0, np.ones(2), np.arange(2))
    >>> between([some, none], [none, none])
    0.5
    """
    return float(_gains(one, two).var(ddof=1))


def paired_gain(
    one: Sequence[Scored], two: Sequence[Scored], rows: Sequence[Ints] | None, *, luck: float = 0.0
) -> tuple[float, float]:
    """Return the mean gain of one setting over another on the same seeds, and its standard error.

    Parameters
    ----------
    one, two : sequences of Scored
        By seed.
    rows : sequence of (n,) int arrays or None
        By seed, which row of the data each request of the draw is. Seeds that share rows are not independent: what
        counts is how many rows there are. None where every seed draws data of its own.
    luck : float
        Variance of the gain between seeds as other data showed it, see `between`. The larger of it and what these seeds
        show counts.

    Returns
    -------
    gain, error : float

    Notes
    -----
    With rows the variance is ``sum_j d_j^2``, d_j what row j moves the gain by over all seeds (a variance clustered by
    row), plus that of the seeds, ``var / seeds``: rows of the data and luck of the policies.

    Luck is lopsided: one run in fifty, say, settles on a poor arm and pays for all the others. Seeds among which none
    did so show too small a gain and too small a variance at once, so that an interval from themselves alone misses too
    often. A variance from other seeds does not fail together with the gain.

    Examples
    --------
    >>> none, all_of_it = Scored(0.0, np.zeros(4), np.arange(4)), Scored(1.0, np.ones(4), np.arange(4))
    >>> paired_gain([all_of_it] * 2, [none] * 2, [np.arange(4)] * 2)
    (1.0, 0.0)
    """
    gains = _gains(one, two)
    count = len(gains)
    variance = max(float(gains.var(ddof=1)), luck) / count
    if rows is not None:
        pulls = np.zeros(1 + max(int(own.max()) for own in rows))
        used = np.zeros(len(pulls), dtype=np.bool_)
        for sign, side in ((1.0, one), (-1.0, two)):
            middle = float(np.mean([each.value for each in side]))
            for each, own in zip(side, rows, strict=True):
                at = own[each.requests]
                used[at] = True
                pulls += np.bincount(at, sign * (each.earned - middle) / (len(at) * count), len(pulls))
        known = int(used.sum())
        variance += float(np.dot(pulls, pulls)) * known / max(known - 1, 1)
    return float(gains.mean()), float(np.sqrt(variance))

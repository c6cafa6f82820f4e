"""Synthetic workloads: adapters with home regions, under every popularity, price and timing we care about.

Each function draws a `Problem` from a length and a seed. They all stand on `homes` and pass their further
options to it, so any two variations combine: ``bursts(T, seed, prices=(0.5, 1.0), noise=0.3)``.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from banditroute._core.typing import Floats, Ints
from banditroute._core.validation import finite, integer, unit
from banditroute.simulation.environments import LinearEnvironment
from banditroute.simulation.popularity import Seed, draw_groups, generator, zipf_shares
from banditroute.simulation.stream import Problem, Stream

__all__ = [
    "bursts",
    "changing",
    "churning",
    "clustered",
    "curved",
    "delayed",
    "drifting",
    "homes",
    "priced",
    "rotating",
    "sized",
]

Popularity = Callable[[Floats, int, np.random.Generator], Ints]

# Random streams of a seed; environments use those below 10.
_PRICES, _GROUPS, _DELAYS, _ARMS = range(10, 14)


def priced(
    stream: Stream,
    seed: Seed,
    *,
    capacity: int = 4,
    prices: tuple[float, float] = (0.15, 0.35),
    load: float | None = None,
    scale: float = 1.0,
) -> Problem:
    """Put prices on a stream.

    Parameters
    ----------
    stream
        T requests, N arms.
    seed
        Of the prices; the one of the stream will do.
    capacity
        Slots of fast memory.
    prices
        Range of the uniformly drawn fault prices, reward units.
    load
        Price of a load; twice the middle of `prices` when not given (0.5 for the default ones).
    scale
        Multiplies all prices.

    Examples
    --------
    >>> stream = Stream(np.eye(2), np.eye(2), np.eye(2), ("a", "b"))
    >>> priced(stream, 0, capacity=1, prices=(0.1, 0.1)).loads
    array([0.2, 0.2])
    """
    low, high = prices
    finite("prices", low, low=0.0, high=finite("prices", high))
    faults = scale * generator(seed, _PRICES).uniform(low, high, len(stream.arms))
    cost = low + high if load is None else load
    return Problem(stream, faults, np.full(len(faults), scale * cost), integer("capacity", capacity, low=1))


def homes(
    length: int,
    seed: Seed,
    *,
    capacity: int = 4,
    prices: tuple[float, float] = (0.15, 0.35),
    load: float | None = None,
    popularity: Popularity | None = None,
    **environment: Any,
) -> Problem:
    """Draw the basic family: 15 adapters with home regions around 12 centres of Zipf popularity, 4 slots.

    Parameters
    ----------
    length
        Number of requests T, >= 1.
    seed
        Integer or ``SeedSequence``; it fixes everything.
    capacity, prices, load
        As in `priced`.
    popularity
        Function (shares of the centres, T, generator) -> centre of each request, shape (T,); independent
        draws when not given.
    **environment
        Parameters of `LinearEnvironment`; its gap `scale` also multiplies all prices.

    Examples
    --------
    >>> problem = homes(1000, seed=0)
    >>> problem.stream.means.shape, problem.capacity
    ((1000, 15), 4)
    """
    integer("length", length, low=1)
    source = LinearEnvironment(**environment)
    groups = None if popularity is None else popularity(source.shares, length, generator(seed, _GROUPS))
    stream = source.stream(length, seed, groups=groups)
    return priced(stream, seed, capacity=capacity, prices=prices, load=load, scale=source.scale)


def drifting(length: int, seed: Seed, *, windows: int = 4, gradual: bool = False, **options: Any) -> Problem:
    """Permute the popularity of the centres from window to window.

    Parameters
    ----------
    length, seed, **options
        As in `homes`.
    windows
        Equal parts of the run, each with its own random permutation of the shares.
    gradual
        Move linearly, in 32 steps, from each permutation to the next instead of jumping.

    Examples
    --------
    >>> groups = drifting(4000, 0, zipf=2.0).stream.groups.reshape(4, 1000)
    >>> len({int(np.bincount(part).argmax()) for part in groups}) > 1
    True
    """
    integer("windows", windows, low=1)

    def popularity(shares: Floats, length: int, rng: np.random.Generator) -> Ints:
        table = np.stack([rng.permutation(shares) for _ in range(windows + gradual)])
        if gradual:
            steps = np.linspace(0.0, 1.0, 32, endpoint=False)[:, None]
            table = np.concatenate([table[w] + steps * (table[w + 1] - table[w]) for w in range(windows)])
        return draw_groups(table, length, rng)

    return homes(length, seed, popularity=popularity, **options)


def bursts(length: int, seed: Seed, *, stay: float = 0.9, **options: Any) -> Problem:
    """Let each request repeat the centre of the one before it with probability `stay`.

    Parameters
    ----------
    length, seed, **options
        As in `homes`.
    stay
        In [0, 1]; bursts have ``1 / (1 - stay)`` requests on average.

    Examples
    --------
    >>> groups = bursts(1000, 0).stream.groups
    >>> bool((groups[1:] == groups[:-1]).mean() > 0.85)
    True
    """
    unit("stay", stay)

    def popularity(shares: Floats, length: int, rng: np.random.Generator) -> Ints:
        return draw_groups(shares, length, rng, stay=stay)

    return homes(length, seed, popularity=popularity, **options)


def clustered(length: int, seed: Seed, *, size: int = 4, stay: float = 0.995, **options: Any) -> Problem:
    """Let a working set of centres be active for a while: Zipf over the sets, Zipf inside the active one.

    Parameters
    ----------
    length, seed, **options
        As in `homes`; the exponent `zipf` holds at both levels.
    size
        Centres per working set; the last set may be smaller.
    stay
        Probability that the working set stays for another request.

    Examples
    --------
    >>> sets = clustered(1000, 0, size=4).stream.groups // 4
    >>> bool((sets[1:] == sets[:-1]).mean() > 0.98)
    True
    """
    integer("size", size, low=1)
    unit("stay", stay)
    exponent = options.get("zipf", 1.0)

    def popularity(shares: Floats, length: int, rng: np.random.Generator) -> Ints:
        sets = -(-len(shares) // size)
        active = draw_groups(zipf_shares(sets, exponent), length, rng, stay=stay)
        inside = np.zeros((sets, size))
        inside.ravel()[: len(shares)] = np.tile(zipf_shares(size, exponent), sets)[: len(shares)]
        return active * size + draw_groups(inside, active, rng)

    return homes(length, seed, popularity=popularity, **options)


def rotating(
    length: int, seed: Seed, *, epoch: int = 500, among: int | None = None, capacity: int = 4, **options: Any
) -> Problem:
    """Rotate the whole traffic: requests of one epoch share a centre, those of the next another.

    With one centre more than there are slots, every resident set misses one epoch in `among`, and a
    controller that prepares for what it just saw is late at each turn. This is the construction behind the
    linear lower bound for deterministic controllers, with a fixed order instead of an adaptive adversary.

    Parameters
    ----------
    length, seed, capacity, **options
        As in `homes`.
    epoch
        Requests per epoch.
    among
        Number of centres that take turns; ``capacity + 1`` when not given, at most all.

    Examples
    --------
    >>> len(set(rotating(2500, 0).stream.groups[:500].tolist()))
    1
    """
    integer("epoch", epoch, low=1)
    turns = capacity + 1 if among is None else integer("among", among, low=1)

    def popularity(shares: Floats, length: int, rng: np.random.Generator) -> Ints:
        order = rng.permutation(len(shares))[:turns]
        result: Ints = order[np.arange(length) // epoch % len(order)].astype(np.int64)
        return result

    return homes(length, seed, popularity=popularity, capacity=capacity, **options)


def delayed(length: int, seed: Seed, *, low: int = 1, high: int = 200, **options: Any) -> Problem:
    """Delay the feedback by a uniform number of requests.

    Parameters
    ----------
    length, seed, **options
        As in `homes`.
    low, high
        Range of the delay in requests, both included.

    Examples
    --------
    >>> delays = delayed(1000, 0).stream.delays
    >>> int(delays.min()) >= 1, int(delays.max()) <= 200
    (True, True)
    """
    problem = homes(length, seed, **options)
    integer("high", high, low=integer("low", low))
    delays = generator(seed, _DELAYS).integers(low, high + 1, length)
    return replace(problem, stream=replace(problem.stream, delays=delays))


def curved(
    length: int, seed: Seed, *, steepness: float = 10.0, middle: float = 0.3, **options: Any
) -> Problem:
    """Make the mean reward a logistic function of the linear utility, so that no linear model is right.

    Parameters
    ----------
    length, seed, **options
        As in `homes`.
    steepness, middle
        ``mean = 1 / (1 + exp(-steepness * (utility - middle)))``: about 0.05 away from home and 0.7-0.9 at
        home.

    Examples
    --------
    >>> means = curved(1000, 0).stream.means
    >>> bool(means.min() > 0 and means.max() < 1)
    True
    """
    finite("steepness", steepness, low=0.0, open_low=True)
    problem = homes(length, seed, **options)
    means = 1.0 / (1.0 + np.exp(-steepness * (problem.stream.means - finite("middle", middle))))
    return replace(problem, stream=_with_means(problem.stream, means))


def changing(length: int, seed: Seed, *, at: float = 0.5, changed: int = 5, **options: Any) -> Problem:
    """Change utilities in mid-run: from then on some adapters have each other's quality.

    Parameters
    ----------
    length, seed, **options
        As in `homes`.
    at
        Fraction of the run after which the change holds.
    changed
        Number of adapters, drawn at random, that pass their means on in a cycle; 2 .. N.

    Examples
    --------
    >>> before, after = homes(1000, 0).stream.means, changing(1000, 0).stream.means
    >>> int((before[-1] != after[-1]).sum())
    5
    """
    problem = homes(length, seed, **options)
    means = problem.stream.means.copy()
    integer("changed", changed, low=2, high=means.shape[1])
    cycle = generator(seed, _ARMS).permutation(means.shape[1])[:changed]
    start = int(unit("at", at) * length)
    means[start:, cycle] = means[start:, np.roll(cycle, 1)]
    return replace(problem, stream=_with_means(problem.stream, means))


def _with_means(stream: Stream, means: Floats) -> Stream:
    return replace(stream, means=means, rewards=means + (stream.rewards - stream.means))


def churning(length: int, seed: Seed, *, added: int = 4, withdrawn: int = 3, **options: Any) -> Problem:
    """Add and withdraw adapters in mid-run.

    Parameters
    ----------
    length, seed, **options
        As in `homes`.
    added
        Adapters that do not exist at first and appear one by one, between 0.1 and 0.6 of the run.
    withdrawn
        Other adapters that disappear one by one, between 0.4 and 0.9 of the run.

    Examples
    --------
    >>> available = churning(1000, 0).stream.available
    >>> int(available[0].sum()), int(available[-1].sum())
    (11, 12)
    """
    problem = homes(length, seed, **options)
    width = len(problem.stream.arms)
    integer("added", added)
    if added + integer("withdrawn", withdrawn) >= width:
        raise ValueError(f"added + withdrawn must be < {width} arms, got {added + withdrawn}")
    order = generator(seed, _ARMS).permutation(width)
    first, last = np.zeros(width), np.full(width, np.inf)
    first[order[:added]] = np.linspace(0.1, 0.6, added)
    last[order[added : added + withdrawn]] = np.linspace(0.4, 0.9, withdrawn)
    moment = (np.arange(length) / length)[:, None]
    return replace(problem, stream=replace(problem.stream, available=(moment >= first) & (moment < last)))


def sized(
    length: int,
    seed: Seed,
    *,
    sizes: tuple[float, ...] = (1.0, 2.0, 4.0),
    capacity: float = 8.0,
    **options: Any,
) -> Problem:
    """Give adapters different sizes, with prices in proportion.

    Parameters
    ----------
    length, seed, **options
        As in `homes`.
    sizes
        Sizes to draw from, as of LoRA ranks 8, 16 and 32. A price of mean size stays what it was.
    capacity
        Fast memory in the unit of `sizes`.

    Examples
    --------
    >>> problem = sized(1000, 0)
    >>> sorted(set(problem.sizes.tolist())), problem.capacity
    ([1.0, 2.0, 4.0], 8.0)
    """
    problem = homes(length, seed, **options)
    drawn = generator(seed, _ARMS).choice(np.asarray(sizes, np.float64), len(problem.faults))
    relative = drawn / drawn.mean()
    return Problem(problem.stream, problem.faults * relative, problem.loads * relative, capacity, drawn)

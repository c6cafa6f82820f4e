"""Popularity: which group each request of a run belongs to, and the random streams all generators share."""

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core.typing import Floats, Ints
from banditroute._core.validation import finite, integer

__all__ = ["Seed", "draw_groups", "generator", "zipf_shares"]

Seed = int | np.random.SeedSequence

# Keeps these random streams apart from children that a caller spawns from the same seed.
_BRANCH = 0x5EED


def generator(seed: Seed, key: int) -> np.random.Generator:
    """Return independent random stream number `key` of a seed; asking twice gives the same stream.

    Unlike ``SeedSequence.spawn`` it leaves the seed as it was, so one seed can be shared by paired runs.

    Parameters
    ----------
    seed
        Integer >= 0 or ``SeedSequence``.
    key
        Number of the stream, >= 0.

    Examples
    --------
    >>> generator(7, 0).random() == generator(np.random.SeedSequence(7), 0).random()
    True
    >>> generator(7, 0).random() == generator(7, 1).random()
    False
    """
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(integer("seed", seed))
    return np.random.default_rng(
        np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, _BRANCH, integer("key", key)))
    )


def zipf_shares(count: int, exponent: float = 1.0) -> Floats:
    """Return the shares of `count` items whose popularity falls as ``rank ** -exponent``; they sum to 1.

    Parameters
    ----------
    count
        Number of items, >= 1.
    exponent
        0 is uniform.

    Examples
    --------
    >>> zipf_shares(2)
    array([0.66666667, 0.33333333])
    """
    ranks = np.arange(1.0, integer("count", count, low=1) + 1.0)
    weights = ranks ** -finite("exponent", exponent)
    result: Floats = weights / weights.sum()
    return result


def draw_groups(
    shares: ArrayLike, windows: int | Ints, rng: np.random.Generator, *, stay: float | Floats = 0.0
) -> Ints:
    """Draw the popularity group of every request.

    Parameters
    ----------
    shares
        Popularity of G groups, >= 0, shape (G,), or one row per window, shape (W, G). Each row is normalised.
    windows
        Row of `shares` that holds at each request, shape (T,), or T for windows of equal length.
    rng
        Source of randomness: T uniform numbers, 2 T with `stay`.
    stay
        Probability, one number or shape (T,), that a request repeats the group of the one before it: bursts.
        The share of each group stays what `shares` says.

    Returns
    -------
    NDArray
        Group of each request, shape (T,), int64. Cost O(T G).

    Raises
    ------
    ValueError
        When a share is negative, or a row of shares is empty or zero.

    Examples
    --------
    >>> draw_groups([[1, 0], [0, 1]], 4, np.random.default_rng(0))
    array([0, 0, 1, 1])
    """
    table = np.atleast_2d(np.asarray(shares, np.float64))
    totals = table.sum(axis=1)
    if not (np.isfinite(totals).all() and (totals > 0).all() and (table >= 0).all()):
        raise ValueError("shares must be >= 0 with a positive sum in each row, got a row that is not")
    if isinstance(windows, int):
        windows = np.arange(windows) * len(table) // windows
    edges = np.cumsum(table, axis=1)[:, :-1] / totals[:, None]
    draws = rng.random(len(windows))
    if len(table) == 1:
        groups = np.searchsorted(edges[0], draws, side="right")
    else:
        groups = (draws[:, None] >= edges[windows]).sum(axis=1)
    if np.any(stay):
        renewed = rng.random(len(windows)) >= stay
        renewed[0] = True
        groups = groups[np.maximum.accumulate(np.where(renewed, np.arange(len(windows)), 0))]
    result: Ints = groups.astype(np.int64)
    return result

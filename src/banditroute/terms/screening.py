"""Two-stage selection: cheap screening to the best few arms."""

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Mask
from banditroute.policies.base import LARGEST

__all__ = ["screen", "stability"]


def stability(load: ArrayLike, latency_s: ArrayLike, available: ArrayLike = True) -> Floats:
    """Return ``0.4 (1 - load) + 0.4 (1 - latency / 2 s) + 0.2 available``, (k,), each part clipped to [0, 1].

    Parameters
    ----------
    load : (k,) array
        Share of the arm's capacity in use.
    latency_s : (k,) array
        Recent latency, seconds.
    available : (k,) bool array
        Whether the arm answers.

    Notes
    -----
    Source: the code of Symphony-Coord (arXiv 2602.00966).

    Examples
    --------
    >>> stability([0.0, 1.0], [0.0, 4.0]).tolist()
    [1.0, 0.2]
    """
    free = 1.0 - np.clip(np.asarray(load, dtype=np.float64), 0.0, 1.0)
    quick = 1.0 - np.clip(np.asarray(latency_s, dtype=np.float64) / 2.0, 0.0, 1.0)
    return np.asarray(0.4 * free + 0.4 * quick + 0.2 * np.asarray(available, dtype=np.float64))


def screen(
    similarity: ArrayLike,
    success: ArrayLike,
    stable: ArrayLike,
    top: int = 3,
    *,
    eligible: ArrayLike | None = None,
) -> Mask:
    """Return the mask of the `top` arms by ``0.50 similarity + 0.35 success + 0.15 stable``: stage one of two.

    Parameters
    ----------
    similarity : (k,) array
        Of the request to what the arm is for, such as a cosine of embeddings.
    success : (k,) array
        Mean reward of the arm in the past, 0.5 where unknown.
    stable : (k,) array
        As from `stability`.
    top : int
        Arms to keep, >= 1; ties go to the arm that comes first.
    eligible : (k,) bool array, optional
        Arms that may be kept.

    Returns
    -------
    (k,) bool array
        The policy's ``eligible``. The policy never learns about arms that screening always drops.

    Notes
    -----
    Source: the code of Symphony-Coord (arXiv 2602.00966), weights and ``top`` included. Its regret bound is
    conditional on the candidates; what screening drops by mistake is outside it. O(k).

    Examples
    --------
    >>> screen([0.9, 0.1, 0.8], [0.5, 0.9, 0.5], [1.0, 1.0, 0.0], top=2)
    array([ True, False,  True])
    """
    count = np.size(similarity)
    parts = (("similarity", similarity), ("success", success), ("stable", stable))
    near, good, calm = (check.vector(name, value, count, limit=LARGEST) for name, value in parts)
    points = 0.5 * near + 0.35 * good + 0.15 * calm
    if eligible is not None:
        points = np.where(np.asarray(eligible), points, -np.inf)
    kept = np.zeros(count, dtype=np.bool_)
    kept[np.argsort(-points, kind="stable")[: check.integer("top", top, low=1)]] = True
    return kept & (points > -np.inf)

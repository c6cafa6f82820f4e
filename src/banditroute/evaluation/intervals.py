"""Intervals of estimates from groups of rows: the bootstrap of a ratio, studentised."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from banditroute._core.typing import Floats
from banditroute.evaluation.estimators import Term

__all__ = ["Ends", "grouped", "studentised"]

GROUPS = 4096  # rows of a longer trace are resampled in so many groups of neighbours
_AT_ONCE = 128  # resamples
_WARY = 200.0  # degrees of freedom at which half of the caution against rows that never came is left


class Ends(NamedTuple):
    """Values, standard errors and both ends of their intervals, (m,) each.

    Examples
    --------
    >>> Ends(*np.zeros((4, 1))).low
    array([0.])
    """

    value: Floats
    std_error: Floats
    low: Floats
    high: Floats


def grouped(terms: list[Term], groups: int = GROUPS) -> Floats:
    """Return the sums of m terms over at most `groups` groups of neighbouring rows, (groups, m, 3).

    Of each group the sums of `top` and of `bottom`, and the number of rows. Groups keep the dependence between
    neighbours, and the cost of resampling does not grow with the trace.

    Examples
    --------
    >>> grouped([Term(np.array([1.0, 3.0]), np.ones(2))])[:, 0]
    array([[1., 1., 1.],
           [3., 1., 1.]])
    """
    rows = len(terms[0].top)
    count = min(rows, groups)
    starts = np.arange(count) * rows // count
    sums = np.empty((count, len(terms), 3))
    for i, term in enumerate(terms):
        sums[:, i, 0] = np.add.reduceat(term.top, starts)
        sums[:, i, 1] = np.add.reduceat(term.bottom, starts)
    sums[:, :, 2] = np.diff(np.append(starts, rows))[:, None]
    return sums


def studentised(sums: Floats, level: float, draws: int, rng: np.random.Generator) -> Ends:
    """Return values and intervals of m ratios from their groups, (groups, m, 3), by the studentised bootstrap.

    Parameters
    ----------
    sums : (groups, m, 3) array
        Of `grouped`; parts of a log are joined by concatenation.
    level : float
        Coverage, in (0, 1).
    draws : int
        Resamples; the multinomial counts are the same for every ratio.
    rng : Generator

    Returns
    -------
    Ends
        O(draws groups m).

    Notes
    -----
    Each resample is measured in standard errors of its own (Efron 1979; Hall 1988): ``t = (v* - v) / se*``, and the
    interval is ``v - t_high se .. v - t_low se``. Under heavy weights a sample that missed the heavy rows has a low
    value and a small error at once, which is what plain percentiles cannot see. It leans on the skewness of the sample,
    which heavy rows that never came would have turned. Student's interval does not, with the degrees of freedom f that
    the kurtosis k of the groups leaves the variance, ``f = 2 n / (k - 1)`` (Satterthwaite). With many both estimate
    the same ends, and their mean has less noise; with few the wider one is taken. In between an end is ``w wider +
    (1 - w) mean`` with ``w = 1 / (1 + f / 200)``. Chosen by simulation (benchmarks/doubt.py).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> ends = studentised(grouped([Term(rng.random(400), np.ones(400))]), 0.95, 400, rng)
    >>> bool(ends.low[0] < 0.5 < ends.high[0])
    True
    """
    top, bottom = sums[:, :, 0], sums[:, :, 1]
    groups, width = top.shape
    value = top.sum(axis=0) / bottom.sum(axis=0)
    # Everything about the middle of the sample: squares of far-off values would cancel.
    off = top - value * bottom
    scale = np.maximum(np.abs(off).max(axis=0), np.finfo(np.float64).tiny)
    off = off / scale
    squares = off**2
    table = np.concatenate([off, bottom, squares, off * bottom, bottom**2], axis=1)
    spread = np.sqrt(squares.sum(axis=0) * groups / max(groups - 1, 1))
    errors = spread / np.abs(bottom.sum(axis=0))
    carrying = squares.sum(axis=0) ** 2 / np.maximum((squares**2).sum(axis=0), np.finfo(np.float64).tiny)
    freedom = 2.0 * carrying / np.maximum(1.0 - carrying / groups, 1e-9)
    plain = stats.t.ppf((1.0 + level) / 2.0, np.maximum(freedom, 1.0))
    wary = 1.0 / (1.0 + freedom / _WARY)
    t = np.empty((draws, width))
    for start in range(0, draws, _AT_ONCE):
        size = min(_AT_ONCE, draws - start)
        drawn = rng.integers(groups, size=(size, groups)) + groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups)
        found = (counts @ table).reshape(size, 5, width)
        t[start : start + size] = _in_errors(found, groups)
    low, high = np.empty(width), np.empty(width)
    for i in range(width):
        own = t[:, i][np.isfinite(t[:, i])]
        tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
        ends = np.quantile(own, tails) if len(own) else np.array([-plain[i], plain[i]])
        wider = np.array([min(ends[0], -plain[i]), max(ends[1], plain[i])])
        both = 0.5 * (ends + np.array([-plain[i], plain[i]]))
        high[i], low[i] = -(wary[i] * wider + (1.0 - wary[i]) * both) * errors[i] * scale[i]
    return Ends(value, errors * scale, value + low, value + high)


def _in_errors(found: Floats, groups: int) -> Floats:
    """Return the deviation of resamples in standard errors of their own; NaN where they have none."""
    off, bottom, square, cross, below = (found[:, j] for j in range(5))
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = off / bottom  # of the ratio, from the value of the sample
        spread = np.sqrt(
            np.maximum(square - 2.0 * gap * cross + gap**2 * below, 0.0) * groups / max(groups - 1, 1)
        )
        t: Floats = off / spread * np.sign(bottom)
    t[(spread <= 1e-9 * np.sqrt(np.maximum(square, 1e-300))) | (bottom == 0.0)] = np.nan
    return t

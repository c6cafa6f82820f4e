"""Intervals of estimates from groups of rows: Student's, with the skewness that the rows show."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from banditroute._core.typing import Floats
from banditroute.evaluation.estimators import Term

__all__ = ["Ends", "grouped", "intervals", "rows_needed"]

FAINT = 1e-6  # of its error: what is smaller is rounding
GROUPS = 4096  # rows of a longer trace are summed in so many groups of neighbours


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
    neighbours, and what is kept of them does not grow with the trace.

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


def intervals(sums: Floats, level: float) -> Ends:
    """Return values and intervals of m ratios from their groups, (groups, m, 3).

    Parameters
    ----------
    sums : (groups, m, 3) array
        Of `grouped`; parts of a log are joined by concatenation.
    level : float
        Coverage, in (0, 1).

    Returns
    -------
    Ends
        O(groups m).

    Notes
    -----
    With r the residuals of the groups, ``top - value bottom``, the ends are ``value + (shift ± t) error``. ``t`` is
    Student's quantile at ``2 sum r^2 / max r^2`` degrees of freedom, those of rows all as heavy as the heaviest
    (Satterthwaite, with the largest kurtosis that it allows): where few rows carry the spread, the next of their kind
    may not have come yet. ``shift = g (1 + 2 z^2) / 6`` is the first correction for skewness (Johnson 1978), with
    ``g = sum r^3 / (sum r^2)^1.5`` and z the normal quantile: a sample that missed heavy rows has a low value and a
    small error at once. No constant is fitted. How often it holds is measured by benchmarks/doubt.py.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> ends = intervals(grouped([Term(rng.random(400), np.ones(400))]), 0.95)
    >>> bool(ends.low[0] < 0.5 < ends.high[0])
    True
    """
    top, bottom = sums[:, :, 0], sums[:, :, 1]
    groups = len(top)
    value = top.sum(axis=0) / bottom.sum(axis=0)
    off = top - value * bottom
    scale = np.maximum(
        np.abs(off).max(axis=0), np.finfo(np.float64).tiny
    )  # squares of far-off values would overflow
    off = off / scale
    square = (off**2).sum(axis=0)
    error = np.sqrt(square * groups / max(groups - 1, 1)) / np.abs(bottom.sum(axis=0)) * scale
    tail = (1.0 + level) / 2.0
    skewness = np.sign(bottom.sum(axis=0)) * (off**3).sum(axis=0) / np.maximum(square, 1.0) ** 1.5
    shift = skewness * (1.0 + 2.0 * stats.norm.ppf(tail) ** 2) / 6.0
    half = stats.t.ppf(tail, np.maximum(2.0 * square, 1.0))
    return Ends(value, error, value + (shift - half) * error, value + (shift + half) * error)


def rows_needed(rows: int, value: float, reach: float) -> int | None:
    """Return after how many rows an interval that reaches so far from a value would leave out 0; None for rounding.

    Examples
    --------
    >>> rows_needed(1000, 0.1, 0.2), rows_needed(1000, 1e-17, 0.2), rows_needed(1000, 0.0, 0.0)
    (4000, None, None)
    """
    if value == 0.0 or abs(value) < FAINT * reach:
        return None
    return int(np.ceil(rows * (reach / value) ** 2))

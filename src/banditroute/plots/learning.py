"""Pictures of what a policy knows: how fast its widths shrink, and whether it is as sure as it may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["calibration", "interval_coverage", "width_decay"]

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def width_decay(
    widths: ArrayLike, chosen: ArrayLike, arms: Sequence[str], *, top: int = 6, ax: Axes | None = None
) -> Axes:
    """Draw how the width of each arm shrinks with the rewards seen, on logarithmic axes.

    Parameters
    ----------
    widths
        ``sqrt(x' A^-1 x)`` of the arm chosen on each request, before its reward: `forecast.forecasts`; shape (T,), > 0.
    chosen
        Index of that arm, shape (T,).
    arms
        Names of the N arms.
    top
        Arms drawn, the busiest.
    ax
        Where to draw; the current Axes when not given.

    Notes
    -----
    Points are means over stretches that double in length. The grey line falls with the square root of the rewards, as
    widths do once an arm has seen every direction.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(width_decay([1.0, 0.5, 0.25], [0, 0, 0], ["a"], ax=ax))["width"]
    array([1.   , 0.375])
    """
    axes = canvas.given(ax)
    values, picks = check.vector("widths", widths, np.size(chosen)), np.asarray(chosen)
    counts = np.bincount(picks, minlength=len(arms))
    drawn, parts = [], []
    for i, a in enumerate(np.argsort(-counts, kind="stable")[:top]):
        own = values[picks == a]
        if not len(own):
            continue
        starts = 2 ** np.arange(int(np.log2(len(own))) + 1) - 1
        starts = starts[starts < len(own)]
        size = np.diff(np.append(starts, len(own)))
        mean = np.add.reduceat(own, starts) / size
        seen = starts + (size + 1) / 2
        axes.plot(seen, mean, lw=1.8, marker="o", ms=3.5, **canvas.look(i))
        drawn.append((str(arms[a]), float(mean[-1]), canvas.look(i)["color"]))
        parts.append({"name": arms[a], "rewards": seen, "width": mean})
    axes.set_xscale("log")
    axes.set_yscale("log")
    table = canvas.joined(parts)
    last = table["rewards"].max()
    level = np.median([end for _, end, _ in drawn])
    guide = np.array([1.0, last])
    limits = axes.get_ylim()
    axes.plot(guide, level * np.sqrt(last / guide), color="#888888", lw=1.2, ls=(0, (2, 2)), zorder=1)
    axes.set_ylim(limits)
    canvas.titles(axes, "How widths shrink", "rewards seen by the arm", "width  sqrt(x' A^-1 x)")
    canvas.plain_log(axes.xaxis)
    canvas.plain_log(axes.yaxis)
    canvas.name_ends(axes, drawn)
    canvas.behind(axes, **table)
    return axes


def calibration(expected: ArrayLike, rewards: ArrayLike, *, bins: int = 10, ax: Axes | None = None) -> Axes:
    """Draw rewards against what was expected of them: on the diagonal where forecasts are right on average.

    Parameters
    ----------
    expected
        Forecasts made before the reward was known, shape (n,): `forecast.forecasts`.
    rewards
        What came, shape (n,).
    bins
        Groups of equally many rows, ordered by forecast; each is drawn with the 95 % interval of its mean reward.
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(calibration([0.1, 0.9, 0.1, 0.9], [0.0, 1.0, 0.2, 0.8], bins=2, ax=ax))["reward"]
    array([0.1, 0.9])
    """
    axes = canvas.given(ax)
    told = check.vector("expected", expected, np.size(expected))
    came = check.vector("rewards", rewards, len(told))
    order = np.argsort(told, kind="stable")
    groups = np.array_split(order, min(check.integer("bins", bins, low=1), len(told)))
    x = np.array([told[g].mean() for g in groups])
    y = np.array([came[g].mean() for g in groups])
    half = np.array([1.96 * came[g].std() / np.sqrt(max(len(g) - 1, 1)) for g in groups])
    axes.errorbar(x, y, yerr=half, fmt="o", color=canvas.COLOURS[0], ms=5, lw=1.4, capsize=2)
    low, high = min(x.min(), (y - half).min()), max(x.max(), (y + half).max())
    axes.plot([low, high], [low, high], color="#888888", lw=1.2, ls=(0, (2, 2)), zorder=1)
    canvas.titles(axes, "Calibration", "expected reward (mean of a group of rows)", "mean reward that came")
    canvas.few_ticks(axes.xaxis, 5)
    canvas.few_ticks(axes.yaxis, 5)
    canvas.behind(axes, expected=x, reward=y, low=y - half, high=y + half, rows=[len(g) for g in groups])
    return axes


def interval_coverage(
    tables: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]], *, ax: Axes | None = None
) -> Axes:
    """Draw how many intervals hold the truth against how many should: above the diagonal they are wider than needed.

    Parameters
    ----------
    tables
        Per line ``(value, std_error, truth)``, shape (n,) or a number each: off-policy estimates over draws with the
        true value, or `forecast.forecasts` with the rewards. Rows with NaN are left out.
    ax
        Where to draw; the current Axes when not given.

    Raises
    ------
    ValueError
        No row is left.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(interval_coverage({"ips": ([0.0, 1.0], [1.0, 0.1], 0.1)}, ax=ax))["coverage"][:2]
    array([0.5, 0.5])
    """
    from scipy import stats

    axes = canvas.given(ax)
    nominal = np.array(LEVELS)
    drawn, parts = [], []
    own_looks = canvas.looks(tables)
    for name, columns in tables.items():
        value, error, truth = (np.asarray(c, np.float64) for c in np.broadcast_arrays(*columns))
        known = np.isfinite(value) & np.isfinite(truth) & (error > 0.0)
        if not known.any():
            raise ValueError(f"{name} must hold a row with value, error > 0 and truth, got none")
        z = np.abs(value - truth)[known] / error[known]
        share = np.array([(z <= stats.norm.ppf(0.5 + level / 2)).mean() for level in nominal])
        half = 1.96 * np.sqrt(share * (1.0 - share) / len(z))
        style = own_looks[name]
        axes.plot(nominal, share, lw=1.8, marker="o", ms=4, **style)
        axes.fill_between(nominal, share - half, share + half, color=style["color"], alpha=0.12, lw=0)
        drawn.append((name, float(share[-1]), style["color"]))
        parts.append({"name": name, "nominal": nominal, "coverage": share, "rows": int(known.sum())})
    axes.plot([nominal[0], 1.0], [nominal[0], 1.0], color="#888888", lw=1.2, ls=(0, (2, 2)), zorder=1)
    canvas.titles(axes, "Coverage of intervals", "nominal coverage", "share of intervals that hold the truth")
    canvas.percent(axes.xaxis)
    canvas.percent(axes.yaxis)
    axes.set_ylim(top=1.02)
    canvas.name_ends(axes, drawn)
    canvas.behind(axes, **canvas.joined(parts))
    return axes

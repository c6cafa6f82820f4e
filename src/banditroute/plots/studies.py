"""Pictures of studies: regret and how it grows, sweeps over alpha and slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.plots import canvas
from banditroute.simulation import bands, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "alpha_sweep",
    "hit_rate_by_slots",
    "regret_bands",
    "regret_by_slots",
    "regret_slope",
]


def regret_bands(
    curves: Mapping[str, Sequence[ArrayLike]],
    times: ArrayLike,
    *,
    against: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw cumulative regret over requests: the mean over seeds and its pointwise 95 % band.

    Parameters
    ----------
    curves
        Per contestant, one curve of shape (n,) for each seed.
    times
        Requests served at each point, shape (n,).
    against
        Draw regret less that contestant's on the same seed instead.
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     regret_bands({"LRU": [[0.0, 1.0], [0.0, 2.0]]}, [1, 2], ax=ax).get_ylabel()
    'cumulative regret'
    """
    axes = canvas.given(ax)
    reference = None if against is None else np.asarray(curves[against])
    up = "cumulative regret" if against is None else "difference on the same requests"
    lines = {name: np.asarray(own) if reference is None else np.asarray(own) - reference
             for name, own in curves.items()}  # fmt: skip
    drawn = _bands(axes, lines, times, "requests", "regret")
    canvas.titles(axes, "Regret" if against is None else f"Regret less that of {against}", "requests", up)
    axes.margins(x=0)
    canvas.few_ticks(axes.xaxis, 4)
    canvas.few_ticks(axes.yaxis)
    canvas.name_ends(axes, drawn)
    return axes


def regret_slope(
    curves: Mapping[str, Sequence[ArrayLike]],
    times: ArrayLike,
    *,
    octaves: float = 5.0,
    ax: Axes | None = None,
) -> Axes:
    """Draw cumulative regret on logarithmic axes with the exponent of its growth, fitted over the last doublings.

    An exponent of 0.5 is growth with the square root of the requests, 1 is growth without learning.

    Parameters
    ----------
    curves, times
        As in `regret_bands`; regret must be positive over the fitted range.
    octaves
        The fit covers T / 2**octaves .. T at 32 points evenly spaced in log time, seed by seed; the legend gives the
        mean exponent and its 95 % interval over seeds. The curve is the geometric mean over seeds.
    ax
        Where to draw; the current Axes when not given.

    Raises
    ------
    ValueError
        Regret is not positive where it is fitted, and whose.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> times = [100, 200, 400, 800]
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(regret_slope({"root": [[10.0, 14.14, 20.0, 28.28]]}, times, ax=ax))["exponent"][0].round(3)
    np.float64(0.5)
    """
    axes = canvas.given(ax)
    at = np.asarray(times, dtype=np.float64)
    grid = np.geomspace(max(at[0], at[-1] / 2.0**octaves), at[-1], 32)
    parts = []
    own_looks = canvas.looks(curves)
    for name, own in curves.items():
        rows = np.asarray(own, dtype=np.float64)
        fitted = np.array([np.interp(grid, at, row) for row in rows])
        if not (fitted > 0.0).all():
            raise ValueError(f"regret of {name} must be positive over the fitted range, got {fitted.min():g}")
        slopes, levels = np.polyfit(np.log(grid), np.log(fitted).T, 1)
        exponent, low, high = interval(slopes)
        shown = (rows > 0.0).all(axis=0)
        middle = np.exp(np.log(rows[:, shown]).mean(axis=0))
        text = f"{name}: exponent {exponent:.2f}"
        if len(rows) > 1:
            text += f" [{low:.2f}, {high:.2f}]"
        style = own_looks[name]
        axes.plot(at[shown], middle, lw=1.8, label=text, **style)
        axes.plot(grid, np.exp(levels.mean()) * grid**exponent, color=style["color"], lw=5.0, alpha=0.22)
        parts.append({"name": name, "requests": at[shown], "regret": middle, "exponent": exponent, "low": low,
                      "high": high})  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    canvas.titles(axes, "How regret grows", "requests", "cumulative regret")
    canvas.plain_log(axes.xaxis)
    canvas.plain_log(axes.yaxis)
    canvas.legend_below(axes)
    canvas.behind(axes, **canvas.joined(parts))
    return axes


def alpha_sweep(
    rewards: Mapping[str, ArrayLike],
    alphas: ArrayLike,
    *,
    default: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the reward of each exploration width, with a ring around the best.

    Parameters
    ----------
    rewards
        Per line, a table (alphas, seeds) as `tune.sweep` returns it: mean reward per request.
    alphas
        Exploration widths, shape (alphas,), > 0.
    default
        An alpha to mark, say the one in use.
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     alpha_sweep({"log": [[0.5, 0.6], [0.7, 0.7]]}, [0.1, 1.0], ax=ax).get_xscale()
    'log'
    """
    axes = canvas.given(ax)
    axes.set_xscale("log")
    drawn = _swept(axes, rewards, alphas, "alpha", "reward", ring=True)
    canvas.titles(axes, "Exploration width", "alpha (exploration width)", "mean reward per request")
    canvas.plain_log(axes.xaxis)
    canvas.few_ticks(axes.yaxis, 5)
    canvas.name_ends(axes, drawn)
    if default is not None:
        axes.axvline(default, color="#888888", lw=1.2, ls=(0, (2, 2)))
        axes.annotate("in use", (default, 0.02), xycoords=("data", "axes fraction"), xytext=(3, 0),
                      textcoords="offset points", color="#888888", fontsize=8)  # fmt: skip
    return axes


def hit_rate_by_slots(rates: Mapping[str, ArrayLike], slots: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw the hit rate against the number of slots.

    Parameters
    ----------
    rates
        Per line, shares of requests that hit, (slots,) or (slots, seeds).
    slots
        Numbers of slots K, shape (slots,).
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(hit_rate_by_slots({"LRU": [0.4, 0.7]}, [1, 2], ax=ax))["hit_rate"]
    array([0.4, 0.7])
    """
    axes = canvas.given(ax)
    drawn = _swept(axes, rates, slots, "slots", "hit_rate")
    canvas.titles(axes, "Hit rate by slots", "slots (resident arms) K", "share of requests that hit")
    axes.set_ylim(0.0, 1.0)
    canvas.few_ticks(axes.xaxis, 8)
    canvas.percent(axes.yaxis)
    canvas.name_ends(axes, drawn)
    return axes


def regret_by_slots(regrets: Mapping[str, ArrayLike], slots: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw the regret at the end of a run against the number of slots.

    Parameters
    ----------
    regrets
        Per line, final regret, (slots,) or (slots, seeds).
    slots
        Numbers of slots K, shape (slots,).
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     regret_by_slots({"LRU": [40.0, 10.0]}, [1, 2], ax=ax).get_title(loc="left")
    'Regret by slots'
    """
    axes = canvas.given(ax)
    drawn = _swept(axes, regrets, slots, "slots", "regret")
    canvas.titles(axes, "Regret by slots", "slots (resident arms) K", "regret at the end of the run")
    canvas.few_ticks(axes.xaxis, 8)
    canvas.few_ticks(axes.yaxis, 5)
    canvas.name_ends(axes, drawn)
    return axes


def _bands(
    axes: Axes, lines: Mapping[str, Floats], at: ArrayLike, across: str, up: str, *, marker: str = ""
) -> list[tuple[str, float, str]]:
    """Draw lines of shape (seeds, n) with their bands; returns names, heights of the right ends and colours."""
    drawn, parts = [], []
    own_looks = canvas.looks(lines)
    for name, rows in lines.items():
        mean, low, high = bands(rows)
        style = own_looks[name]
        axes.plot(at, mean, lw=1.8, label=name, marker=marker, ms=4, **style)
        if len(rows) > 1:
            axes.fill_between(at, low, high, color=style["color"], alpha=0.12, lw=0)
        drawn.append((name, float(mean[-1]), style["color"]))
        parts.append({"name": name, across: np.asarray(at), up: mean, "low": low, "high": high})
    canvas.behind(axes, **canvas.joined(parts))
    return drawn


def _swept(
    axes: Axes,
    tables: Mapping[str, ArrayLike],
    settings: ArrayLike,
    across: str,
    up: str,
    *,
    ring: bool = False,
) -> list[tuple[str, float, str]]:
    """Draw tables of shape (settings, seeds) over the settings."""
    at = check.vector(across, settings, np.size(settings))
    lines = {
        name: check.matrix(name, table if np.ndim(table) > 1 else np.reshape(table, (-1, 1)), rows=len(at)).T
        for name, table in tables.items()
    }
    drawn = _bands(axes, lines, at, across, up, marker="o")
    for name, rows in lines.items() if ring else ():
        best = int(rows.mean(axis=0).argmax())
        colour = canvas.looks(lines)[name]["color"]
        axes.plot(at[best], rows[:, best].mean(), "o", ms=11, mfc="none", mew=1.4, color=colour)
    return drawn

"""Pictures of what arms and policies are worth: estimates with intervals, and quality against cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.plots import canvas
from banditroute.plots.canvas import COLOURS
from banditroute.simulation import Frontier, hull, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cost_frontier", "quality_cost", "value_intervals"]


def value_intervals(
    values: Mapping[str, tuple[float, float, float]],
    *,
    reference: float | None = None,
    truth: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw values with their intervals, one line each, the best on top.

    Parameters
    ----------
    values
        Per candidate ``(value, low, high)``, as `evaluate` estimates them.
    reference
        A value to compare with, such as the mean reward of the log; drawn as a line.
    truth
        True values of candidates where they are known; drawn as crosses.
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(value_intervals({"a": (0.4, 0.3, 0.5), "b": (0.6, 0.5, 0.7)}, ax=ax))["name"].tolist()
    ['b', 'a']
    """
    axes = canvas.given(ax)
    if not values:
        raise ValueError("values must name at least one candidate, got none")
    names = sorted(values, key=lambda name: -values[name][0])
    table = np.array([values[name] for name in names], dtype=np.float64)
    place = np.arange(len(names), dtype=np.float64)
    reach = np.abs(table[:, 1:] - table[:, :1]).T
    axes.errorbar(table[:, 0], place, xerr=reach, fmt="o", color=COLOURS[0], ms=5, lw=1.6, capsize=2)
    known = [i for i, name in enumerate(names) if name in (truth or {})]
    if truth and known:
        axes.plot(
            [truth[names[i]] for i in known], place[known], "x", color=COLOURS[1], ms=7, mew=2, label="truth"
        )
        canvas.legend_below(axes)
    axes.set_yticks(place, names)
    axes.set_ylim(len(names) - 0.4, -0.9 if reference is not None else -0.6)
    axes.grid(visible=False, axis="y")
    if reference is not None:
        axes.axvline(reference, color="#888888", lw=1.2, ls=(0, (2, 2)), zorder=1)
        axes.annotate("as logged", (reference, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -9),
                      textcoords="offset points", color="#888888", fontsize=8)  # fmt: skip
    axes.set_title("What each would earn")
    axes.set_xlabel("reward per request, with its interval")
    canvas.few_ticks(axes.xaxis, 5)
    canvas.behind(axes, name=names, value=table[:, 0], low=table[:, 1], high=table[:, 2])
    return axes


def quality_cost(points: Mapping[str, tuple[ArrayLike, ArrayLike]], *, ax: Axes | None = None) -> Axes:
    """Draw mean reward against mean cost, and the front of those that no other beats in both.

    Parameters
    ----------
    points
        Per arm or policy its cost and its reward per request: numbers, or (seeds,) arrays that get 95 % intervals.
    ax
        Where to draw; the current Axes when not given.

    Raises
    ------
    ValueError
        A cost is not above zero: the axis is logarithmic.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(quality_cost({"small": (1e-4, 0.7), "large": (1e-2, 0.9), "odd": (2e-2, 0.8)}, ax=ax))["on_front"]
    array([ True,  True, False])
    """
    axes = canvas.given(ax)
    names = list(points)
    costs, rewards = (np.array([interval(np.atleast_1d(points[n][i])) for n in names]) for i in (0, 1))
    check.vector("costs", costs[:, 0], len(names))
    if costs[:, 0].min() <= 0.0:
        raise ValueError(f"costs must be > 0, got {costs[:, 0].min():g}")
    order = np.lexsort((-rewards[:, 0], costs[:, 0]))
    best = np.maximum.accumulate(rewards[order, 0])
    first = np.append(True, np.diff(best) > 0.0)
    front = np.isin(np.arange(len(names)), order[first])
    axes.set_xscale("log")
    axes.step(costs[order[first], 0], best[first], where="post", color=COLOURS[0], lw=1.4, alpha=0.5)
    for i in range(len(names)):
        colour = COLOURS[0] if front[i] else "#888888"
        axes.errorbar(
            costs[i, 0], rewards[i, 0], xerr=_arms(costs[i]), yerr=_arms(rewards[i]), color=colour, capsize=2,
            marker="o", ms=6, mfc=colour if front[i] else "none", lw=1.2,
        )  # fmt: skip
    axes.margins(x=0.12, y=0.15)
    canvas.titles(axes, "Quality and cost", "mean cost per request", "mean reward per request")
    canvas.plain_log(axes.xaxis, 5)
    canvas.few_ticks(axes.yaxis, 5)
    canvas.name_points(
        axes, names, costs[:, 0], rewards[:, 0], [COLOURS[0] if f else "#888888" for f in front]
    )
    canvas.behind(axes, name=names, cost=costs[:, 0], reward=rewards[:, 0], on_front=front)
    return axes


def cost_frontier(
    found: Frontier,
    *,
    arms: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw reward against cost over prices of money: points, and the hull that mixing them reaches.

    Parameters
    ----------
    found
        Of `frontier`.
    arms
        Cost and reward of single arms, drawn as crosses.
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> from banditroute.simulation import Frontier
    >>> found = Frontier({"LinUCB": (np.array([[0.5], [0.9]]), np.array([[1.0], [3.0]]))}, np.array([1.0, 0.0]))
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(cost_frontier(found, ax=ax))["reward"]
    array([0.5, 0.9])
    """
    axes = canvas.given(ax)
    parts, own_looks, span = [], canvas.looks(found.tables), found.span()
    for name in found.tables:
        points = found.points(name)
        costs, rewards = (np.array([getattr(point, what) for point in points]) for what in ("cost", "reward"))
        corners = hull(costs, rewards)
        area = f", AIQ {found.aiq(name):.3f}" if span[0] < span[1] else ""
        axes.plot(*corners, lw=1.8, label=f"{name}{area}", **own_looks[name])
        axes.plot(costs, rewards, "o", ms=4, color=own_looks[name]["color"])
        parts.append({"name": name, "cost": costs, "reward": rewards})
    for name, (cost, reward) in (arms or {}).items():
        axes.plot(cost, reward, "x", ms=6, mew=1.6, color="#888888")
        axes.annotate(
            name, (cost, reward), xytext=(4, -3), textcoords="offset points", fontsize=8, color="#888888"
        )
    canvas.titles(axes, "Reward and cost", "mean cost per request", "mean reward per request")
    canvas.few_ticks(axes.xaxis, 5)
    canvas.few_ticks(axes.yaxis, 5)
    canvas.legend_below(axes)
    canvas.behind(axes, **canvas.joined(parts))
    return axes


def _arms(figures: Floats) -> Floats | None:
    """Return how far the interval reaches to both sides, (2, 1), or None where there is none."""
    mean, low, high = figures
    return np.array([[mean - low], [high - mean]]) if np.isfinite(low) else None

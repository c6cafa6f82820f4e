"""Pictures of one run or trace, request by request: arms, residency, rewards, waits and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints
from banditroute.logs import Trace
from banditroute.plots import canvas
from banditroute.plots.canvas import COLOURS, REST
from banditroute.simulation import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "arm_shares",
    "latency_distribution",
    "mean_over_time",
    "residency_timeline",
    "weight_distribution",
]


def residency_timeline(
    run: Run | Trace, arms: Sequence[str] | None = None, *, bins: int = 400, ax: Axes | None = None
) -> Axes:
    """Draw which arms were resident when, darker the more of the time.

    Parameters
    ----------
    run
        Of `simulate`; or a trace with hits, which tells of an arm only when it was chosen: where it was not, its row
        is grey.
    arms
        Names of the N arms; those of the trace when left out.
    bins
        Stretches of time drawn.
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import page
    >>> run = Run(4)
    >>> run.epochs = [(0, frozenset({0})), (2, frozenset({1}))]
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     len(residency_timeline(run, ["a", "b"], bins=4, ax=ax).images)
    1
    """
    from matplotlib.colors import LinearSegmentedColormap

    axes = canvas.given(ax)
    if arms is None and not isinstance(run, Trace):
        raise TypeError("arms must name the arms of a run, got none")
    names = run.names if arms is None and isinstance(run, Trace) else list(arms or ())
    edges = _edges(len(run), bins)
    share = _hit_shares(run, edges) if isinstance(run, Trace) else _resident_shares(run, len(names), edges)
    shade = LinearSegmentedColormap.from_list("resident", ["#FFFFFF", COLOURS[0]]).with_extremes(bad=REST)
    axes.imshow(
        share, aspect="auto", cmap=shade, vmin=0, vmax=1, interpolation="nearest",
        extent=(0, len(run), len(names) - 0.5, -0.5),
    )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_yticks(np.arange(len(names)) - 0.5, minor=True)
    axes.grid(visible=False)
    axes.grid(visible=True, axis="y", which="minor")
    axes.tick_params(which="minor", length=0)
    axes.set_title("Resident arms")
    axes.set_xlabel("requests; grey where it was not chosen" if isinstance(run, Trace) else "requests")
    canvas.few_ticks(axes.xaxis, 4)
    place, stretch = np.indices(share.shape)
    canvas.behind(axes, name=np.array(names)[place.ravel()], requests=edges[:-1][stretch.ravel()],
                  resident=share.ravel())  # fmt: skip
    return axes


def _edges(length: int, bins: int) -> Ints:
    if length < 1:
        raise ValueError("there must be at least one request to draw, got none")
    return np.unique(np.linspace(0, length, check.integer("bins", bins, low=1) + 1).astype(np.int64))


def _resident_shares(run: Run, count: int, edges: Ints) -> Floats:
    steps = np.zeros((count, len(run)))
    for start, stop, chosen in run.residents():
        steps[sorted(chosen), start:stop] = 1.0
    shares: Floats = np.add.reduceat(steps, edges[:-1], axis=1) / np.diff(edges)
    return shares


def _hit_shares(trace: Trace, edges: Ints) -> Floats:
    """Return the share of hits of each arm and stretch, NaN where it was not asked for."""
    if trace.hits is None:
        raise ValueError("trace must hold hits to draw residency, got none")
    width, stretches = len(trace.names), len(edges) - 1
    cell = trace.arms * stretches + np.repeat(np.arange(stretches), np.diff(edges))
    asked = np.bincount(cell, minlength=width * stretches)
    hit = np.bincount(cell, weights=trace.hits, minlength=width * stretches)
    shares: Floats = np.divide(hit, asked, out=np.full(len(hit), np.nan), where=asked > 0)
    return shares.reshape(width, stretches)


def arm_shares(
    chosen: ArrayLike, arms: Sequence[str], *, bins: int = 60, top: int = 6, ax: Axes | None = None
) -> Axes:
    """Draw the share of requests that each arm served over time, as stacked areas.

    Parameters
    ----------
    chosen
        Index of the arm that served each request, shape (T,).
    arms
        Names of the N arms.
    bins
        Stretches of time.
    top
        Arms with a colour of their own, the busiest; the others are drawn together.
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     arm_shares([0, 0, 1, 1], ["a", "b"], bins=2, ax=ax).get_ylim()
    (np.float64(0.0), np.float64(1.0))
    """
    axes = canvas.given(ax)
    picks = np.asarray(chosen)
    edges = _edges(len(picks), bins)
    counts = [np.bincount(picks[a:b], minlength=len(arms)) for a, b in pairwise(edges.tolist())]
    shares: Floats = np.stack(counts, axis=1) / np.diff(edges)
    place, stretch = np.indices(shares.shape)
    canvas.behind(axes, name=np.array(arms)[place.ravel()], requests=edges[:-1][stretch.ravel()],
                  share=shares.ravel())  # fmt: skip
    shares = np.column_stack([shares, shares[:, -1]])  # a step needs a value at its right edge
    order = np.argsort(-shares.sum(axis=1), kind="stable")
    busiest = [int(a) for a in order[:top]]
    parts = [*shares[busiest], 1.0 - shares[busiest].sum(axis=0)]
    labels = [*(arms[a] for a in busiest), f"{len(arms) - len(busiest)} others"]
    colours = [*COLOURS[: len(busiest)], REST]
    if len(arms) <= top:
        parts, labels, colours = parts[:-1], labels[:-1], colours[:-1]
    areas = axes.stackplot(edges, parts, labels=labels, colors=colours, step="post")
    axes.set_ylim(0.0, 1.0)
    axes.margins(x=0)
    axes.set_title("Share of requests")
    axes.set_xlabel("requests")
    canvas.few_ticks(axes.xaxis, 4)
    canvas.percent(axes.yaxis)
    axes.legend(handles=areas[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes


def mean_over_time(
    columns: Mapping[str, ArrayLike], *, bins: int = 30, what: str = "mean reward", ax: Axes | None = None
) -> Axes:
    """Draw means of columns over stretches of requests with 95 % bands: rewards, hits, forced choices.

    Parameters
    ----------
    columns
        Per line one value for each request, shape (T,); NaN, as where no reward came back, is left out.
    bins
        Stretches of time.
    what
        Label of the values, with their unit.
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(mean_over_time({"log": [0.0, 1.0, 1.0, float("nan")]}, bins=2, ax=ax))["mean"]
    array([0.5, 1. ])
    """
    axes = canvas.given(ax)
    drawn, parts = [], []
    own_looks = canvas.looks(columns)
    for name, column in columns.items():
        values = np.asarray(column, dtype=np.float64)
        edges = _edges(len(values), bins)
        known = ~np.isnan(values)
        count = np.add.reduceat(known.astype(np.float64), edges[:-1])
        mean, square = (
            np.add.reduceat(np.where(known, values, 0.0) ** p, edges[:-1]) / np.maximum(count, 1.0)
            for p in (1, 2)
        )
        half = 1.96 * np.sqrt(np.maximum(square - mean**2, 0.0) / np.maximum(count - 1.0, 1.0))
        mean[count == 0] = np.nan
        middle = (edges[:-1] + edges[1:]) / 2
        style = own_looks[name]
        axes.plot(middle, mean, lw=1.8, **style)
        axes.fill_between(middle, mean - half, mean + half, color=style["color"], alpha=0.12, lw=0)
        last = mean[np.isfinite(mean)]
        drawn.append((name, float(last[-1]) if len(last) else 0.0, style["color"]))
        parts.append(
            {"name": name, "requests": middle, "mean": mean, "low": mean - half, "high": mean + half}
        )
    canvas.titles(axes, what[:1].upper() + what[1:], "requests", what)
    axes.margins(x=0)
    canvas.few_ticks(axes.xaxis, 4)
    canvas.few_ticks(axes.yaxis, 5)
    if len(drawn) > 1:
        canvas.name_ends(axes, drawn)
    canvas.behind(axes, **canvas.joined(parts))
    return axes


def latency_distribution(
    latencies: ArrayLike, hits: ArrayLike | None = None, *, ax: Axes | None = None
) -> Axes:
    """Draw the share of requests that took longer than so many milliseconds: the tail, which means hide.

    Parameters
    ----------
    latencies
        Seconds, shape (T,), > 0; NaN where not known is left out.
    hits
        Whether the arm was resident, (T,) bools: hits and faults are then drawn apart too, and the tail that paging
        adds is the room between the hits and all requests.
    ax
        Where to draw; the current Axes when not given.

    Raises
    ------
    ValueError
        No latency is known, or one is not above zero.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(latency_distribution([0.1, 0.2, 0.3, 0.4], ax=ax))["share_slower"]
    array([1.  , 0.75, 0.5 , 0.25])
    """
    axes = canvas.given(ax)
    waits = np.asarray(latencies, dtype=np.float64)
    known = ~np.isnan(waits)
    groups = {"all requests": known}
    if hits is not None:
        resident = np.asarray(hits, dtype=np.bool_)
        groups |= {"hits": known & resident, "faults": known & ~resident}
    if not known.any() or waits[known].min() <= 0.0:
        least = waits[known].min() if known.any() else "none"
        raise ValueError(f"latencies must hold known values > 0, got {least}")
    parts = []
    for i, (name, rows) in enumerate(groups.items()):
        own = np.sort(waits[rows]) * 1000.0
        if not len(own):
            continue
        at, slower = _survival(own)
        p50, p99 = np.quantile(own, [0.5, 0.99])
        style = {**canvas.look(i), "color": ("#333333", COLOURS[0], COLOURS[1])[i]}
        axes.step(
            at, slower, where="pre", lw=1.8, label=f"{name}: p50 {_ms(p50)} ms, p99 {_ms(p99)} ms", **style
        )
        parts.append({"name": name, "latency_ms": at, "share_slower": slower})
    _tail_axes(axes, len(waits[known]))
    canvas.titles(axes, "How long requests take", "latency, ms", "share that takes at least as long")
    canvas.legend_below(axes)
    canvas.behind(axes, **canvas.joined(parts))
    return axes


def weight_distribution(weights: Mapping[str, ArrayLike], *, ax: Axes | None = None) -> Axes:
    """Draw the share of rows with at least so large an importance weight, and the effective sample size of each target.

    The further right a line ends, the more single rows decide the estimate.

    Parameters
    ----------
    weights
        Per target the weights ``pi(a | x) / p`` of the rows, shape (n,), >= 0: see `estimators.importance`.
    ax
        Where to draw; the current Axes when not given.

    Raises
    ------
    ValueError
        All weights of a target are zero.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import data, page
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(weight_distribution({"b": [0.0, 0.0, 4.0, 1.0]}, ax=ax))["share_as_large"]
    array([0.5 , 0.25])
    """
    axes = canvas.given(ax)
    parts, largest = [], 1
    own_looks = canvas.looks(weights)
    for name, given in weights.items():
        values = check.vector(name, given, len(np.atleast_1d(given)))
        used = np.sort(values[values > 0.0])
        if not len(used):
            raise ValueError(f"weights of {name} must not all be zero")
        at, share = _survival(used)
        share = share * len(used) / len(values)
        size = float(used.sum() ** 2 / np.dot(used, used))
        text = f"{name}: counts as {size:,.0f} of {len(values):,} rows"
        axes.step(at, share, where="pre", lw=1.8, label=text, **own_looks[name])
        axes.plot(at[-1], share[-1], "o", ms=5, color=own_looks[name]["color"])
        parts.append({"name": name, "weight": at, "share_as_large": share, "effective": size})
        largest = max(largest, len(values))
    _tail_axes(axes, largest)
    canvas.titles(axes, "Importance weights", "weight of a row", "share of rows at least so heavy")
    canvas.legend_below(axes)
    canvas.behind(axes, **canvas.joined(parts))
    return axes


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"


def _survival(ordered: Floats) -> tuple[Floats, Floats]:
    """Return values and the share of values at least as large, at every distinct value, thinned to 400 of them."""
    at, first = np.unique(ordered, return_index=True)
    share = 1.0 - first / len(ordered)
    if len(at) > 400:  # evenly in the logarithm of the share: the tail keeps its detail
        wanted = np.geomspace(share[-1], 1.0, 400)
        keep = np.unique(np.searchsorted(-share, -wanted))
        at, share = at[keep], share[keep]
    return at, share


def _tail_axes(axes: Axes, rows: int) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.7 / rows, 1.3)
    canvas.plain_log(axes.xaxis)
    canvas.plain_log(axes.yaxis)
    canvas.percent(axes.yaxis)

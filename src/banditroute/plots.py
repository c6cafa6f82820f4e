"""Pictures of runs: each function draws on one matplotlib Axes and returns it. Needs the extra "demo"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute.regret import bands
from banditroute.simulate import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["arm_shares", "page", "regret_bands", "residency_timeline"]

Floats = NDArray[np.float64]

# Okabe and Ito's colours, which stay apart under all common kinds of colour blindness, the strongest first; dashes
# tell lines apart where colour is gone.
COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#333333", "#CC79A7", "#56B4E9", "#F0E442")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (2, 2)), (0, (8, 2)))
REST = "#D9D9D9"
STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
}


@contextmanager
def page(
    rows: int, columns: int, *, path: str | Path, width: float = 9.6, height: float = 3.6
) -> Iterator[list[Axes]]:
    """Give Axes to draw on and save them as a picture of ``width`` x ``height`` inches at 150 dpi when done.

    Works without a display and leaves matplotlib's global state alone.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with page(1, 1, path=folder + "/a.png", width=3, height=2) as (ax,):
    ...         lines = ax.plot([0, 1])
    ...     Path(folder, "a.png").exists()
    True
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        yield list(grid.ravel())
        figure.savefig(path)


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.gca()


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
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     regret_bands({"LRU": [[0.0, 1.0], [0.0, 2.0]]}, [1, 2], ax=ax).get_ylabel()
    'cumulative regret'
    """
    axes = _axes(ax)
    reference = None if against is None else np.asarray(curves[against])
    drawn = []
    for i, (name, own) in enumerate(curves.items()):
        rows = np.asarray(own) if reference is None else np.asarray(own) - reference
        mean, low, high = bands(rows)
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        axes.plot(times, mean, color=colour, ls=dash, lw=1.8, label=name)
        if len(rows) > 1:
            axes.fill_between(times, low, high, color=colour, alpha=0.12, lw=0)
        drawn.append((name, float(mean[-1]), colour))
    axes.set_title("Regret" if against is None else f"Regret less that of {against}")
    axes.set_xlabel("requests")
    axes.set_ylabel("cumulative regret" if against is None else "difference on the same requests")
    axes.margins(x=0)
    _count(axes.xaxis, 4)
    _count(axes.yaxis)
    _name_ends(axes, drawn)
    return axes


def _name_ends(axes: Axes, drawn: list[tuple[str, float, str]]) -> None:
    """Write the name of each line where it ends, apart from each other: easier to read than a legend."""
    low, high = axes.get_ylim()
    ordered = sorted(drawn, key=lambda line: line[1])
    places = np.array([(end - low) / (high - low) for _, end, _ in ordered])
    for _ in range(100):  # neighbours closer than a line of text push each other apart
        short = np.maximum(0.06 - np.diff(places), 0.0) / 2
        places[:-1] -= short
        places[1:] += short
    for (name, _, colour), place in zip(ordered, places, strict=True):
        axes.text(1.02, place, name, color=colour, transform=axes.transAxes, va="center", fontweight="bold")


def residency_timeline(run: Run, arms: Sequence[str], *, bins: int = 400, ax: Axes | None = None) -> Axes:
    """Draw which arms were resident when, darker the more of the time.

    Parameters
    ----------
    run
        Of `simulate`.
    arms
        Names of the N arms.
    bins
        Stretches of time drawn.
    ax
        Where to draw; the current Axes when not given.

    Examples
    --------
    >>> import tempfile
    >>> run = Run(4)
    >>> run.epochs = [(0, frozenset({0})), (2, frozenset({1}))]
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     len(residency_timeline(run, ["a", "b"], bins=4, ax=ax).images)
    1
    """
    from matplotlib.colors import LinearSegmentedColormap

    axes = _axes(ax)
    steps = np.zeros((len(arms), len(run)))
    for start, stop, chosen in run.residents():
        steps[sorted(chosen), start:stop] = 1.0
    edges = np.unique(np.linspace(0, len(run), bins + 1).astype(np.int64))
    share = np.add.reduceat(steps, edges[:-1], axis=1) / np.diff(edges)
    shade = LinearSegmentedColormap.from_list("resident", ["#FFFFFF", COLOURS[0]])
    axes.imshow(
        share, aspect="auto", cmap=shade, vmin=0, vmax=1, interpolation="nearest",
        extent=(0, len(run), len(arms) - 0.5, -0.5),
    )  # fmt: skip
    axes.set_yticks(range(len(arms)), arms, fontsize=8)
    axes.set_yticks(np.arange(len(arms)) - 0.5, minor=True)
    axes.grid(visible=False)
    axes.grid(visible=True, axis="y", which="minor")
    axes.tick_params(which="minor", length=0)
    axes.set_title("Resident arms")
    axes.set_xlabel("requests")
    _count(axes.xaxis, 4)
    return axes


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
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     arm_shares([0, 0, 1, 1], ["a", "b"], bins=2, ax=ax).get_ylim()
    (np.float64(0.0), np.float64(1.0))
    """
    axes = _axes(ax)
    picks = np.asarray(chosen)
    edges = np.unique(np.linspace(0, len(picks), bins + 1).astype(np.int64))
    counts = [np.bincount(picks[a:b], minlength=len(arms)) for a, b in pairwise(edges.tolist())]
    shares: Floats = np.stack(counts, axis=1) / np.diff(edges)
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
    _count(axes.xaxis, 4)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(handles=areas[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes


def _count(axis: Axis, ticks: int = 6) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value == round(value) else f"{value:g}")
